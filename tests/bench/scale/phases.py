"""The phases that load: one function each, what was seen as plain values (report.py shows them).

Each leaves the world as it found it: pods idle, no VideoJob left. None lasts longer than the seconds that it is given,
but for taking away what it made. unfinished.py has the phases about memory and restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from bench.scale import plain
from bench.scale.bare import Bare, Pod
from bench.scale.load import Course, Load, side_by_side_do
from bench.scale.measure import percentiles, server_requests, waited, writes
from bench.scale.settle import counting
from bench.scale.watchlag import WatchLag
from bench.scale.world import World
from kinora.controller.edge import UNFINISHED

Object = dict[str, Any]
STALL = 60.0  # seconds without any end: something hangs, and the run says so


async def burst(world: World, count: int, seconds: float) -> tuple[Object, Course]:
    """All at once: the throughput, and what it costs."""
    return await _loaded(world, lambda load: load.burst(count), count, seconds)


async def steady(world: World, rate: float, count: int, seconds: float) -> tuple[Object, Course]:
    """At a rate that leaves pods idle: the latency."""
    result, course = await _loaded(world, lambda load: load.steady(rate, count), count, seconds)
    return {"rate": rate, **result}, course


async def _loaded(
    world: World, work: Callable[[Load], Awaitable[None]], count: int, seconds: float
) -> tuple[Object, Course]:
    load = Load(world.client, world.namespace)
    await world.reports()
    lag = WatchLag(world.client, world.plain_namespace)  # a job of its own, which no operator looks at
    ends = len(world.operator.ends)
    async with load.watching(), lag.measured():
        before_requests, before_waits = await server_requests(world.connection), await waited(world.connection)
        before_cpu, lag_before = world.cpu(), lag.writes
        course = load.begin()
        world.progress = course.told
        deadline = course.began + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + seconds):
                await work(load)
        created = time.monotonic() - course.began
        in_time = len(course.created) == count and await load.until_ended(stall=STALL, deadline=deadline)
        cpu = world.cpu().since(before_cpu)
        requests = await server_requests(world.connection) - before_requests
        waits = await waited(world.connection) - before_waits
        probes = lag.writes - lag_before
    accepted, again, published, _ = await world.reports()
    taken = writes(requests)
    taken["PATCH videojobs"] = taken.get("PATCH videojobs", 0) - probes
    status = taken.get("PATCH videojobs/status", 0)
    faults = course.faults(again, published, in_time=in_time)
    result = {
        "jobs": count,
        "ended": len(course.ended),
        "inTime": in_time,
        "seconds": round(course.seconds, 1),
        "createSeconds": round(created, 1),
        "jobsPerSecond": round(len(course.ended) / max(course.seconds, 1e-9), 1),
        "createToBound": percentiles(course.bind_seconds()),
        "createToPrompt": percentiles(course.prompt_seconds(accepted)),
        "statusWritesPerJob": round(status / count, 3),
        "writes": {name: number for name, number in taken.items() if number > 0},
        "conflicts": sum(number for name, number in requests.items() if _lost(name)),
        "reads": {name: number for name, number in requests.items() if name.startswith("GET videojobs")},
        "queuedMillisecondsPerRequest": waits.mean,
        "cpuSeconds": cpu,
        "operatorMiB": world.operator.memory(),
        "watchLag": percentiles(lag.seconds),
        "faults": {**faults, "operator ended by itself": len(world.operator.ends) - ends},
    }
    return result, course


def _lost(request: str) -> bool:
    """A write of a VideoJob that lost against another one."""
    return request.startswith("PATCH videojobs") and request.endswith(" 409")


async def clean(world: World) -> None:
    """Remove every VideoJob, and forget what agents and stores noted."""
    await world.clear_jobs()
    await world.reports()


async def bare(world: World, sample: Object, status_writes: float, jobs: int, seconds: float) -> Object:
    """What the API server allows: operator and agents stand still, every watch of theirs stays open."""
    await world.operator.stop()
    *_, tokens = await world.reports()
    await world.everywhere("watch", on=True)
    operator = await world.operator_connection()
    pods = [
        Pod(
            one["metadata"]["name"],
            one["metadata"]["uid"],
            one["spec"]["nodeName"],
            "Bearer " + tokens[one["metadata"]["uid"]],
        )
        for one in await world.server_pods()
    ]
    async with counting(world, UNFINISHED):
        client = Bare(world.connection, operator, world.namespace, pods, sample, status_writes)
        before = world.cpu()
        world.progress = lambda: f"{client.done} bare lives"
        widths = (4, 8, 16, 32, 64)
        found, trials = await client.best(widths, max(20, min(jobs // 10, 200)), jobs, time.monotonic() + seconds)
        cpu = world.cpu().since(before)
    await world.clear_jobs()
    await world.everywhere("watch", on=False)
    await world.operator.start(world.client)
    await world.operator.until_ready()
    return {**found.to_dict(), "trials": [one.to_dict() for one in trials], "cpuSeconds": cpu}


async def plain_jobs(world: World, count: int, seconds: float) -> Object:
    """The same number as batch/v1 Jobs."""
    namespace = world.plain_namespace
    await world.everywhere("plain", on=True, namespace=namespace)
    releaser = plain.Releaser(world.client, namespace, world.size.pods)
    await releaser.start()
    world.progress = lambda: f"{len(releaser.ended)} of {count} Jobs have ended"
    before_requests, before = await server_requests(world.connection), world.cpu()
    began = time.monotonic()

    def creation(index: int) -> Any:
        async def create() -> None:
            await world.client.create(plain.JOB, namespace, plain.job_body(f"plain-{index:06}"))

        return create

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await side_by_side_do((creation(index) for index in range(count)), 16)
    while len(releaser.ended) < count and time.monotonic() - began < seconds:
        releaser.progress.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(releaser.progress.wait(), seconds - (time.monotonic() - began))
    ended = dict(releaser.ended)
    lasted = max(ended.values(), default=time.monotonic()) - began
    taken = writes(await server_requests(world.connection) - before_requests)
    cpu = world.cpu().since(before)
    await releaser.stop()
    await world.everywhere("plain", on=False, namespace=namespace)
    return {
        "jobs": count,
        "ended": len(ended),
        "seconds": round(lasted, 1),
        "jobsPerSecond": round(len(ended) / lasted, 1),
        "writesPerJob": round(sum(taken.values()) / max(len(ended), 1), 2),
        "writes": taken,
        "cpuSeconds": cpu,
    }
