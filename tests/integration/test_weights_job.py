"""The weights Job on a real API server: the operator makes it, its pod's real token fills a folder and tells of it.

No kubelet runs here: the test takes the pod's token as a kubelet would, runs the Job's own code with it, ends the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest

from integration.test_policies import as_token, forbidden, token
from kinora.api.names import COMPONENT_WEIGHTS, CONDITION_WEIGHTS_READY
from kinora.api.weightsjob import WeightsConfig
from kinora.catalogue.load import load_catalogue
from kinora.controller.modelserver.desired import role_binding
from kinora.kube.client import STRATEGIC, ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import JOB, LEASE, MODELSERVER, POD, ROLE_BINDING, SERVICE_ACCOUNT
from kinora.weights.job import Settings, fill
from kinora.weights.tiny import demo_file
from kinora.weights.verify import VerifyLevel, verify
from unit.weights.origin_server import Server, serving
from waiting import DEADLINE, model_server, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
WHOLE = load_catalogue().get("wan2.1-vace-1.3b")
assert WHOLE is not None
MODEL = WHOLE.model_copy(update={"weights": tuple(weight for weight in WHOLE.weights if weight.preset is None)})


@pytest.fixture
async def files() -> AsyncIterator[Server]:
    """Every file of the model, over HTTP."""
    async with serving() as server:
        for weight in MODEL.weights:
            server.put(weight.path, demo_file(MODEL, weight))
        yield server


def with_sources(files: Server, **weights: Any) -> Object:
    sources = [{"name": path, "url": f"{files.url}/{path}"} for path in files.files]
    return model_server(weights={"claimName": "weights", "sources": sources, **weights})


def condition(obj: Object | None, kind: str = "WeightsReady") -> Object:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


async def jobs(kube: KubeClient, namespace: str) -> list[Object]:
    return (await kube.list(JOB, namespace))[0]


async def weights_pod(kube: KubeClient, namespace: str, not_of: str = "") -> Object:
    """The pod that the Job controller has made."""

    def made(pods: list[Object]) -> list[Object]:
        return [
            pod
            for pod in pods
            if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "weights"
            and pod["metadata"]["labels"].get("job-name") != not_of
            and not pod["metadata"].get("deletionTimestamp")
        ]

    return made(await wait_for_pods(kube, namespace, lambda pods: bool(made(pods)), component=COMPONENT_WEIGHTS))[0]


@contextlib.asynccontextmanager
async def as_pod(kube: KubeClient, connection: Connection, pod: Object) -> AsyncIterator[KubeClient]:
    """A client with the token that the kubelet would project into the pod."""
    secret = await token(kube, pod["metadata"]["namespace"], "kinora-weights", pod)
    async with KubeClient(as_token(connection, secret)) as client:
        async with asyncio.timeout(DEADLINE):
            while True:  # a RoleBinding is known to the authoriser a moment after it was made
                try:
                    await client.find(LEASE, pod["metadata"]["namespace"], "kinora-weights-none")
                    break
                except ApiError as error:
                    if error.status != 403:
                        raise
        yield client


def settings(pod: Object, root: Path, **changes: Any) -> Settings:
    """What the pod's environment says, with the volume at `root`."""
    (container,) = pod["spec"]["containers"]
    config = next(entry["value"] for entry in container["env"] if entry["name"] == "KINORA_WEIGHTS_CONFIG")
    metadata = pod["metadata"]
    return Settings(
        WeightsConfig.model_validate_json(config),
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        root=root,
        tell_seconds=0.05,
        **changes,
    )


async def end(kube: KubeClient, pod: Object, code: int) -> None:
    """What the kubelet writes when the container has ended."""
    ended = {"exitCode": code, "finishedAt": "2026-05-01T12:00:00Z", "startedAt": "2026-05-01T12:00:00Z"}
    status = {"name": "weights", "ready": False, "restartCount": 0, "image": "x", "imageID": "x"}
    body = {
        "status": {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{**status, "state": {"terminated": ended}}],
        }
    }
    metadata = pod["metadata"]
    await kube.patch(POD, metadata["namespace"], metadata["name"], body, subresource="status", content_type=STRATEGIC)


async def server_when(kube: KubeClient, namespace: str, status: str, reason: str, words: str = "") -> Object:
    def holds(obj: Object | None) -> bool:
        found = condition(obj)
        return (found.get("status"), found.get("reason")) == (status, reason) and words in found["message"]

    return await wait_for(kube, MODELSERVER, namespace, "vace", holds)


def server_pods(pods: list[Object]) -> list[Object]:
    return [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "server"]


@pytest.mark.usefixtures("operator", "claims")
async def test_from_an_empty_volume_to_pods(
    kube: KubeClient, namespace: str, connection: Connection, files: Server, tmp_path: Path
) -> None:
    hold, come = asyncio.Event(), asyncio.Event()

    async def slow(_count: int, request: aiohttp.web.Request) -> None:
        if "vae" in request.path and request.headers.get("Range") != "bytes=0-0":
            come.set()
            await hold.wait()

    files.fault = slow
    await kube.create(MODELSERVER, namespace, with_sources(files))
    pod = await weights_pod(kube, namespace)
    for resource in (SERVICE_ACCOUNT, ROLE_BINDING):
        assert await kube.find(resource, namespace, "kinora-weights")
    await server_when(kube, namespace, "False", "WeightsPending")
    async with as_pod(kube, connection, pod) as client:
        work = asyncio.create_task(fill(client, settings(pod, tmp_path)))
        await come.wait()
        server = await server_when(kube, namespace, "False", "Fetching", MODEL.weights[-1].path)
        total = sum(map(len, files.files.values()))
        weights = server["status"]["weights"]
        assert 0 < weights["bytesDone"] < weights["bytesTotal"] == total
        assert {entry["state"] for entry in weights["files"]} == {"Present", "Fetching"}
        assert "verifiedTime" not in weights
        assert server_pods((await kube.list(POD, namespace))[0]) == [], "no GPU waits for a download"
        lease = await kube.get(LEASE, namespace, "kinora-weights-weights")
        assert lease["spec"]["holderIdentity"] == pod["metadata"]["name"]
        hold.set()
        assert await work == 0
    assert all(state.ok for state in verify(MODEL, tmp_path, VerifyLevel.HASH))
    lease = await kube.get(LEASE, namespace, "kinora-weights-weights")
    assert not lease["spec"].get("holderIdentity")
    await end(kube, pod, 0)
    server = await server_when(kube, namespace, "True", "WeightsPresent")
    weights = server["status"]["weights"]
    assert weights["bytesDone"] == weights["bytesTotal"] == total
    assert dt.datetime.fromisoformat(weights["verifiedTime"])
    assert {entry["state"] for entry in weights["files"]} == {"Present"}
    await wait_for_pods(kube, namespace, lambda pods: len(server_pods(pods)) == 1)


@pytest.mark.usefixtures("operator", "claims")
async def test_a_source_that_is_not_there_is_told_and_not_tried_again(
    kube: KubeClient, namespace: str, connection: Connection, files: Server, tmp_path: Path
) -> None:
    server = with_sources(files)
    server["spec"]["weights"]["sources"][0]["url"] += "x"
    await kube.create(MODELSERVER, namespace, server)
    pod = await weights_pod(kube, namespace)
    async with as_pod(kube, connection, pod) as client:
        assert await fill(client, settings(pod, tmp_path)) == 1
    await end(kube, pod, 1)
    await server_when(kube, namespace, "False", "FetchFailed", "the server answers 404; check the URL (Job ")
    job = await wait_for(kube, JOB, namespace, pod["metadata"]["labels"]["job-name"], lambda obj: bool(failed(obj)))
    assert failed(job)["reason"] == "PodFailurePolicy"


def failed(job: Object | None) -> Object:
    found = condition(job, "Failed")
    return found if found.get("status") == "True" else {}


@pytest.mark.usefixtures("operator", "claims")
async def test_other_sources_are_another_job(kube: KubeClient, namespace: str, files: Server) -> None:
    await kube.create(MODELSERVER, namespace, with_sources(files))
    old = (await weights_pod(kube, namespace))["metadata"]["labels"]["job-name"]
    changed = with_sources(files, verify="Hash")["spec"]["weights"]
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"weights": changed}})
    new = (await weights_pod(kube, namespace, not_of=old))["metadata"]["labels"]["job-name"]
    await wait_for(kube, JOB, namespace, old, lambda obj: obj is None)
    assert [job["metadata"]["name"] for job in await jobs(kube, namespace)] == [new]
    (job,) = await jobs(kube, namespace)
    assert json.loads(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])["verify"] == "Hash"


@pytest.mark.usefixtures("operator", "claims")
async def test_a_file_that_an_agent_finds_changed_is_fetched_again(
    kube: KubeClient,
    namespace: str,
    connection: Connection,
    files: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kinora.controller.modelserver import weights as module

    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)
    await kube.create(MODELSERVER, namespace, with_sources(files))
    first = await weights_pod(kube, namespace)
    async with as_pod(kube, connection, first) as client:
        assert await fill(client, settings(first, tmp_path)) == 0
    await end(kube, first, 0)
    pods = await wait_for_pods(kube, namespace, lambda pods: len(server_pods(pods)) == 1)
    (tmp_path / MODEL.weights[0].path).write_bytes(b"oops")
    await tell_engine(kube, server_pods(pods)[0], "WeightsChanged", f"{MODEL.weights[0].path}: truncated")
    second = await wait_for_another(kube, namespace, first)
    await server_when(kube, namespace, "False", "WeightsPending")
    files.requests.clear()
    async with as_pod(kube, connection, second) as client:
        assert await fill(client, settings(second, tmp_path)) == 0
    assert {path for path, _ in files.requests} == {MODEL.weights[0].path}, "the bad file alone"
    assert all(state.ok for state in verify(MODEL, tmp_path, VerifyLevel.HASH))
    await tell_engine(kube, server_pods(pods)[0], "EngineReady", "")
    await end(kube, second, 0)
    await server_when(kube, namespace, "True", "WeightsPresent")


async def wait_for_another(kube: KubeClient, namespace: str, first: Object) -> Object:
    def made(pods: list[Object]) -> list[Object]:
        labelled = [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "weights"]
        return [pod for pod in labelled if pod["metadata"]["uid"] != first["metadata"]["uid"]]

    return made(await wait_for_pods(kube, namespace, lambda pods: bool(made(pods)), component=COMPONENT_WEIGHTS))[0]


async def tell_engine(kube: KubeClient, pod: Object, reason: str, message: str) -> None:
    told = {
        "type": "kinora.dev/EngineReady",
        "status": "True" if reason == "EngineReady" else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    metadata = pod["metadata"]
    body = {"status": {"phase": "Running", "conditions": [told]}}
    await kube.patch(POD, metadata["namespace"], metadata["name"], body, subresource="status", content_type=STRATEGIC)


@pytest.mark.usefixtures("operator", "claims")
async def test_the_job_goes_with_its_model_server(kube: KubeClient, namespace: str, files: Server) -> None:
    await kube.create(MODELSERVER, namespace, with_sources(files))
    name = (await weights_pod(kube, namespace))["metadata"]["labels"]["job-name"]
    await kube.delete(MODELSERVER, namespace, "vace")
    await wait_for(kube, JOB, namespace, name, lambda obj: obj is None)


# --- the fence


@pytest.fixture
async def pod(kube: KubeClient, namespace: str, files: Server, operator: None, claims: None) -> Object:
    """The pod of a weights Job."""
    await kube.create(MODELSERVER, namespace, with_sources(files))
    return await weights_pod(kube, namespace)


def told(kind: str = CONDITION_WEIGHTS_READY) -> Object:
    return {"status": {"conditions": [{"type": kind, "status": "False", "reason": "Fetching", "message": "{}"}]}}


async def tell(client: KubeClient, namespace: str, name: str, body: Object) -> Object:
    return await client.patch(POD, namespace, name, body, subresource="status", content_type=STRATEGIC)


async def test_it_tells_on_its_own_pod_and_changes_nothing_else(
    kube: KubeClient, namespace: str, connection: Connection, pod: Object
) -> None:
    name = pod["metadata"]["name"]
    spec = {"serviceAccountName": "kinora-weights", "containers": [{"name": "a", "image": "b"}]}
    other = {"metadata": {"name": "other"}, "spec": spec}  # the default account may not be there yet
    await kube.create(POD, namespace, other)
    async with as_pod(kube, connection, pod) as client:
        await tell(client, namespace, name, told())
        await forbidden(tell(client, namespace, "other", told()))
        await forbidden(tell(client, namespace, name, told("Ready")))
        await forbidden(tell(client, namespace, name, {"status": {"phase": "Succeeded"}}))
        await forbidden(tell(client, namespace, name, {"metadata": {"labels": {"a": "b"}}}))
        for resource in (POD, JOB, MODELSERVER):
            await forbidden(client.list(resource, namespace))
        await forbidden(client.list(LEASE, "kinora-system"))


def lease(name: str, holder: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30}}


async def test_it_holds_leases_of_volumes_in_its_own_name_alone(
    kube: KubeClient, namespace: str, connection: Connection, pod: Object
) -> None:
    name = pod["metadata"]["name"]
    async with as_pod(kube, connection, pod) as client:
        await forbidden(client.create(LEASE, namespace, lease("kinora-operator", name)))
        await forbidden(client.create(LEASE, namespace, lease("kinora-weights-a", "another")))
        await client.create(LEASE, namespace, lease("kinora-weights-a", name))
        to_another, given_up = ({"spec": {"holderIdentity": holder}} for holder in ("another", ""))
        await forbidden(client.patch(LEASE, namespace, "kinora-weights-a", to_another))
        await kube.create(LEASE, namespace, lease("kinora-weights-b", "another"))
        await forbidden(client.patch(LEASE, namespace, "kinora-weights-b", given_up))
        assert await client.patch(LEASE, namespace, "kinora-weights-a", given_up)
        await forbidden(client.delete(LEASE, namespace, "kinora-weights-a"))


async def test_the_operators_account_may_make_and_remove_weights_jobs_and_bind_their_role(
    kube: KubeClient, namespace: str, connection: Connection, pod: Object
) -> None:
    (job,) = await jobs(kube, namespace)
    copy = {**job, "metadata": {"name": "copy", "labels": job["metadata"]["labels"]}, "status": {}}
    copy["spec"] = {name: job["spec"][name] for name in ("backoffLimit", "podFailurePolicy")}
    copy["spec"]["template"] = {"spec": job["spec"]["template"]["spec"]}
    operator = as_token(connection, await token(kube, "kinora-system", "kinora-operator"))
    async with KubeClient(operator) as client:
        made = await client.create(JOB, namespace, copy)
        assert await client.delete(JOB, namespace, "copy", uid=made["metadata"]["uid"])
        binding = role_binding(namespace, "kinora-weights")
        binding["metadata"]["name"] = "again"
        await client.create(ROLE_BINDING, namespace, binding)
        await forbidden(client.create(LEASE, namespace, lease("kinora-weights-a", "operator")))
