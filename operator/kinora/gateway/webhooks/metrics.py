"""What is counted of webhooks, in the gateway's registry. Outcomes only; never a job, a host or a URL."""

from __future__ import annotations

from kinora.kube.metrics import Book

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
_AGES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 18000, 36000, 86400)
OUTCOMES = ("Delivered", "Retried", "Blocked", "GivenUp")


class Metrics:
    """The webhooks' part of the gateway's metrics; ``book``: the gateway's."""

    def __init__(self, book: Book | None = None) -> None:
        book = book or Book("gateway")
        self.registry = book.registry
        self.deliveries = book.counter(
            "kinora_webhook_deliveries_total",
            "Attempts by what came of them: Delivered, Retried, GivenUp; Blocked: not sent for want of a key",
            ["outcome"],
        )
        self.answer_seconds = book.histogram(
            "kinora_webhook_answer_seconds",
            "Each attempt, to the head of the answer or to giving up on it",
            buckets=_SECONDS,
        )
        self.delay_seconds = book.histogram(
            "kinora_webhook_delay_seconds", "From the job's end to the delivery, of delivered webhooks", buckets=_AGES
        )
        self.pending = book.gauge(
            "kinora_webhook_pending",
            "Undelivered webhooks of the shards that this replica holds: sum over the replicas",
        )
        self.shards = book.gauge(
            "kinora_webhook_shards", "Shards that this replica holds; the sum is gateway.webhooks.shards"
        )
        for outcome in OUTCOMES:
            self.deliveries.labels(outcome)
