"""Running and progress of one attempt, written beside the render: one write at the start, then at most one in 5 s.

The newest view wins; what changed in between is not told. Terminal writes and releases are the attempt's own, after
`close`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

from kinora.agent.follow import View
from kinora.agent.jobs import Key
from kinora.agent.settings import Times
from kinora.agent.writer import Lost, StatusWriter
from kinora.api import transitions
from kinora.api.reasons import Phase

log = logging.getLogger(__name__)


class Reporter:
    """Writes what it was told last. `on_lost` is called when the job turns out to be this pod's no more."""

    def __init__(
        self,
        key: Key,
        writer: StatusWriter,
        *,
        now: Callable[[], dt.datetime],
        times: Times,
        inputs: list[dict[str, Any]],
        resolved: dict[str, Any],
        on_lost: Callable[[], None],
    ) -> None:
        self._key = key
        self._writer = writer
        self._now = now
        self._times = times
        self._inputs = inputs
        self._resolved = resolved
        self._on_lost = on_lost
        self._view: View | None = None
        self._publishing = False
        self._delay: str | None = None
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the engine's start has been reported."""
        return self._task is not None

    def started(self) -> None:
        """The engine has begun: Running."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def progress(self, view: View) -> None:
        """This is how far it is."""
        if view != self._view:
            self._view = view
            self._changed.set()

    def publishing(self) -> None:
        """The engine is done; the output is on its way."""
        self._publishing = True
        self._changed.set()

    def delayed(self, words: str | None) -> None:
        """Why the publication waits; None: it does not. Told while it is published, not before."""
        if words != self._delay:
            self._delay = words
            if self._publishing:
                self._changed.set()

    async def close(self) -> None:
        """No more progress. Returns when Running stands and nothing is under way."""
        self._closing.set()
        if self._task is not None:
            await self._task

    async def abandon(self) -> None:
        """Write nothing more, whatever is under way: the agent ends, and its client with it. Nothing after `close`."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._writer.write(self._key, "Running", self._running)
            while not self._closing.is_set():
                await self._pause(self._times.progress)
                await self._either(self._changed)
                if self._closing.is_set():
                    return
                self._changed.clear()
                if self._publishing:
                    await self._writer.write(self._key, "Finalizing", self._finalizing, persist=False)
                    continue
                await self._writer.write(self._key, "Progress", self._progressed, persist=False)
        except Lost as lost:
            log.info("%s attempt %d: %s", self._key.uid, self._key.attempt, lost)
            self._on_lost()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _either(self, event: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(one.wait()) for one in (event, self._closing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _running(self, job: dict[str, Any]) -> dict[str, Any] | None:
        if transitions.phase_of(job["status"]) is not Phase.SCHEDULED:
            return None  # said before a restart of the agent
        return transitions.running(job, self._now(), self._inputs or None, self._resolved)

    def _progressed(self, job: dict[str, Any]) -> dict[str, Any]:
        view = self._view or View(0, "Load")
        return transitions.progressed(
            job, self._now(), percent=view.percent, stage=view.stage, step=view.step, steps=view.steps
        )

    def _finalizing(self, job: dict[str, Any]) -> dict[str, Any]:
        return transitions.finalizing(job, self._now(), self._delay)
