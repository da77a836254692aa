"""The fence, with real tokens: an agent writes of its own jobs and its own pod, and of nothing else."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from integration.conftest import PATIENT, free_port
from integration.tokens import as_token, token, until_authorised
from kinora.api.names import CONDITION_ENGINE_READY, LIVE_SECRET, LIVE_SECRET_TYPE, SERVER_POLICY
from kinora.controller.main import serve
from kinora.controller.modelserver.desired import role_binding, service_account
from kinora.controller.operator import Operator
from kinora.controller.settings import Settings
from kinora.kube.client import STRATEGIC, ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import (
    CONFIGMAP,
    EVENT,
    MODELSERVER,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    VIDEOJOB,
    Resource,
)
from kinora.kube.secret_keys import secret_body
from waiting import DEADLINE, job_status, model_server, phase, video_job, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
SECRET = Resource("", "v1", "secrets", "Secret")


async def make_pod(kube: KubeClient, namespace: str, name: str) -> Object:
    """A pod of the agents' account. No kubelet runs it; its token is as good."""
    container = {"name": "agent", "image": "kinora:test"}
    spec = {"serviceAccountName": "kinora-agent", "containers": [container], "automountServiceAccountToken": False}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec}
    made = await kube.create(POD, namespace, body)
    status = {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {"name": "agent", "ready": False, "restartCount": 0, "image": "kinora:test", "imageID": "x", "state": {}}
        ],
    }
    await kube.patch(POD, namespace, name, {"status": status}, subresource="status")
    return made


@pytest.fixture
async def pod(kube: KubeClient, namespace: str) -> Object:
    await kube.create(SERVICE_ACCOUNT, namespace, service_account(namespace))
    await kube.create(ROLE_BINDING, namespace, role_binding(namespace))
    return await make_pod(kube, namespace, "server-0")


@pytest.fixture
async def other_pod(kube: KubeClient, namespace: str, pod: Object) -> Object:
    return await make_pod(kube, namespace, "server-1")


@pytest.fixture
async def agent(kube: KubeClient, namespace: str, pod: Object, connection: Connection) -> AsyncIterator[KubeClient]:
    """A client that is the agent of ``pod``."""
    async with KubeClient(as_token(connection, await token(kube, namespace, "kinora-agent", pod))) as client:
        await until_authorised(client, namespace)
        yield client


async def bind(kube: KubeClient, namespace: str, pod: Object, name: str = "job", **status: Any) -> Object:
    """A job whose attempt 1 is on the pod."""
    await kube.create(VIDEOJOB, namespace, video_job(name))
    assignment = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"], "promptID": "p"}
    return await job_status(
        kube, namespace, name, {"phase": "Scheduled", "attempt": 1, "assignment": assignment, **status}
    )


async def write(client: KubeClient, job: Object, status: Object) -> Object:
    metadata = job["metadata"]
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
    return await client.patch(VIDEOJOB, metadata["namespace"], metadata["name"], body, subresource="status")


async def refused(client: KubeClient, job: Object, status: Object, words: str = "") -> None:
    with pytest.raises(ApiError) as caught:
        await write(client, job, status)
    assert caught.value.status == 403, caught.value
    assert words in caught.value.message


# --- jobs


async def test_an_agent_takes_its_own_job_from_scheduled_to_its_end(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object
) -> None:
    job = await bind(kube, namespace, pod)
    running = {"phase": "Running", "progress": {"percent": 10, "stage": "Sample"}}
    artifact = {"uri": "pvc://a/b", "contentType": "video/mp4", "bytes": 1, "sha256": "0" * 64}
    released = {"attempt": 1, "reason": "NodeError", "time": "2026-05-01T12:00:00Z"}
    steps = [
        running,
        {"progress": {"percent": 50}},
        {"released": released, "failures": 1},
        {"phase": "Finalizing"},
        {"phase": "Succeeded", "artifacts": [artifact]},
    ]
    for step in steps:
        job = await write(agent, job, step)
    assert job["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("end", ["Failed", "Cancelled"])
async def test_an_agent_may_end_its_job(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, end: str
) -> None:
    job = await write(agent, await bind(kube, namespace, pod), {"phase": end})
    assert job["status"]["phase"] == end


async def test_a_job_of_another_pod_or_of_no_pod_is_not_the_agents(
    kube: KubeClient, agent: KubeClient, namespace: str, other_pod: Object
) -> None:
    await refused(agent, await bind(kube, namespace, other_pod), {"phase": "Running"}, "not bound to the agent's pod")
    waiting = await kube.create(VIDEOJOB, namespace, video_job("waiting"))
    await refused(agent, waiting, {"phase": "Running"}, "not bound to the agent's pod")


async def test_an_agent_may_not_bind_a_job_to_itself(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object
) -> None:
    waiting = await kube.create(VIDEOJOB, namespace, video_job("waiting"))
    assignment = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"]}
    await refused(agent, waiting, {"phase": "Scheduled", "attempt": 1, "assignment": assignment})


ASSIGNMENTS: list[Callable[[Object], Object | None]] = [
    lambda own: None,
    lambda own: {**own, "podUID": "another"},
    lambda own: {**own, "podName": "another"},
    lambda own: {**own, "nodeName": "another"},
    lambda own: {"promptID": None},
]


@pytest.mark.parametrize("change", ASSIGNMENTS)
async def test_an_agent_may_not_change_the_assignment(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, change: Callable[[Object], Object | None]
) -> None:
    job = await bind(kube, namespace, pod)
    changed = change(job["status"]["assignment"])
    await refused(agent, job, {"phase": "Running", "assignment": changed}, "status.assignment")


@pytest.mark.parametrize("attempt", [0, 2, None])
async def test_an_agent_may_not_change_the_attempt(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, attempt: int | None
) -> None:
    await refused(agent, await bind(kube, namespace, pod), {"phase": "Running", "attempt": attempt}, "status.attempt")


FETCHED: Object = {
    "task": "Inpaint",
    "inputs": {
        "video": {"url": "https://x.example/a.mp4"},
        "mask": {"source": {"claim": {"name": "media", "path": "mask.png"}}},
        "references": [{"source": {"configMap": {"name": "a", "key": "b"}}}, {"source": {"upload": "0123456789/a"}}],
    },
}
BROUGHT: list[Object] = [{"name": "video", "sha256": "a" * 64}, {"name": "references[1]", "sha256": "b" * 64}]


def found(name: str, digit: str) -> Object:
    return {"name": name, "sha256": digit * 64, "width": 9}


@pytest.mark.parametrize(
    ("status", "is_good"),
    [
        ({"inputs": [found("video", "a"), found("references[1]", "b"), found("mask", "c")]}, True),
        ({"inputs": [found("video", "a")]}, True),
        ({"inputs": None}, True),
        ({"inputs": [found("video", "c")]}, False),
        ({"inputs": [found("video", "a"), found("references[1]", "a")]}, False),
        ({"inputs": [found("video", "a"), found("video", "c")]}, False),
        ({"inputs": [found("references[1]", "c"), found("references[0]", "c")]}, False),
        ({"inputStore": "s3://other/"}, False),
        ({"inputStore": None}, False),
    ],
)
async def test_an_agent_may_not_say_that_a_stager_brought_something_else(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, status: Object, is_good: bool
) -> None:
    """It is given what its job's status names, and would name what was brought for others."""
    await kube.create(VIDEOJOB, namespace, video_job("job", **FETCHED))
    assignment = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"], "promptID": "p"}
    told = {"phase": "Scheduled", "attempt": 1, "assignment": assignment, "inputStore": "s3://a/", "inputs": BROUGHT}
    job = await job_status(kube, namespace, "job", told)
    if is_good:
        await write(agent, job, {"phase": "Running", **status})
    else:
        await refused(agent, job, {"phase": "Running", **status}, "what a stager has brought")


@pytest.mark.parametrize("index", [0, 15])
async def test_the_files_of_a_workflow_that_a_stager_brought_stay_too(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, index: int
) -> None:
    files: list[Object] = [{"name": f"{at}.png", "source": {"url": f"https://x.example/{at}"}} for at in range(16)]
    workflow = {"inline": "{}", "files": files}
    body = video_job("job")
    body["spec"] = {"model": "wan2.1-vace-1.3b", "workflow": workflow}
    await kube.create(VIDEOJOB, namespace, body)
    assignment = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"], "promptID": "p"}
    brought = [{"name": f"files[{at}]", "sha256": "a" * 64} for at in range(16)]
    told = {"phase": "Scheduled", "attempt": 1, "assignment": assignment, "inputStore": "s3://a/", "inputs": brought}
    job = await job_status(kube, namespace, "job", told)
    changed = copy.deepcopy(brought)
    changed[index]["sha256"] = "b" * 64
    await refused(agent, job, {"inputs": changed}, "what a stager has brought")
    await write(agent, job, {"phase": "Running", "inputs": brought})


@pytest.mark.parametrize("to", ["Queued", "Pending"])
async def test_requeueing_is_the_operators(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, to: str
) -> None:
    await refused(agent, await bind(kube, namespace, pod), {"phase": to}, "requeueing is the operator's")


@pytest.mark.parametrize("end", ["Succeeded", "Failed", "Cancelled"])
async def test_a_job_that_has_ended_is_closed_to_its_agent(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object, end: str
) -> None:
    job = await bind(kube, namespace, pod)
    job = await job_status(kube, namespace, "job", {"phase": end})
    await refused(agent, job, {"message": "a word more"}, "has ended")


async def test_a_stale_write_is_a_conflict_and_not_a_refusal(
    kube: KubeClient, agent: KubeClient, namespace: str, pod: Object
) -> None:
    stale = await bind(kube, namespace, pod)
    await job_status(kube, namespace, "job", {"message": "meanwhile"})
    with pytest.raises(ApiError) as caught:
        await write(agent, stale, {"phase": "Running"})
    assert caught.value.is_conflict


@pytest.mark.parametrize("other", [None, "server-1"])
async def test_a_token_of_no_pod_or_of_another_pod_writes_nothing(
    kube: KubeClient, namespace: str, pod: Object, other_pod: Object, connection: Connection, other: str | None
) -> None:
    job = await bind(kube, namespace, pod)
    bound_to = other_pod if other else None
    async with KubeClient(as_token(connection, await token(kube, namespace, "kinora-agent", bound_to))) as client:
        await until_authorised(client, namespace)
        await refused(client, job, {"phase": "Running"}, "" if other else "not bound to a pod")


async def test_the_token_dies_with_its_pod(kube: KubeClient, agent: KubeClient, namespace: str, pod: Object) -> None:
    """A cut-off agent: its pod is gone, and with it its word."""
    job = await bind(kube, namespace, pod)
    await kube.delete(POD, namespace, pod["metadata"]["name"], grace_seconds=0)

    async def write_on() -> None:
        current = job
        while True:  # the authenticator remembers a token for some seconds
            current = await write(agent, current, {"phase": "Running", "message": str(dt.datetime.now(dt.UTC))})

    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(write_on(), DEADLINE)
    assert caught.value.status in {401, 403}


async def forbidden(call: Any) -> None:
    with pytest.raises(ApiError) as caught:
        await call
    assert caught.value.status == 403, caught.value


async def test_what_rbac_leaves_an_agent(kube: KubeClient, agent: KubeClient, namespace: str, pod: Object) -> None:
    await bind(kube, namespace, pod)
    await agent.get(VIDEOJOB, namespace, "job")
    await agent.list(VIDEOJOB, namespace, field_selector=f"status.assignment.podUID={pod['metadata']['uid']}")
    await kube.create(CONFIGMAP, namespace, {"metadata": {"name": "clip"}, "data": {"a": "b"}})
    await agent.get(CONFIGMAP, namespace, "clip")
    await forbidden(agent.patch(VIDEOJOB, namespace, "job", {"spec": {"cancel": True}}))
    await forbidden(agent.create(VIDEOJOB, namespace, video_job("mine")))
    await forbidden(agent.delete(VIDEOJOB, namespace, "job"))
    await forbidden(agent.get(POD, namespace, "server-0"))
    await forbidden(agent.list(POD, namespace))
    await forbidden(agent.delete(POD, namespace, "server-0"))
    await forbidden(agent.list(CONFIGMAP, namespace))
    await forbidden(agent.list(SECRET, namespace))
    await forbidden(agent.list(MODELSERVER, namespace))
    await forbidden(agent.list(VIDEOJOB))
    await forbidden(agent.get(VIDEOJOB, "default", "job"))


# --- its pod


def ready(kind: str = CONDITION_ENGINE_READY, status: str = "True") -> Object:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": "EngineReady", "message": "", "lastTransitionTime": now}


async def tell(client: KubeClient, namespace: str, name: str, body: Object) -> Object:
    return await client.patch(POD, namespace, name, body, subresource="status", content_type=STRATEGIC)


async def test_an_agent_tells_of_its_engine_on_its_own_pod(agent: KubeClient, namespace: str) -> None:
    for status in ("False", "True"):
        pod = await tell(agent, namespace, "server-0", {"status": {"conditions": [ready(status=status)]}})
        found = {condition["type"]: condition["status"] for condition in pod["status"]["conditions"]}
        assert found == {"PodScheduled": "True", CONDITION_ENGINE_READY: status}


@pytest.mark.parametrize(
    "body",
    [
        {"status": {"conditions": [ready("Ready")]}},
        {"status": {"conditions": [ready("ContainersReady")]}},
        {"status": {"conditions": [{"type": "PodScheduled", "$patch": "delete"}]}},
        {"status": {"conditions": [ready("kinora.devil/EngineReady")]}},
        {"status": {"conditions": [ready(), ready("Ready")]}},
        {"status": {"phase": "Failed"}},
        {"status": {"message": "x"}},
        {"status": {"podIP": "10.0.0.1"}},
        {"status": {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}]}},
        {"status": {"containerStatuses": [{"name": "agent", "restartCount": 5}]}},
        {"status": {"containerStatuses": None}},
        {"status": {"ephemeralContainerStatuses": [{"name": "x", "image": "", "imageID": "", "restartCount": 1}]}},
        {"metadata": {"labels": {"kinora.dev/modelserver": "vace"}}},
        {"metadata": {"labels": {"a": None}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": ["kinora.dev/x"]}},
    ],
)
async def test_an_agent_changes_nothing_else_of_its_pod(agent: KubeClient, namespace: str, body: Object) -> None:
    with pytest.raises(ApiError) as caught:
        await tell(agent, namespace, "server-0", body)
    assert caught.value.status == 403, caught.value
    assert "an agent may" in caught.value.message


@pytest.mark.usefixtures("other_pod")
async def test_another_pod_is_not_the_agents(agent: KubeClient, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await tell(agent, namespace, "server-1", {"status": {"conditions": [ready()]}})
    assert caught.value.status == 403
    assert "only the pod that its token is bound to" in caught.value.message


async def test_the_kubelet_and_others_are_not_fenced(kube: KubeClient, namespace: str, pod: Object) -> None:
    changed = await tell(kube, namespace, pod["metadata"]["name"], {"status": {"conditions": [ready("Ready")]}})
    assert "Ready" in {condition["type"] for condition in changed["status"]["conditions"]}


# --- the operator's account


@pytest.fixture
async def operator_connection(kube: KubeClient, connection: Connection) -> Connection:
    return as_token(connection, await token(kube, "kinora-system", "kinora-operator"))


@pytest.mark.usefixtures("claims", "charts_lease")
async def test_the_operators_account_can_do_the_operators_work(
    kube: KubeClient, namespace: str, operator_connection: Connection
) -> None:
    """From a ModelServer to a bound job, a retry with its event, and an expired job: as the chart's account."""
    stop, wired = asyncio.Event(), asyncio.Event()
    operators: list[Operator] = []

    def started(operator: Operator) -> None:
        operators.append(operator)
        wired.set()

    settings = Settings(
        "kinora:test",
        "standin:test",
        namespaces=(namespace,),
        http_port=free_port(),
        instance=f"operator-of-{namespace}",
        lease_namespace="kinora-system",  # where the chart lets it have its Lease
        lease_terms=PATIENT,
        live=True,
        live_policy=True,
    )
    task = asyncio.create_task(serve(settings, operator_connection, stop, started))
    try:
        await asyncio.wait_for(wired.wait(), DEADLINE)
        await asyncio.wait_for(operators[0].store.ready.wait(), DEADLINE)
        server = model_server(weights={"claimTemplate": {"storage": "1Gi"}})
        await kube.create(MODELSERVER, namespace, server)
        made = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
        for resource, name in ((SERVICE, "vace"), (SERVICE_ACCOUNT, "kinora-agent"), (ROLE_BINDING, "kinora-agent")):
            assert await kube.find(resource, namespace, name)
        assert await kube.find(NETWORK_POLICY, namespace, SERVER_POLICY)
        await wait_for(kube, SECRET, namespace, LIVE_SECRET, lambda found: found is not None)
        await tell(kube, namespace, made["metadata"]["name"], {"status": {"conditions": [ready()]}})
        await kube.create(VIDEOJOB, namespace, video_job())
        await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
        gone = {"attempt": 1, "reason": "NodeError", "time": "2026-05-01T12:00:00Z"}
        await job_status(kube, namespace, "job", {"phase": "Running", "released": gone, "failures": 1})
        await wait_for(kube, VIDEOJOB, namespace, "job", lambda obj: bool(obj) and obj["status"].get("attempt") == 2)
        await wait_for_event(kube, namespace, "Retry")
        await kube.create(VIDEOJOB, namespace, video_job("expired", model="wan9", ttlSecondsAfterFinished=0))
        await wait_for(kube, VIDEOJOB, namespace, "expired", lambda obj: obj is None)
        await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"replicas": 0}})
        await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"cancel": True}})
        await job_status(kube, namespace, "job", {"phase": "Cancelled"})
        await wait_for_pods(kube, namespace, lambda pods: pods == [])
    finally:
        stop.set()
        await task


async def wait_for_event(kube: KubeClient, namespace: str, reason: str) -> None:
    events, version = await kube.list(EVENT, namespace)
    if any(event["reason"] == reason for event in events):
        return
    async with asyncio.timeout(DEADLINE):
        async for event in kube.stream(EVENT, namespace, resource_version=version):
            if event["object"].get("reason") == reason:
                return


def binding(namespace: str, kind: str, role: str) -> Object:
    body = copy.deepcopy(role_binding(namespace))
    body["metadata"]["name"] = "grab"
    body["roleRef"] |= {"kind": kind, "name": role}
    return body


async def test_the_operators_account_hands_out_the_agents_role_and_no_other(
    namespace: str, operator_connection: Connection
) -> None:
    async with KubeClient(operator_connection) as client:
        for role in ("cluster-admin", "admin", "edit", "kinora-modelserver-edit"):
            await forbidden(client.create(ROLE_BINDING, namespace, binding(namespace, "ClusterRole", role)))
        await client.create(ROLE_BINDING, namespace, role_binding(namespace))
        cluster_wide = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False)
        await forbidden(client.create(cluster_wide, None, binding(namespace, "ClusterRole", "kinora-agent")))


async def test_the_operators_account_reads_no_secrets_and_changes_no_spec(
    kube: KubeClient, namespace: str, operator_connection: Connection
) -> None:
    await kube.create(VIDEOJOB, namespace, video_job())
    async with KubeClient(operator_connection) as client:
        await forbidden(client.list(SECRET, namespace))
        await forbidden(client.list(CONFIGMAP, namespace))
        await forbidden(client.patch(VIDEOJOB, namespace, "job", {"spec": {"cancel": True}}))
        await forbidden(client.create(VIDEOJOB, namespace, video_job("mine")))


# --- the key of listeners


async def test_the_operator_makes_the_key_of_listeners_and_no_other_secret(
    kube: KubeClient, agent: KubeClient, namespace: str, operator_connection: Connection, connection: Connection
) -> None:
    key = secret_body(namespace, b"k" * 32, name=LIVE_SECRET, kind=LIVE_SECRET_TYPE)
    async with KubeClient(operator_connection) as client:
        for name, kind in (("kinora-store", LIVE_SECRET_TYPE), (LIVE_SECRET, "Opaque"), ("mine", "Opaque")):
            await forbidden(client.create(SECRET, namespace, secret_body(namespace, b"k" * 32, name=name, kind=kind)))
        account = secret_body(namespace, b"k" * 32, name=LIVE_SECRET, kind="kubernetes.io/service-account-token")
        account["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "kinora-agent"}
        await forbidden(client.create(SECRET, namespace, account))
        await client.create(SECRET, namespace, key)
        await forbidden(client.get(SECRET, namespace, LIVE_SECRET))
    assert (await agent.get(SECRET, namespace, LIVE_SECRET))["type"] == LIVE_SECRET_TYPE
    for attempt in (
        agent.list(SECRET, namespace),
        agent.get(SECRET, namespace, "kinora-store"),
        agent.create(SECRET, namespace, secret_body(namespace, b"k" * 32, name="mine", kind="Opaque")),
        agent.patch(SECRET, namespace, LIVE_SECRET, {"data": {}}),
        agent.delete(SECRET, namespace, LIVE_SECRET),
    ):
        await forbidden(attempt)
    async with KubeClient(as_token(connection, await token(kube, "kinora-system", "kinora-gateway"))) as gateway:
        await gateway.get(SECRET, namespace, LIVE_SECRET)
        await gateway.get(POD, namespace, "server-0")
        for attempt in (gateway.list(POD, namespace), gateway.delete(POD, namespace, "server-0")):
            await forbidden(attempt)


async def test_an_agent_of_one_namespace_reads_no_key_of_another(
    kube: KubeClient, agent: KubeClient, namespace: str
) -> None:
    other = f"{namespace}-other"
    await kube.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    try:
        await kube.create(SECRET, other, secret_body(other, b"k" * 32, name=LIVE_SECRET, kind=LIVE_SECRET_TYPE))
        await forbidden(agent.get(SECRET, other, LIVE_SECRET))
    finally:
        await kube.delete(NAMESPACE, None, other)
