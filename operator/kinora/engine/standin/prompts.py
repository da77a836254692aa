"""The engine's queue and history, with ComfyUI's order and answers. Knows nothing of nodes, sockets or HTTP.

All methods may be called from any thread. `changed` is called (under the lock) whenever the number of prompts that
are left may have changed, as often as ComfyUI announces it: the recorded traces show the doubled announcements.
"""

import copy
import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinora.engine import wire

MAXIMUM_HISTORY = 10_000


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt as it waits: lower numbers first."""

    number: float
    prompt_id: str
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    def __lt__(self, other: "QueuedPrompt") -> bool:
        return (self.number, self.prompt_id) < (other.number, other.prompt_id)

    def listed(self) -> list[Any]:
        """As /queue and /history show it."""
        return copy.deepcopy(wire.queue_item(self.number, self.prompt_id, self.graph, self.extra_data, self.outputs))


@dataclass
class Result:
    """What became of a prompt, as /history shows it."""

    outputs: dict[str, Any]
    messages: list[wire.Message]
    success: bool


class PromptQueue:
    """Pending prompts, the one that runs, and what became of the others."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._changed = changed
        self._lock = threading.RLock()
        self._not_empty = threading.Condition(self._lock)
        self._pending: list[QueuedPrompt] = []
        self._running: QueuedPrompt | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._free: dict[str, bool] = {}

    def put(self, prompt: QueuedPrompt) -> None:
        """Queues a prompt."""
        with self._lock:
            heapq.heappush(self._pending, prompt)
            self._announce()
            self._not_empty.notify()

    def take(self) -> QueuedPrompt | None:
        """Waits for the next prompt and makes it the running one; None when only the flags of /free came."""
        with self._not_empty:
            self._not_empty.wait_for(lambda: bool(self._pending or self._free))
            if not self._pending:
                return None
            self._running = heapq.heappop(self._pending)
            self._announce()
            return self._running

    def done(self, result: Result) -> None:
        """Moves the running prompt to the history."""
        with self._lock:
            prompt = self._running
            if prompt is None:
                raise RuntimeError("no prompt is running")
            self._running = None
            if len(self._history) > MAXIMUM_HISTORY:
                self._history.pop(next(iter(self._history)))
            entry = wire.history_entry(prompt.listed(), result.outputs, result.messages, success=result.success)
            self._history[prompt.prompt_id] = entry
            self._announce()

    def listing(self) -> dict[str, list[Any]]:
        """The answer of GET /queue."""
        with self._lock:
            running = [self._running.listed()] if self._running else []
            return {"queue_running": running, "queue_pending": [prompt.listed() for prompt in self._pending]}

    def remaining(self) -> int:
        """How many prompts run or wait."""
        with self._lock:
            return len(self._pending) + (self._running is not None)

    def is_running(self, prompt_id: str) -> bool:
        """Whether this prompt is the running one."""
        with self._lock:
            return self._running is not None and self._running.prompt_id == prompt_id

    def wipe(self) -> None:
        """Forgets everything that waits."""
        with self._lock:
            self._pending = []
            self._announce()

    def delete(self, prompt_id: str) -> None:
        """Takes a waiting prompt out; one that runs or is unknown is left as it is."""
        with self._lock:
            kept = [prompt for prompt in self._pending if prompt.prompt_id != prompt_id]
            if len(kept) == len(self._pending):
                return
            self._pending = kept
            heapq.heapify(self._pending)
            if not kept:
                self._announce()  # ComfyUI wipes its queue for the last one, and announces that too
            self._announce()

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """The answer of GET /history: the last `max_items`, or from `offset` on."""
        with self._lock:
            if offset < 0 and max_items is not None:
                offset = len(self._history) - max_items
            keys = list(self._history)[max(offset, 0) :]
            return {key: self._history[key] for key in (keys if max_items is None else keys[:max_items])}

    def history_of(self, prompt_id: str) -> dict[str, Any]:
        """The answer of GET /history/{id}: empty for one that is unknown, waits or runs."""
        with self._lock:
            return {prompt_id: self._history[prompt_id]} if prompt_id in self._history else {}

    def forget(self, prompt_id: str | None = None) -> None:
        """Deletes one entry of the history, or all."""
        with self._lock:
            if prompt_id is None:
                self._history = {}
            else:
                self._history.pop(prompt_id, None)

    def set_free(self, name: str) -> None:
        """Sets a flag of POST /free, which the worker reads between prompts."""
        with self._lock:
            self._free[name] = True
            self._not_empty.notify()

    def take_free(self) -> dict[str, bool]:
        """The flags set since the last call."""
        with self._lock:
            flags, self._free = self._free, {}
            return flags

    def _announce(self) -> None:
        self._changed(self.remaining())
