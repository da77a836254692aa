"""The work queue: keys deduplicated, never the same key twice in flight, due times, backoff per key.

The contract is that of controller-runtime's work queue. It knows keys and times, nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_BACKOFF_FIRST = 0.05  # seconds
_BACKOFF_LIMIT = 30.0


class WorkQueue(Generic[Key]):
    """Keys wait until due; ``get`` hands out a due key that is not in flight; ``done`` ends its flight.

    To be made and used within one running event loop, whose clock it keeps.
    """

    def __init__(self, urgent: Callable[[Key], bool] = lambda _key: False) -> None:
        """``urgent`` keys that are due go before all others that are; among equals, who came first."""
        self._urgent = urgent
        self._serial = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._due: dict[Key, float] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        # Sorted by urgency, then by the serial number, which is unique: keys are never compared.
        self._ready: asyncio.PriorityQueue[tuple[bool, int, float, Key]] = asyncio.PriorityQueue()
        self._in_flight: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._open = True
        self._landed = asyncio.Event()  # set while nothing is in flight
        self._landed.set()

    @property
    def is_open(self) -> bool:
        """Whether keys are taken in."""
        return self._open

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Have the key looked at in ``delay`` seconds at the latest; an earlier due time stays."""
        if not self._open:
            return
        due = self._loop.time() + max(delay, 0.0)
        if key in self._in_flight:
            self._again[key] = min(due, self._again.get(key, due))
            return
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._forget_timer(key)  # else a key that is looked at often leaves one behind each time, for hours
        if delay > 0:
            self._timers[key] = self._loop.call_at(due, self._put, due, key)
        else:
            self._put(due, key)

    def _put(self, due: float, key: Key) -> None:
        self._ready.put_nowait((not self._urgent(key), next(self._serial), due, key))

    async def get(self) -> Key:
        """The next due key; it is in flight until ``done``."""
        while True:
            *_, due, key = await self._ready.get()
            if self._due.get(key) == due:  # else superseded by an earlier due time, and handed out already
                del self._due[key]
                self._forget_timer(key)
                self._in_flight.add(key)
                self._landed.clear()
                return key

    def close(self) -> None:
        """Take in and hand out nothing until ``open``; what waits is forgotten, what is in flight goes on."""
        self._open = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        self._again.clear()

    def open(self) -> None:
        """Take keys in again."""
        self._open = True

    async def landed(self) -> None:
        """Wait until no key is in flight."""
        await self._landed.wait()

    def _forget_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def done(self, key: Key, *, failed: bool = False) -> None:
        """End the key's flight; a failed one comes back after a growing pause."""
        self._in_flight.discard(key)
        if not self._in_flight:
            self._landed.set()
        due = self._again.pop(key, None)
        if failed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            self.add(key, min(_BACKOFF_FIRST * 2 ** min(count, 16), _BACKOFF_LIMIT))
            return
        self._failures.pop(key, None)
        if due is not None:
            self.add(key, due - self._loop.time())
