"""What a stager counts, in a registry of its own. Label sets are bounded: results; never a job, a host or a URL."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The stager's metrics."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.jobs = Counter(
            "kinora_stager_jobs",
            "Looks at a job that led to something: Ready, Refused, Delayed, Cancelled.",
            ["result"],
            registry=self.registry,
        )
        self.inputs = Counter(
            "kinora_stager_inputs",
            "Inputs by what came of them: Stored, Known (brought before), Refused, Delayed.",
            ["result"],
            registry=self.registry,
        )
        self.fetch_seconds = Histogram(
            "kinora_stager_fetch_seconds",
            "Seconds of each fetch of a URL, failed ones too.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.fetched_bytes = Counter(
            "kinora_stager_fetched_bytes", "Bytes of inputs that were fetched whole.", registry=self.registry
        )
        self.conflicts = Counter(
            "kinora_stager_status_conflicts", "Status writes answered 409 and decided again.", registry=self.registry
        )
        self.busy = Gauge("kinora_stager_jobs_in_hand", "Jobs that are being taken in.", registry=self.registry)
        for result in ("Ready", "Refused", "Delayed", "Cancelled"):
            self.jobs.labels(result)
