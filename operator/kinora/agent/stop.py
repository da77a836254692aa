"""How an attempt is told to stop from outside, whatever it is doing. Why it is stopped decides what is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Stop(IntEnum):
    """Why an attempt is stopped; the greater one wins."""

    HAND_BACK = 1  # drain: only what the engine has not been given yet stops
    DRAIN_OVER = 2  # drain, and it had its time
    PREEMPT = 3  # the operator gives the pod to a job that goes first
    CANCEL = 4
    LOST = 5  # this pod's no more: nothing is written


class Stopped(Exception):  # noqa: N818 - not an error
    """The attempt was stopped."""

    def __init__(self, why: Stop) -> None:
        super().__init__(why.name)
        self.why = why


class StopSignal:
    """Set once, or again for a greater reason."""

    def __init__(self) -> None:
        self.why: Stop | None = None
        self._event = asyncio.Event()
        self._listeners: list[Callable[[Stop], None]] = []

    def set(self, why: Stop) -> None:
        """Stop for this reason."""
        if self.why is None or why > self.why:
            self.why = why
            self._event.set()
            for listener in tuple(self._listeners):
                listener(why)

    def listen(self, listener: Callable[[Stop], None]) -> None:
        """Be told, also of what was set before."""
        self._listeners.append(listener)
        if self.why is not None:
            listener(self.why)

    def check(self) -> None:
        """Raises Stopped when it is set."""
        if self.why is not None:
            raise Stopped(self.why)

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work, which is cancelled when the attempt is stopped. Raises Stopped."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self.check()
            raise AssertionError("unreachable: the event is set with a reason")
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
