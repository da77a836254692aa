"""/metrics as Prometheus reads it: every name of docs/metrics.md, and labels that no user can multiply."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kinora.api.reasons import TERMINAL, Phase
from kinora.controller.metrics import Metrics
from kinora.controller.store import Store
from kinora_cluster import ROOT
from unit.controller.builders import VACE, ago, assigned, catalogue, job, server

MODELS = frozenset(catalogue().names)
LABELS = {"model", "phase", "result", "state", "verb", "resource", "status", "kind", "version", "le"}


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
    assert value(metrics, "kinora_queue_depth", model=VACE) == 2
    assert value(metrics, "kinora_queue_depth", model="") == 20


def test_replicas_and_pods_by_state(metrics: Metrics, store: Store) -> None:
    store.servers.apply(server(replicas=3))
    for uid, ready in (("p1", "True"), ("p2", "True"), ("p3", "False")):
        labels = {"kinora.dev/modelserver": "vace"}
        metadata = {"namespace": "films", "name": uid, "uid": uid, "resourceVersion": "1", "labels": labels}
        status = {"conditions": [{"type": "kinora.dev/EngineReady", "status": ready}]}
        store.pods.apply({"metadata": metadata, "spec": {}, "status": status})
    put(store, "a", assigned("Running"))
    assert value(metrics, "kinora_modelserver_replicas", model=VACE) == 3
    states = {state: value(metrics, "kinora_modelserver_pods", model=VACE, state=state) for state in POD_STATES}
    assert states == {"Busy": 1, "Idle": 1, "Starting": 1}


POD_STATES = ("Busy", "Idle", "Starting")


def test_a_finished_job_is_told_with_each_of_its_times(metrics: Metrics) -> None:
    status = assigned(
        "Succeeded", startTime=ago(60), completionTime=ago(10), timings={"renderedSeconds": 45.5}, attempt=2
    )
    status["assignment"]["boundTime"] = ago(70)
    metrics.observe_finished(job(status, age=100), VACE)
    sums = {
        name: value(metrics, f"kinora_videojob_{name}_seconds_sum", model=VACE)
        for name in ("queue", "startup", "render", "total")
    }
    assert sums == {"queue": 30, "startup": 10, "render": 45.5, "total": 90}
    assert value(metrics, "kinora_videojobs_finished_total", phase="Succeeded", model=VACE) == 1
    assert value(metrics, "kinora_attempts_total", result="Succeeded") == 1


def test_a_job_that_never_ran_is_no_attempt(metrics: Metrics) -> None:
    metrics.observe_finished(job({"phase": "Failed", "completionTime": ago(1)}), "")
    assert value(metrics, "kinora_videojobs_finished_total", phase="Failed", model="") == 1
    assert value(metrics, "kinora_attempts_total", result="Failed") is None
    assert value(metrics, "kinora_videojob_queue_seconds_count", model="") is None


def test_labels_are_bounded_and_every_family_is_documented(metrics: Metrics, store: Store) -> None:
    test_replicas_and_pods_by_state(metrics, store)
    metrics.observe_api("patch", "videojobs", 200, 0.01)
    metrics.reconciles.labels("job", "Done").inc()
    found = samples(metrics)
    assert {label for _, labels in found for label, _ in labels} <= LABELS
    names = {family.name for family in metrics.registry.collect()}
    assert len(names) >= 12
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"`{name}" not in text] == []
