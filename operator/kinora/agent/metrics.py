"""What an agent counts, in a registry of its own. Label sets are bounded: results, stages, reasons; never a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum

from kinora.kube.metrics import REQUESTS, STAGES, ApiMetrics, Book, Sample


class EngineState(StrEnum):
    """What an engine's time goes to."""

    BUSY = "Busy"  # it holds a prompt
    IDLE = "Idle"  # it would take one
    UNREADY = "Unready"  # it would not


class Metrics:
    """The agent's metrics. ``now``: seconds of a monotonic clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.book = book = Book("agent")
        self.registry = book.registry
        self.api = ApiMetrics(book)
        self.engine = EngineTime(now)
        self.live = LiveMetrics(book)
        self.attempts = book.counter(
            "kinora_agent_attempts_total",
            "Attempts that ended in this pod: Succeeded, Failure, Disruption, Permanent, Cancelled, Lost",
            ["result"],
        )
        self.stage_seconds = book.histogram(
            "kinora_agent_stage_seconds",
            "Each stage of an attempt: staged, loaded, rendered, published; exemplar: the job's UID",
            ["stage"],
            buckets=STAGES,
        )
        self.gap_seconds = book.histogram(
            "kinora_agent_engine_gap_seconds",
            "From the end of a prompt until the engine took the next one, where that one was staged already",
            buckets=REQUESTS,
        )
        self.writes = book.counter(
            "kinora_agent_status_writes_total", "Status writes that the API server took, by what they told", ["kind"]
        )
        self.conflicts = book.counter(
            "kinora_agent_status_conflicts_total", "Status writes answered 409 and decided again"
        )
        self.engine_exits = book.counter("kinora_agent_engine_exits_total", "Exits of the engine seen, by how", ["how"])
        self.engine_restarts = book.counter(
            "kinora_agent_engine_restarts_total", "Restarts of the engine that the agent asked for, by why", ["reason"]
        )
        self.engine_ready = book.gauge(
            "kinora_agent_engine_ready", "1 while the pod's condition kinora.dev/EngineReady is True"
        )
        self.engine_memory = book.gauge("kinora_agent_engine_memory_bytes", "Memory of the engine's container")
        self.gpu_seconds = book.counter("kinora_agent_gpu_seconds_total", "Seconds in which the engine held a prompt")
        self.cancel_seconds = book.histogram(
            "kinora_agent_halt_seconds", "From the wish to stop a prompt to a free engine", buckets=STAGES
        )
        book.computed(
            "kinora_agent_engine_seconds_total",
            "counter",
            "Seconds of the engine by state: Busy (holds a prompt), Idle (would take one), Unready; the idle ratio is "
            "the rate of Idle over the rate of all",
            ["state"],
            samples=self.engine.samples,
        )


class LiveMetrics:
    """Of those who listen to renders."""

    def __init__(self, book: Book) -> None:
        self.streams = book.gauge("kinora_agent_live_streams", "Gateways that listen to a render of this pod")
        self.messages = book.counter("kinora_agent_live_messages_total", "Events of the engine that they were told")
        self.dropped = book.counter(
            "kinora_agent_live_dropped_total", "Steps that a listener was not told, since it was behind"
        )
        self.refused = book.counter(
            "kinora_agent_live_refused_total",
            "Listeners that were refused: BadToken, NoKey, NotHere (the attempt), Full",
            ["reason"],
        )


class EngineTime:
    """Adds up how long the engine was in which state."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since = now()
        self._seconds = dict.fromkeys(EngineState, 0.0)
        self._ready = False
        self._prompts: set[str] = set()
        self._free_since: float | None = None

    @property
    def state(self) -> EngineState:
        """The present one."""
        if self._prompts:
            return EngineState.BUSY
        return EngineState.IDLE if self._ready else EngineState.UNREADY

    def ready(self, is_ready: bool) -> None:
        """Whether the engine takes prompts."""
        self._add()
        self._ready = is_ready

    def began(self, prompt_id: str) -> float | None:
        """The engine holds this prompt. Seconds since it held the one before; None: it held none, or holds it still."""
        self._add()
        gap = None if self._prompts or self._free_since is None else self._since - self._free_since
        self._prompts.add(prompt_id)
        return gap

    def ended(self, prompt_id: str) -> None:
        """It does not any more."""
        self._add()
        if prompt_id in self._prompts:
            self._prompts.discard(prompt_id)
            self._free_since = self._since

    def samples(self) -> Iterator[Sample]:
        """Seconds by state, up to now."""
        self._add()
        for state, seconds in self._seconds.items():
            yield (str(state),), seconds

    def _add(self) -> None:
        now = self._now()
        self._seconds[self.state] += now - self._since
        self._since = now
