"""What the gateway counts. Labels are bounded: dialects, declared routes, status codes; no tenant, no job."""

from __future__ import annotations

from kinora.gateway.live.metrics import LiveMetrics
from kinora.kube.metrics import ApiMetrics, Book

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The gateway's registry."""

    def __init__(self) -> None:
        self.book = book = Book("gateway")
        self.registry = book.registry
        self.api = ApiMetrics(book)
        self.requests = book.counter(
            "kinora_gateway_requests_total", "Requests that were answered", ["dialect", "route", "method", "code"]
        )
        self.seconds = book.histogram(
            "kinora_gateway_request_seconds", "Time to the end of the answer", ["dialect", "route"], buckets=_SECONDS
        )
        self.prompts = book.counter(
            "kinora_gateway_prompts_total",
            "Prompts that clients asked to have rewritten, by how it went: done, off, long, busy, timeout, failed",
            ["how"],
        )
        self.jobs = book.gauge("kinora_gateway_jobs", "VideoJobs in the cache")
        self.keys = book.gauge("kinora_gateway_keys", "Keys that open this gateway")
        self.live = LiveMetrics(book)
        self.key_faults = book.gauge("kinora_gateway_key_faults", "Entries of the Secret of keys that cannot be used")
