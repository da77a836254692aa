"""Listeners of an agent over real sockets: what they hear, and that none of them can hold up the one who tells."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from kinora.agent import liveroutes
from kinora.agent.live import Live
from kinora.agent.liveroutes import service
from kinora.agent.metrics import Metrics
from kinora.api import names
from kinora.engine import live, livetoken
from kinora.engine.base import ExecutionSuccess, NodesCached, NodeStarted, Progress
from kinora.engine.live import Caught, Ended, Entered, Left, LiveEvent, Stepped
from kinora.engine.livetoken import Listening
from kinora.kube.http import serve
from kinora.kube.secret_keys import SecretKeyError
from ports import free_port
from waiting import DEADLINE, until

POD, JOB = "0b9f0c1e-0000-4000-8000-000000000001", "0b9f0c1e-0000-4000-8000-000000000002"
PROMPT = names.prompt_id(JOB, 1)
KEY = b"k" * 32


class House:
    """One agent's port."""

    def __init__(self, told: Live, metrics: Metrics, port: int) -> None:
        self.live, self.metrics, self.port = told, metrics, port
        self.keys: list[bytes] | None = [KEY]
        self.fresh: list[bytes] | None = None

    async def known(self, anew: bool) -> list[bytes]:
        """The keys as they were read last, or as they are now."""
        if self.keys is None:
            raise SecretKeyError("there is no Secret films/kinora-live")
        return self.fresh if anew and self.fresh is not None else self.keys

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/live/{JOB}/1"

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"kinora_agent_live_{name}", labels) or 0.0


def token() -> str:
    return livetoken.sign(KEY, Listening(POD, JOB, 1), time.time())


@pytest.fixture
async def house() -> AsyncIterator[House]:
    told, metrics = Live(), Metrics()
    port = free_port()
    made = House(told, metrics, port)
    app = service(told, made.known, POD, metrics.live)
    runner = await serve(app, "127.0.0.1", port, shutdown_seconds=0.1, leaving=True)
    yield made
    await runner.cleanup()


@contextlib.asynccontextmanager
async def listening(house: House) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Authorization": token()}
    async with aiohttp.ClientSession() as session, session.get(house.url, headers=headers) as response:
        yield response


async def heard(response: aiohttp.ClientResponse, last: LiveEvent) -> list[LiveEvent]:
    events: list[LiveEvent] = []
    async with asyncio.timeout(DEADLINE):
        while not events or events[-1] != last:
            event = live.parsed(await response.content.readline())
            if event is not None:
                events.append(event)
    return events


async def test_a_listener_hears_the_story_so_far_and_then_each_event(house: House) -> None:
    house.live.open(PROMPT)
    house.live.note(NodesCached(PROMPT, ("1",)))
    house.live.note(NodeStarted(PROMPT, "2"))
    async with listening(house) as response:
        assert response.status == 200
        assert await heard(response, Caught()) == [live.Cached(("1",)), Entered("2"), Caught()]
        house.live.note(Progress(PROMPT, "2", 1, 2))
        house.live.note(NodeStarted("another prompt", "9"))
        assert await heard(response, Stepped("2", 1, 2)) == [Stepped("2", 1, 2)]
        house.live.note(ExecutionSuccess(PROMPT))
        assert await heard(response, Ended()) == [Ended()]
        assert await response.content.read() == b""
    async with listening(house) as late:  # the engine has done, and the agent has not left it yet
        assert (await heard(late, Ended()))[-2:] == [Caught(), Ended()]


async def test_a_prompt_that_is_left_is_not_told_to_have_ended(house: House) -> None:
    house.live.open(PROMPT)
    async with listening(house) as response:
        await heard(response, Caught())
        house.live.close(PROMPT)
        assert await heard(response, Left()) == [Left()]
        assert await response.content.read() == b""
    async with listening(house) as response:
        assert response.status == 404


async def test_a_quiet_stream_says_that_it_is_alive(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveroutes, "QUIET_SECONDS", 0.05)
    house.live.open(PROMPT)
    async with listening(house) as response:
        await heard(response, Caught())
        assert await asyncio.wait_for(response.content.readline(), DEADLINE) == live.NOTHING


async def test_one_who_does_not_read_is_cut_and_the_teller_never_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveroutes, "STALLED_SECONDS", 0.3)
    house.live.open(PROMPT)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", house.port))
        deaf.sendall(f"GET {house.url} HTTP/1.1\r\nHost: x\r\nAuthorization: {token()}\r\n\r\n".encode())
        await until(lambda: len(house.live) == 1)
        longest, node = 0.0, 0
        async with asyncio.timeout(DEADLINE):
            while len(house.live):
                node += node < 5000
                began = time.thread_time()  # its own: what others do on a busy machine is not the teller's
                house.live.note(NodeStarted(PROMPT, f"{node:0200}"))
                for value in range(200):
                    house.live.note(Progress(PROMPT, f"{node:0200}", value, 200))
                longest = max(longest, time.thread_time() - began)
                await asyncio.sleep(0)
        assert longest < 0.5, "201 events"
    assert house.count("dropped_total") > 0, "steps were left out, and memory was not filled"


async def test_listeners_who_go_are_forgotten_at_once(house: House) -> None:
    house.live.open(PROMPT)
    async with listening(house) as response:
        await heard(response, Caught())
        assert house.count("streams") == 0, "the agent itself sets the gauge"
        assert len(house.live) == 1
    await until(lambda: len(house.live) == 0)


async def test_a_key_that_is_not_there_is_told_apart_from_a_bad_token(house: House) -> None:
    house.live.open(PROMPT)
    house.keys = None
    async with listening(house) as response:
        assert (response.status, (await response.json())["reason"]) == (503, "NoKey")
    house.keys = [b"o" * 32]
    async with listening(house) as response:
        assert response.status == 401
    assert (house.count("refused_total", reason="NoKey"), house.count("refused_total", reason="BadToken")) == (1, 1)


async def test_a_key_that_was_changed_is_read_again_and_the_one_before_is_still_taken(house: House) -> None:
    house.live.open(PROMPT)
    house.keys, house.fresh = [b"o" * 32], [b"n" * 32, KEY]
    async with listening(house) as response:
        assert response.status == 200, "data.previous"
    house.keys, house.fresh = [b"o" * 32], [KEY, b"o" * 32]
    async with listening(house) as response:
        assert response.status == 200, "data.key"
    house.fresh = [b"n" * 32]
    async with listening(house) as response:
        assert response.status == 401


def test_a_listener_that_fails_does_not_reach_the_render() -> None:
    class Broken(Live):
        def _note(self, *_: object) -> None:
            raise RuntimeError("no")

    told = Broken()
    told.open(PROMPT)
    told.note(NodeStarted(PROMPT, "1"))
