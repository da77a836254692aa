"""The websockets: who listens under which client id, and how changes of jobs reach them. What is said: messages.py.

Any replica serves any socket: what it tells comes from the watch of VideoJobs, whoever took the prompt, and, while a
prompt of the socket's client renders, from the stream of the agent that renders it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from kinora.engine import wire
from kinora.gateway.comfyui.answer import client_of
from kinora.gateway.comfyui.graphs import Graphs
from kinora.gateway.comfyui.install import features
from kinora.gateway.comfyui.messages import Follow
from kinora.gateway.comfyui.request import MAX_CLIENT
from kinora.gateway.jobs import Job, State
from kinora.gateway.live.streams import Listener, Render, Streams, Voice, render_of
from kinora.gateway.service import Service
from kinora.gateway.tenants import Tenant

STALLED_SECONDS: Final = 5.0
MAX_SOCKETS: Final = 100  # of a tenant, on one replica
_REPLACED: Final = 4000  # close code: another socket has this client id now


class Sockets:
    """All open websockets of this replica."""

    def __init__(self, service: Service, graphs: Graphs, live: Streams) -> None:
        self._service, self._graphs, self._live = service, graphs, live
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
            with self._live.listener() as ear:
                jobs = self._service.jobs(tenant)
                talk = _Talk(one, tenant, Follow(client_id, jobs), ear, {})
                running = [job for job in jobs if job.state is State.RUNNING and client_of(job) == client_id]
                graphs = await self._graphs.all_of(tenant, running)
                for job in running:
                    self._hear(talk, job)
                await one.send(talk.follow.greeting({job.id: (job, graphs[job.id]) for job in reversed(running)}))
                await _first(self._changes(talk, changes), self._live_messages(talk))

    async def _changes(self, talk: _Talk, changes: asyncio.Queue[Job | None]) -> None:
        """Tell of jobs as they change."""
        while True:
            changed = await changes.get()
            async with talk.turn:
                if changed is not None:
                    await self._say(talk, changed)
                    continue
                jobs = self._service.jobs(talk.tenant)
                await talk.socket.send(talk.follow.only({job.id for job in jobs}))
                for job in reversed(jobs):
                    await self._say(talk, job)

    async def _say(self, talk: _Talk, job: Job) -> None:
        """What the engine has said of the job comes before what its status says; a state before the last not at all."""
        before = talk.running.get(job.uid)
        if before is not None and job.version < before.version:
            return
        mine = talk.follow.needs_graph(job)
        graph = await self._graphs.of(talk.tenant, job) if mine else {}
        messages = self._heard(talk, job) if mine else []
        if client_of(job) == talk.follow.client_id:
            self._hear(talk, job)
        quiet = self._live.voice(job) is not Voice.NONE
        await talk.socket.send([*messages, *talk.follow.changed(job, graph, quiet=quiet)])

    # --- what engines say ---------------------------------------------------------------------------------------------

    def _hear(self, talk: _Talk, job: Job) -> None:
        self._live.hear(talk.ear, job)
        if job.state is State.RUNNING:
            talk.running[job.uid] = job
        else:
            talk.running.pop(job.uid, None)

    async def _live_messages(self, talk: _Talk) -> None:
        """Tell of renders as their engines do; where one is not heard any more its status speaks."""
        while True:
            await talk.ear.wake.wait()
            talk.ear.wake.clear()
            for render in talk.ear.renders():
                async with talk.turn:
                    await self._say_heard(talk, render)

    async def _say_heard(self, talk: _Talk, render: Render) -> None:
        job = talk.running.get(render.job_uid)
        if job is None or render_of(job) != render:
            talk.ear.take(render)
            return
        await talk.socket.send(self._heard(talk, job))
        if self._live.voice(job) is Voice.NONE:
            await self._say(talk, job)

    def _heard(self, talk: _Talk, job: Job) -> list[wire.Message]:
        before = talk.running.get(job.uid)
        if before is None:
            return []
        messages = talk.follow.heard(before, talk.ear.take(render_of(before)))
        self._live.made(len(messages))
        return messages


@dataclass
class _Talk:
    """One client's websocket, and what is known of what it is to be told.

    `running`: its own jobs that do, by UID, as they were last told of. `turn`: of who tells something; a job's state is
    told to its end before another is, so that none is told of after a newer one.
    """

    socket: _Socket
    tenant: Tenant
    follow: Follow
    ear: Listener
    running: dict[str, Job]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


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
