"""The two resources on a real API server: what it refuses and how it says so, what it keeps, what can be selected."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
import yaml

from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import MODELSERVER, VIDEOJOB, Resource
from kinora_cluster import ROOT, Cluster
from waiting import DEADLINE, job_status, model_server, video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]
CLAIM = {"claim": {"name": "clips", "path": "a.png"}}
URL = {"url": "https://x.example/a.png"}


async def refusal(kube: KubeClient, resource: Resource, namespace: str, body: Object) -> str:
    with pytest.raises(ApiError) as caught:
        await kube.create(resource, namespace, body)
    assert caught.value.status == 422, caught.value
    return caught.value.message


def without(body: Object, *fields: str) -> Object:
    changed = copy.deepcopy(body)
    for field in fields:
        changed["spec"].pop(field, None)
    return changed


# --- bad input

BAD_JOBS: dict[str, tuple[Object, list[str]]] = {
    "unknown task": ({"task": "Fly"}, ["spec.task", '"Fly"', '"TextToVideo"', '"Edit"']),
    "80 frames": ({"parameters": {"frames": 80}}, ["spec.parameters.frames", "frames is 80", "4n+1", "77 and 81"]),
    "0 frames": ({"parameters": {"frames": 0}}, ["spec.parameters.frames", "0", "greater than or equal to 1"]),
    "width off the grid": ({"parameters": {"width": 100}}, ["spec.parameters.width", "100", "multiple of 16"]),
    "height off the grid": ({"parameters": {"height": 479}}, ["spec.parameters.height", "479", "multiple of 16"]),
    "above every model": ({"parameters": {"width": 8192}}, ["spec.parameters.width", "8192", "4096"]),
    "model and server": (
        {"modelServerName": "vace"},
        ["exactly one of model, modelServerName", "set here: model modelServerName"],
    ),
    "task and workflow": ({"workflow": {"inline": "{}"}}, ["exactly one of task, workflow", "set here: task workflow"]),
    "no image": ({"task": "ImageToVideo"}, ["spec.inputs.image", "ImageToVideo", "not set"]),
    "no video": ({"task": "VideoToVideo"}, ["spec.inputs.video", "VideoToVideo"]),
    "no reference": ({"task": "ReferenceToVideo"}, ["spec.inputs.references"]),
    "no mask": ({"task": "Inpaint", "inputs": {"video": CLAIM}}, ["spec.inputs.mask"]),
    "no last frame": ({"task": "FirstLastFrame", "inputs": {"firstFrame": CLAIM}}, ["lastFrame"]),
    "nothing to extend": ({"task": "Extend"}, ["firstClip, lastClip, firstFrame or lastFrame"]),
    "two sources": (
        {"task": "ImageToVideo", "inputs": {"image": CLAIM | URL}},
        ["spec.inputs.image", "exactly one of url, artifact, upload, claim, configMap", "set here: url claim"],
    ),
    **{
        f"url {url}": (
            {"task": "ImageToVideo", "inputs": {"image": {"url": url}}},
            ["spec.inputs.image.url", "allowed: https:// or http://"],
        )
        for url in ("ftp://x/a", "https://u:p@x/a", "//x/a", "https://", "https:///a", "http://a b/", "https://x\\@y/")
    },
    **{
        f"webhook {url}": ({"webhook": {"url": url}}, ["spec.webhook.url", "allowed: https:// or http://"])
        for url in ("ftp://x.example/", "https://user:word@x.example/", "x", "https:// x", "https://a\\b/")
    },
    **{
        f"upload {key}": (
            {"task": "ImageToVideo", "inputs": {"image": {"upload": key}}},
            ["spec.inputs.image.upload", "allowed: a relative path"],
        )
        for key in ("../a", "/a", "a//b", ".a", "a/.b", "a b", "a\\b", "é")
    },
    "no source": ({"task": "ImageToVideo", "inputs": {"image": {}}}, ["spec.inputs.image", "exactly one of url"]),
    "two sources in a reference": (
        {"task": "ReferenceToVideo", "inputs": {"references": [{"source": CLAIM | URL}]}},
        ["spec.inputs.references[0].source", "set here: url claim"],
    ),
    "six references": (
        {"task": "ReferenceToVideo", "inputs": {"references": [{"source": CLAIM}] * 6}},
        ["spec.inputs.references", "6", "at most 5"],
    ),
    "frames and duration": (
        {"parameters": {"frames": 81, "durationSeconds": 5}},
        ["spec.parameters", "frames and durationSeconds are both set"],
    ),
    "a long prompt": ({"prompt": "x" * 5001}, ["spec.prompt", "5000"]),
    "priority": ({"priority": 1001}, ["spec.priority", "1001", "1000"]),
    "seed": ({"parameters": {"seed": 2**53}}, ["spec.parameters.seed", "9007199254740991"]),
    "denoise": ({"parameters": {"denoise": 1.5}}, ["spec.parameters.denoise", "1.5"]),
    "odd delivery": ({"output": {"width": 479}}, ["spec.output.width", "479", "multiple of 2"]),
    "a key that leaves": ({"output": {"keyPrefix": "a b"}}, ["spec.output.keyPrefix", "a b"]),
    "graph twice": (
        {"task": None, "workflow": {"inline": "{}", "configMapRef": {"name": "a", "key": "b"}}},
        ["spec.workflow", "exactly one of configMapRef, inline"],
    ),
}


@pytest.mark.parametrize(("spec", "told"), BAD_JOBS.values(), ids=list(BAD_JOBS))
async def test_a_wrong_job_is_refused_with_field_value_and_what_is_allowed(
    kube: KubeClient, namespace: str, spec: Object, told: list[str]
) -> None:
    message = await refusal(kube, VIDEOJOB, namespace, video_job(**spec))
    for words in told:
        assert words in message


@pytest.mark.parametrize(
    ("task", "inputs", "told"),
    [
        ("ImageToVideo", None, "image"),
        ("ReferenceToVideo", {"references": []}, "references"),
        ("VideoToVideo", {"image": CLAIM}, "video"),
        ("Inpaint", {"mask": {"source": CLAIM}}, "video and spec.inputs.mask"),
        ("Inpaint", {"video": CLAIM}, "video and spec.inputs.mask"),
        ("Outpaint", {}, "video"),
        ("Extend", {"video": CLAIM}, "firstClip, lastClip, firstFrame or lastFrame"),
        ("FirstLastFrame", {"lastFrame": CLAIM}, "firstFrame and spec.inputs.lastFrame"),
        ("Edit", {"references": [{"source": CLAIM}]}, "video"),
    ],
)
async def test_what_a_task_needs_is_told(
    kube: KubeClient, namespace: str, task: str, inputs: Object | None, told: str
) -> None:
    message = await refusal(
        kube, VIDEOJOB, namespace, video_job(task=task, **({} if inputs is None else {"inputs": inputs}))
    )
    assert f"task {task} needs spec.inputs.{told}, which is not set" in message


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("TextToVideo", {}),
        ("ImageToVideo", {"image": CLAIM}),
        ("ReferenceToVideo", {"references": [{"source": CLAIM}]}),
        ("VideoToVideo", {"video": CLAIM}),
        ("Inpaint", {"video": CLAIM, "mask": {"source": CLAIM}}),
        ("Outpaint", {"video": CLAIM}),
        *(("Extend", {given: CLAIM}) for given in ("firstClip", "lastClip", "firstFrame", "lastFrame")),
        ("FirstLastFrame", {"firstFrame": CLAIM, "lastFrame": CLAIM}),
        ("Edit", {"video": CLAIM}),
    ],
)
async def test_a_task_that_has_what_it_needs_is_taken(
    kube: KubeClient, namespace: str, task: str, inputs: Object
) -> None:
    await kube.create(VIDEOJOB, namespace, video_job(task=task, inputs=inputs))


@pytest.mark.parametrize("missing", [("model",), ("task",), ("model", "task")])
async def test_a_job_without_model_or_task_is_refused(
    kube: KubeClient, namespace: str, missing: tuple[str, ...]
) -> None:
    message = await refusal(kube, VIDEOJOB, namespace, without(video_job(), *missing))
    for field in missing:
        assert f"exactly one of {field}" in message


def s3(**given: Any) -> Object:
    """A ModelServer's spec with this bucket."""
    return {"artifacts": {"s3": {"bucket": "films", **given}}}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"weights": {}}, ["spec.weights", "exactly one of claimName, claimTemplate"]),
        ({"artifacts": {"claimName": "a", "s3": {"bucket": "abc"}}}, ["spec.artifacts", "set here: claimName s3"]),
        (s3(endpoint="minio:9000"), ["spec.artifacts.s3.endpoint", "endpoint is minio:9000; allowed: https:// or"]),
        (s3(prefix="../a"), ["spec.artifacts.s3.prefix", "prefix is ../a; allowed: a relative path"]),
        (s3(endpoint="https://10.0.0.1", addressing="VirtualHosted"), ["allowed: Path, as the endpoint is an IP"]),
        (s3(bucket="a.film", addressing="VirtualHosted"), ["allowed: Path, as no certificate covers a bucket"]),
        (s3(endpoint="https://s3.oss-cn-beijing.aliyuncs.com", addressing="Path"), ["VirtualHosted, as OSS takes"]),
        (s3(caConfigMap={"name": "ca", "key": "ca.crt"}), ["caConfigMap is set; allowed: unset, unless endpoint"]),
        ({"replicas": -1}, ["spec.replicas", "-1"]),
        ({"gpu": {"pools": [{"name": "A"}]}}, ["spec.gpu.pools[0].name", '"A"']),
        ({"gpu": {"pools": [{"name": "a"}, {"name": "a"}]}}, ["spec.gpu.pools[1]", "Duplicate"]),
        ({"gpu": {"pools": [{"name": "a", "pricePerHour": -1}]}}, ["spec.gpu.pools[0].pricePerHour", "-1"]),
        ({"gpu": {"pools": [{"name": "a", "provider": "oke"}]}}, ["provider", '"acs", "ack", "gke", "eks"']),
        ({"weights": {"claimName": "w", "verify": "Maybe"}}, ["spec.weights.verify", '"Hash", "Size", "Header"']),
        ({"drainSeconds": 100000}, ["spec.drainSeconds", "86400"]),
    ],
)
async def test_a_wrong_server_is_refused(kube: KubeClient, namespace: str, spec: Object, told: list[str]) -> None:
    message = await refusal(kube, MODELSERVER, namespace, model_server(**spec))
    for words in told:
        assert words in message


@pytest.mark.parametrize("name", ["wan2.1", "1.3b", "9vace", "a" * 53])
async def test_a_server_whose_children_could_not_bear_its_name_is_refused(
    kube: KubeClient, namespace: str, name: str
) -> None:
    message = await refusal(kube, MODELSERVER, namespace, model_server(name))
    assert f"metadata.name is {name}; allowed: a letter" in message


@pytest.mark.parametrize("spec", [{"promt": "a"}, {"parameters": {"frame": 81}}, {"inputs": {"picture": CLAIM}}])
async def test_kubectl_refuses_a_field_that_does_not_exist(cluster: Cluster, namespace: str, spec: Object) -> None:
    told = cluster.run("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(video_job(**spec)), check=False)
    assert "unknown field" in told
    assert next(iter(spec)) in told


def test_kubectl_takes_the_examples(cluster: Cluster, namespace: str) -> None:
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        told = cluster.run("apply", "-n", namespace, "--dry-run=server", "-f", "-", stdin=text, check=False)
        assert "(server dry run)" in told, told
        assert "error" not in told.lower()


# --- what is kept

FULL: Object = {
    "task": "VideoToVideo",
    "negativePrompt": "blur",
    "inputs": {"video": CLAIM, "references": [{"source": CLAIM}]},
    "parameters": {"width": 480, "height": 480, "frames": 81, "fps": 16, "seed": 5, "control": "Depth"},
    "output": {"crf": 20, "keyPrefix": "films"},
    "queue": "default",
    "startDeadlineSeconds": 60,
    "activeDeadlineSeconds": 60,
    "backoffLimit": 1,
    "disruptionLimit": 1,
    "webhook": {"url": "https://x.example"},
}
CHANGES: list[Object] = [
    {"model": "other"},
    {"model": None, "modelServerName": "vace"},
    {"task": "TextToVideo"},
    {"prompt": "another"},
    {"negativePrompt": "another"},
    {"inputs": {"video": {"claim": {"path": "b.png"}}}},
    {"inputs": {"references": None}},
    {"parameters": {"seed": 6}},
    {"parameters": {"seed": None}},
    {"parameters": {"steps": 9}},
    {"output": {"crf": 21}},
    {"queue": "gold"},
    {"startDeadlineSeconds": 90},
    {"activeDeadlineSeconds": 90},
    {"backoffLimit": 9},
    {"disruptionLimit": 9},
    {"webhook": {"url": "https://y.example"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
async def test_what_was_asked_for_does_not_change(kube: KubeClient, namespace: str, change: Object) -> None:
    await kube.create(VIDEOJOB, namespace, video_job(**FULL))
    with pytest.raises(ApiError) as caught:
        await kube.patch(VIDEOJOB, namespace, "job", {"spec": change})
    assert caught.value.status == 422, caught.value
    assert f"spec.{next(iter(change))} is immutable" in caught.value.message
    assert "mutable are suspend, cancel, priority and ttlSecondsAfterFinished" in caught.value.message


@pytest.mark.parametrize("field", ["negativePrompt", "startDeadlineSeconds", "webhook"])
async def test_a_field_can_be_neither_removed_nor_added_later(kube: KubeClient, namespace: str, field: str) -> None:
    """Else it could be removed and set anew."""
    await kube.create(VIDEOJOB, namespace, video_job(**FULL))
    await kube.create(VIDEOJOB, namespace, without(video_job("bare", **FULL), field))
    for name, value in (("job", None), ("bare", FULL[field])):
        with pytest.raises(ApiError) as caught:
            await kube.patch(VIDEOJOB, namespace, name, {"spec": {field: value}})
        assert f"spec.{field} is immutable" in caught.value.message


async def test_a_put_is_held_to_the_same_as_a_patch(kube: KubeClient, namespace: str) -> None:
    job = await kube.create(VIDEOJOB, namespace, video_job())
    job["spec"]["prompt"] = "another"
    with pytest.raises(ApiError) as caught:
        await kube.replace(VIDEOJOB, namespace, "job", job)
    assert "spec.prompt is immutable" in caught.value.message


async def test_four_fields_change_and_an_apply_of_the_same_changes_nothing(kube: KubeClient, namespace: str) -> None:
    job = await kube.create(VIDEOJOB, namespace, video_job(**FULL))
    change = {"suspend": True, "cancel": True, "priority": 5, "ttlSecondsAfterFinished": 60}
    changed = await kube.patch(VIDEOJOB, namespace, "job", {"spec": change})
    assert {field: changed["spec"][field] for field in change} == change
    back = {"suspend": False, "priority": None, "ttlSecondsAfterFinished": None}
    changed = await kube.patch(VIDEOJOB, namespace, "job", {"spec": back})
    assert changed["spec"]["priority"] == 0
    assert changed["metadata"]["generation"] == 3
    again = await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"prompt": job["spec"]["prompt"]}})
    assert again["metadata"]["generation"] == 3


@pytest.mark.parametrize("back", [False, None])
async def test_cancel_is_one_way(kube: KubeClient, namespace: str, back: bool | None) -> None:
    await kube.create(VIDEOJOB, namespace, video_job())
    await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"cancel": True}})
    with pytest.raises(ApiError) as caught:
        await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"cancel": back}})
    assert "cancel is one-way" in caught.value.message


@pytest.mark.parametrize("end", ["Succeeded", "Failed", "Cancelled"])
async def test_a_terminal_phase_never_changes(kube: KubeClient, namespace: str, end: str) -> None:
    await kube.create(VIDEOJOB, namespace, video_job())
    await job_status(kube, namespace, "job", {"phase": end})
    others = {"Pending", "Queued", "Running", "Succeeded", "Failed", "Cancelled"} - {end}
    for phase in (*sorted(others), None):
        with pytest.raises(ApiError) as caught:
            await job_status(kube, namespace, "job", {"phase": phase})
        assert f"phase is {end}, which is terminal and never changes" in caught.value.message
    after = await job_status(kube, namespace, "job", {"webhook": {"state": "Delivered"}})
    assert after["status"]["webhook"]["state"] == "Delivered", "the rest of the status may be written"


async def test_a_terminal_phase_survives_the_removal_of_the_status(kube: KubeClient, namespace: str) -> None:
    await kube.create(VIDEOJOB, namespace, video_job())
    job = await job_status(kube, namespace, "job", {"phase": "Succeeded"})
    job["status"] = {}
    with pytest.raises(ApiError) as caught:
        await kube._call("PUT", "update", VIDEOJOB, VIDEOJOB.path(namespace, "job", "status"), body=job)
    assert "terminal and never changes" in caught.value.message


async def test_a_models_name_is_immutable(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    with pytest.raises(ApiError) as caught:
        await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"model": "wan2.1-i2v-14b-480p"}})
    assert "model is immutable" in caught.value.message


# --- defaults, status, selection, scale


async def test_a_new_job_has_a_status_that_does_not_count_as_done(kube: KubeClient, namespace: str) -> None:
    job = await kube.create(VIDEOJOB, namespace, video_job() | {"status": {"phase": "Succeeded"}})
    assert job["status"]["phase"] == "Pending", "a user cannot write status with the create"
    conditions = {condition["type"]: condition["status"] for condition in job["status"]["conditions"]}
    assert conditions == {"Ready": "Unknown", "Reconciling": "True", "Succeeded": "Unknown", "Finished": "False"}
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    assert job["spec"]["queue"] == "default"
    server = await kube.create(MODELSERVER, namespace, model_server())
    assert (server["spec"]["replicas"], server["spec"]["drainSeconds"]) == (1, 1800)


async def test_a_status_write_changes_no_spec_and_no_generation(kube: KubeClient, namespace: str) -> None:
    job = await kube.create(VIDEOJOB, namespace, video_job())
    body = {"spec": {"prompt": "x"}, "metadata": {"labels": {"a": "b"}}, "status": {"message": "m"}}
    after = await kube.patch(VIDEOJOB, namespace, "job", body, subresource="status")
    assert after["spec"] == job["spec"]
    assert after["metadata"]["generation"] == job["metadata"]["generation"]
    assert "labels" not in after["metadata"]


async def test_who_wrote_a_status_is_kept_in_one_field(kube: KubeClient, namespace: str) -> None:
    """Field by field it was half of what a queued job weighed, and a fifth of what a status write cost."""
    await kube.create(VIDEOJOB, namespace, video_job())
    for manager, percent in (("kinora-operator", 1), ("kinora-agent", 2)):
        conditions = [{"type": "Ready", "status": "False", "reason": manager}]
        body = {"status": {"phase": "Running", "progress": {"percent": percent}, "conditions": conditions}}
        query = {"fieldManager": manager}
        job = await kube.patch(VIDEOJOB, namespace, "job", body, subresource="status", query=query)
    kept = [entry for entry in job["metadata"]["managedFields"] if entry.get("subresource") == "status"]
    assert [(entry["manager"], entry["fieldsV1"]) for entry in kept] == [("kinora-agent", {"f:status": {}})]
    assert job["status"]["progress"] == {"percent": 2, "stage": ""}, "a merge patch still merges"


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Rendering"},
        {"message": "x" * 1025},
        {"progress": {"percent": 101}},
        {"artifacts": [{"uri": "a", "contentType": "b", "bytes": 1, "sha256": "c"}] * 9},
        {"assignment": {"podName": "a"}},
    ],
    ids=str,
)
async def test_a_status_is_bounded(kube: KubeClient, namespace: str, status: Object) -> None:
    await kube.create(VIDEOJOB, namespace, video_job())
    with pytest.raises(ApiError) as caught:
        await job_status(kube, namespace, "job", status)
    assert caught.value.status == 422


async def test_jobs_are_selected_by_phase_and_by_pod(kube: KubeClient, namespace: str) -> None:
    for name, status in {
        "waits": {},
        "mine": {"phase": "Running", "attempt": 1, "assignment": {"podName": "p", "podUID": "uid-1"}},
        "other": {"phase": "Running", "attempt": 1, "assignment": {"podName": "q", "podUID": "uid-2"}},
        "done": {"phase": "Succeeded", "attempt": 1, "assignment": {"podName": "p", "podUID": "uid-1"}},
    }.items():
        await kube.create(VIDEOJOB, namespace, video_job(name))
        if status:
            await job_status(kube, namespace, name, status)

    async def selected(selector: str) -> set[str]:
        items, _ = await kube.list(VIDEOJOB, namespace, field_selector=selector)
        return {item["metadata"]["name"] for item in items}

    assert await selected("status.phase=Running") == {"mine", "other"}
    assert await selected("status.phase!=Succeeded,status.phase!=Failed") == {"waits", "mine", "other"}
    assert await selected("status.assignment.podUID=uid-1") == {"mine", "done"}
    assert await selected("status.assignment.podUID=uid-1,status.phase!=Succeeded") == {"mine"}
    assert await selected("status.assignment.podUID=") == {"waits"}
    with pytest.raises(ApiError) as caught:
        await selected("spec.model=x")
    assert caught.value.status == 400


async def test_an_agents_watch_shows_its_job_come_and_go(kube: KubeClient, namespace: str) -> None:
    selector = "status.assignment.podUID=uid-1,status.phase!=Succeeded"
    _, version = await kube.list(VIDEOJOB, namespace, field_selector=selector)
    await kube.create(VIDEOJOB, namespace, video_job())
    assignment = {"podName": "p", "podUID": "uid-1"}
    await job_status(kube, namespace, "job", {"phase": "Scheduled", "attempt": 1, "assignment": assignment})
    await job_status(kube, namespace, "job", {"phase": "Running"})
    await job_status(kube, namespace, "job", {"phase": "Succeeded"})
    seen = []
    async with asyncio.timeout(DEADLINE):
        async for event in kube.stream(VIDEOJOB, namespace, resource_version=version, field_selector=selector):
            if event["type"] != "BOOKMARK":
                seen.append((event["type"], event["object"]["status"]["phase"]))
            if event["type"] == "DELETED":
                break
    # What left the selection is shown as it was before: read it again before acting on it.
    assert seen == [("ADDED", "Scheduled"), ("MODIFIED", "Running"), ("DELETED", "Running")]


async def test_a_server_is_scaled_through_its_subresource(kube: KubeClient, cluster: Cluster, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    path = MODELSERVER.path(namespace, "vace", "scale")
    scale = await kube._call("GET", "get", MODELSERVER, path)
    assert scale["spec"]["replicas"] == 1
    await kube.patch(
        MODELSERVER,
        namespace,
        "vace",
        {"status": {"replicas": 1, "selector": "kinora.dev/modelserver=vace"}},
        subresource="status",
    )
    scale["spec"]["replicas"] = 3
    scale["metadata"].pop("resourceVersion")
    written = await kube._call("PUT", "update", MODELSERVER, path, body=scale)
    assert written["spec"]["replicas"] == 3
    assert written["status"] == {"replicas": 1, "selector": "kinora.dev/modelserver=vace"}
    assert (await kube.get(MODELSERVER, namespace, "vace"))["spec"]["replicas"] == 3
    cluster.run("scale", "-n", namespace, "modelserver/vace", "--replicas=0")
    assert (await kube.get(MODELSERVER, namespace, "vace"))["spec"]["replicas"] == 0


# --- what kubectl shows

LONG_JOBS = [
    ("autumn-teaser-shot-014", "Running", "Rendering", 64),
    ("catalogue-0001-lighthouse", "Finalizing", "Publishing", 100),
    ("product-spin-red-shoe-3", "Failed", "BackoffLimitExceeded", 40),
    ("t2v-lighthouse", "Queued", "WaitingForServer", None),
]


async def test_what_kubectl_shows_fits_a_terminal(kube: KubeClient, cluster: Cluster, namespace: str) -> None:
    for name, phase, reason, percent in LONG_JOBS:
        await kube.create(VIDEOJOB, namespace, video_job(name))
        pod = {"podName": "wan-vace-2-1a2b3c4d", "podUID": "u"}
        status: Object = {"phase": phase, "reason": reason, "message": "x" * 200}
        if percent is not None:
            status |= {"progress": {"percent": percent}, "assignment": pod, "attempt": 1}
        await job_status(kube, namespace, name, status)
    for name, model in (("wan-vace", "wan2.1-vace-1.3b"), ("wan-i2v-480p", "wan2.1-i2v-14b-480p")):
        await kube.create(MODELSERVER, namespace, model_server(name, model))
        ready = {"type": "Ready", "status": "False", "reason": "WeightsMissing", "message": "x"}
        status = {"conditions": [ready], "replicas": 12, "readyReplicas": 10, "busyReplicas": 10, "backlog": 1234}
        await kube.patch(MODELSERVER, namespace, name, {"status": status}, subresource="status")
    shown = cluster.run("get", "vj,msrv", "-n", namespace)
    lines = shown.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 120, shown
    assert lines[0].split() == ["NAME", "PHASE", "REASON", "PROGRESS", "SERVER", "AGE"]
    running = next(line for line in lines if "autumn-teaser-shot-014" in line).split()
    assert running[1:5] == ["Running", "Rendering", "64", "wan-vace-2-1a2b3c4d"]
    assert cluster.run("get", "kinora", "-n", namespace).count("\n") == shown.count("\n"), "the category shows both"
    described = cluster.run("describe", "vj", "autumn-teaser-shot-014", "-n", namespace)
    assert "Pod Name:" in described
