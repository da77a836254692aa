"""In which order one websocket is told of a job, when two have something to say of it at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from kinora.gateway.comfyui.sockets import Sockets
from kinora.gateway.jobs import Job, State
from kinora.gateway.live.streams import Listener, Voice, render_of
from kinora.gateway.tenants import Tenant
from unit.gateway.comfyui.made import CLIENT, ENDED, STARTED, artifact, job
from unit.workflows.made import sound
from waiting import DEADLINE, until

TENANT = Tenant("a", "media")


class House:
    """A service, graphs and streams of one job, and a client's end of the websocket."""

    def __init__(self, *jobs: Job) -> None:
        self.known = list(jobs)
        self.queue: asyncio.Queue[Job | None] = asyncio.Queue()
        self.ear = Listener()
        self.heard: list[Job] = []  # jobs as the streams were told of them
        self.said: list[dict[str, Any]] = []
        self.reading = asyncio.Event()  # whether the client reads
        self.reading.set()
        self.stuck, self.gone = asyncio.Event(), asyncio.Event()

    # the service's, the graphs' and the streams' part

    def jobs(self, _tenant: Tenant) -> list[Job]:
        return self.known

    @asynccontextmanager
    async def changes(self, _tenant: Tenant) -> AsyncIterator[asyncio.Queue[Job | None]]:
        yield self.queue

    async def all_of(self, _tenant: Tenant, jobs: list[Job]) -> dict[str, Any]:
        return {one.id: sound() for one in jobs}

    async def of(self, _tenant: Tenant, _job: Job) -> dict[str, Any]:
        return sound()

    @contextmanager
    def listener(self) -> Iterator[Listener]:
        yield self.ear

    def hear(self, _ear: Listener, one: Job) -> None:
        self.heard.append(one)

    def voice(self, _job: Job) -> Voice:
        return Voice.NONE

    def made(self, messages: int) -> None:
        pass

    # the websocket's part

    async def accept(self) -> None:
        pass

    async def close(self, _code: int) -> None:
        pass

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "websocket.disconnect"}

    async def send_text(self, text: str) -> None:
        if not self.reading.is_set():
            self.stuck.set()
        await self.reading.wait()
        self.said.append(json.loads(text))

    async def until(self, kind: str, **data: Any) -> None:
        await until(lambda: any(one["type"] == kind and data.items() <= one["data"].items() for one in self.said))


def state(version: int, phase: str = "Running", **status: Any) -> Job:
    return replace(job(phase, startTime=STARTED, **status), version=version)


def sampling(version: int, step: int) -> Job:
    return state(version, progress={"percent": 20, "stage": "Sample", "step": step, "steps": 20})


@asynccontextmanager
async def served(house: House) -> AsyncIterator[None]:
    sockets = Sockets(house, house, house)  # type: ignore[arg-type]
    serving = asyncio.create_task(sockets.serve(house, TENANT, CLIENT))  # type: ignore[arg-type]
    await house.until("status")
    yield
    house.gone.set()
    await serving


async def test_a_job_that_ended_while_its_stream_was_lost_is_not_told_of_as_running_again() -> None:
    house = House(job("Queued"))
    async with served(house):
        house.queue.put_nowait(sampling(2, 1))
        await house.until("progress", value=1)
        house.reading.clear()
        house.queue.put_nowait(sampling(3, 2))  # the client does not read it yet
        await asyncio.wait_for(house.stuck.wait(), DEADLINE)
        house.ear.lose(render_of(house.heard[-1]))
        house.queue.put_nowait(state(4, "Succeeded", completionTime=ENDED, artifacts=[artifact()]))
        for _ in range(10):  # both who tell are waiting for the client, or for one another
            await asyncio.sleep(0)
        house.reading.set()
        await house.until("executing", node=None)
    assert house.heard[-1].state is State.SUCCEEDED, "nobody listens for what has ended"
    assert [one["data"]["value"] for one in house.said if one["type"] == "progress"] == [1, 2]


async def test_an_older_state_than_the_last_one_is_not_told() -> None:
    house = House(job("Queued"))
    async with served(house):
        for one in (sampling(2, 1), sampling(4, 7), sampling(3, 6), sampling(5, 8)):
            house.queue.put_nowait(one)
        await house.until("progress", value=8)
    assert [one["data"]["value"] for one in house.said if one["type"] == "progress"] == [1, 7, 8]
