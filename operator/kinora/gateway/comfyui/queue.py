"""Queue and history of a tenant: what is listed, and what clear, delete and interrupt do to which jobs.

Named prompts may be any of the tenant's; what is not named (clear, interrupt without an id) touches only jobs that came
in by this dialect: a button of an editor must not end what another application has ordered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from kinora.gateway.comfyui.answer import history_entry, in_history, in_queue, number_of, queue_item
from kinora.gateway.comfyui.graphs import Graphs
from kinora.gateway.comfyui.request import NAME
from kinora.gateway.errors import NotFound
from kinora.gateway.jobs import Job, State
from kinora.gateway.service import Service
from kinora.gateway.tenants import Tenant

MAX_HISTORY: Final = 200  # entries of one answer
_WITH_GRAPH: Final = 100  # prompts of the queue that are listed with their graph
_AT_ONCE: Final = 8  # writes
FORGOTTEN: Final = "forgotten"  # in the note of a job that /history shows no more


class Queue:
    """What stands behind /queue, /history and /interrupt."""

    def __init__(self, service: Service, graphs: Graphs) -> None:
        self._service, self._graphs = service, graphs

    def remaining(self, tenant: Tenant) -> int:
        """How many prompts run or wait."""
        return sum(map(in_queue, self._service.jobs(tenant)))

    async def listing(self, tenant: Tenant) -> dict[str, list[Any]]:
        """GET /queue."""
        jobs = sorted(filter(in_queue, self._service.jobs(tenant)), key=lambda job: (number_of(job), job.id))
        running = [job for job in jobs if job.state is State.RUNNING]
        pending = [job for job in jobs if job.state is not State.RUNNING]
        graphs = await self._graphs.all_of(tenant, (running + pending)[:_WITH_GRAPH])
        return {
            "queue_running": [queue_item(job, graphs.get(job.id, {})) for job in running],
            "queue_pending": [queue_item(job, graphs.get(job.id, {})) for job in pending],
        }

    async def clear(self, tenant: Tenant) -> None:
        """Take everything that waits and came in by this dialect out of the queue."""
        waiting = [job for job in self._service.jobs(tenant) if _waits(job) and job.dialect == NAME]
        await _each(waiting, lambda job: self._service.cancel(tenant, job.id))

    async def delete(self, tenant: Tenant, ids: Iterable[str]) -> None:
        """Take these prompts out of the queue. One that runs, or is unknown, is left as it is."""
        waiting = [job for job in await self._known(tenant, ids) if _waits(job)]
        await _each(waiting, lambda job: self._service.cancel(tenant, job.id))

    async def interrupt(self, tenant: Tenant, prompt_id: str | None) -> None:
        """Stop a prompt that runs; without an id, the oldest one of this dialect."""
        if prompt_id is not None:
            found = await self._known(tenant, [prompt_id])
        else:
            found = [job for job in reversed(self._service.jobs(tenant)) if job.dialect == NAME]
        running = [job for job in found if job.state is State.RUNNING and not job.cancel_asked]
        if running:
            await self._service.cancel(tenant, running[0].id)

    # --- history ------------------------------------------------------------------------------------------------------

    async def history(self, tenant: Tenant, max_items: int | None, offset: int) -> dict[str, Any]:
        """GET /history: in the order in which they ended; the newest, or from `offset` on; at most MAX_HISTORY."""
        ended = sorted(filter(_shown, self._service.jobs(tenant)), key=_when_ended)
        most = MAX_HISTORY if max_items is None else min(max(max_items, 0), MAX_HISTORY)
        start = len(ended) - most if offset < 0 else offset
        chosen = ended[max(start, 0) :][:most]
        graphs = await self._graphs.all_of(tenant, chosen)
        return {job.id: history_entry(job, graphs[job.id]) for job in chosen}

    async def history_of(self, tenant: Tenant, prompt_id: str) -> dict[str, Any]:
        """GET /history/{id}: empty for a prompt that is unknown, waits or runs."""
        return {
            job.id: history_entry(job, await self._graphs.of(tenant, job))
            for job in await self._known(tenant, [prompt_id])
            if _shown(job)
        }

    async def forget(self, tenant: Tenant, ids: Iterable[str] | None) -> None:
        """Show these prompts no more (None: all that have ended). Their files stay, and so do the jobs."""
        known = self._service.jobs(tenant) if ids is None else await self._known(tenant, ids)
        ended = [job for job in known if _shown(job)]
        await _each(ended, lambda job: self._service.renote(tenant, job.id, **{FORGOTTEN: True}))

    async def _known(self, tenant: Tenant, ids: Iterable[str]) -> list[Job]:
        found = []
        for id_ in dict.fromkeys(ids):
            try:
                found.append(await self._service.job(tenant, id_))
            except NotFound:
                continue
        return found


def _waits(job: Job) -> bool:
    return job.state is State.QUEUED and not job.cancel_asked


def _shown(job: Job) -> bool:
    return in_history(job) and not job.note.get(FORGOTTEN)


def _when_ended(job: Job) -> tuple[float, str]:
    return (job.completion_time or job.submit_time).timestamp(), job.id


async def _each(jobs: Iterable[Job], do: Callable[[Job], Awaitable[object]]) -> None:
    """Do it to each, some at a time. One that went away meanwhile needs nothing."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(job: Job) -> None:
        async with turns:
            try:
                await do(job)
            except NotFound:
                return

    await asyncio.gather(*map(one, jobs))
