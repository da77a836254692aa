"""Creates VideoJobs, as one burst or at a steady rate, and sees them end: through watches, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kinora.api.names import prompt_id
from kinora.api.reasons import TERMINAL
from kinora.api.transitions import parse_time
from kinora.kube.client import KubeClient
from kinora.kube.resources import VIDEOJOB
from kinora.kube.watch import Reflector

Object = dict[str, Any]
PROMPT = (
    "a lighthouse on a cliff at dusk, waves break against the rocks below, slow aerial shot, the beam sweeps over the "
    "sea, gulls in the distance, cinematic light, film grain, shallow depth of field"
)


def job_body(name: str) -> Object:
    """A text-to-video job of an ordinary size, as a user would write it."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "bench-scale"}},
        "spec": {
            "model": "wan2.1-vace-1.3b",
            "task": "TextToVideo",
            "prompt": PROMPT,
            "parameters": {"width": 832, "height": 480, "frames": 81, "fps": 16, "steps": 20},
        },
    }


@dataclass
class Ended:
    """What is kept of a job that reached a terminal phase."""

    phase: str
    attempt: int
    failures: int
    disruptions: int
    artifacts: int
    bound: float | None  # wall clock, seconds
    seen: float  # monotonic seconds of its event here


@dataclass
class Course:
    """One load: when each job was asked for, and how it ended. Keys are UIDs."""

    created: dict[str, float] = field(default_factory=dict)  # wall clock before the request was sent
    answered: dict[str, float] = field(default_factory=dict)  # wall clock of the create's answer
    ended: dict[str, Ended] = field(default_factory=dict)
    sample: Object | None = None  # one that succeeded, whole
    began: float = 0.0  # monotonic

    @property
    def seconds(self) -> float:
        """From the first create to the last end."""
        return max((one.seen for one in self.ended.values()), default=self.began) - self.began

    def bind_seconds(self) -> list[float]:
        """create -> bound, by the time that the operator wrote into the assignment."""
        pairs = ((self.created[uid], one.bound) for uid, one in self.ended.items() if uid in self.created)
        return [bound - created for created, bound in pairs if bound is not None]

    def prompt_seconds(self, accepted: dict[str, float]) -> list[float]:
        """create -> prompt accepted by the engine of the first attempt."""
        found = ((created, accepted.get(prompt_id(uid, 1))) for uid, created in self.created.items())
        return [at - created for created, at in found if at is not None]

    def told(self) -> str:
        """How far it is, for people."""
        return f"{len(self.created)} jobs are made, {len(self.ended)} have ended"

    @property
    def missing(self) -> int:
        """Jobs that were created and have not ended."""
        return sum(uid not in self.ended for uid in self.created)

    def faults(self, again: dict[str, int], published: dict[str, int], *, in_time: bool) -> dict[str, int]:
        """What must all be zero. A job that has not ended is lost, unless the time for the whole load was over."""
        ends = self.ended.values()
        return {
            "lost": 0 if not in_time else self.missing,
            "not succeeded": sum(one.phase != "Succeeded" for one in ends),
            "published twice": sum(count > 1 for count in published.values())
            + sum(one.artifacts != 1 for one in ends if one.phase == "Succeeded"),
            "submitted twice": sum(again.values()),
            "retries charged": sum(one.failures for one in ends),
            "disruptions": sum(one.disruptions for one in ends),
            "second attempts": sum(one.attempt > 1 for one in ends),
        }


class Load:
    """Creates jobs in one namespace and watches them end."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._serial = 0
        self._progress = asyncio.Event()
        self.course = Course()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches, one for each terminal phase: an unfinished job costs the harness nothing."""
        reflectors = [
            Reflector(
                self._client,
                VIDEOJOB,
                self._take,
                self._see,
                namespace=self._namespace,
                field_selector=f"status.phase={phase}",
            )
            for phase in sorted(TERMINAL)
        ]
        tasks = [asyncio.create_task(one.run()) for one in reflectors]
        try:
            for one in reflectors:
                await one.synced.wait()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self) -> Course:
        """A new course; what ended before it does not count."""
        self.course = Course(began=time.monotonic())
        return self.course

    def _take(self, listed: list[Object]) -> None:
        for one in listed:
            self._see("ADDED", one)

    def _see(self, kind: str, job: Object) -> None:
        if kind == "DELETED":
            return
        uid, status = job["metadata"]["uid"], job["status"]
        if uid in self.course.ended:
            return
        bound = (status.get("assignment") or {}).get("boundTime")
        self.course.ended[uid] = Ended(
            phase=status["phase"],
            attempt=int(status.get("attempt") or 0),
            failures=int(status.get("failures") or 0),
            disruptions=int(status.get("disruptions") or 0),
            artifacts=len(status.get("artifacts") or []),
            bound=parse_time(bound).timestamp() if bound else None,
            seen=time.monotonic(),
        )
        if status["phase"] == "Succeeded":
            self.course.sample = job
        self._progress.set()

    async def create(self) -> None:
        """One job. An error is the run's end: the harness's own client is not what is tested."""
        self._serial += 1
        sent = time.time()
        job = await self._client.create(VIDEOJOB, self._namespace, job_body(f"job-{self._serial:06}"))
        self.course.created[job["metadata"]["uid"]] = sent
        self.course.answered[job["metadata"]["uid"]] = time.time()

    async def burst(self, count: int, side_by_side: int = 16) -> None:
        """As many as that, as fast as they are taken."""
        await side_by_side_do((self.create for _ in range(count)), side_by_side)

    async def steady(self, rate: float, count: int) -> None:
        """One every 1/rate seconds, whatever became of the one before."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for index in range(count):
                await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
                group.create_task(self.create())

    async def until_ended(self, *, stall: float, deadline: float) -> bool:
        """Wait until all have ended, or none has for ``stall`` seconds; False: the deadline (monotonic) came first."""
        while len(self.course.ended) < len(self.course.created) or self.course.missing:
            self._progress.clear()
            left = min(stall, deadline - time.monotonic())
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(left):
                    await self._progress.wait()
            except TimeoutError:
                return time.monotonic() < deadline
        return True


async def side_by_side_do(works: Iterable[Callable[[], Any]], width: int) -> None:
    """Run every work, so many at a time."""
    queue = iter(works)

    async def worker() -> None:
        for work in queue:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(worker())
