"""What the tests of the hosted APIs' dialects share: a tenant's jobs, calls of a package, videos in the store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from integration.gateway.house import House, Object, artifact_of
from kinora.gateway.jobs import Job
from kinora.gateway.tenants import Tenant
from kinora_cluster import ROOT
from waiting import until

PHOTO = (ROOT / "examples/inputs/coffee.jpg").read_bytes()
CLIP = (ROOT / "examples/inputs/bunny.mp4").read_bytes()


def jobs(house: House, tenant: str = "tenant") -> list[Job]:
    """The jobs that the gateway knows of a tenant, named as its key's entry."""
    assert house.gateway is not None
    return house.gateway.service.jobs(Tenant(tenant, house.namespace))


async def beside(house: House, call: Callable[..., Any], *args: Any, **more: Any) -> tuple[asyncio.Task[Any], Job]:
    """Run a blocking call of a package in a thread; the call, and the job that it makes."""
    known = {job.id for job in jobs(house)}
    task = asyncio.create_task(asyncio.to_thread(call, *args, **more))
    await until(lambda: task.done() or any(job.id not in known for job in jobs(house)))
    if task.done():
        await task
    return task, next(job for job in jobs(house) if job.id not in known)


async def deliver(house: House, id_: str, content: bytes = CLIP, **more: Any) -> Object:
    """The job succeeds, and its one video is in the store. `more`: of its entry in status.artifacts."""
    job = await house.run(id_, 90)
    digest = hashlib.sha256(content).hexdigest()
    entry = artifact_of(job, bytes=len(content), sha256=digest, **more)
    house.store.artifact(entry["uri"].removeprefix("pvc://artifacts/"), content)
    return await house.succeed(id_, [entry])
