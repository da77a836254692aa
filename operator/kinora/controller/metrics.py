"""The operator's metrics: what it counts and times as things happen. Gauges of what its store holds: inventory.py.

Histograms observe each finished job once. Label sets are bounded; no object's name is in one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kinora.api import reasons
from kinora.api.reasons import Phase
from kinora.api.spending import cost_of, price_of, seconds_of_last
from kinora.api.transitions import parse_time, phase_of
from kinora.controller.inventory import Inventory
from kinora.controller.store import Store
from kinora.kube.metrics import RENDERS, REQUESTS, STAGES, STARTS, WAITS, ApiMetrics, Book, exemplar

Object = Mapping[str, Any]
#: Every reason that Kinora knows: what an agent says besides becomes Other, so that causes stay bounded.
_CAUSES: Final = frozenset(value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str))
_STAGES: Final = ("staged", "loaded", "rendered", "published")
_BAD_WEIGHTS: Final = frozenset({reasons.WEIGHTS_MISSING, reasons.WEIGHTS_CHANGED, reasons.WEIGHTS_FAILED})


def cause(reason: object) -> str:
    """A reason as a label."""
    return str(reason) if reason in _CAUSES else "Other"


class Metrics:
    """Every metric of the operator, in a registry of its own."""

    def __init__(self, store: Store, models: frozenset[str]) -> None:
        """``models``: the catalogue's names, the only ones that become labels."""
        self.book = book = Book("operator")
        self.registry = book.registry
        self.inventory = Inventory(store, models, book)
        self._define_jobs(book)
        self._define_decisions(book)
        self._define_servers(book)
        self.api = ApiMetrics(book)

    def _define_jobs(self, book: Book) -> None:
        self.finished = book.counter(
            "kinora_videojobs_finished_total", "VideoJobs that ended, each once", ["phase", "model"]
        )
        self.attempts = book.counter(
            "kinora_attempts_total",
            "Attempts that ended: Succeeded, Failed, Disrupted, Cancelled; cause: the reason, as status tells it",
            ["result", "cause"],
        )
        self.retries = book.counter(
            "kinora_retries_total", "Attempts that failed and were queued again, by what failed", ["cause"]
        )
        self.disruptions = book.counter(
            "kinora_disruptions_total", "Attempts that were lost or given up, by why; PodLost: nobody said", ["cause"]
        )
        spent = ["namespace", "model", "pool", "result"]
        self.gpu_seconds = book.counter(
            "kinora_gpu_seconds_total",
            "Seconds in which jobs held an engine, of attempts that ended: Succeeded, Failed, Disrupted, Cancelled",
            spent,
        )
        self.cost = book.counter(
            "kinora_cost_total",
            "Of kinora_gpu_seconds_total, at the pool's price at the bind, in the administrator's currency",
            spent,
        )
        self.queue_seconds = book.histogram(
            "kinora_videojob_queue_seconds", "From creation to the last bind", ["model"], buckets=WAITS
        )
        self.startup_seconds = book.histogram(
            "kinora_videojob_startup_seconds",
            "From the last bind to the start of the render",
            ["model"],
            buckets=STAGES,
        )
        self.render_seconds = book.histogram(
            "kinora_videojob_render_seconds", "In the engine, of the last attempt", ["model"], buckets=RENDERS
        )
        self.stage_seconds = book.histogram(
            "kinora_videojob_stage_seconds",
            "Each stage of the attempt that succeeded: staged, loaded, rendered, published",
            ["model", "stage"],
            buckets=STAGES,
        )
        self.total_seconds = book.histogram(
            "kinora_videojob_total_seconds", "From creation to the end", ["model"], buckets=WAITS
        )

    def _define_decisions(self, book: Book) -> None:
        self.binds = book.counter(
            "kinora_binds_total", "Jobs bound to a pod; ahead: true behind the one that runs there", ["ahead"]
        )
        self.dispatch_seconds = book.histogram(
            "kinora_dispatch_seconds",
            "From when this process saw a job that could be bound until the answer to its bind, of jobs that found an "
            "idle pod",
            buckets=REQUESTS,
        )
        self.moves = book.counter(
            "kinora_scheduling_moves_total",
            "Bound jobs that the operator moved: TakenBack (staged), Preempted (running)",
            ["kind"],
        )
        self.forecast_error_seconds = book.histogram(
            "kinora_forecast_error_seconds",
            "Between the start that a waiting job was told last and its bind",
            buckets=WAITS,
        )
        self.reconciles = book.counter(
            "kinora_reconciles_total", "Decisions carried out: Done, Stale, Failed, Crashed", ["kind", "result"]
        )
        self.reconcile_seconds = book.histogram(
            "kinora_reconcile_seconds", "Each decision, with its writes", ["kind"], buckets=REQUESTS
        )
        self.edge_restarts = book.counter(
            "kinora_kopf_restarts_total", "Times the kopf edge ended and was started again"
        )
        self.entries = book.gauge(
            "kinora_catalogue_entries",
            "Model entries of ConfigMaps: Used (last good ones among them), Refused",
            ["state"],
        )

    def _define_servers(self, book: Book) -> None:
        names = ["namespace", "model"]
        self.scalings = book.counter(
            "kinora_autoscaler_decisions_total", "Decisions for another number of pods: Up, Down", [*names, "direction"]
        )
        self.pool_refusals = book.counter(
            "kinora_pool_refusals_total", "Times a pool gave no capacity and was left for another", [*names, "pool"]
        )
        self.cold_start_seconds = book.histogram(
            "kinora_cold_start_seconds",
            "A server pod's start: Schedule (to a node), Pull (to its engine's start), Engine (to EngineReady), Total",
            ["model", "pool", "stage"],
            buckets=STARTS,
        )
        self.downloaded = book.counter(
            "kinora_weights_download_bytes_total",
            "Bytes of weight files that weights Jobs brought, as status told",
            names,
        )
        self.weights_failures = book.counter(
            "kinora_weights_failures_total",
            "Times a ModelServer began to say that its weights are bad: WeightsMissing, WeightsChanged, FetchFailed",
            [*names, "cause"],
        )

    # --- wiring -------------------------------------------------------------------------------------------------------

    def know(self, models: frozenset[str]) -> None:
        """The catalogue has changed."""
        self.inventory.models = models

    def count_entries(self, *, good: int, bad: int) -> None:
        """What became of the entries of ConfigMaps."""
        self.entries.labels("Used").set(good)
        self.entries.labels("Refused").set(bad)

    def lead_by(self, leads: Callable[[], bool], transitions: Callable[[], int]) -> None:
        """Whose word decides whether this process leads; without it, it does. Only the leader tells of the cluster."""
        self.inventory.leads = leads
        self.inventory.transitions = transitions

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def observe_finished(self, job: Object, model: str) -> None:
        """One job that reached a terminal phase."""
        status, trace = job.get("status") or {}, exemplar(job["metadata"]["uid"])
        phase = str(phase_of(status))
        self.finished.labels(phase, model).inc()
        assignment, created = status.get("assignment") or {}, job["metadata"]["creationTimestamp"]
        for histogram, start, end in (
            (self.queue_seconds, created, assignment.get("boundTime")),
            (self.startup_seconds, assignment.get("boundTime"), status.get("startTime")),
            (self.total_seconds, created, status.get("completionTime")),
        ):
            if start and end:
                seconds = max(0.0, (parse_time(end) - parse_time(start)).total_seconds())
                histogram.labels(model).observe(seconds, trace)
        timings = status.get("timings") or {}
        if timings.get("renderedSeconds") is not None:
            self.render_seconds.labels(model).observe(timings["renderedSeconds"], trace)
        for stage in _STAGES:
            if timings.get(f"{stage}Seconds") is not None:
                self.stage_seconds.labels(model, stage).observe(timings[f"{stage}Seconds"], trace)
        if assignment:  # else its last attempt was told when it was queued again
            self._ended(job, model, phase, _why_ended(status), seconds_of_last(status))

    def observe_requeued(self, before: Object, after: Object, model: str) -> None:
        """The operator put a bound job back into the queue: its attempt failed, or was lost. Not one taken back."""
        status = before.get("status") or {}
        reason, released = (after.get("status") or {}).get("reason"), status.get("released") or {}
        took = _lost_seconds(after) - _lost_seconds(before)
        if reason == reasons.RETRY:
            why = (status.get("lastFailure") or {}).get("reason")
            self.retries.labels(cause(why)).inc()
            self._ended(before, model, "Failed", why, took)
        elif reason in {reasons.DISRUPTED, reasons.PREEMPTED}:
            why = released.get("reason") or reasons.RELEASED_POD_LOST
            self.disruptions.labels(cause(why)).inc()
            self._ended(before, model, "Disrupted", why, took)

    def _ended(self, job: Object, model: str, result: str, why: object, seconds: float) -> None:
        """One attempt, whose assignment the job still has."""
        status = job.get("status") or {}
        self.attempts.labels(result, cause(why)).inc()
        if seconds <= 0:
            return
        pool = str((status.get("assignment") or {}).get("pool") or "")
        labels = job["metadata"]["namespace"], model, pool, result
        self.gpu_seconds.labels(*labels).inc(seconds)
        if price_of(status) is not None:
            self.cost.labels(*labels).inc(cost_of(seconds, price_of(status)))

    # --- ModelServers -------------------------------------------------------------------------------------------------

    def observe_server(self, before: Object, after: Object) -> None:
        """A ModelServer's status was written."""
        old, new = before.get("status") or {}, after.get("status") or {}
        names = after["metadata"]["namespace"], self.inventory.known(after["spec"].get("model", ""))
        last, was = (new.get("lastScale") or [None])[0], (old.get("lastScale") or [None])[0]
        if last and last != was:
            self.scalings.labels(*names, "Up" if last["toReplicas"] > last["fromReplicas"] else "Down").inc()
        refused = {pool["name"]: pool.get("refusals") or 0 for pool in old.get("pools") or []}
        for pool in new.get("pools") or []:
            if (pool.get("refusals") or 0) > refused.get(pool["name"], 0):
                self.pool_refusals.labels(*names, pool["name"]).inc()
        brought = _bytes_done(new) - _bytes_done(old)
        if brought > 0:
            self.downloaded.labels(*names).inc(brought)
        why = _weights_reason(new)
        if why in _BAD_WEIGHTS and why != _weights_reason(old):
            self.weights_failures.labels(*names, why).inc()

    def observe_start(self, server: Object, pool: str, stages: Mapping[str, float]) -> None:
        """A server pod came to serve, and how long each stage of its start took."""
        model = self.inventory.known(server["spec"].get("model", ""))
        for stage, seconds in stages.items():
            self.cold_start_seconds.labels(model, pool, stage).observe(seconds)


def _why_ended(status: Object) -> object:
    """The reason of the last attempt's end: what failed, rather than that a limit was reached."""
    last = status.get("lastFailure") or {}
    failed = phase_of(status) is Phase.FAILED and last.get("attempt") == status.get("attempt")
    return last.get("reason") if failed else status.get("reason")


def _lost_seconds(job: Object) -> float:
    return float((job.get("status") or {}).get("lostGPUSeconds") or 0.0)


def _bytes_done(status: Object) -> int:
    return int((status.get("weights") or {}).get("bytesDone") or 0)


def _weights_reason(status: Object) -> str:
    """The reason of WeightsReady=False; empty where it is not."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "WeightsReady" and condition.get("status") == "False":
            return str(condition.get("reason") or "")
    return ""
