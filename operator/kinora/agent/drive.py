"""Drives one prompt through the engine: submit, follow, judge; and stops it when it has to be stopped.

Everything that can happen to a prompt arrives in one mailbox, and every wait has its due time from `Follow`, so that
the loop reads top to bottom. A websocket's silence or end is never a verdict: `outcome` and the process are asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kinora.agent import verdict as verdicts
from kinora.agent.events import EventPump
from kinora.agent.follow import Follow
from kinora.agent.health import Health
from kinora.agent.metrics import Metrics
from kinora.agent.reporter import Reporter
from kinora.agent.settings import Times
from kinora.agent.stop import Stop, Stopped, StopSignal
from kinora.agent.verdict import Refusal
from kinora.api import reasons
from kinora.engine import base
from kinora.engine.base import Engine, EngineUnavailable, GraphRefused
from kinora.engine.supervisor_client import EngineProcess

log = logging.getLogger(__name__)


_STREAM_SECONDS: Final = 2.0
_SOON_SECONDS: Final = 0.01  # then twice as long each time, up to Times.outcome: an engine may be deaf for a while

# An engine's event, a change of its process (None: its container does not answer), or the wish to stop.
News = base.EngineEvent | EngineProcess | Stop | None


@dataclass(frozen=True)
class Ticket:
    """What is to be rendered."""

    prompt_id: str
    client_id: str
    graph: Mapping[str, Mapping[str, Any]]
    job: Mapping[str, Any]
    resumed: bool  # it had reached Running before this agent came
    deadline_seconds: float
    done: Callable[[], None]  # called as soon as the engine has succeeded and may take the next prompt
    staged_at: float = math.inf  # since when it waits for the engine, on the loop's clock; by default not told


class Drive:
    """One prompt, once."""

    def __init__(
        self,
        ticket: Ticket,
        follow: Follow,
        reporter: Reporter,
        stop: StopSignal,
        *,
        engine: Engine,
        health: Health,
        pump: EventPump,
        times: Times,
        metrics: Metrics,
    ) -> None:
        self._ticket = ticket
        self._follow = follow
        self._reporter = reporter
        self._stop = stop
        self._engine = engine
        self._health = health
        self._pump = pump
        self._times = times
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._mailbox: asyncio.Queue[tuple[float, News]] = asyncio.Queue()
        self._process: tuple[str, int] | None = None
        self._ask_at = 0.0
        self._soon = _SOON_SECONDS
        self.submitted = False

    async def run(self) -> tuple[base.OutputFile, ...]:
        """The prompt's outputs. Raises Refusal (a verdict) or Stopped; then the engine is free of it."""
        self._health.listen(self._post)
        self._pump.follow(self._ticket.prompt_id, self._post)
        self._stop.listen(self._post)
        try:
            await self._submit()
            return await self._watch()
        except Stopped as stopped:
            if self.submitted and self._follow.ended_at is None:
                await self.halt(stopped.why.name.lower())
            raise
        finally:
            self._metrics.engine.ended(self._ticket.prompt_id)
            self._pump.leave(self._ticket.prompt_id)
            self._health.unlisten(self._post)

    def _post(self, news: News) -> None:
        self._mailbox.put_nowait((self._now(), news))

    # --- submission ---------------------------------------------------------------------------------------------------

    async def _submit(self) -> None:
        """Hand the graph over. An engine that dies before it has started on it costs nothing: the next one gets it."""
        while True:
            self._process = await self._stop.unless(self._health.until_serving())
            try:
                if self._ticket.resumed:
                    await self._must_be_known()
                else:
                    await self._stop.unless(self._stream())
                    self.submitted = True
                    await self._engine.submit(self._ticket.graph, self._ticket.prompt_id, self._ticket.client_id)
                break
            except EngineUnavailable as error:
                log.info("prompt %s: %s; trying again", self._ticket.prompt_id, error)
                await self._stop.unless(asyncio.sleep(self._times.engine_probe))
            except GraphRefused as refused:
                message = f"the engine refuses the graph: {refused.message}"
                raise verdicts.permanent(reasons.GRAPH_REFUSED, message) from None
        self.submitted = True
        self._take_engine()
        self._follow.submitted(self._now())
        self._ask_at = self._now() + (0 if self._ticket.resumed else self._times.outcome)

    def _take_engine(self) -> None:
        """The engine has the prompt; how long it had none, if this one could have been there at once."""
        ticket, engine = self._ticket, self._metrics.engine
        gap = engine.began(ticket.prompt_id)
        if gap is not None and gap <= self._now() - ticket.staged_at and not ticket.resumed:
            self._metrics.gap_seconds.observe(gap)

    async def _stream(self) -> None:
        """Events are not repeated: have the stream before there is something to tell. It is no condition, though."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STREAM_SECONDS):
                await self._pump.until_connected()

    async def _must_be_known(self) -> None:
        """A prompt that had started before this agent came, and that the engine does not know, died with an engine."""
        if isinstance(await self._engine.outcome(self._ticket.prompt_id), base.Unknown):
            process = self._health.process
            last = next((ended for ended in reversed(process.exits) if not ended.requested), None) if process else None
            raise Refusal(verdicts.of_exit(last))

    # --- following ----------------------------------------------------------------------------------------------------

    async def _watch(self) -> tuple[base.OutputFile, ...]:
        while True:
            at, news = await self._next()
            if isinstance(news, Stop):
                if news is not Stop.HAND_BACK:  # too late for that: the engine has it
                    raise Stopped(news)
            elif isinstance(news, EngineProcess):
                await self._judge_process()
            elif news is not None:
                self._note(news, at)
            now = self._now()
            if now >= self._ask_at:
                self._ask_at = now + self._patience()
                outputs = await self._ask()
                if outputs is not None:
                    return outputs
            await self._check_times(now)

    def _patience(self) -> float:
        """How long until the engine is asked again.

        It tells of a prompt's end before it has moved the prompt from its queue to its history; asked in between it
        says that the prompt runs. No event follows that can be relied on: after an end it is asked again soon.
        """
        if self._follow.ended_at is None:
            return self._times.outcome
        soon, self._soon = self._soon, min(2 * self._soon, self._times.outcome)
        return soon

    async def _next(self) -> tuple[float, News]:
        """The next message and when it came; no message when something is due."""
        due = [self._ask_at, self._follow.silent_at()]
        nudge = self._follow.nudge_at()
        if nudge is not None:
            due.append(nudge)
        deadline = self._deadline_at()
        if deadline is not None:
            due.append(deadline)
        if not self._mailbox.empty():
            return self._mailbox.get_nowait()
        try:
            async with asyncio.timeout_at(min(due)):
                return await self._mailbox.get()
        except TimeoutError:
            return self._now(), None

    def _note(self, event: base.EngineEvent, now: float) -> None:
        follow = self._follow
        match event:
            case base.ExecutionStart():
                follow.started(now)
            case base.NodeStarted(node=node):
                follow.node_started(node, now)
            case base.Progress(node=node, value=value, max=maximum):
                follow.progressed(node, value, maximum, now)
            case base.Connected():
                self._ask_at = now  # what happened before is told by nobody else
            case base.ExecutionSuccess():
                follow.ended(now)
                self._metrics.engine.ended(self._ticket.prompt_id)
                self._ask_at = now
                self._ticket.done()
            case base.ExecutionError() | base.ExecutionInterrupted():
                follow.ended(now)
                self._ask_at = now
            case _:
                pass
        self._tell()

    def _tell(self) -> None:
        if self._follow.started_at is not None:
            self._reporter.started()
            self._reporter.progress(self._follow.view())

    async def _ask(self) -> tuple[base.OutputFile, ...] | None:
        """The truth. The outputs when it is done; None while it is not, or while the engine is too busy to answer."""
        try:
            outcome = await self._engine.outcome(self._ticket.prompt_id)
        except EngineUnavailable:
            return None
        now = self._now()
        if not isinstance(outcome, base.Pending | base.Unknown):
            self._follow.started(now)
            self._tell()
        match outcome:
            case base.Succeeded(outputs=outputs):
                self._follow.ended(now)
                return outputs
            case base.Failed(error=error):
                self._follow.ended(now)
                await self._after_error(error)
                raise Refusal(verdicts.of_engine_error(error))
            case base.Interrupted():
                self._follow.ended(now)
                raise Refusal(verdicts.INTERRUPTED)
            case base.Unknown():
                await self._judge_unknown()
        return None

    async def _after_error(self, error: base.EngineError) -> None:
        """One bad job cannot poison the next (invariant 9)."""
        if error.is_cuda_fault:
            self._health.latch_cuda_fault(f"{error.class_type}: {error.message}")
        elif error.is_oom:
            with suppress(EngineUnavailable):
                await self._engine.free(unload_models=True, free_memory=True)

    async def _judge_unknown(self) -> None:
        """The engine has forgotten the prompt: it died, and its supervisor will say so, or its queue was cleared."""
        process = self._health.process
        if process is None or process.identity != self._process or not process.is_running:
            return  # the process's own story follows
        raise Refusal(verdicts.INTERRUPTED)

    async def _judge_process(self) -> None:
        """Whether the engine that has the prompt is still the one that runs."""
        process = self._health.process
        if process is None or self._process is None:
            return
        if process.identity == self._process and process.phase in ("Running", "Stopping"):
            return
        ended = process.exit_of(self._process)
        verdict = verdicts.of_exit(ended, container_oom=ended is None and await self._health.ask_container_oom())
        if self._follow.started_at is None and not self._ticket.resumed:
            log.info("prompt %s had not started: %s", self._ticket.prompt_id, verdict.message)
            await self._submit()
            return
        self._follow.ended(self._now())
        raise Refusal(verdict)

    async def _check_times(self, now: float) -> None:
        follow, deadline = self._follow, self._deadline_at()
        if deadline is not None and now >= deadline:
            await self.halt("deadline")
            raise Refusal(verdicts.of_deadline(self._ticket.deadline_seconds))
        nudge = follow.nudge_at()
        if nudge is not None and now >= nudge:
            follow.nudged()
            self._pump.reconnect()
        if now >= follow.silent_at():
            silence = follow.silence()
            if follow.ended_at is None:  # else the engine may be another prompt's already
                await self._health.restart_engine("silent")
            follow.ended(self._now())
            raise Refusal(verdicts.of_silence(silence, self._ticket.job))

    def _deadline_at(self) -> float | None:
        """The deadline is for rendering: it ends with it."""
        follow = self._follow
        if follow.started_at is None or follow.ended_at is not None:
            return None
        return follow.started_at + self._ticket.deadline_seconds

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def halt(self, why: str) -> None:
        """Free the engine of the prompt: interrupt, and restart it when that has not worked in time (invariant 8)."""
        began = self._now()
        try:
            async with asyncio.timeout(self._times.interrupt):
                await self._interrupt()
        except TimeoutError:
            await self._health.restart_engine(why)
        self._follow.ended(self._now())
        self._metrics.cancel_seconds.observe(self._now() - began)

    async def _interrupt(self) -> None:
        """Until the engine says that it is over; it takes effect at the next step."""
        while True:
            with suppress(EngineUnavailable):
                await self._engine.delete_pending(self._ticket.prompt_id)
                await self._engine.interrupt(self._ticket.prompt_id)
                outcome = await self._engine.outcome(self._ticket.prompt_id)
                if not isinstance(outcome, base.Pending | base.Running):
                    return
            process = self._health.process
            if process is not None and process.identity != self._process:
                return  # it died of something else
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._mailbox.get()

    def _now(self) -> float:
        return self._loop.time()
