"""The phases of a run, one function each: load, measure, and say what was seen as plain values (report.py shows them).

Each leaves the world as it found it: pods idle, no VideoJob left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench.scale import plain
from bench.scale.bare import Bare, Pod
from bench.scale.load import Course, Load, job_body, side_by_side_do
from bench.scale.measure import memory_mib, operator_requests, percentiles, server_requests, writes
from bench.scale.rawwatch import RawWatch
from bench.scale.watchlag import WatchLag
from bench.scale.world import World
from kinora.controller.edge import UNFINISHED
from kinora.kube.resources import VIDEOJOB

Object = dict[str, Any]
STALL = 60.0  # seconds without any end: something hangs, and the run says so


async def burst(world: World, count: int, seconds: float) -> tuple[Object, Course]:
    """All at once: the throughput, and what it costs."""
    return await _loaded(world, lambda load: load.burst(count), count, seconds)


async def steady(world: World, rate: float, count: int, seconds: float) -> tuple[Object, Course]:
    """At a rate that leaves pods idle: the latency."""
    result, course = await _loaded(world, lambda load: load.steady(rate, count), count, seconds)
    return {"rate": rate, **result}, course


async def _loaded(world: World, work: Any, count: int, seconds: float) -> tuple[Object, Course]:
    load = Load(world.client, world.namespace)
    await world.reports()
    lag = WatchLag(world.client, world.namespace)
    async with load.watching(), lag.measured():
        before_requests = await server_requests(world.connection)
        before_cpu, lag_before = world.cpu(), lag.writes
        course = load.begin()
        deadline = course.began + seconds
        await work(load)
        created = time.monotonic() - course.began
        in_time = await load.until_ended(stall=STALL, deadline=deadline)
        cpu = world.cpu().since(before_cpu)
        requests = await server_requests(world.connection) - before_requests
        probes = lag.writes - lag_before
    accepted, again, published, _ = await world.reports()
    now, peak = memory_mib(world.operator.pid)
    taken = writes(requests)
    taken["PATCH videojobs"] = taken.get("PATCH videojobs", 0) - probes
    status = taken.get("PATCH videojobs/status", 0)
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
        "conflicts": sum(number for name, number in requests.items() if name.endswith(" 409")),
        "cpuSeconds": cpu,
        "operatorMiB": {"now": round(now), "peak": round(peak)},
        "watchLag": percentiles(lag.seconds),
        "faults": course.faults(again, published, in_time=in_time),
    }
    return result, course


async def clean(world: World) -> None:
    """Remove every VideoJob, and forget what agents and stores noted."""
    await Load(world.client, world.namespace).delete_all()
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
    async with _counting(world, UNFINISHED):
        client = Bare(world.connection, operator, world.namespace, pods, sample, status_writes)
        before = world.cpu()
        widths = (4, 8, 16, 32, 64)
        found, trials = await client.best(widths, max(20, min(jobs // 10, 200)), jobs, time.monotonic() + seconds)
        cpu = world.cpu().since(before)
    await Load(world.client, world.namespace).delete_all()
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
    before_requests, before = await server_requests(world.connection), world.cpu()
    began = time.monotonic()

    def creation(index: int) -> Any:
        async def create() -> None:
            await world.client.create(plain.JOB, namespace, plain.job_body(f"plain-{index:06}"))

        return create

    await side_by_side_do((creation(index) for index in range(count)), 16)
    while len(releaser.ended) < count and time.monotonic() - began < seconds:
        releaser.progress.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(releaser.progress.wait(), min(STALL, seconds - (time.monotonic() - began)))
        await asyncio.sleep(0.05)
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


async def restart(world: World, count: int, seconds: float) -> Object:
    """Many unfinished jobs, the operator gone and back: its memory, its first bind, and what it writes needlessly."""
    load, pods = Load(world.client, world.namespace), world.size.pods
    await world.reports()
    await world.everywhere("hold")
    load.begin()
    async with load.watching(), _counting(world, "status.phase=Queued") as queued:
        await load.burst(count + pods)
        settled = await _until_settled(world, queued, count, pods, seconds)
        unfinished = memory_mib(world.operator.pid)
        await world.operator.stop(kill=True)
        freed = sum(one["released"] for one in await world.everywhere("release", count=max(1, pods // 40)))
        await load.until_so_many_ended(freed, STALL)
        async with _counting(world, None) as changes:
            before = await server_requests(world.connection)
            binding = asyncio.create_task(_first_bind(world, await _version(world), STALL))
            await world.operator.start(world.client)
            first = await binding
            await world.operator.until_ready()
            await asyncio.sleep(10)  # the time that it would need for something needless
            requests = await server_requests(world.connection) - before
            own = await operator_requests(world.connection, world.operator.port)
            after = memory_mib(world.operator.pid)
    await load.delete_all()
    await world.everywhere("release", count=None)
    await world.reports()
    patched = requests["PATCH videojobs/status 200"]
    return {
        "unfinished": count + pods - freed,
        "pods": pods,
        "settled": settled,
        "unfinishedMiB": {"now": round(unfinished[0]), "peak": round(unfinished[1])},
        "afterRestartMiB": {"now": round(after[0]), "peak": round(after[1])},
        "firstBindSeconds": None if first is None else round(first - world.operator.started, 2),
        "idlePods": freed,
        "operatorWrites": {name: number for name, number in own.items() if name.startswith(("patch ", "create "))},
        "statusPatches": patched,
        "changes": changes.counts["MODIFIED"],
        "patchesOfUnchanged": max(0, patched - changes.counts["MODIFIED"]),
    }


@asynccontextmanager
async def _counting(world: World, selector: str | None) -> AsyncIterator[RawWatch]:
    """A watch of VideoJobs that only counts, open from the first line of the context on."""
    watch = RawWatch(world.client, VIDEOJOB, world.namespace, selector)
    task = asyncio.create_task(watch.run())
    try:
        await asyncio.wait_for(watch.open.wait(), 30)
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until_settled(world: World, queued: RawWatch, waiting: int, running: int, seconds: float) -> bool:
    """Wait until every pod renders and the rest is Queued; whether that came to be."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        held = sum(one["held"] for one in await world.everywhere("status"))
        if held >= running and queued.counts["ADDED"] - queued.counts["DELETED"] >= waiting:
            await asyncio.sleep(2)  # the last Running is being written
            return True
        await asyncio.sleep(1)
    return False


async def _version(world: World) -> str:
    page = await world.client.list_page(VIDEOJOB, world.namespace, limit=1)
    return str(page["metadata"]["resourceVersion"])


async def _first_bind(world: World, version: str, seconds: float) -> float | None:
    """Wall clock of the first bind after that version, as a watch shows it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for event in world.client.stream(
                VIDEOJOB, world.namespace, resource_version=version, field_selector="status.phase=Scheduled"
            ):
                if event["type"] == "ADDED":
                    return time.time()
    return None


async def finished_memory(world: World, sample: Object, count: int, seconds: float) -> Object:
    """The operator's memory beside many finished jobs, after a fresh start."""
    await world.operator.stop()
    deadline, made = time.monotonic() + seconds, 0
    load = Load(world.client, world.namespace)

    def creation(index: int) -> Any:
        async def create() -> None:
            nonlocal made
            if time.monotonic() > deadline:
                return
            name = f"old-{index:06}"
            await world.client.create(VIDEOJOB, world.namespace, job_body(name))
            patch = {"status": sample["status"]}
            await world.client.patch(VIDEOJOB, world.namespace, name, patch, subresource="status")
            made += 1

        return create

    await side_by_side_do((creation(index) for index in range(count)), 32)
    await world.operator.start(world.client)
    await world.operator.until_ready()
    await asyncio.sleep(15)  # its first look at every finished job, page by page
    now, peak = memory_mib(world.operator.pid)
    await load.delete_all()
    return {"finished": made, "asked": count, "operatorMiB": {"now": round(now), "peak": round(peak)}}
