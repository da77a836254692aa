"""Who listens to which render, and one stream for all of them: opened for the first, closed after the last.

A stream that cannot be had is tried again while somebody listens, at longer and longer intervals. Whoever listens is
told when it is lost, so that the job's status speaks in its place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from enum import Enum, auto
from typing import Final, NamedTuple

from kinora.api.reasons import Phase
from kinora.engine.live import Backlog, Caught, Course, Ended, LiveEvent
from kinora.gateway.jobs import Job, State
from kinora.gateway.live.agents import Agents, NoStream
from kinora.gateway.live.metrics import LiveMetrics

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 3.0  # that the status holds its tongue at first, until the stream stands
RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
LINGER_SECONDS: Final = 5.0  # that a stream stays when nobody listens any more: clients come again
MAX_STREAMS: Final = 512  # of one replica; a job beyond them is told of by its status
UNREACHABLE: Final = frozenset({"NoKey", "NoAddress", "Refused", "Timeout"})
_AWAY: Final = 1024  # pods that could not be reached lately, remembered


class Voice(Enum):
    """Who speaks of a render."""

    COMING = auto()  # nobody, for a moment: the stream is being opened
    LIVE = auto()  # the stream, even when the engine has done: what follows is the end, by the status
    NONE = auto()  # the status


class Render(NamedTuple):
    """One attempt of one job."""

    job_uid: str
    attempt: int


class Listener:
    """One websocket's ear: what waits for it, by render."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.joined: set[Render] = set()
        self._waiting: dict[Render, Backlog] = {}
        self._lost: set[Render] = set()

    def put(self, render: Render, event: LiveEvent) -> None:
        """Something was said."""
        self._waiting.setdefault(render, Backlog()).put(event)
        self.wake.set()

    def lose(self, render: Render) -> None:
        """The stream is gone: the status is to speak."""
        self._lost.add(render)
        self.wake.set()

    def take(self, render: Render) -> list[LiveEvent]:
        """What waits of one render."""
        self._lost.discard(render)
        waiting = self._waiting.pop(render, None)
        return waiting.take() if waiting is not None else []

    def renders(self) -> list[Render]:
        """Those of which something waits, or whose stream was lost."""
        return list(dict.fromkeys([*self._waiting, *self._lost]))


class Streams:
    """All streams of this replica."""

    def __init__(self, agents: Agents, metrics: LiveMetrics, *, enabled: bool = True) -> None:
        self.agents = agents
        self._metrics, self._enabled = metrics, enabled
        self._streams: dict[Render, _Stream] = {}
        self._away: OrderedDict[str, tuple[float, int]] = OrderedDict()
        metrics.streams.set_function(lambda: len(self._streams))

    async def close(self) -> None:
        """End all of them."""
        tasks = [stream.task for stream in self._streams.values() if stream.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.agents.close()

    @contextmanager
    def listener(self) -> Iterator[Listener]:
        """An ear, for as long as it is needed."""
        ear = Listener()
        try:
            yield ear
        finally:
            for render in tuple(ear.joined):
                self._leave(ear, render)

    def hear(self, ear: Listener, job: Job) -> None:
        """Let the ear hear of this job while it runs, and of its present attempt alone. Level-triggered."""
        render = render_of(job)
        for other in tuple(ear.joined):
            if other.job_uid == job.uid and (other != render or job.state is not State.RUNNING):
                self._leave(ear, other)
        if job.state is not State.RUNNING or not self._enabled or not job.pod or not job.pod_uid or job.attempt < 1:
            return
        known = self._streams.get(render)
        if known is None and job.phase == Phase.RUNNING and len(self._streams) < MAX_STREAMS:
            known = self._streams[render] = _Stream(self, job)
            known.start()
        if known is not None and render not in ear.joined:
            ear.joined.add(render)
            known.join(ear)

    def voice(self, job: Job) -> Voice:
        """Who speaks of the job's present attempt."""
        stream = self._streams.get(render_of(job))
        return Voice.NONE if stream is None else stream.voice

    def made(self, messages: int) -> None:
        """Count what clients were told."""
        self._metrics.messages.inc(messages)

    def _leave(self, ear: Listener, render: Render) -> None:
        ear.joined.discard(render)
        ear.take(render)
        if render in self._streams:
            self._streams[render].leave(ear)

    # --- for the streams ----------------------------------------------------------------------------------------------

    def drop(self, render: Render, stream: _Stream) -> None:
        """Forget a stream that nobody listens to."""
        if self._streams.get(render) is stream:
            del self._streams[render]

    def heard(self) -> None:
        """Count an event."""
        self._metrics.events.inc()

    def patience(self, pod_uid: str) -> float:
        """Seconds until this pod is to be asked (again)."""
        until, _ = self._away.get(pod_uid, (0.0, 0))
        return max(0.0, until - time.monotonic())

    def reached(self, pod_uid: str) -> None:
        """The pod's agent answers."""
        self._away.pop(pod_uid, None)

    def failed(self, pod_uid: str, error: NoStream) -> None:
        """It does not. A pod that cannot be reached is left alone for a while, by all: nobody is to wait for it."""
        self._metrics.failures.labels(reason=error.reason).inc()
        if error.reason not in UNREACHABLE:
            return
        _, before = self._away.pop(pod_uid, (0.0, 0))
        self._away[pod_uid] = (time.monotonic() + pause_after(before), before + 1)
        while len(self._away) > _AWAY:
            self._away.popitem(last=False)


def pause_after(tries: int) -> float:
    """Seconds to the next try, after so many that failed before the last."""
    return RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]


def render_of(job: Job) -> Render:
    """The job's present attempt."""
    return Render(job.uid, job.attempt)


class _Stream:
    """One render, its course so far, and all that listen to it."""

    def __init__(self, streams: Streams, job: Job) -> None:
        self._streams, self._job = streams, job
        self._render = render_of(job)
        self._ears: list[Listener] = []
        self._course = Course()
        self._gone: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.voice = Voice.NONE if streams.patience(job.pod_uid or "") else Voice.COMING

    def start(self) -> None:
        """Open it, now and whenever it is lost, until the engine has done."""
        self.task = asyncio.create_task(self._run(), name=f"live {self._job.key}")

    def join(self, ear: Listener) -> None:
        """One more who listens. It hears all that has been said."""
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None
        self._ears.append(ear)
        if self.voice is Voice.LIVE:
            for event in (*self._course.story(), Caught()):
                ear.put(self._render, event)

    def leave(self, ear: Listener) -> None:
        """One fewer."""
        self._ears.remove(ear)
        if not self._ears and self._gone is None:
            self._gone = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        if self._gone is not None:
            self._gone.cancel()
        if self.task is not None:
            self.task.cancel()
        self._streams.drop(self._render, self)

    async def _run(self) -> None:
        pod_uid, tries = self._job.pod_uid or "", 0
        await asyncio.sleep(self._streams.patience(pod_uid))
        while True:
            try:
                if await self._listen(pod_uid):
                    return  # it stays, without a word, until nobody listens any more
                tries = 0  # left: it may be an agent that ends, and another one comes
            except (NoStream, TimeoutError) as error:
                log.debug("live messages of %s: %s", self._job.key, error)
                lost = error if isinstance(error, NoStream) else NoStream("Timeout", "it does not say how it is")
                self._streams.failed(pod_uid, lost)
            except Exception:
                log.exception("live messages of %s", self._job.key)
                self._streams.failed(pod_uid, NoStream("Cut", "it failed here"))
            self._lose()
            await asyncio.sleep(max(pause_after(tries), self._streams.patience(pod_uid)))
            tries += 1
            if not self._ears:
                self._close()
                return

    async def _listen(self, pod_uid: str) -> bool:
        """Whether the engine has done; False: the agent has left it."""
        waiting = self.voice is Voice.COMING
        async with (
            asyncio.timeout(WAIT_SECONDS if waiting else None) as patience,
            aclosing(self._streams.agents.stream(self._job)) as events,
        ):
            async for event in events:
                if isinstance(event, Caught):
                    patience.reschedule(None)
                    self.voice = Voice.LIVE
                    self._streams.reached(pod_uid)
                self._streams.heard()
                self._pass(event)
        return self._course.ended

    def _pass(self, event: LiveEvent) -> None:
        if isinstance(event, Caught):  # of a stream that was lost and is back, only this may be news
            said = [*self._course.present(), event]
        elif not self._course.note(event) or isinstance(event, Ended):
            return
        else:
            said = [event]
        for ear in self._ears:
            for one in said:
                ear.put(self._render, one)

    def _lose(self) -> None:
        self.voice = Voice.NONE
        for ear in self._ears:
            ear.lose(self._render)
