"""What the gateway counts. Labels are bounded: dialects, declared routes, status codes; no tenant, no job."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The gateway's registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kinora_gateway_requests",
            "Requests answered.",
            ["dialect", "route", "method", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "kinora_gateway_request_seconds",
            "Time to the end of the answer.",
            ["dialect", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.api = Counter(
            "kinora_gateway_api_requests",
            "Calls to the API server by verb, kind and status (0: no answer).",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.prompts = Counter(
            "kinora_gateway_prompts",
            "Prompts that clients asked to have rewritten, by how it went (done, off, long, busy, timeout, failed).",
            ["how"],
            registry=self.registry,
        )
        self.jobs = Gauge("kinora_gateway_jobs", "VideoJobs in the cache.", registry=self.registry)
        self.keys = Gauge("kinora_gateway_keys", "Keys that open this gateway.", registry=self.registry)
        self.key_faults = Gauge(
            "kinora_gateway_key_faults", "Entries of the Secret of keys that cannot be used.", registry=self.registry
        )

    def observe_api(self, verb: str, plural: str, status: int, _seconds: float) -> None:
        """One call to the API server."""
        self.api.labels(verb, plural, str(status)).inc()
