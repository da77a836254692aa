"""What the gateway counts of live streams. Reasons are a fixed list; no tenant, no job."""

from __future__ import annotations

from typing import Final

from kinora.kube.metrics import Book

#: NoKey: the namespace has no Secret for it; NoAddress: the pod is gone, another one, or has no address; Api: the API
#: server does not say; Refused: the agent takes no connection; Timeout; Status: it answered otherwise than 200;
#: Garbled: what it said makes no sense; Cut: the stream broke.
REASONS: Final = ("NoKey", "NoAddress", "Api", "Refused", "Timeout", "Status", "Garbled", "Cut")


class LiveMetrics:
    """Metrics of the streams of one replica."""

    def __init__(self, book: Book) -> None:
        self.streams = book.gauge("kinora_gateway_live_streams", "Renders that this replica listens to")
        self.events = book.counter("kinora_gateway_live_events_total", "Events that agents told, as they came")
        self.messages = book.counter(
            "kinora_gateway_live_messages_total", "Messages to clients that were made from such events"
        )
        self.failures = book.counter(
            "kinora_gateway_live_failures_total",
            "Streams that could not be had or broke, by why: " + ", ".join(REASONS),
            ["reason"],
        )
