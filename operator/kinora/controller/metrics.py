"""The operator's metrics: names, labels, buckets. Label sets are bounded; no object names in labels.

Gauges are computed from the store when they are scraped; histograms observe each finished job once.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kinora import __version__
from kinora.api.names import CONDITION_ENGINE_READY
from kinora.api.reasons import TERMINAL, Phase
from kinora.api.transitions import parse_time, phase_of
from kinora.controller.store import Store

_WAIT = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_RENDER = (1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200)
_API = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Every metric of the operator, in a registry of its own."""

    def __init__(self, store: Store, models: frozenset[str]) -> None:
        """``models``: the catalogue's names, the only ones that become labels."""
        self.registry = CollectorRegistry()
        registry = self.registry
        self.finished = Counter(
            "kinora_videojobs_finished",
            "VideoJobs that reached a terminal phase",
            ["phase", "model"],
            registry=registry,
        )
        self.attempts = Counter(
            "kinora_attempts",
            "Attempts that ended, by result: Succeeded, Failed, Disrupted, Cancelled",
            ["result"],
            registry=registry,
        )
        self.binds = Counter(
            "kinora_binds", "Jobs bound to a pod; ahead: behind the one that runs there", ["ahead"], registry=registry
        )
        self.moves = Counter(
            "kinora_scheduling_moves",
            "Bound jobs that the operator moved: TakenBack (staged), Preempted (running)",
            ["kind"],
            registry=registry,
        )
        self.forecast_error_seconds = Histogram(
            "kinora_forecast_error_seconds",
            "Between the start that a waiting job was told last and its bind",
            buckets=_WAIT,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "kinora_videojob_queue_seconds",
            "From creation to the last bind",
            ["model"],
            buckets=_WAIT,
            registry=registry,
        )
        self.startup_seconds = Histogram(
            "kinora_videojob_startup_seconds",
            "From the last bind to the engine's start of the render",
            ["model"],
            buckets=_WAIT,
            registry=registry,
        )
        self.render_seconds = Histogram(
            "kinora_videojob_render_seconds",
            "In the engine, of the last attempt",
            ["model"],
            buckets=_RENDER,
            registry=registry,
        )
        self.total_seconds = Histogram(
            "kinora_videojob_total_seconds", "From creation to the end", ["model"], buckets=_WAIT, registry=registry
        )
        self.api_seconds = Histogram(
            "kinora_api_request_seconds",
            "Requests to the API server; status 0: no answer",
            ["verb", "resource", "status"],
            buckets=_API,
            registry=registry,
        )
        self.reconciles = Counter(
            "kinora_reconciles", "Decisions carried out, by kind and result", ["kind", "result"], registry=registry
        )
        self.edge_restarts = Counter(
            "kinora_kopf_restarts", "Times the kopf edge ended and was started again", registry=registry
        )
        self.entries = Gauge(
            "kinora_catalogue_entries",
            "Model entries of ConfigMaps by state: Used (the last good ones among them), Refused",
            ["state"],
            registry=registry,
        )
        self._collector = _StoreCollector(store, models)
        registry.register(self._collector)

    def know(self, models: frozenset[str]) -> None:
        """The catalogue has changed."""
        self._collector.models = models

    def count_entries(self, *, good: int, bad: int) -> None:
        """What became of the entries of ConfigMaps."""
        self.entries.labels("Used").set(good)
        self.entries.labels("Refused").set(bad)

    def observe_api(self, verb: str, plural: str, status: int, seconds: float) -> None:
        """One request to the API server."""
        self.api_seconds.labels(verb, plural, str(status)).observe(seconds)

    def observe_finished(self, job: dict[str, Any], model: str) -> None:
        """One job that reached a terminal phase."""
        status = job.get("status") or {}
        self.finished.labels(str(phase_of(status)), model).inc()
        created = job["metadata"]["creationTimestamp"]
        for name, start, end in (
            (self.queue_seconds, created, (status.get("assignment") or {}).get("boundTime")),
            (self.startup_seconds, (status.get("assignment") or {}).get("boundTime"), status.get("startTime")),
            (self.total_seconds, created, status.get("completionTime")),
        ):
            if start and end:
                name.labels(model).observe(max(0.0, (parse_time(end) - parse_time(start)).total_seconds()))
        rendered = (status.get("timings") or {}).get("renderedSeconds")
        if rendered is not None:
            self.render_seconds.labels(model).observe(rendered)
        if status.get("attempt"):
            self.attempts.labels(str(phase_of(status))).inc()


class _StoreCollector(Collector):
    """Gauges from the store."""

    def __init__(self, store: Store, models: frozenset[str]) -> None:
        self._store = store
        self.models = models

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("kinora_build_info", "1, with the version as a label", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield self._phases()
        yield self._depth()
        yield from self._replicas()

    def _phases(self) -> Metric:
        family = GaugeMetricFamily("kinora_videojobs", "Unfinished VideoJobs by phase", labels=["phase"])
        tally = Tally(phase_of(entry.obj.get("status") or {}) for entry in self._store.jobs.entries.values())
        for phase in Phase:
            if phase not in TERMINAL:
                family.add_metric([str(phase)], tally[phase])
        return family

    def _depth(self) -> Metric:
        family = GaugeMetricFamily(
            "kinora_queue_depth", "VideoJobs that wait for a server pod, by model", labels=["model"]
        )
        waiting = (self._store.jobs.entries[key].obj for keys in self._store.waiting.values() for key in keys)
        tally = Tally(self._model_of(job) for job in waiting if not job["spec"].get("suspend"))
        for model, count in sorted(tally.items()):
            family.add_metric([model], count)
        return family

    def _model_of(self, job: dict[str, Any]) -> str:
        """The model that the job waits for; empty when it is none of the catalogue, or not known yet."""
        named = job["spec"].get("modelServerName")
        if named:
            server = self._store.servers.get(f"{job['metadata']['namespace']}/{named}")
            return self._known(server["spec"].get("model", "") if server else "")
        return self._known(job["spec"].get("model", ""))

    def _known(self, model: str) -> str:
        return model if model in self.models else ""

    def _replicas(self) -> Iterable[Metric]:
        wanted = GaugeMetricFamily("kinora_modelserver_replicas", "spec.replicas, by model", labels=["model"])
        pods = GaugeMetricFamily(
            "kinora_modelserver_pods", "Server pods by model and state: Starting, Idle, Busy", labels=["model", "state"]
        )
        replicas: Tally[str] = Tally()
        states: Tally[tuple[str, str]] = Tally()
        for name, entry in self._store.servers.entries.items():
            model = self._known(entry.obj["spec"].get("model", ""))
            replicas[model] += int(entry.obj["spec"].get("replicas", 1))
            for pod in self._store.pods_by_server.get(name, {}).values():
                states[model, self._state(pod)] += 1
        for model, count in sorted(replicas.items()):
            wanted.add_metric([model], count)
            for state in ("Starting", "Idle", "Busy"):
                pods.add_metric([model, state], states[model, state])
        return wanted, pods

    def _state(self, pod: dict[str, Any]) -> str:
        if self._store.jobs_by_pod.get(pod["metadata"]["uid"]):
            return "Busy"
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition.get("type") == CONDITION_ENGINE_READY and condition.get("status") == "True":
                return "Idle"
        return "Starting"
