"""Waiting for a state of the whole world, each with its own limit: settled, calm, idle pods, a first bind.

Waits only; what was seen is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from bench.scale.measure import cpu_seconds
from bench.scale.rawwatch import RawWatch
from bench.scale.world import World
from kinora.agent.agent import selection
from kinora.kube.resources import VIDEOJOB

QUIET = 3.0  # seconds without a write: nobody has anything left to say
_CALM = 0.1  # of a core: an operator that has nothing to do uses less
WAITS = ("Queued", "Scheduled", "Running")  # an unfinished job that was looked at is in one of these


@asynccontextmanager
async def counting(world: World, *selectors: str | None) -> AsyncIterator[list[RawWatch]]:
    """Watches of VideoJobs that only count, open from the first line of the context on."""
    watches = [RawWatch(world.client, VIDEOJOB, world.namespace, one) for one in selectors]
    tasks = [asyncio.create_task(one.run()) for one in watches]
    try:
        async with asyncio.timeout(30):
            for one in watches:
                await one.open.wait()
        yield watches
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def settling(world: World) -> AsyncIterator[Settling]:
    """To be opened before the jobs are made."""
    async with counting(world, None) as (every,):
        yield Settling(world, every)


class Settling:
    """Sees when every job has been looked at, every pod renders, and nobody writes any more."""

    def __init__(self, world: World, every: RawWatch) -> None:
        self._world = world
        self._every = every

    async def counts(self) -> dict[str, int]:
        """Jobs by phase, by lists: a watch that the API server breaks off under load would miss some."""
        return {name: await self._count(f"status.phase={name}") for name in WAITS}

    async def _count(self, selector: str) -> int:
        found, token = 0, None
        while True:
            page = await self._world.client.list_page(
                VIDEOJOB, self._world.namespace, field_selector=selector, continue_token=token
            )
            found += len(page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return found

    async def wait(self, jobs: int, running: int, deadline: float) -> bool:
        """Whether ``jobs`` in all, ``running`` of them rendered, came to rest before the deadline (monotonic)."""
        seen, since = -1, time.monotonic()
        while time.monotonic() < deadline:
            held = sum(one["held"] for one in await self._world.everywhere("status"))
            written = self._every.counts.total()
            self._world.progress = lambda held=held, written=written: f"{held} renders are held, {written} changes"
            if written != seen:
                seen, since = written, time.monotonic()
            if held >= running and time.monotonic() - since >= QUIET:
                if sum((await self.counts()).values()) >= jobs:
                    return True
                since = time.monotonic()
            await asyncio.sleep(0.5)
        return False


async def until_calm(world: World, deadline: float) -> bool:
    """Wait until the operator has used next to no CPU for a while; whether that came to be before the deadline."""
    since, last, at = time.monotonic(), _used(world), time.monotonic()
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        used, now = _used(world), time.monotonic()
        if (used - last) / (now - at) > _CALM:
            since = now
        last, at = used, now
        if now - since >= QUIET:
            return True
    return False


def _used(world: World) -> float:
    return 0.0 if world.operator.pid is None else cpu_seconds(world.operator.pid)


async def until_idle(world: World, pods: Iterable[str], deadline: float) -> bool:
    """Wait until no unfinished job is bound to these pods (UIDs); whether that came to be before the deadline."""
    for uid in pods:
        while (await world.client.list_page(VIDEOJOB, world.namespace, field_selector=selection(uid), limit=1))[
            "items"
        ]:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
    return True


async def version(world: World) -> str:
    """From where a watch sees whatever happens from now on."""
    page = await world.client.list_page(VIDEOJOB, world.namespace, limit=1)
    return str(page["metadata"]["resourceVersion"])


async def first_bind(world: World, since: str, seconds: float) -> float | None:
    """Wall clock of the first bind after that version, as a watch shows it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                async for event in world.client.stream(
                    VIDEOJOB, world.namespace, resource_version=since, field_selector="status.phase=Scheduled"
                ):
                    if event["type"] == "ADDED":
                        return time.time()
    return None
