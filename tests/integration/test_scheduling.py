"""Scheduling on a real API server: queues, binding ahead, pre-emption, scaling, pools. The test plays the agents."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from integration.test_operator import make_ready, ready_pods, wait_for_event
from kinora.controller.queues import read_queues
from kinora.kube.client import STRATEGIC, KubeClient
from kinora.kube.resources import CONFIGMAP, MODELSERVER, POD, VIDEOJOB
from waiting import job_status, model_server, phase, video_job, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
Start = Callable[..., Awaitable[Any]]
QUEUES = [
    {"name": "small", "maxRunning": 1, "maxPriority": 5},
    {"name": "urgent", "preempts": True},
    {"name": "batch", "preemptible": True},
    {"name": "theirs", "namespaces": ["elsewhere"]},
]


LARGE = {"width": 832, "height": 480, "frames": 81, "steps": 30}


async def bound_to(kube: KubeClient, namespace: str, name: str) -> str:
    job = await wait_for(kube, VIDEOJOB, namespace, name, phase("Scheduled"))
    return str(job["status"]["assignment"]["podName"])


async def run(kube: KubeClient, namespace: str, name: str, percent: int = 0) -> None:
    """What its agent writes when the engine starts, and a while later."""
    job = await kube.get(VIDEOJOB, namespace, name)
    told = {"phase": "Running", "progress": {"percent": percent, "stage": "Sample"}}
    await job_status(kube, namespace, name, {"assignment": job["status"]["assignment"], **told})


@pytest.mark.usefixtures("claims")
async def test_declared_queues_are_held_to_what_they_declare(
    kube: KubeClient, namespace: str, start_operator: Start
) -> None:
    await start_operator(queues=read_queues(json.dumps(QUEUES)))
    for name, spec, told in (
        ("gold", {"queue": "gold"}, "spec.queue is gold; allowed: batch, default, small, urgent"),
        ("theirs", {"queue": "theirs"}, "spec.queue is theirs"),
        ("high", {"queue": "small", "priority": 6}, "spec.priority is 6; allowed: at most 5 in queue small"),
    ):
        await kube.create(VIDEOJOB, namespace, video_job(name, **spec))
        job = await wait_for(kube, VIDEOJOB, namespace, name, phase("Failed"))
        assert told in job["status"]["message"]
    await kube.create(MODELSERVER, namespace, model_server(replicas=2))
    await ready_pods(kube, namespace, 2)
    await kube.create(VIDEOJOB, namespace, video_job("first", queue="small"))
    pods = {await bound_to(kube, namespace, "first")}  # two of one second would be taken in the order of their UIDs
    for name, queue in (("second", "small"), ("other", "default")):
        await kube.create(VIDEOJOB, namespace, video_job(name, queue=queue))
    pods.add(await bound_to(kube, namespace, "other"))
    assert len(pods) == 2
    second = await wait_for(kube, VIDEOJOB, namespace, "second", phase("Queued"))
    assert "assignment" not in second["status"]


@pytest.mark.usefixtures("operator", "claims")
async def test_the_next_job_is_bound_ahead_to_a_nearly_idle_pod_and_taken_back_for_an_idle_one(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, model_server(replicas=2))
    busy, idle = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 2)
    await make_ready(kube, namespace, busy)
    await kube.create(VIDEOJOB, namespace, video_job("first"))
    assert await bound_to(kube, namespace, "first") == busy["metadata"]["name"]
    await kube.create(VIDEOJOB, namespace, video_job("next"))
    await wait_for(kube, VIDEOJOB, namespace, "next", phase("Queued"))
    await run(kube, namespace, "first")
    # What is left of it by the prediction is under 30 s, and worth a move when another pod is idle.
    assert await bound_to(kube, namespace, "next") == busy["metadata"]["name"]
    await make_ready(kube, namespace, idle)

    def moved(job: Object | None) -> bool:
        assignment = ((job or {}).get("status") or {}).get("assignment") or {}
        return assignment.get("podName") == idle["metadata"]["name"]

    job = await wait_for(kube, VIDEOJOB, namespace, "next", moved)
    assert job["status"]["attempt"] == 2
    assert job["status"].get("disruptions", 0) == job["status"].get("failures", 0) == 0


@pytest.mark.usefixtures("claims")
async def test_a_queue_that_preempts_stops_a_running_job_of_one_that_allows_it(
    kube: KubeClient, namespace: str, start_operator: Start
) -> None:
    await start_operator(queues=read_queues(json.dumps(QUEUES)))
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job("long", queue="batch", priority=-10, parameters=LARGE))
    await bound_to(kube, namespace, "long")
    await run(kube, namespace, "long")
    await kube.create(VIDEOJOB, namespace, video_job("now", queue="urgent", priority=10))

    def asked(job: Object | None) -> bool:
        return bool((((job or {}).get("status") or {}).get("assignment") or {}).get("preemptTime"))

    job = await wait_for(kube, VIDEOJOB, namespace, "long", asked)
    assert job["status"]["phase"] == "Running", "it is its agent that stops it"
    gave_up = {"attempt": 1, "reason": "Preempted", "time": "2026-01-01T00:00:00Z"}
    await job_status(kube, namespace, "long", {"released": gave_up, "assignment": job["status"]["assignment"]})
    job = await wait_for(kube, VIDEOJOB, namespace, "long", phase("Queued"))
    assert job["status"]["reason"] == "Preempted"
    assert job["status"].get("disruptions", 0) == 0
    await bound_to(kube, namespace, "now")


def replicas(count: int) -> Callable[[Object | None], bool]:
    return lambda obj: bool(obj) and (obj["status"].get("replicas") == count)


@pytest.mark.usefixtures("claims")
async def test_a_server_scales_from_zero_to_its_backlog_and_back_when_idle(
    kube: KubeClient, namespace: str, start_operator: Start
) -> None:
    stop = await start_operator()
    scaling = {"minReplicas": 0, "maxReplicas": 3, "targetQueueSeconds": 60, "idleSeconds": 1}
    await kube.create(MODELSERVER, namespace, model_server(autoscaling=scaling))
    server = await wait_for(kube, MODELSERVER, namespace, "vace", replicas(0))
    conditions = {one["type"]: one for one in server["status"]["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "ScaledToZero")
    assert conditions["Autoscaling"]["status"] == "True"
    await stop()  # so that it finds six jobs at once: of those that come one by one it would decide one by one
    for number in range(6):
        await kube.create(VIDEOJOB, namespace, video_job(f"job-{number}"))
    await start_operator()
    pods = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 3)
    server = await wait_for(kube, MODELSERVER, namespace, "vace", replicas(3))
    assert len(server["status"]["lastScale"]) == 1, server["status"]
    (decision,) = server["status"]["lastScale"]
    assert (decision["fromReplicas"], decision["toReplicas"]) == (0, 3)
    assert "maxReplicas is 3" in decision["reason"]
    assert server["status"]["backlogSeconds"] > 0
    event = await wait_for_event(kube, namespace, "Scaled")
    assert "0 -> 3" in event["note"]
    for pod in pods:
        await make_ready(kube, namespace, pod)
    for number in range(6):
        await kube.patch(VIDEOJOB, namespace, f"job-{number}", {"spec": {"cancel": True}})
    for number in range(6):
        job = await kube.get(VIDEOJOB, namespace, f"job-{number}")
        if (job["status"].get("assignment") or {}).get("podName"):
            await job_status(kube, namespace, f"job-{number}", {"phase": "Cancelled", "reason": "Cancelled"})
        await wait_for(kube, VIDEOJOB, namespace, f"job-{number}", phase("Cancelled"))
    # Nothing ends a pod's grace on this control plane: marked for deletion is all that can be seen.
    await wait_for_pods(kube, namespace, lambda pods: all("deletionTimestamp" in pod["metadata"] for pod in pods))


@pytest.mark.usefixtures("operator", "claims")
async def test_an_autoscaler_from_outside_scales_by_the_scale_subresource(kube: KubeClient, namespace: str) -> None:
    """What an HPA or KEDA does: reads the selector and the replicas, writes the replicas."""
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await wait_for(kube, MODELSERVER, namespace, "vace", replicas(1))
    path = MODELSERVER.path(namespace, "vace", "scale")
    assert path.endswith("/modelservers/vace/scale")
    scale = await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"replicas": 2}}, subresource="scale")
    assert scale["kind"] == "Scale"
    assert scale["status"] == {"replicas": 1, "selector": "kinora.dev/modelserver=vace"}
    pods = await ready_pods(kube, namespace, 2)
    server = await wait_for(kube, MODELSERVER, namespace, "vace", replicas(2))
    assert server["status"].get("lastScale") is None, "it is not the operator's decision"
    await kube.create(VIDEOJOB, namespace, video_job())
    busy = await bound_to(kube, namespace, "job")
    await run(kube, namespace, "job")
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"replicas": 0}}, subresource="scale")

    def idle_goes(found: list[Object]) -> bool:
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]] == [busy]

    await wait_for_pods(kube, namespace, idle_goes)
    assert len(pods) == 2


@pytest.mark.usefixtures("operator", "claims")
async def test_a_busy_pod_outlives_every_scale_down(kube: KubeClient, namespace: str) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 1, "targetQueueSeconds": 60, "idleSeconds": 1}
    await kube.create(MODELSERVER, namespace, model_server(autoscaling=scaling))
    await kube.create(VIDEOJOB, namespace, video_job())
    (pod,) = await ready_pods(kube, namespace)
    await bound_to(kube, namespace, "job")
    await run(kube, namespace, "job")
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"autoscaling": {**scaling, "minReplicas": 0}}})
    server = await wait_for(
        kube, MODELSERVER, namespace, "vace", lambda obj: bool(obj) and obj["status"].get("busyReplicas") == 1
    )
    assert server["status"]["replicas"] == 1
    assert "deletionTimestamp" not in (await kube.get(POD, namespace, pod["metadata"]["name"]))["metadata"]


@pytest.mark.usefixtures("operator", "claims")
async def test_a_pool_that_finds_no_node_rests_and_the_next_one_is_used(kube: KubeClient, namespace: str) -> None:
    gpu = {"count": 0, "fallbackAfterSeconds": 5, "pools": [{"name": "scarce"}, {"name": "plenty"}]}
    await kube.create(MODELSERVER, namespace, model_server(gpu=gpu))
    (pod,) = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    assert pod["metadata"]["labels"]["kinora.dev/pool"] == "scarce"
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    body = {"status": {"conditions": [condition]}}
    await kube.patch(POD, namespace, pod["metadata"]["name"], body, subresource="status", content_type=STRATEGIC)

    def in_plenty(pods: list[Object]) -> bool:
        return any(pod["metadata"]["labels"]["kinora.dev/pool"] == "plenty" for pod in pods)

    await wait_for_pods(kube, namespace, in_plenty, deadline=60)

    def rests(server: Object | None) -> bool:
        pools = ((server or {}).get("status") or {}).get("pools") or []
        return [bool(pool.get("backoffUntilTime")) for pool in pools if pool["name"] == "scarce"] == [True]

    server = await wait_for(kube, MODELSERVER, namespace, "vace", rests)  # the pod comes first, then the status
    scarce = next(pool for pool in server["status"]["pools"] if pool["name"] == "scarce")
    assert scarce["message"] == words
    await wait_for_event(kube, namespace, "PoolRefused")


@pytest.mark.usefixtures("claims")
async def test_what_queues_used_is_kept_over_a_restart(kube: KubeClient, namespace: str, start_operator: Start) -> None:
    stop = await start_operator(ledger=f"{namespace}/usage")
    await kube.create(MODELSERVER, namespace, model_server())
    await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job())
    await bound_to(kube, namespace, "job")
    await stop()
    kept = json.loads((await kube.get(CONFIGMAP, namespace, "usage"))["data"]["usage.json"])
    ((gpu, video),) = kept["default"].values()
    assert gpu > 0
    assert video == pytest.approx(9 / 16, abs=0.01)
    stop = await start_operator(ledger=f"{namespace}/usage")
    await stop()
    again = json.loads((await kube.get(CONFIGMAP, namespace, "usage"))["data"]["usage.json"])
    assert again == kept
