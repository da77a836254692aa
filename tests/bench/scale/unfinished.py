"""The phases about what lies there: many unfinished jobs and a restart, many finished ones and a start.

Each leaves the world as it found it, and lasts no longer than it is told, but for taking away what it made.
"""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import aiohttp

from bench.scale.etcd import Etcd
from bench.scale.load import Load, job_body
from bench.scale.measure import cpu_seconds, operator_requests, server_requests
from bench.scale.settle import counting, first_bind, settling, until_calm, until_idle, version
from bench.scale.world import World
from kinora.kube.client import UnreachableError
from kinora.kube.resources import VIDEOJOB

Object = dict[str, Any]
_CALM_SECONDS = 60.0  # that a new process has to say all that it has to say
_BIND_SECONDS = 60.0


async def restart(world: World, count: int, seconds: float) -> Object:
    """Many unfinished jobs, the operator gone and back: its memory, its first bind, and what it writes needlessly."""
    load, pods = Load(world.client, world.namespace), world.size.pods
    deadline = time.monotonic() + seconds
    await world.reports()
    await world.everywhere("hold")
    try:
        async with settling(world) as settle:
            load.begin()
            world.progress = lambda: f"{len(load.course.created)} of {count + pods} jobs are made"
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await load.burst(count + pods)
            settled = await settle.wait(count + pods, pods, deadline)
            before, phases = world.operator.memory(), await settle.counts()
        await world.operator.stop(kill=True)
        released = [one["released"] for one in await world.everywhere("release", count=max(1, pods // 80))]
        freed = [uid for uids in released for uid in uids]
        idle = await until_idle(world, freed, time.monotonic() + 60)
        await world.everywhere("hold")  # what the new operator binds there is rendered until the end of the phase
        found = await _started_again(world)
    finally:
        world.progress = lambda: "taking the jobs away"
        await world.clear_jobs()
        await world.everywhere("release", count=None)
        await world.reports()
    return {
        "unfinished": sum(phases.values()),
        "phases": phases,
        "pods": pods,
        "settled": settled and idle,
        "unfinishedMiB": before,
        "idlePods": len(freed),
        **found,
    }


async def _started_again(world: World) -> Object:
    """A new operator process, watched until it has nothing more to do."""
    world.progress = lambda: "the operator starts"
    async with counting(world, None) as (changes,):
        requests = await server_requests(world.connection)
        binding = asyncio.create_task(first_bind(world, await version(world), _BIND_SECONDS))
        await world.operator.start(world.client)
        first = await binding
        await world.operator.until_ready()
        calm = await until_calm(world, time.monotonic() + _CALM_SECONDS)
        used = 0.0 if world.operator.pid is None else cpu_seconds(world.operator.pid)
        patched = (await server_requests(world.connection) - requests)["PATCH videojobs/status 200"]
        own = await operator_requests(world.connection, world.operator.port)
        changed = changes.counts["MODIFIED"]
    return {
        "afterRestartMiB": world.operator.memory(),
        "firstBindSeconds": None if first is None else round(first - world.operator.started, 2),
        "startCpuSeconds": round(used, 1),
        "calm": calm,
        "operatorWrites": {name: number for name, number in own.items() if name.startswith(("patch ", "create "))},
        "statusPatches": patched,
        "changes": changed,
        "patchesOfUnchanged": max(0, patched - changed),
    }


async def finished_memory(world: World, sample: Object, count: int, seconds: float) -> Object:
    """The operator's memory beside many finished jobs, after a fresh start."""
    began = time.monotonic()
    await world.operator.stop()
    try:
        made = await fill(world, sample, count, began + seconds)
        filled = time.monotonic() - began
        world.progress = lambda: "the operator starts"
        await world.operator.start(world.client)
        await world.operator.until_ready()
        ready = time.time() - world.operator.started
        calm = await until_calm(world, began + seconds)
        used = 0.0 if world.operator.pid is None else cpu_seconds(world.operator.pid)
        memory = world.operator.memory()
    finally:
        world.progress = lambda: "taking the jobs away"
        await world.clear_jobs()
        if world.operator.pid is None:
            await world.operator.start(world.client)
    return {
        "finished": made,
        "fillSeconds": round(filled, 1),
        "readySeconds": round(ready, 2),
        "startCpuSeconds": round(used, 1),
        "calm": calm,
        "operatorMiB": memory,
    }


def _copies(sample: Object, namespace: str, count: int) -> Iterator[Object]:
    """The finished job, again and again under other names, as it lies in etcd: without its resourceVersion."""
    for index in range(count):
        job = copy.copy(sample)
        job["metadata"] = {
            **sample["metadata"], "name": f"old-{index:06}", "namespace": namespace, "uid": str(uuid.uuid4()),
        }  # fmt: skip
        job["metadata"].pop("resourceVersion", None)
        yield job


async def fill(world: World, sample: Object, count: int, deadline: float) -> int:
    """So many copies of a job into etcd, and into the API server's watch cache, for which every list waits."""
    world.progress = lambda: f"{count} jobs go into etcd"
    async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
        async with Etcd(world.state) as etcd:
            made = await etcd.put(_copies(sample, world.namespace, count))
        await _until_watched(world)
    return made


async def _until_watched(world: World) -> None:
    """Whatever was written until now is in the watch cache: it has passed on what is written after that."""
    world.progress = lambda: "the API server takes in what is in etcd"
    body = job_body("after-all-others")
    body["spec"]["suspend"] = True
    namespace = world.plain_namespace
    since = (await world.client.list_page(VIDEOJOB, namespace, limit=1))["metadata"]["resourceVersion"]
    made = await world.client.create(VIDEOJOB, namespace, body)
    selector = f"metadata.name={made['metadata']['name']}"
    taken = False
    while not taken:  # whoever calls has a deadline
        with suppress(UnreachableError, aiohttp.ClientError, TimeoutError):  # it says nothing for minutes
            async for event in world.client.stream(
                VIDEOJOB, namespace, resource_version=since, field_selector=selector
            ):
                taken = event["type"] == "ADDED"
                if taken:
                    break
    await world.client.delete(VIDEOJOB, namespace, made["metadata"]["name"])
