"""What a stager counts, in a registry of its own. Label sets are bounded: results; never a job, a host or a URL."""

from __future__ import annotations

from kinora.kube.metrics import STAGES, ApiMetrics, Book


class Metrics:
    """The stager's metrics."""

    def __init__(self) -> None:
        self.book = book = Book("stager")
        self.registry = book.registry
        self.api = ApiMetrics(book)
        self.jobs = book.counter(
            "kinora_stager_jobs_total",
            "Looks at a job that led to something: Ready, Refused, Delayed, Cancelled",
            ["result"],
        )
        self.inputs = book.counter(
            "kinora_stager_inputs_total",
            "Inputs by what came of them: Stored, Known (brought before a restart), Refused, Delayed",
            ["result"],
        )
        self.fetch_seconds = book.histogram(
            "kinora_stager_fetch_seconds", "Each fetch of a URL, failed ones too", buckets=STAGES
        )
        self.fetched_bytes = book.counter(
            "kinora_stager_fetched_bytes_total", "Bytes of inputs that were fetched whole"
        )
        self.conflicts = book.counter(
            "kinora_stager_status_conflicts_total", "Status writes answered 409 and decided again"
        )
        self.asks = book.counter(
            "kinora_stager_agent_asks_total",
            "What agents without keys asked to have signed: Signed, Refused, Unknown (the token), Malformed, Away",
            ["result"],
        )
        self.busy = book.gauge("kinora_stager_jobs_in_hand", "Jobs that are being taken in")
        self.store_requests = book.counter(
            "kinora_store_requests_total",
            "Requests to the store service, by operation and by the status of the answer",
            ["operation", "code"],
        )
        self.store_seconds = book.histogram(
            "kinora_store_request_seconds",
            "Time to the end of the answer of the store service, the bytes of a file included",
            ["operation"],
            buckets=STAGES,
        )
        self.store_bytes = book.counter(
            "kinora_store_bytes_total",
            "Bytes of files that came to the store service (in: uploads) and went out by it (out), cut ones too",
            ["direction"],
        )
        self.store_removed = book.counter(
            "kinora_store_removed_total",
            "Objects that the stager removed from its store since nobody uses them: upload, job gone, input unused",
            ["why"],
        )
        for why in ("upload", "job gone", "input unused"):
            self.store_removed.labels(why)
        for direction in ("in", "out"):
            self.store_bytes.labels(direction)
        for result in ("Ready", "Refused", "Delayed", "Cancelled"):
            self.jobs.labels(result)
