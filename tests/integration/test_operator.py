"""The operator against a real API server: what it makes of the two resources. Agents are played by the test."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kinora.api.names import CONDITION_ENGINE_READY
from kinora.kube.client import STRATEGIC, KubeClient
from kinora.kube.resources import CLAIM, EVENT, MODELSERVER, POD, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT, VIDEOJOB
from waiting import DEADLINE, job_status, model_server, phase, video_job, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]


async def make_ready(
    kube: KubeClient, namespace: str, pod: Object, status: str = "True", reason: str = "EngineReady"
) -> None:
    """What an agent does when its engine is ready."""
    condition = {
        "type": CONDITION_ENGINE_READY,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    body = {"status": {"phase": "Running", "conditions": [condition]}}
    await kube.patch(POD, namespace, pod["metadata"]["name"], body, subresource="status", content_type=STRATEGIC)


async def ready_pods(kube: KubeClient, namespace: str, count: int = 1) -> list[Object]:
    pods = await wait_for_pods(kube, namespace, lambda pods: len(pods) == count)
    for pod in pods:
        await make_ready(kube, namespace, pod)
    return pods


async def wait_for_event(kube: KubeClient, namespace: str, reason: str) -> Object:
    """The first event of that reason, followed by a watch."""
    async with asyncio.timeout(DEADLINE):
        events, version = await kube.list(EVENT, namespace)
        for event in events:
            if event["reason"] == reason:
                return event
        async for change in kube.stream(EVENT, namespace, resource_version=version):
            if change["object"].get("reason") == reason:
                return change["object"]
    raise AssertionError("the watch ended")


async def kill(kube: KubeClient, namespace: str, pod: Object) -> None:
    await kube.delete(POD, namespace, pod["metadata"]["name"], grace_seconds=0)


@pytest.mark.usefixtures("operator", "claims")
async def test_a_model_server_becomes_pods_service_account_binding_and_service(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server(replicas=2))
    pods = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 2)
    assert {pod["metadata"]["labels"]["kinora.dev/slot"] for pod in pods} == {"0", "1"}
    assert all(pod["metadata"]["ownerReferences"][0]["kind"] == "ModelServer" for pod in pods)
    for resource, name in ((SERVICE, "vace"), (SERVICE_ACCOUNT, "kinora-agent"), (ROLE_BINDING, "kinora-agent")):
        assert await kube.find(resource, namespace, name), f"{resource.kind} {name} is missing"
    server = await wait_for(
        kube, MODELSERVER, namespace, "vace", lambda obj: bool(obj) and obj["status"].get("replicas") == 2
    )
    assert server["status"]["selector"] == "kinora.dev/modelserver=vace"
    assert "finalizers" not in server["metadata"]
    assert set(server["metadata"].get("annotations", {})) == set()


@pytest.mark.usefixtures("operator", "claims")
async def test_server_pods_pass_the_restricted_pod_security_standard(kube: KubeClient, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    from kinora.kube.resources import NAMESPACE

    await kube.patch(NAMESPACE, None, namespace, {"metadata": {"labels": labels}})
    await kube.create(MODELSERVER, namespace, model_server())
    await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)


@pytest.mark.usefixtures("operator", "claims")
async def test_a_job_is_bound_to_a_ready_pod_with_all_that_was_resolved(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    pod = (await ready_pods(kube, namespace))[0]
    created = await kube.create(VIDEOJOB, namespace, video_job())
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    status = job["status"]
    assert status["assignment"]["podUID"] == pod["metadata"]["uid"]
    assert status["attempt"] == 1
    assert status["resolved"]["frames"] == 9
    assert status["resolved"]["model"] == "wan2.1-vace-1.3b"
    assert 0 <= status["resolved"]["seed"] < 2**53
    assert "lighthouse" not in str(status), "prompts do not go into status"
    writes = int(job["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])
    assert writes
    managers = {entry["manager"] for entry in job["metadata"]["managedFields"] if entry.get("subresource") == "status"}
    assert len(managers) == 1


@pytest.mark.usefixtures("operator", "claims")
async def test_the_highest_priority_goes_first_then_the_oldest(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
    for name, priority in (("old", 0), ("urgent", 10)):
        await kube.create(VIDEOJOB, namespace, video_job(name, priority=priority))
        await wait_for(kube, VIDEOJOB, namespace, name, phase("Queued"))
    await make_ready(kube, namespace, pod)
    await wait_for(kube, VIDEOJOB, namespace, "urgent", phase("Scheduled"))
    assert (await kube.get(VIDEOJOB, namespace, "old"))["status"]["phase"] == "Queued"


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("spec", "reason", "told"),
    [
        ({"model": "wan9"}, "InvalidSpec", ["spec.model", "wan9", "wan2.1-vace-1.3b"]),
        ({"parameters": {"width": 1280, "height": 720}}, "InvalidSpec", ["1280", "720"]),
        ({"parameters": {"frames": 121}}, "InvalidSpec", ["spec.parameters.frames", "121"]),
        (
            {"model": "wan2.1-i2v-14b-480p"},
            "InvalidSpec",
            ["spec.task", "TextToVideo", "ImageToVideo"],
        ),
        ({"webhook": {"url": "https://example.org/hook"}}, "WebhooksDisabled", ["spec.webhook"]),
        ({"queue": "gold"}, "InvalidSpec", ["spec.queue", "gold", "default"]),
    ],
)
async def test_a_wrong_job_fails_at_once_with_field_value_and_what_is_allowed(
    kube: KubeClient, namespace: str, spec: Object, reason: str, told: list[str]
) -> None:
    await kube.create(VIDEOJOB, namespace, video_job(**spec))
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Failed"))
    status = job["status"]
    assert status["reason"] == reason
    for words in told:
        assert words in status["message"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == {
        "Ready": "False",
        "Reconciling": "False",
        "Stalled": "True",
        "Succeeded": "False",
        "Failed": "True",
        "Finished": "True",
    }
    assert "assignment" not in status


@pytest.mark.usefixtures("operator")
async def test_a_job_without_a_server_waits_and_says_so(kube: KubeClient, namespace: str) -> None:
    await kube.create(VIDEOJOB, namespace, video_job())
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    assert job["status"]["reason"] == "NoModelServer"
    assert "wan2.1-vace-1.3b" in job["status"]["message"]


@pytest.mark.usefixtures("operator")
async def test_a_server_whose_claim_is_missing_says_so_and_recovers_when_it_comes(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server())

    def not_ready(obj: Object | None) -> bool:
        return bool(obj) and any(
            condition["type"] == "Ready" and condition["reason"] == "ClaimMissing" and "weights" in condition["message"]
            for condition in obj["status"]["conditions"]
        )

    await wait_for(kube, MODELSERVER, namespace, "vace", not_ready)
    for name in ("weights", "artifacts"):
        claim = {
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        await kube.create(CLAIM, namespace, claim)
    await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)


@pytest.mark.usefixtures("operator", "claims")
@pytest.mark.parametrize(
    ("spec", "reason", "told"),
    [
        ({"model": "wan9"}, "UnknownModel", "wan9"),
        ({"warmup": True}, "NotImplemented", "spec.warmup"),
    ],
)
async def test_a_model_server_is_refused_with_the_field(
    kube: KubeClient, namespace: str, spec: Object, reason: str, told: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server(**spec))

    def stalled(obj: Object | None) -> bool:
        return bool(obj) and any(
            condition["type"] == "Stalled" and condition["status"] == "True" and condition["reason"] == reason
            for condition in obj["status"]["conditions"]
        )

    server = await wait_for(kube, MODELSERVER, namespace, "vace", stalled)
    assert told in str(server["status"]["conditions"])


@pytest.mark.usefixtures("operator", "claims")
async def test_a_job_whose_pod_is_killed_goes_to_the_next_pod_and_is_charged_no_retry(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    first = (await ready_pods(kube, namespace))[0]
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    await job_status(kube, namespace, "job", {"phase": "Running"})
    await kill(kube, namespace, first)
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    second = await wait_for_pods(
        kube, namespace, lambda pods: len(pods) == 1 and pods[0]["metadata"]["uid"] != first["metadata"]["uid"]
    )
    await make_ready(kube, namespace, second[0])
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    assert job["status"]["attempt"] == 2
    assert job["status"]["disruptions"] == 1
    assert job["status"].get("failures", 0) == 0
    await wait_for_event(kube, namespace, "Disrupted")


@pytest.mark.usefixtures("operator", "claims")
async def test_a_failed_attempt_is_retried_until_the_backoff_limit(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job(backoffLimit=1))
    for attempt in (1, 2):
        await wait_for(
            kube,
            VIDEOJOB,
            namespace,
            "job",
            lambda obj, attempt=attempt: phase("Scheduled")(obj) and obj["status"]["attempt"] == attempt,
        )
        failure = {"reason": "NodeError", "message": "KSampler: out of luck", "attempt": attempt}
        released = {"attempt": attempt, "reason": "NodeError", "time": "2026-01-01T00:00:00Z"}
        await job_status(
            kube,
            namespace,
            "job",
            {"phase": "Running", "released": released, "failures": attempt, "lastFailure": failure},
        )
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Failed"))
    assert job["status"]["reason"] == "BackoffLimitExceeded"
    assert "KSampler: out of luck" in job["status"]["message"]


@pytest.mark.usefixtures("operator", "claims")
async def test_cancel_and_suspend_work_before_a_job_is_bound(kube: KubeClient, namespace: str) -> None:
    await kube.create(VIDEOJOB, namespace, video_job("waiting", suspend=True))
    job = await wait_for(kube, VIDEOJOB, namespace, "waiting", phase("Queued"))
    assert job["status"]["reason"] == "Suspended"
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.patch(VIDEOJOB, namespace, "waiting", {"spec": {"cancel": True}})
    job = await wait_for(kube, VIDEOJOB, namespace, "waiting", phase("Cancelled"))
    assert "attempt" not in job["status"]


@pytest.mark.usefixtures("operator", "claims")
async def test_a_scheduled_job_that_is_suspended_is_taken_back_and_goes_on_when_resumed(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"suspend": True}})
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    assert job["status"].get("disruptions", 0) == 0
    await kube.patch(VIDEOJOB, namespace, "job", {"spec": {"suspend": False}})
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    assert job["status"]["attempt"] == 2


@pytest.mark.usefixtures("operator")
async def test_a_start_deadline_fails_a_job_that_nobody_starts(kube: KubeClient, namespace: str) -> None:
    await kube.create(VIDEOJOB, namespace, video_job(startDeadlineSeconds=1))
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Failed"))
    assert job["status"]["reason"] == "StartDeadlineExceeded"


@pytest.mark.usefixtures("operator", "claims")
async def test_a_finished_job_is_deleted_when_its_time_to_live_is_over(kube: KubeClient, namespace: str) -> None:
    await kube.create(VIDEOJOB, namespace, video_job(model="wan9", ttlSecondsAfterFinished=1))
    await wait_for(kube, VIDEOJOB, namespace, "job", lambda obj: obj is None)


async def test_a_finished_job_outlives_its_ttl_until_its_webhook_is_settled(
    kube: KubeClient, namespace: str, start_operator: Callable[..., Awaitable[Any]]
) -> None:
    await start_operator(webhooks=True, resync_seconds=0.3)
    more = {"model": "wan9", "ttlSecondsAfterFinished": 0}
    await kube.create(VIDEOJOB, namespace, video_job("told", webhook={"url": "https://x.example/"}, **more))
    await wait_for(kube, VIDEOJOB, namespace, "told", phase("Failed"))
    await kube.create(VIDEOJOB, namespace, video_job("plain", **more))
    await wait_for(kube, VIDEOJOB, namespace, "plain", lambda obj: obj is None)
    kept = await kube.get(VIDEOJOB, namespace, "told")
    assert kept["status"]["reason"] == "InvalidSpec"
    await job_status(kube, namespace, "told", {"webhook": {"state": "Delivered"}})
    await wait_for(kube, VIDEOJOB, namespace, "told", lambda obj: obj is None)


@pytest.mark.usefixtures("claims")
async def test_a_restarted_operator_writes_nothing_that_is_already_true(
    kube: KubeClient, namespace: str, start_operator: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
) -> None:
    stop = await start_operator()
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job())
    await kube.create(VIDEOJOB, namespace, video_job("second"))
    bound = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    waiting = await wait_for(kube, VIDEOJOB, namespace, "second", phase("Queued"))

    def settled(obj: Object | None) -> bool:
        return bool(obj) and obj["status"].get("busyReplicas") == 1 and obj["status"].get("backlog") == 1

    server = await wait_for(kube, MODELSERVER, namespace, "vace", settled)
    await stop()
    await start_operator()
    # A third job makes the new operator's first writes visible: what it had to say about the others is then said.
    await kube.create(VIDEOJOB, namespace, video_job("third", model="wan9"))
    await wait_for(kube, VIDEOJOB, namespace, "third", phase("Failed"))
    for resource, before in ((VIDEOJOB, bound), (VIDEOJOB, waiting), (MODELSERVER, server)):
        after = await kube.get(resource, namespace, before["metadata"]["name"])
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], after["status"]


@pytest.mark.usefixtures("operator", "claims")
async def test_scale_down_lets_a_busy_pod_finish_and_update_replaces_idle_pods(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server(replicas=2))
    await ready_pods(kube, namespace, 2)
    await kube.create(VIDEOJOB, namespace, video_job())
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    busy = job["status"]["assignment"]["podUID"]
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"replicas": 0}})
    pods = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    assert pods[0]["metadata"]["uid"] == busy
    assert "deletionTimestamp" not in pods[0]["metadata"]
    artifact = {"uri": "pvc://a/b", "contentType": "video/mp4", "bytes": 1, "sha256": "0" * 64}
    await job_status(kube, namespace, "job", {"phase": "Succeeded", "artifacts": [artifact]})
    await wait_for_pods(kube, namespace, lambda pods: pods == [])


@pytest.mark.usefixtures("operator", "claims")
async def test_an_end_that_an_agent_wrote_becomes_an_event_once(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    await job_status(kube, namespace, "job", {"phase": "Failed", "reason": "GraphRefused", "message": "no such node"})
    event = await wait_for_event(kube, namespace, "GraphRefused")
    assert (event["type"], event["note"], event["regarding"]["name"]) == ("Warning", "no such node", "job")
