"""What is counted of webhooks, in the gateway's registry. Outcomes only; never a job, a host or a URL."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
_AGES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 18000, 36000, 86400)
OUTCOMES = ("Delivered", "Retried", "Blocked", "GivenUp")


class Metrics:
    """The webhooks' part of the gateway's metrics."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.deliveries = Counter(
            "kinora_webhook_deliveries",
            "Attempts by what came of them: Delivered, Retried, GivenUp; Blocked: not sent for want of a key.",
            ["outcome"],
            registry=self.registry,
        )
        self.answer_seconds = Histogram(
            "kinora_webhook_answer_seconds",
            "Seconds of each attempt, to the head of the answer or to giving up on it.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.delay_seconds = Histogram(
            "kinora_webhook_delay_seconds",
            "Seconds from the job's end to the delivery, of delivered webhooks.",
            buckets=_AGES,
            registry=self.registry,
        )
        self.pending = Gauge(
            "kinora_webhook_pending",
            "Webhooks that this replica has to deliver; the sum over replicas is that of the cluster.",
            registry=self.registry,
        )
        self.shards = Gauge("kinora_webhook_shards", "Shards that this replica delivers.", registry=self.registry)
        for outcome in OUTCOMES:
            self.deliveries.labels(outcome)
