"""The stager against a real API server, with its own rights, and a web server that is as bad as the web is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from integration.stager.bench import CLIP, PHOTO, StagerBench
from integration.test_operator import make_ready
from integration.test_workflows import REF, config_map, raw_job
from kinora.api.intake import choose_store, claim_store, inputs_condition
from kinora.kube.client import STRATEGIC, KubeClient
from kinora.kube.resources import CONFIGMAP, DEPLOYMENT, MODELSERVER, POD, VIDEOJOB
from kinora.workflows.workflow import text_hash
from rawserver import file_answer
from unit.workflows.made import node, sound
from waiting import model_server, phase, until, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
PHOTO_SHA = hashlib.sha256(PHOTO).hexdigest()
CLIP_SHA = hashlib.sha256(CLIP).hexdigest()


class Stuck:
    """An answer that sends half of a file at once and the rest byte by byte, until the client goes."""

    def __init__(self, content: bytes) -> None:
        self.content, self.half_sent, self.gone = content, asyncio.Event(), asyncio.Event()

    async def __call__(self, head: str, writer: asyncio.StreamWriter) -> None:
        answer = file_answer(self.content, "image/jpeg")
        half = len(answer) // 2
        writer.write(answer[:half])
        await writer.drain()
        self.half_sent.set()
        try:
            for byte in answer[half:]:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)  # the server is slow, the test does not wait for it
        finally:
            self.gone.set()


# --- what becomes of a job


@pytest.mark.usefixtures("operator", "claims")
async def test_a_url_is_fetched_looked_at_and_stored_before_the_job_is_bound(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
    await make_ready(kube, namespace, pod)
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    await bench.ask()
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"), deadline=60)
    status = job["status"]
    assert inputs_condition(job)["reason"] == "InputsStored"
    assert status["inputStore"] == "pvc://artifacts/"
    facts = {"name": "image", "sha256": PHOTO_SHA, "bytes": len(PHOTO), "width": 600, "height": 400}
    assert status["inputs"] == [facts]
    assert status["resolved"]["inputs"] == ["image"]
    assert len(status["resolved"]["graphHash"]) == 64
    assert "secret" not in json.dumps(job["status"])
    assert (bench.store() / "inputs" / PHOTO_SHA).read_bytes() == PHOTO
    assert bench.drafts() == []
    await until(lambda: not list((bench.store() / "intake").rglob("*.json")))  # the status says it: no note is left
    assert len(bench.web.requests) == 1


def raw(bench: StagerBench, path: str, **file: Any) -> Object:
    """A raw workflow from a ConfigMap, with a file by URL."""
    source = {"url": bench.url(path)}
    asked = {"workflow": {**REF, "files": [{"name": "cup.jpg", "source": source, **file}]}}
    return raw_job(**asked)


@pytest.mark.usefixtures("operator", "claims")
async def test_a_file_of_a_workflow_is_fetched_when_the_operator_has_judged_its_graph(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
    await make_ready(kube, namespace, pod)
    bench.web.answers["/cup.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    await kube.create(VIDEOJOB, namespace, raw(bench, "/cup.jpg", sha256=PHOTO_SHA))
    waiting = await wait_for(
        kube, VIDEOJOB, namespace, "raw", lambda job: (job.get("status") or {}).get("reason") == "WaitingForWorkflow"
    )
    assert waiting["status"]["phase"] == "Pending"
    assert bench.web.requests == []
    graph = sound(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image="cup.jpg", upload="image")
    text = json.dumps(graph)
    await kube.create(CONFIGMAP, namespace, config_map(text))
    job = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Scheduled"), deadline=60)
    status = job["status"]
    assert inputs_condition(job)["reason"] == "InputsStored"
    assert status["inputStore"] == "pvc://artifacts/"
    assert [(entry["name"], entry["sha256"]) for entry in status["inputs"]] == [("files[0]", PHOTO_SHA)]
    assert status["resolved"]["workflowSha256"] == text_hash(text)
    assert bench.objects() == [PHOTO_SHA]
    assert len(bench.web.requests) == 1


@pytest.mark.usefixtures("operator", "claims")
async def test_a_file_that_is_not_the_pinned_one_fails_before_the_queue(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    bench.web.answers["/cup.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    graph = sound(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image="cup.jpg", upload="image")
    await kube.create(CONFIGMAP, namespace, config_map(json.dumps(graph)))
    await kube.create(VIDEOJOB, namespace, raw(bench, "/cup.jpg", sha256="1" * 64))
    job = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Failed"), deadline=60)
    assert job["status"]["reason"] == "InvalidInput"
    assert job["status"]["message"].startswith("spec.workflow.files[0].sha256 is ")
    assert "attempt" not in job["status"]


def with_cup(**changes: Object) -> Object:
    """A graph that reads cup.jpg."""
    made = sound(**changes)
    made["17"]["inputs"]["reference_image"] = ["50", 0]
    return {**made, "50": node("LoadImage", image="cup.jpg", upload="image")}


@pytest.mark.usefixtures("operator", "claims")
async def test_a_graph_in_the_store_is_judged_by_the_stager_and_then_bound(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
    await make_ready(kube, namespace, pod)
    bench.web.answers["/cup.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    text = json.dumps(with_cup()) + " " * 200_000  # more than a job can hold
    bench.uploaded("graphs/vace.json", text.encode())
    files = [{"name": "cup.jpg", "source": {"url": bench.url("/cup.jpg")}}]
    sha256 = text_hash(text)
    await bench.ask_raw("raw", {"upload": {"key": "graphs/vace.json", "sha256": sha256}, "files": files})
    job = await wait_for(kube, VIDEOJOB, namespace, "raw", phase("Scheduled"), deadline=60)
    status = job["status"]
    assert (status["inputStore"], status["resolved"]["workflowSha256"]) == ("pvc://artifacts/", sha256)
    assert [(entry["name"], entry["sha256"]) for entry in status["inputs"]] == [("files[0]", PHOTO_SHA)]
    assert bench.objects() == sorted([PHOTO_SHA, sha256])
    assert (bench.store() / "inputs" / sha256).read_text() == text


@pytest.mark.usefixtures("operator", "claims")
@pytest.mark.parametrize(
    ("content", "pin", "reason", "words"),
    [
        (b"{}", "1" * 64, "InvalidInput", "spec.workflow.upload.sha256 is that of another text"),
        (b"\xff\xfe{}", None, "InvalidInput", "no text in UTF-8"),
        (b" " * (1024**2 + 1), None, "InvalidInput", "more than 1048576 bytes"),
        (b"[1]", None, "InvalidSpec", "spec.workflow"),
        (json.dumps(with_cup(n17={"width": 72})).encode(), None, "InvalidSpec", "node 17 (WanVaceToVideo) width is 72"),
        (json.dumps({**with_cup(), "9": node("VHS_LoadVideoPath", video="/etc/passwd")}).encode(), None, "InvalidSpec",
         "no ModelServer can allow one"),
        (None, None, "InvalidInput", "spec.workflow.upload.key is graphs/a.json, which is not there"),
    ],
)  # fmt: skip
async def test_a_graph_in_the_store_that_will_never_do_fails_before_anything_is_fetched(
    bench: StagerBench, content: bytes | None, pin: str | None, reason: str, words: str
) -> None:
    if content is not None:
        bench.uploaded("graphs/a.json", content)
    await bench.start()
    files = [{"name": "cup.jpg", "source": {"url": bench.url("/cup.jpg")}}]
    sha256 = pin or hashlib.sha256(content or b"").hexdigest()
    await bench.ask_raw("raw", {"upload": {"key": "graphs/a.json", "sha256": sha256}, "files": files})
    job = await wait_for(bench.kube, VIDEOJOB, bench.namespace, "raw", phase("Failed"), deadline=60)
    assert job["status"]["reason"] == reason
    assert words in job["status"]["message"]
    assert bench.web.requests == []
    assert bench.objects() == []


REFUSED = [
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "InvalidInput", "answers with 404"),
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "InvalidInput", "answers with 403"),
    (b"HTTP/1.1 302 X\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n", "InputRefused",
     "169.254.169.254"),
    (b"HTTP/1.1 302 X\r\nLocation: http://10.0.0.1/x\r\nContent-Length: 0\r\n\r\n", "InputRefused", "private"),
    (file_answer(b"<html>", "text/html"), "InvalidInput", "text/html; allowed: image/*"),
    (file_answer(b"no picture", "image/png"), "InvalidInput", "allowed: one image"),
    (file_answer(PHOTO[:2000], "image/jpeg"), "InvalidInput", "allowed: one image"),
    (file_answer(CLIP, "video/mp4"), "InvalidInput", "a file of kind Video; allowed: one image"),
    (file_answer(PHOTO + bytes(400_000), "image/jpeg"), "InvalidInput", "allowed: at most 300000 bytes"),
]  # fmt: skip


@pytest.mark.usefixtures("operator", "claims")
async def test_what_will_never_do_fails_with_the_field_and_no_pod_is_bound(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
    await make_ready(kube, namespace, pod)
    bench.limits = {"maxBytes": 300_000}
    await bench.start()
    for number, (answer, _, _) in enumerate(REFUSED):
        bench.web.answers[f"/{number}"] = answer
        await bench.ask(f"job-{number}", inputs={"image": {"url": bench.url(f"/{number}")}})
    for number, (_, reason, words) in enumerate(REFUSED):
        job = await wait_for(kube, VIDEOJOB, namespace, f"job-{number}", phase("Failed"), deadline=60)
        status = job["status"]
        assert (status["reason"], "assignment" in status) == (reason, False), status["message"]
        assert status["message"].startswith("spec.inputs.image")
        assert words in status["message"]
        assert "secret" not in json.dumps(status)
        assert "resolved" not in status
    assert bench.objects() == [CLIP_SHA], "what is no media never gets into the store; a video is one"
    assert bench.drafts() == []


@pytest.mark.usefixtures("operator", "claims")
async def test_a_refused_address_is_never_connected_to(bench: StagerBench, kube: KubeClient, namespace: str) -> None:
    await bench.start()
    await bench.ask(inputs={"image": {"url": "http://100.100.100.200/latest/meta-data/"}})
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Failed"), deadline=60)
    assert job["status"]["reason"] == "InputRefused"
    assert job["status"]["message"] == (
        "spec.inputs.image.url: host is 100.100.100.200 (a cloud's metadata service); "
        "allowed: public internet addresses, or what the administrator opens"
    )


# --- what passes, and what does not pass in time


async def test_a_body_that_is_cut_is_fetched_again(bench: StagerBench) -> None:
    cut = file_answer(PHOTO, "image/jpeg")[:-10]
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    answers = [cut, busy, file_answer(PHOTO, "image/jpeg")]

    async def answer(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))
        await writer.drain()

    bench.web.answers["/photo.jpg"] = answer
    await bench.start()
    await bench.ask()
    job = await bench.told()
    assert job["status"]["inputs"][0]["sha256"] == PHOTO_SHA
    assert len(bench.web.requests) == 3
    assert bench.objects() == [PHOTO_SHA]
    assert bench.drafts() == []


async def test_a_server_that_stays_away_is_told_of_and_then_given_up(bench: StagerBench) -> None:
    bench.web.answers["/photo.jpg"] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    bench.limits = {"giveUpSeconds": 2}
    await bench.start()
    created = await bench.ask()
    waiting = await bench.told(status="Unknown", since=created["metadata"]["resourceVersion"])
    assert inputs_condition(waiting)["reason"] == "FetchRetried"
    assert inputs_condition(waiting)["message"] == "spec.inputs.image.url: the server answered 503"
    job = await bench.told(status="False")
    condition = inputs_condition(job)
    assert condition["reason"] == "InputFetchFailed"
    assert condition["message"].startswith("spec.inputs.image.url: the server answered 503 (tried for ")
    assert len(bench.web.requests) >= 2
    writes = [entry for entry in job["metadata"]["managedFields"] if entry.get("subresource") == "status"]
    assert len(writes) == 1
    assert waiting["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]


async def test_a_stager_killed_in_mid_fetch_leaves_nothing_visible_and_the_next_one_ends_the_same(
    bench: StagerBench,
) -> None:
    stuck = Stuck(PHOTO)
    bench.web.answers |= {"/photo.jpg": stuck, "/clip.mp4": file_answer(CLIP, "video/mp4")}
    process = await bench.start()
    photo, clip = {"source": {"url": bench.url("/photo.jpg")}}, {"url": bench.url("/clip.mp4")}
    await bench.ask(task="VideoToVideo", inputs={"video": clip, "references": [photo]})
    await asyncio.wait_for(stuck.half_sent.wait(), 60)
    await until(lambda: bench.objects() == [CLIP_SHA], 60)
    await until(lambda: len(list((bench.store() / "intake").rglob("*.json"))) == 1, 60)
    process.kill()
    await process.wait()
    assert len(bench.drafts()) == 1, "half a file, hidden"
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    job = await bench.told()
    assert [entry["name"] for entry in job["status"]["inputs"]] == ["video", "references[0]"]
    assert job["status"]["inputs"][0]["frames"] > 9
    assert bench.objects() == sorted([CLIP_SHA, PHOTO_SHA])
    assert bench.drafts() == []
    fetched = [request.split(" ")[1].partition("?")[0] for request in bench.web.requests]
    assert sorted(fetched) == ["/clip.mp4", "/photo.jpg", "/photo.jpg"], "what was fetched is not fetched again"


async def test_a_stager_that_is_told_to_stop_does_so_at_once_and_tidies_up(bench: StagerBench) -> None:
    stuck = Stuck(PHOTO)
    bench.web.answers["/photo.jpg"] = stuck
    process = await bench.start()
    await bench.ask()
    await asyncio.wait_for(stuck.half_sent.wait(), 60)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bench.ports[0]}") as client:
        assert (await client.get("/healthz")).text == (await client.get("/readyz")).text == "ok\n"
        assert "kinora_stager_jobs_in_hand 1.0" in (await client.get("/metrics")).text
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 15) == 0
    assert bench.drafts() == []
    job = await bench.kube.get(VIDEOJOB, bench.namespace, "job")
    assert inputs_condition(job) == {}


@pytest.mark.usefixtures("operator", "claims")
async def test_a_cancel_ends_the_fetch(bench: StagerBench, kube: KubeClient, namespace: str) -> None:
    stuck = Stuck(PHOTO)
    bench.web.answers["/photo.jpg"] = stuck
    await bench.start()
    await bench.ask()
    await asyncio.wait_for(stuck.half_sent.wait(), 60)
    await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"cancel": True}})
    await asyncio.wait_for(stuck.gone.wait(), 20)
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Cancelled"))
    assert inputs_condition(job) == {}
    await until(lambda: bench.drafts() == [])
    assert bench.objects() == []


async def test_a_suspended_job_is_taken_in_all_the_same(bench: StagerBench) -> None:
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    await bench.ask(suspend=True)
    assert (await bench.told())["status"]["inputs"][0]["sha256"] == PHOTO_SHA


async def test_two_stagers_at_once_write_once_and_store_once(bench: StagerBench) -> None:
    both = asyncio.Event()

    async def answer(head: str, writer: asyncio.StreamWriter) -> None:
        if len(bench.web.requests) >= 2:
            both.set()
        await asyncio.wait_for(both.wait(), 60)
        writer.write(file_answer(PHOTO, "image/jpeg"))
        await writer.drain()

    bench.web.answers["/photo.jpg"] = answer
    for index in range(2):
        await bench.start()
        await bench.says("/readyz", "ok", index)
    created = await bench.ask()
    first = await bench.told()
    await until(lambda: bench.drafts() == [])
    assert bench.objects() == [PHOTO_SHA]
    second = await bench.ask("another")  # whoever lost the race has looked again by the time that this one is ready
    job = await bench.told("another")
    assert job["status"]["inputs"][0]["sha256"] == PHOTO_SHA
    assert second["metadata"]["uid"] != created["metadata"]["uid"]
    after = await bench.kube.get(VIDEOJOB, bench.namespace, "job")
    assert after["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


# --- whose inputs


async def test_what_the_agent_must_look_at_is_left_to_it(bench: StagerBench) -> None:
    from io import BytesIO

    from PIL import Image

    content = BytesIO()
    Image.new("L", (64, 64), 255).save(content, "PNG")
    bench.web.answers["/mask.png"] = file_answer(content.getvalue(), "image/png")
    await bench.start()
    mask = {"source": {"url": bench.url("/mask.png")}, "mode": "Fixed"}
    video = {"claim": {"name": "films", "path": "a.mp4"}}
    await bench.ask(task="Inpaint", inputs={"video": video, "mask": mask}, parameters={"frames": 9, "steps": 2})
    job = await bench.told()
    assert [entry["name"] for entry in job["status"]["inputs"]] == ["mask"]
    assert job["status"]["resolved"]["sizeFromInput"] is True
    assert job["status"]["resolved"]["inputs"] == ["video", "mask"]


async def test_the_size_that_a_fetched_source_gives_is_resolved(bench: StagerBench) -> None:
    bench.web.answers["/clip.mp4"] = file_answer(CLIP, "video/mp4")
    await bench.start()
    expand = {"left": 1.25, "right": 1.25}
    inputs = {"video": {"url": bench.url("/clip.mp4")}}
    await bench.ask(task="Outpaint", inputs=inputs, parameters={"frames": 9, "steps": 2, "expand": expand})
    resolved = (await bench.told())["status"]["resolved"]
    assert (resolved["outputWidth"], resolved["outputHeight"]) == (960, 360)
    assert "sizeFromInput" not in resolved


async def test_an_upload_of_the_namespace_is_taken_and_one_that_is_not_there_is_refused(bench: StagerBench) -> None:
    uploads = bench.store() / "uploads" / bench.namespace / "photos"
    uploads.mkdir(parents=True)
    (uploads / "cup.jpg").write_bytes(PHOTO)
    foreign = bench.store() / "uploads" / "another"
    foreign.mkdir()
    (foreign / "cup.jpg").write_bytes(PHOTO)
    (uploads / "link.jpg").symlink_to(foreign / "cup.jpg")
    await bench.start()
    await bench.ask("good", inputs={"image": {"upload": "photos/cup.jpg"}})
    await bench.ask("none", inputs={"image": {"upload": "photos/none.jpg"}})
    job = await bench.told("good")
    assert job["status"]["inputs"][0]["sha256"] == PHOTO_SHA
    (uploads / "cup.jpg").write_bytes(b"other content")
    assert (bench.store() / "inputs" / PHOTO_SHA).read_bytes() == PHOTO
    condition = inputs_condition(await bench.told("none", "False"))
    assert condition["reason"] == "InvalidInput"
    assert condition["message"].startswith("spec.inputs.image.upload is photos/none.jpg, which is not there")


async def test_of_two_stores_one_stager_takes_the_job(bench: StagerBench) -> None:
    await bench.kube.create(MODELSERVER, bench.namespace, model_server("second", artifacts={"claimName": "other"}))
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start("artifacts")
    await bench.start("other")
    jobs = [await bench.ask(f"job-{number}") for number in range(6)]
    for job in jobs:
        told = await bench.told(job["metadata"]["name"])
        chosen = choose_store(job["metadata"]["uid"], {claim_store("artifacts"), claim_store("other")})
        assert chosen is not None
        assert told["status"]["inputStore"] == chosen.root
    assert len(bench.web.requests) == 6


# --- the operator's part


@pytest.mark.usefixtures("operator", "claims")
async def test_a_job_that_waits_for_a_stager_says_so_and_is_not_counted(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    await bench.ask()
    job = await wait_for(
        kube, VIDEOJOB, namespace, "job", lambda job: bool(job) and job["status"].get("reason") == "StagerNotReady"
    )
    assert job["status"]["phase"] == "Pending"
    assert "spec.inputs.image.url" in job["status"]["message"]
    stager = await wait_for_one_stager(kube, namespace)
    assert stager["metadata"]["name"] in job["status"]["message"]
    pod = await wait_for_the_stagers_pod(kube, namespace)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-05-01T12:00:00Z"}
    body = {"status": {"phase": "Running", "conditions": [ready]}}
    await kube.patch(POD, namespace, pod, body, subresource="status", content_type=STRATEGIC)
    await wait_for(
        kube, VIDEOJOB, namespace, "job", lambda job: bool(job) and job["status"].get("reason") == "FetchingInputs"
    )
    server = await wait_for(
        kube, MODELSERVER, namespace, "vace", lambda server: bool(server) and "backlog" in server.get("status", {})
    )
    assert server["status"]["backlog"] == 0


@pytest.mark.usefixtures("operator", "claims")
async def test_one_stager_an_artifact_store_and_none_without_a_server(
    bench: StagerBench, kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server("twin"))
    servers = {(await kube.get(MODELSERVER, namespace, name))["metadata"]["uid"] for name in ("vace", "twin")}

    def belongs(wanted: set[str]) -> Callable[[Object | None], bool]:
        return lambda found: (
            bool(found) and {owner["uid"] for owner in found["metadata"].get("ownerReferences", [])} == wanted
        )

    name = (await wait_for_one_stager(kube, namespace))["metadata"]["name"]
    made = await wait_for(kube, DEPLOYMENT, namespace, name, belongs(servers))
    await kube.delete(MODELSERVER, namespace, "twin")
    left = {(await kube.get(MODELSERVER, namespace, "vace"))["metadata"]["uid"]}
    found = await wait_for(kube, DEPLOYMENT, namespace, name, belongs(left))
    assert found["metadata"]["generation"] == made["metadata"]["generation"], "its pods were not touched"
    await kube.delete(DEPLOYMENT, namespace, name)
    again = await wait_for(
        kube, DEPLOYMENT, namespace, name,
        lambda found: bool(found) and found["metadata"]["uid"] != made["metadata"]["uid"],
    )  # fmt: skip
    assert again["spec"]["template"]["spec"]["serviceAccountName"] == "kinora-stager"
    await kube.delete(MODELSERVER, namespace, "vace")
    await wait_for(kube, DEPLOYMENT, namespace, name, lambda found: found is None)


async def wait_for_the_stagers_pod(kube: KubeClient, namespace: str) -> str:
    """The name of the pod that the Deployment's own controller makes."""
    selector = "kinora.dev/stager"
    async with asyncio.timeout(20):
        while True:
            items, version = await kube.list(POD, namespace, label_selector=selector)
            if items:
                return str(items[0]["metadata"]["name"])
            async for event in kube.stream(POD, namespace, resource_version=version, label_selector=selector):
                if event["type"] == "ADDED":
                    return str(event["object"]["metadata"]["name"])


async def wait_for_one_stager(kube: KubeClient, namespace: str) -> Object:
    async with asyncio.timeout(20):
        while True:
            items, version = await kube.list(DEPLOYMENT, namespace)
            if items:
                return items[0]
            async for event in kube.stream(DEPLOYMENT, namespace, resource_version=version):
                if event["type"] == "ADDED":
                    return event["object"]
