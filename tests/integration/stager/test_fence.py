"""The stagers' fence, with real tokens: what inputs are, of Pending jobs of their namespace, and nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest

from integration.tokens import as_token, token, until_authorised
from kinora.api import transitions
from kinora.controller.stager.desired import role_binding, service_account
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import (
    CONFIGMAP,
    EVENT,
    MODELSERVER,
    NAMESPACE,
    POD,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    VIDEOJOB,
    Resource,
)
from waiting import job_status, video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]
STORE = "pvc://videos/"
NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
ENTRY = {"name": "image", "sha256": "0" * 64, "bytes": 1}


@pytest.fixture
async def stager(kube: KubeClient, namespace: str, connection: Connection) -> AsyncIterator[KubeClient]:
    """A client that is the stager of the namespace."""
    await kube.create(SERVICE_ACCOUNT, namespace, service_account(namespace))
    await kube.create(ROLE_BINDING, namespace, role_binding(namespace))
    container = {"name": "stager", "image": "kinora:test"}
    spec = {"serviceAccountName": "kinora-stager", "containers": [container], "automountServiceAccountToken": False}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stager"}, "spec": spec}
    pod = await kube.create(POD, namespace, body)
    async with KubeClient(as_token(connection, await token(kube, namespace, "kinora-stager", pod))) as client:
        await until_authorised(client, namespace)
        yield client


async def pending(kube: KubeClient, namespace: str, name: str = "job") -> Object:
    source = {"url": "https://x.example/a.png"}
    return await kube.create(VIDEOJOB, namespace, video_job(name, task="ImageToVideo", inputs={"image": source}))


async def write(client: KubeClient, job: Object, status: Object) -> Object:
    metadata = job["metadata"]
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
    return await client.patch(VIDEOJOB, metadata["namespace"], metadata["name"], body, subresource="status")


async def refused(client: KubeClient, job: Object, status: Object, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        await write(client, job, status)
    assert caught.value.status == 403, caught.value
    assert words in caught.value.message


async def test_a_stager_tells_of_a_delay_and_then_of_the_inputs(
    kube: KubeClient, stager: KubeClient, namespace: str
) -> None:
    job = await pending(kube, namespace)
    job = await write(stager, job, transitions.inputs_delayed(job, "503", NOW))
    job = await write(stager, job, transitions.inputs_stored(job, STORE, [ENTRY], {"frames": 9}, NOW))
    assert job["status"]["inputs"] == [ENTRY]
    assert job["status"]["resolved"] == {"frames": 9}
    assert {entry["type"] for entry in job["status"]["conditions"]} > {"InputsReady", "Ready", "Finished"}


async def test_what_was_concluded_stays(kube: KubeClient, stager: KubeClient, namespace: str) -> None:
    job = await pending(kube, namespace)
    job = await write(stager, job, transitions.inputs_refused(job, "InvalidInput", "no", NOW))
    await refused(
        stager, job, transitions.inputs_stored(job, STORE, [ENTRY], {}, NOW), "InputsReady is True or False already"
    )


OTHERS: list[Object] = [
    {"phase": "Failed"},
    {"phase": "Queued"},
    {"reason": "FetchingInputs"},
    {"message": "hello"},
    {"attempt": 1},
    {"phase": "Scheduled", "attempt": 1, "assignment": {"podName": "a", "podUID": "b"}},
    {"completionTime": "2026-05-01T12:00:00Z"},
    {"artifacts": [{"uri": "pvc://a/b", "contentType": "video/mp4", "bytes": 1, "sha256": "0" * 64}]},
    {"failures": 1},
    {"gpuSeconds": 1},
    {"progress": {"percent": 10}},
]


@pytest.mark.parametrize("status", OTHERS, ids=",".join)
async def test_no_other_field_is_a_stagers(
    kube: KubeClient, stager: KubeClient, namespace: str, status: Object
) -> None:
    job = await pending(kube, namespace)
    told = transitions.inputs_stored(job, STORE, [ENTRY], {}, NOW)
    await refused(stager, job, {**told, **status}, "a stager may not change status.")


async def test_no_other_condition_is_a_stagers(kube: KubeClient, stager: KubeClient, namespace: str) -> None:
    job = await pending(kube, namespace)
    told = transitions.inputs_stored(job, STORE, [ENTRY], {}, NOW)["conditions"]
    for changed in (told[:1], [*told, {"type": "Mine", "status": "True"}], [{**told[1], "status": "True"}, *told[2:]]):
        await refused(stager, job, {"conditions": changed}, "only the condition InputsReady")


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Queued"},
        {"phase": "Failed"},
        {"phase": "Scheduled", "attempt": 1, "assignment": {"podName": "a", "podUID": "b"}},
    ],
    ids=["queued", "ended", "bound"],
)
async def test_a_job_that_is_past_pending_is_closed_to_stagers(
    kube: KubeClient, stager: KubeClient, namespace: str, status: Object
) -> None:
    await pending(kube, namespace)
    job = await job_status(kube, namespace, "job", status)
    await refused(stager, job, transitions.inputs_stored(job, STORE, [ENTRY], {}, NOW), "Pending and bound to no pod")


async def test_a_stale_write_is_a_conflict(kube: KubeClient, stager: KubeClient, namespace: str) -> None:
    stale = await pending(kube, namespace)
    await job_status(kube, namespace, "job", {"message": "meanwhile"})
    with pytest.raises(ApiError) as caught:
        await write(stager, stale, transitions.inputs_stored(stale, STORE, [ENTRY], {}, NOW))
    assert caught.value.is_conflict


async def test_a_token_of_no_pod_writes_nothing(
    kube: KubeClient, stager: KubeClient, connection: Connection, namespace: str
) -> None:
    job = await pending(kube, namespace)
    async with KubeClient(as_token(connection, await token(kube, namespace, "kinora-stager"))) as unbound:
        await refused(unbound, job, transitions.inputs_stored(job, STORE, [ENTRY], {}, NOW), "bound to its pod")


async def test_a_stager_reads_jobs_and_servers_of_its_namespace_and_nothing_else(
    kube: KubeClient, stager: KubeClient, namespace: str
) -> None:
    job = await pending(kube, namespace)
    await stager.list(VIDEOJOB, namespace)
    await stager.list(MODELSERVER, namespace)
    secret = Resource("", "v1", "secrets", "Secret")
    for attempt in (
        stager.list(secret, namespace),
        stager.list(CONFIGMAP, namespace),
        stager.list(POD, namespace),
        stager.list(VIDEOJOB, "default"),
        stager.list(VIDEOJOB),
        stager.list(NAMESPACE),
        stager.create(VIDEOJOB, namespace, video_job("mine")),
        stager.create(EVENT, namespace, {"metadata": {"name": "x"}}),
        stager.delete(VIDEOJOB, namespace, "job"),
        stager.patch(VIDEOJOB, namespace, job["metadata"]["name"], {"spec": {"cancel": True}}),
    ):
        with pytest.raises(ApiError) as caught:
            await attempt
        assert caught.value.status == 403
