"""The operator's bookkeeping between events and decisions. What it does to a cluster is tests/integration's."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.api.names import CONDITION_ENGINE_READY, LABEL_MODEL_SERVER, LABEL_POOL
from kinora.controller.afterwards import OBSERVED_LIMIT
from kinora.controller.operator import Key, Operator
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import POD
from unit.controller.builders import SETTINGS, VACE, ago, catalogue, job, server


@pytest.fixture
async def operator() -> Operator:
    nowhere = Connection("http://127.0.0.1:1", None, lambda: None, "films")
    return Operator(KubeClient(nowhere), catalogue(), SETTINGS)


def finished(operator: Operator, phase: str = "Failed") -> float:
    labels = {"phase": phase, "model": VACE}
    return operator.metrics.registry.get_sample_value("kinora_videojobs_finished_total", labels) or 0.0


async def test_a_finished_job_is_counted_once_however_often_it_is_told(operator: Operator) -> None:
    """The answer of the operator's own write, and then the watch: a finished job leaves its selection."""
    ended = job({"phase": "Failed", "completionTime": ago(1)})
    for _ in range(3):
        operator.afterwards.observe(ended)
    assert finished(operator) == 1


async def test_what_was_counted_is_remembered_within_a_bound(operator: Operator) -> None:
    for number in range(OBSERVED_LIMIT + 10):
        ended = job({"phase": "Failed", "completionTime": ago(1)})
        ended["metadata"]["uid"] = f"uid-{number}"
        ended["spec"]["model"] = "wan9"
        operator.afterwards.observe(ended)
    assert len(operator.afterwards.observed) == OBSERVED_LIMIT


async def test_a_finished_job_leaves_the_store_and_an_echo_does_not_bring_it_back(operator: Operator) -> None:
    running = job({"phase": "Queued"})
    operator.deliver("job", "ADDED", running)
    ended = job({"phase": "Failed"})
    ended["metadata"]["resourceVersion"] = "9"
    operator.deliver("job", "MODIFIED", ended)
    operator.deliver("job", "MODIFIED", running)
    assert operator.store.jobs.entries == {}
    assert operator.store.waiting == {}


async def test_an_end_that_is_seen_is_counted_without_reading_the_job_again(operator: Operator) -> None:
    """There is no API server at that address: a read would fail."""
    operator.deliver("job", "ADDED", job({"phase": "Running"}))
    ended = job({"phase": "Succeeded", "completionTime": ago(1)})
    ended["metadata"]["resourceVersion"] = "9"
    operator.deliver_end(ended)
    assert operator.store.jobs.entries == {}
    await operator.afterwards.look("films/cat")
    assert finished(operator, "Succeeded") == 1
    assert operator.afterwards.ends == {}


async def test_a_standby_keeps_no_ends(operator: Operator) -> None:
    operator.stand_by()
    operator.deliver_end(job({"phase": "Succeeded", "completionTime": ago(1)}))
    assert operator.afterwards.ends == {}


async def test_a_job_that_left_is_read_unless_its_end_was_seen(operator: Operator) -> None:
    ended = job({"phase": "Succeeded", "completionTime": ago(1)})
    operator.afterwards.observe(ended)
    operator.deliver("job", "DELETED", ended)
    assert len(operator._queue) == 0
    unseen = job({"phase": "Running"})
    unseen["metadata"]["uid"] = "another"
    operator.deliver("job", "DELETED", unseen)
    assert len(operator._queue) == 1


async def test_a_job_deleted_before_its_end_stays_charged_and_is_kept_in_mind_no_longer(operator: Operator) -> None:
    """Seen here by the end of another job, which has its name by now."""
    bound = job({"phase": "Scheduled"})
    operator.usage.bound(bound, 300.0, 0.0)
    operator.deliver("job", "DELETED", bound)
    after = job({"phase": "Succeeded", "completionTime": ago(1)})
    after["metadata"]["uid"] = "another"
    operator.deliver_end(after)
    await operator.afterwards.look("films/cat")
    assert operator.usage._charged == {}
    (hours,) = operator._gatherer.ledger.hours.values()
    assert [bucket.gpu_seconds for bucket in hours.values()] == [300.0]


async def due(operator: Operator) -> list[Key]:
    """All that is due, in the order in which workers get it."""
    keys: list[Key] = []
    while len(operator._queue):
        keys.append(await operator._queue.get())
        operator._queue.done(keys[-1])
    return keys


async def test_a_long_queue_of_new_jobs_holds_up_neither_binds_nor_ended_jobs(operator: Operator) -> None:
    """A job that ended is kept until it is looked at: behind ten thousand writes that would be thousands of them."""
    for number in range(1000):
        operator._queue.add(("job", f"films/new-{number}"))
    operator._queue.add(("bind", "films"))
    ended = job({"phase": "Succeeded", "completionTime": ago(1)})
    ended["metadata"]["managedFields"] = [{"manager": "kinora-agent"}]
    operator.deliver_end(ended)
    assert (await due(operator))[:3] == [("bind", "films"), ("finished", "films/cat"), ("job", "films/new-0")]
    assert "managedFields" not in operator.afterwards.ends["films/cat"]["metadata"]


async def test_what_is_staged_on_pods_that_get_no_job_any_more_is_looked_at_at_once(operator: Operator) -> None:
    """However late their ModelServer is looked at: the bind pass that its pods asked for may be long over."""
    going = server()
    pod = {"metadata": {"namespace": "films", "name": "vace-0-1", "uid": "p1", "labels": {LABEL_MODEL_SERVER: "vace"}}}
    operator.deliver("server", "ADDED", going)
    operator.deliver("pod", "ADDED", {**pod, "spec": {}, "status": {}})
    going = {**going, "metadata": {**going["metadata"], "deletionTimestamp": ago(0), "resourceVersion": "9"}}
    operator.deliver("server", "MODIFIED", going)
    await due(operator)
    await operator._handle("server", "films/vace")
    assert ("bind", "films") in await due(operator)
    await operator._handle("server", "films/vace")
    assert ("bind", "films") not in await due(operator)


def serving(*, at: float, reason: str = "", ready: bool = True) -> dict[str, object]:
    """A pod of 100 s ago whose engine condition changed `at` seconds ago."""
    labels = {LABEL_MODEL_SERVER: "vace"}
    condition = {"type": CONDITION_ENGINE_READY, "status": str(ready), "reason": reason, "lastTransitionTime": ago(at)}
    metadata = {"namespace": "films", "name": "vace-0-1", "uid": "p1", "labels": labels, "creationTimestamp": ago(100)}
    return {"metadata": {**metadata, "resourceVersion": str(int(1000 - at))}, "spec": {},
            "status": {"conditions": [condition]}}  # fmt: skip


def starts(operator: Operator) -> tuple[float | None, float | None]:
    """How many starts were measured, and their seconds in all."""
    labels = {"model": VACE, "pool": "", "stage": "Total"}
    sample = operator.metrics.registry.get_sample_value
    return sample("kinora_cold_start_seconds_count", labels), sample("kinora_cold_start_seconds_sum", labels)


async def test_a_pod_that_serves_before_its_model_server_is_looked_at_tells_of_its_start(operator: Operator) -> None:
    operator.deliver("server", "ADDED", server())
    operator.deliver("pod", "ADDED", {**serving(at=99), "status": {}})
    operator.deliver("pod", "MODIFIED", serving(at=10))
    assert starts(operator) == (1, 90)


async def test_an_engine_that_was_started_again_is_no_new_start_of_its_pod(operator: Operator) -> None:
    operator.deliver("server", "ADDED", server())
    for pod in (
        serving(at=80, reason="Starting", ready=False),
        serving(at=60),
        serving(at=40, ready=False),
        serving(at=5),
    ):
        operator.deliver("pod", "MODIFIED", pod)
    assert starts(operator) == (1, 40)


async def test_a_pod_that_an_operator_finds_with_its_engine_down_tells_of_no_start(operator: Operator) -> None:
    operator.deliver("server", "ADDED", server())
    operator.deliver("pod", "ADDED", serving(at=40, reason="EngineDown", ready=False))
    operator.deliver("pod", "MODIFIED", serving(at=5))
    assert starts(operator) == (None, None)


async def test_a_spot_pod_that_comes_and_goes_between_two_looks_at_its_model_server_is_remembered(
    operator: Operator,
) -> None:
    """Two looks may be seconds apart; and that somebody deleted it is seen in its last state only."""
    owner = server(gpu={"pools": [{"name": "cheap", "capacity": "Spot"}]})
    operator.deliver("server", "ADDED", owner)
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(60)}
    for uid, last in (("lost", {}), ("deleted", {"deletionTimestamp": ago(0)})):
        labels = {LABEL_MODEL_SERVER: "vace", LABEL_POOL: "cheap"}
        metadata = {"namespace": "films", "name": uid, "uid": uid, "labels": labels, "creationTimestamp": ago(70)}
        states = ({}, {"nodeName": "n1"}, {"nodeName": "n1"})
        for version, spec in enumerate(states, start=1):
            told = {**metadata, "resourceVersion": str(version), **(last if version == len(states) else {})}
            status = {"phase": "Running", "conditions": [placed] if spec else []}
            operator.deliver("pod", "MODIFIED", {"metadata": told, "spec": spec, "status": status})
        operator.deliver("pod", "DELETED", {"metadata": {**metadata, "resourceVersion": "9"}, "spec": {}})
    operator._planner.plan(owner, {}, made=True)
    lives = operator._gatherer.spots.lives.ended["films/vace/cheap"]
    assert [life.lost for life in lives] == [True, False]


async def test_pods_that_were_made_count_at_once_however_late_the_watch_tells_of_them(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three that it had made it found one by the watch, and decided anew: 0 -> 3, 3 -> 1, 1 -> 3."""
    written: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []

    async def create(resource: object, _namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = {**body, "metadata": {**body["metadata"], "uid": body["metadata"]["name"], "resourceVersion": "20"}}
        if resource == POD:
            made.append(answer)
        return answer

    async def patch(_resource: object, obj: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        written.append(status)
        version = str(int(obj["metadata"]["resourceVersion"]) + 1)
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}, "status": status}

    monkeypatch.setattr(operator._client, "create", create)
    monkeypatch.setattr(operator._executor, "patch_status", patch)
    operator.store.claims.apply({"metadata": {"namespace": "films", "name": "weights", "uid": "w"}})
    operator.store.claims.apply({"metadata": {"namespace": "films", "name": "videos", "uid": "a"}})
    scaling = {"minReplicas": 0, "maxReplicas": 3, "targetQueueSeconds": 60, "idleSeconds": 60}
    operator.deliver("server", "ADDED", server(autoscaling=scaling))
    for number in range(6):
        waiting = job({"phase": "Queued"}, name=f"cat-{number}")
        waiting["metadata"]["uid"] = f"uid-{number}"
        operator.deliver("job", "ADDED", waiting)
    await operator._handle("server", "films/vace")
    operator.deliver("pod", "ADDED", made[-1])
    await operator._handle("server", "films/vace")
    told = [(one["fromReplicas"], one["toReplicas"]) for one in written[-1]["lastScale"]]
    assert told == [(0, 3)]
    assert len(operator.store.pods.entries) == 3
