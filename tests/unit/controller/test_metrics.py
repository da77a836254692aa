"""/metrics as Prometheus reads it: every name of docs/metrics.md, and labels that no user can multiply."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kinora.api.reasons import TERMINAL, Phase
from kinora.api.transitions import rfc3339
from kinora.controller.metrics import Metrics
from kinora.controller.modelserver.snapshot import start_stages
from kinora.controller.store import Store
from unit.controller.builders import VACE, ago, assigned, catalogue, job, server

MODELS = frozenset(catalogue().names)
LABELS = {
    "namespace", "model", "pool", "phase", "result", "cause", "state", "verb", "resource", "status", "kind", "stage",
    "component", "version", "python", "ready", "ahead", "direction", "le",
}  # fmt: skip


@pytest.fixture
async def store() -> Store:
    return Store(lambda: 1000.0, lambda _kind, _name: None)


@pytest.fixture
def metrics(store: Store) -> Metrics:
    return Metrics(store, MODELS)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def put(store: Store, name: str, status: dict[str, Any] | None = None, **spec: Any) -> None:
    made = job(status, name=name, **spec)
    made["metadata"]["uid"] = name
    store.jobs.apply(made)


def test_jobs_by_phase_are_there_before_the_first_job(metrics: Metrics, store: Store) -> None:
    unfinished = {str(phase) for phase in Phase} - {str(phase) for phase in TERMINAL}
    assert {phase: value(metrics, "kinora_videojobs", phase=phase) for phase in unfinished} == dict.fromkeys(
        unfinished, 0.0
    )
    put(store, "a", assigned("Running"))
    put(store, "b", {"phase": "Queued"})
    assert value(metrics, "kinora_videojobs", phase="Running") == 1
    assert value(metrics, "kinora_videojobs", phase="Queued") == 1


def test_queue_depth_is_by_catalogue_model_whatever_users_write(metrics: Metrics, store: Store) -> None:
    store.servers.apply(server())
    put(store, "a")
    put(store, "b", model=None, modelServerName="vace")
    put(store, "held", suspend=True)
    for number in range(20):
        put(store, f"wrong{number}", model=f"model-{number}")
    assert value(metrics, "kinora_queue_depth", namespace="films", model=VACE) == 2
    assert value(metrics, "kinora_queue_depth", namespace="films", model="") == 20


def test_replicas_and_pods_by_state(metrics: Metrics, store: Store) -> None:
    store.servers.apply(server(replicas=3))
    for uid, ready in (("p1", "True"), ("p2", "True"), ("p3", "False")):
        labels = {"kinora.dev/modelserver": "vace", "kinora.dev/pool": "default"}
        metadata = {"namespace": "films", "name": uid, "uid": uid, "resourceVersion": "1", "labels": labels}
        status = {"conditions": [{"type": "kinora.dev/EngineReady", "status": ready}]}
        store.pods.apply({"metadata": metadata, "spec": {}, "status": status})
    put(store, "a", assigned("Running"))
    mine = {"namespace": "films", "model": VACE}
    assert value(metrics, "kinora_modelserver_replicas", **mine) == 3
    states = {
        state: value(metrics, "kinora_modelserver_pods", pool="default", state=state, **mine) for state in POD_STATES
    }
    assert states == {"Busy": 1, "Idle": 1, "Starting": 1}
    decided = {"lastScale": [{"toReplicas": 7, "fromReplicas": 3, "time": ago(1), "reason": "x"}]}
    scaled = server(decided, autoscaling={"maxReplicas": 8})
    store.servers.apply({**scaled, "metadata": {**scaled["metadata"], "resourceVersion": "6"}})
    assert value(metrics, "kinora_modelserver_replicas", **mine) == 7, "where it scales itself, its own decision rules"


POD_STATES = ("Busy", "Idle", "Starting")


def test_a_finished_job_is_told_with_each_of_its_times(metrics: Metrics) -> None:
    status = assigned(
        "Succeeded", startTime=ago(60), completionTime=ago(10), timings={"renderedSeconds": 45.5}, attempt=2
    )
    status["assignment"]["boundTime"] = ago(70)
    status["reason"] = "Completed"
    metrics.observe_finished(job(status, age=100), VACE)
    sums = {
        name: value(metrics, f"kinora_videojob_{name}_seconds_sum", model=VACE)
        for name in ("queue", "startup", "render", "total")
    }
    assert sums == {"queue": 30, "startup": 10, "render": 45.5, "total": 90}
    assert value(metrics, "kinora_videojobs_finished_total", phase="Succeeded", model=VACE) == 1
    assert value(metrics, "kinora_attempts_total", result="Succeeded", cause="Completed") == 1


def test_a_job_that_never_ran_is_no_attempt(metrics: Metrics) -> None:
    metrics.observe_finished(job({"phase": "Failed", "completionTime": ago(1)}), "")
    assert value(metrics, "kinora_videojobs_finished_total", phase="Failed", model="") == 1
    assert value(metrics, "kinora_attempts_total", result="Failed") is None
    assert value(metrics, "kinora_videojob_queue_seconds_count", model="") is None


# --- attempts: what became of them, what they used and cost


def lost(**status: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job that was bound, and as it was put back: a hundred seconds at 36 an hour."""
    told = assigned("Running", **status)
    told["assignment"] |= {"pool": "cheap", "pricePerHour": 36}
    after = {"phase": "Queued", "attempt": 1, "reason": "Disrupted", "gpuSeconds": 100, "lostGPUSeconds": 100}
    return job(told), job(after)


def spent(metrics: Metrics, name: str, result: str) -> float | None:
    return value(metrics, f"kinora_{name}_total", namespace="films", model=VACE, pool="cheap", result=result)


def test_a_lost_attempt_is_told_with_its_cause_its_seconds_and_its_cost(metrics: Metrics) -> None:
    metrics.observe_requeued(*lost(), VACE)
    assert value(metrics, "kinora_disruptions_total", cause="PodLost") == 1
    assert value(metrics, "kinora_attempts_total", result="Disrupted", cause="PodLost") == 1
    assert (spent(metrics, "gpu_seconds", "Disrupted"), spent(metrics, "cost", "Disrupted")) == (100, 1)


def test_a_retry_is_told_with_what_failed(metrics: Metrics) -> None:
    before, after = lost(lastFailure={"reason": "OutOfMemory", "attempt": 1})
    after["status"]["reason"] = "Retry"
    metrics.observe_requeued(before, after, VACE)
    assert value(metrics, "kinora_retries_total", cause="OutOfMemory") == 1
    assert spent(metrics, "gpu_seconds", "Failed") == 100


def test_a_job_that_was_taken_back_is_neither(metrics: Metrics) -> None:
    before, after = lost()
    after["status"]["reason"] = "TakenBack"
    metrics.observe_requeued(before, after, VACE)
    assert not [key for key in samples(metrics) if key[0] in {"kinora_disruptions_total", "kinora_retries_total"}]


def test_of_a_finished_job_only_its_last_attempt_is_added(metrics: Metrics) -> None:
    status = assigned("Succeeded", attempt=2, gpuSeconds=150, lostGPUSeconds=100, cost=1.5, reason="Completed")
    status["assignment"] |= {"pool": "cheap", "pricePerHour": 36}
    metrics.observe_finished(job(status), VACE)
    assert (spent(metrics, "gpu_seconds", "Succeeded"), spent(metrics, "cost", "Succeeded")) == (50, 0.5)


def test_a_job_that_ends_in_the_queue_has_told_of_its_attempts_before(metrics: Metrics) -> None:
    metrics.observe_finished(job({"phase": "Cancelled", "attempt": 1, "gpuSeconds": 9, "lostGPUSeconds": 9}), VACE)
    assert value(metrics, "kinora_attempts_total", result="Cancelled", cause="Other") is None


def test_what_an_agent_makes_up_is_no_cause(metrics: Metrics) -> None:
    metrics.observe_requeued(*lost(released={"attempt": 1, "reason": "f" * 200, "time": ago(1)}), VACE)
    assert value(metrics, "kinora_disruptions_total", cause="Other") == 1


# --- ModelServers


def test_a_decision_a_refusal_a_download_and_bad_weights_are_counted_when_they_are_new(metrics: Metrics) -> None:
    before = server({"pools": [{"name": "cheap"}], "weights": {"bytesDone": 100, "bytesTotal": 900}})
    bad = {"type": "WeightsReady", "status": "False", "reason": "WeightsMissing"}
    told = {
        "lastScale": [{"fromReplicas": 1, "toReplicas": 4, "time": ago(1)}],
        "pools": [{"name": "cheap", "refusals": 1}],
        "weights": {"bytesDone": 400, "bytesTotal": 900},
        "conditions": [bad],
    }
    for old in (before, server(told)):
        metrics.observe_server(old, server(told))
    mine = {"namespace": "films", "model": VACE}
    assert value(metrics, "kinora_autoscaler_decisions_total", direction="Up", **mine) == 1
    assert value(metrics, "kinora_pool_refusals_total", pool="cheap", **mine) == 1
    assert value(metrics, "kinora_weights_download_bytes_total", **mine) == 300
    assert value(metrics, "kinora_weights_failures_total", cause="WeightsMissing", **mine) == 1


def test_a_start_is_told_by_stages(metrics: Metrics) -> None:
    pod = {
        "metadata": {"creationTimestamp": ago(100)},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(90)},
                {"type": "kinora.dev/EngineReady", "status": "True", "lastTransitionTime": ago(10)},
            ],
            "initContainerStatuses": [{"name": "engine", "state": {"running": {"startedAt": ago(40)}}}],
        },
    }
    stages = start_stages(pod)
    assert stages == {"Schedule": 10, "Pull": 50, "Engine": 30, "Total": 90}
    metrics.observe_start(server(), "cheap", stages)
    found = value(metrics, "kinora_cold_start_seconds_sum", model=VACE, pool="cheap", stage="Pull")
    assert found == 50
    del pod["status"]["initContainerStatuses"]
    assert start_stages(pod) == {"Schedule": 10, "Total": 90}, "a virtual node may not say when"


def test_prices_lives_and_backlogs_are_told_by_pool(metrics: Metrics, store: Store) -> None:
    pools = [{"name": "cheap", "capacity": "Spot", "pricePerHour": 2}, {"name": "own"}]
    store.servers.apply(server({"backlogSeconds": 120}, gpu={"count": 0, "pools": pools}))
    metrics.inventory.spot_life = lambda name, pool: {("films/vace", "cheap"): 7200.0}.get((name, pool))
    mine = {"namespace": "films", "model": VACE}
    assert value(metrics, "kinora_pool_price_per_hour", pool="cheap", **mine) == 2
    assert value(metrics, "kinora_pool_price_per_hour", pool="own", **mine) is None
    assert value(metrics, "kinora_spot_life_seconds", pool="cheap", **mine) == 7200
    assert value(metrics, "kinora_modelserver_backlog_seconds", **mine) == 120


def test_what_does_not_go_on_is_told(metrics: Metrics, store: Store) -> None:
    put(store, "fresh", assigned("Running", progress={"lastUpdateTime": rfc3339(dt.datetime.now(dt.UTC))}))
    put(store, "silent", assigned("Running", progress={"lastUpdateTime": ago(0)}))
    put(store, "nobody", {"phase": "Queued", "reason": "NoModelServer"})
    put(store, "waits", {"phase": "Queued", "reason": "WaitingForServer"})
    assert value(metrics, "kinora_videojobs_stalled", cause="Silent") == 1
    assert value(metrics, "kinora_videojobs_stalled", cause="Unserved") == 1
    assert (value(metrics, "kinora_queue_oldest_seconds", namespace="films", model=VACE) or 0) > 0


# --- all of them


def test_labels_are_bounded(metrics: Metrics, store: Store) -> None:
    test_replicas_and_pods_by_state(metrics, store)
    metrics.observe_requeued(*lost(), VACE)
    metrics.api.request("patch", "videojobs", 200, 0.01)
    metrics.reconciles.labels("job", "Done").inc()
    found = samples(metrics)
    assert {label for _, labels in found for label, _ in labels} <= LABELS
    assert {label for one in metrics.book.definitions for label in one.labels} <= LABELS
    uids = {entry.obj["metadata"]["uid"] for entry in store.jobs.entries.values()}
    assert not uids & {content for _, labels in found for _, content in labels}
