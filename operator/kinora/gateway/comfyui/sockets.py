"""The websockets: who listens under which client id, and how changes of jobs reach them. What is said: messages.py.

Any replica serves any socket: what it tells comes from the watch of VideoJobs, whoever took the prompt.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from kinora.engine import wire
from kinora.gateway.comfyui.answer import client_of
from kinora.gateway.comfyui.graphs import Graphs
from kinora.gateway.comfyui.install import features
from kinora.gateway.comfyui.messages import Follow
from kinora.gateway.comfyui.request import MAX_CLIENT
from kinora.gateway.jobs import Job, State
from kinora.gateway.service import Service
from kinora.gateway.tenants import Tenant

STALLED_SECONDS: Final = 5.0
MAX_SOCKETS: Final = 100  # of a tenant, on one replica
_REPLACED: Final = 4000  # close code: another socket has this client id now


class Sockets:
    """All open websockets of this replica."""

    def __init__(self, service: Service, graphs: Graphs) -> None:
        self._service, self._graphs = service, graphs
        self._open: dict[tuple[str, str], _Socket] = {}
        self._count: Counter[str] = Counter()

    def is_full(self, tenant: Tenant) -> bool:
        """Whether the tenant has as many as it may have."""
        return self._count[tenant.name] >= MAX_SOCKETS

    async def serve(self, socket: WebSocket, tenant: Tenant, client_id: str) -> None:
        """Hold one websocket open. A second one of the same client id takes the first one's place."""
        client_id = client_id if client_id and len(client_id) <= MAX_CLIENT else uuid.uuid4().hex
        await socket.accept()
        key = (tenant.digest, client_id)
        one = _Socket(socket, features(tenant.limits.upload_bytes))
        before, self._open[key] = self._open.get(key), one
        if before is not None:
            before.replaced.set()
        self._count[tenant.name] += 1
        try:
            await _first(one.read(), one.replaced.wait(), self._tell(one, tenant, client_id))
        finally:
            self._count[tenant.name] -= 1
            if self._open.get(key) is one:
                del self._open[key]
            with suppress(RuntimeError, OSError, WebSocketDisconnect):  # it may be closed already
                await socket.close(_REPLACED if one.replaced.is_set() else 1000)

    async def _tell(self, one: _Socket, tenant: Tenant, client_id: str) -> None:
        async with self._service.changes(tenant) as changes:
            jobs = self._service.jobs(tenant)
            follow = Follow(client_id, jobs)
            running = [job for job in jobs if job.state is State.RUNNING and client_of(job) == client_id]
            graphs = await self._graphs.all_of(tenant, running)
            await one.send(follow.greeting({job.id: (job, graphs[job.id]) for job in reversed(running)}))
            while True:
                changed = await changes.get()
                if changed is not None:
                    await one.send(await self._messages(follow, tenant, changed))
                    continue
                jobs = self._service.jobs(tenant)
                await one.send(follow.only({job.id for job in jobs}))
                for job in reversed(jobs):
                    await one.send(await self._messages(follow, tenant, job))

    async def _messages(self, follow: Follow, tenant: Tenant, job: Job) -> list[wire.Message]:
        graph = await self._graphs.of(tenant, job) if follow.needs_graph(job) else {}
        return follow.changed(job, graph)


class _Socket:
    """One websocket."""

    def __init__(self, socket: WebSocket, flags: dict[str, object]) -> None:
        self._socket, self._flags = socket, flags
        self._turn = asyncio.Lock()
        self.replaced = asyncio.Event()

    async def read(self) -> None:
        """Until the client goes. All that it may say is what it can do; it is told the same of us."""
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            try:
                said = json.loads(message.get("text") or "null")
            except (ValueError, RecursionError):
                continue
            if isinstance(said, dict) and said.get("type") == "feature_flags":
                await self.send([("feature_flags", dict(self._flags))])

    async def send(self, messages: Iterable[wire.Message]) -> None:
        """Send in order. A client that does not read loses its socket: TimeoutError."""
        async with self._turn, asyncio.timeout(STALLED_SECONDS):
            for kind, data in messages:
                await self._socket.send_text(json.dumps({"type": kind, "data": data}))


async def _first(*works: object) -> None:
    """Until one of them ends; the others are ended with it. What goes wrong with a socket is its end, and no more."""
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        quiet = (asyncio.CancelledError, TimeoutError, WebSocketDisconnect, RuntimeError, OSError)
        if isinstance(result, BaseException) and not isinstance(result, quiet):
            raise result
