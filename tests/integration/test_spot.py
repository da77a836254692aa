"""Spot capacity and prices on a real API server: staged jobs leave a pod that goes, lives are learnt, cost is kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from integration.test_operator import make_ready, ready_pods
from integration.test_pools import condition, tell
from kinora.kube.client import KubeClient
from kinora.kube.resources import CONFIGMAP, MODELSERVER, POD, VIDEOJOB
from waiting import job_status, model_server, phase, video_job, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]
Start = Callable[..., Awaitable[Callable[[], Awaitable[None]]]]
NODE = "a-node-that-nobody-watches"
STARTED, SEEN = "2026-05-01T12:00:00.000Z", "2026-05-01T12:01:40.000Z"  # 100 s


def spot(replicas: int = 1, **pool: Any) -> Object:
    pools = [{"name": "cheap", "capacity": "Spot", **pool}]
    return model_server(replicas=replicas, gpu={"count": 0, "pools": pools})


async def place(kube: KubeClient, namespace: str, pod: Object) -> None:
    """What a scheduler does."""
    name = pod["metadata"]["name"]
    target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    await kube._call("POST", "create", POD, POD.path(namespace, name, "binding"), body=body)


async def run_on(kube: KubeClient, namespace: str, name: str) -> Object:
    """What its agent writes when the engine starts."""
    await wait_for(kube, VIDEOJOB, namespace, name, phase("Scheduled"))
    progress = {"percent": 40, "stage": "Sample", "lastUpdateTime": SEEN}
    return await job_status(kube, namespace, name, {"phase": "Running", "startTime": STARTED, "progress": progress})


def is_looked_at(server: Object) -> Callable[[Object | None], bool]:
    """The operator has seen this generation."""
    generation = server["metadata"]["generation"]
    return lambda found: ((found or {}).get("status") or {}).get("observedGeneration") == generation


def noticed() -> Object:
    """A notice of now: the controller manager takes back one that no deletion has followed for two minutes."""
    return {"conditions": [condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "the market has changed")]}


@pytest.mark.usefixtures("operator", "claims")
async def test_a_staged_job_leaves_a_noticed_pod_at_once_and_what_renders_goes_on(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, spot())
    [pod] = await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job("first"))
    await run_on(kube, namespace, "first")
    await kube.create(VIDEOJOB, namespace, video_job("next"))  # ahead: the first one is predicted to end soon
    await wait_for(kube, VIDEOJOB, namespace, "next", phase("Scheduled"))
    await tell(kube, namespace, pod, noticed())
    job = await wait_for(kube, VIDEOJOB, namespace, "next", phase("Queued"))
    assert job["status"]["reason"] == "TakenBack"
    assert "DisruptionTarget: EvictionByEvictionAPI: the market has changed" in job["status"]["message"]
    assert job["status"].get("disruptions", 0) == 0
    assert (await kube.get(VIDEOJOB, namespace, "first"))["status"]["phase"] == "Running"


@pytest.mark.usefixtures("operator", "claims")
async def test_a_job_that_has_not_begun_on_a_noticed_pod_goes_to_another(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, spot(replicas=2))
    one, other = await wait_for_pods(kube, namespace, lambda pods: len(pods) == 2)
    await make_ready(kube, namespace, one)
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    await make_ready(kube, namespace, other)
    await tell(kube, namespace, one, noticed())

    def moved(job: Object | None) -> bool:
        assignment = ((job or {}).get("status") or {}).get("assignment") or {}
        return assignment.get("podUID") == other["metadata"]["uid"]

    job = await wait_for(kube, VIDEOJOB, namespace, "job", moved)
    assert job["status"]["attempt"] == 2
    assert job["status"].get("disruptions", 0) == 0


@pytest.mark.usefixtures("operator", "claims")
async def test_a_lost_attempt_is_in_the_cost_at_the_price_that_stood_at_its_bind(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(MODELSERVER, namespace, spot(pricePerHour=36))
    [pod] = await ready_pods(kube, namespace)
    await kube.create(VIDEOJOB, namespace, video_job())
    job = await run_on(kube, namespace, "job")
    assert job["status"]["assignment"]["pricePerHour"] == 36
    pools = [{"name": "cheap", "capacity": "Spot", "pricePerHour": 72}]
    dearer = await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"gpu": {"pools": pools}}})
    await wait_for(kube, MODELSERVER, namespace, "vace", is_looked_at(dearer))
    await kube.delete(POD, namespace, pod["metadata"]["name"], grace_seconds=0)
    lost = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    told = {name: lost["status"].get(name) for name in ("gpuSeconds", "lostGPUSeconds", "cost", "disruptions")}
    assert told == {"gpuSeconds": 100, "lostGPUSeconds": 100, "cost": 1, "disruptions": 1}
    [again] = await wait_for_pods(
        kube, namespace, lambda pods: [one["metadata"]["uid"] != pod["metadata"]["uid"] for one in pods] == [True]
    )
    await make_ready(kube, namespace, again)
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    assert job["status"]["assignment"]["pricePerHour"] == 72
    assert job["status"]["cost"] == 1, "it is kept while the next attempt runs"


@pytest.mark.usefixtures("claims")
async def test_how_long_spot_pods_live_is_learnt_kept_over_a_restart_and_heeded(
    kube: KubeClient, namespace: str, start_operator: Start
) -> None:
    stop = await start_operator(ledger=f"{namespace}/usage")
    await kube.create(MODELSERVER, namespace, spot())
    gone: set[str] = set()

    def fresh(pods: list[Object]) -> bool:
        return len(pods) == 1 and pods[0]["metadata"]["uid"] not in gone

    for _ in range(3):
        [pod] = await wait_for_pods(kube, namespace, fresh)
        gone.add(pod["metadata"]["uid"])
        await place(kube, namespace, pod)
        await make_ready(kube, namespace, pod)
        await wait_for(kube, MODELSERVER, namespace, "vace", lambda server: server["status"].get("readyReplicas") == 1)  # type: ignore[index]
        await kube.delete(POD, namespace, pod["metadata"]["name"], grace_seconds=0)
    await wait_for_pods(kube, namespace, fresh)
    await wait_for(kube, MODELSERVER, namespace, "vace", lambda server: server["status"].get("readyReplicas") == 0)  # type: ignore[index]
    await stop()
    kept = json.loads((await kube.get(CONFIGMAP, namespace, "usage"))["data"]["spot.json"])
    lives = kept[f"{namespace}/vace/cheap"]
    assert [lost for _, lost, _ in lives] == [1, 1, 1]
    await start_operator(ledger=f"{namespace}/usage")
    [pod] = await wait_for_pods(kube, namespace, fresh)
    await make_ready(kube, namespace, pod)
    minutes = {"width": 832, "height": 480, "frames": 81, "steps": 30}  # longer than any pod lived here
    await kube.create(VIDEOJOB, namespace, video_job(parameters=minutes))
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    assert job["status"]["reason"] == "OnlySpotCapacity"
    assert "pods of spot pool cheap live for" in job["status"]["message"]
    pools = [{"name": "cheap", "capacity": "Spot"}, {"name": "own", "capacity": "Reserved"}]
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"gpu": {"pools": pools}}})

    def firm(pods: list[Object]) -> bool:
        return any(pod["metadata"]["labels"]["kinora.dev/pool"] == "own" for pod in pods)

    pods = await wait_for_pods(kube, namespace, firm)
    own = next(pod for pod in pods if pod["metadata"]["labels"]["kinora.dev/pool"] == "own")
    await make_ready(kube, namespace, own)
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    assert job["status"]["assignment"]["pool"] == "own"
