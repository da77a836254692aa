"""What the engine says of a render reaches the client's websocket as it says it: real gateway, agent, stand-in."""

from __future__ import annotations

import contextlib
import os
import signal
import socket as sockets
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from integration.agent.bench import Bench
from integration.gateway.comfyui import entry, heard, listening, prompted
from integration.gateway.house import House
from integration.gateway.rendering import rendering
from kinora.agent.liveroutes import MAX_STREAMS
from kinora.api import names
from kinora.engine import live, livetoken
from kinora.engine.livetoken import Listening
from kinora.gateway.jobs import Job
from kinora.gateway.live import streams
from kinora.gateway.live.streams import Voice
from kinora.kube.resources import SECRET
from kinora.kube.secret_keys import keys_in
from unit.workflows.made import sound
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("claims")]
Object = dict[str, Any]
Operator = Callable[..., Awaitable[Any]]
MODEL = "wan2.1-vace-1.3b"
SECONDS = 120.0  # for a small render, on a machine that does other things too
BEFORE_THE_SAMPLER = {"11", "13", "14", "15", "16", "17"}


def small(steps: int) -> Object:
    """A video of nine small frames."""
    return sound(n17={"width": 64, "height": 64, "length": 9}, n24={"steps": steps})


def about(messages: list[Object], id_: str) -> list[Object]:
    """Those about one prompt, but for the sums."""
    told = [one for one in messages if one["data"].get("prompt_id") == id_]
    return [one for one in told if one["type"] != "progress_state"]


def entered(messages: list[Object]) -> list[str]:
    return [one["data"]["node"] for one in messages if one["type"] == "executing" and one["data"]["node"]]


def steps(messages: list[Object], node: str) -> list[int]:
    return [one["data"]["value"] for one in messages if one["type"] == "progress" and one["data"]["node"] == node]


async def to_the_end(socket: ClientConnection) -> list[Object]:
    return await heard(socket, "executing", seconds=SECONDS, node=None)


def counted(house: House, name: str, **labels: str) -> float:
    assert house.gateway is not None
    return house.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


def opened(bench: Bench) -> int:
    assert bench.agent is not None
    return len(bench.agent.live)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status leaves the word to the engine, however long the stream takes to stand."""
    monkeypatch.setattr(streams, "WAIT_SECONDS", SECONDS)


async def is_live(house: House, id_: str, attempt: int = 1) -> None:
    """Wait until the engine itself speaks of the render."""
    name = (await house.job(id_))["metadata"]["name"]

    def holds() -> bool:
        assert house.gateway is not None
        job = house.gateway.service.known(house.namespace, name)
        return job is not None and job.attempt == attempt and house.gateway.live.voice(job) is Voice.LIVE

    await until(holds, SECONDS)


async def known(house: House, id_: str) -> Job:
    """The job as the gateway knows it."""
    assert house.gateway is not None
    name = (await house.job(id_))["metadata"]["name"]
    found = house.gateway.service.known(house.namespace, name)
    assert found is not None
    return found


async def test_each_node_and_step_is_told_as_the_engine_does_it(
    house: House, user: httpx.AsyncClient, stranger: httpx.AsyncClient, start_operator: Operator, tmp_path: Path
) -> None:
    async with (
        rendering(house, start_operator, MODEL, tmp_path / "pod", live=True, steps=0) as bench,
        listening(house, user) as socket,
        listening(house, user, "another") as mine_too,
        listening(house, stranger) as theirs,
    ):
        for one in (socket, mine_too, theirs):
            await heard(one, "status")
        id_ = await prompted(user, small(8), client_id="me")
        await is_live(house, id_)
        bench.go()
        messages = await to_the_end(socket)
        told = about(messages, id_)
        kinds = [one["type"] for one in told]
        assert kinds[:2] == ["execution_start", "execution_cached"]
        assert kinds[-3:] == ["executed", "execution_success", "executing"]
        assert kinds.count("executing") == len(small(8)) + 1
        order = entered(told)
        assert set(order[:6]) == BEFORE_THE_SAMPLER
        assert order[6:] == ["24", "30", "31", "32"]
        assert steps(told, "24") == list(range(1, 9)), "every step, in order, once"
        assert steps(told, "32")[-1] == 9
        assert all(one["data"].get("prompt_id") == id_ for one in messages if one["type"] != "status")
        [executed] = [one["data"] for one in told if one["type"] == "executed"]
        assert (await entry(user, id_))["outputs"] == {"32": executed["output"]}
        assert bench.root.name not in str(messages), "no path and no folder of the job is told"
        for one in (mine_too, theirs):
            await prompted(user if one is mine_too else stranger, small(1))
            others = await heard(one, "status")
            assert {message["type"] for message in others} == {"status"}
        assert counted(house, "kinora_gateway_live_events_total") >= 8 + 10
        assert counted(house, "kinora_gateway_live_messages_total") >= 2 * (8 + 10)
        await until(lambda: opened(bench) == 0)


async def test_many_sockets_share_one_stream_and_one_that_comes_late_hears_where_it_is(
    house: House, user: httpx.AsyncClient, start_operator: Operator, tmp_path: Path
) -> None:
    async with (
        rendering(house, start_operator, MODEL, tmp_path / "pod", live=True, steps=1) as bench,
        contextlib.AsyncExitStack() as stack,
    ):
        first = await stack.enter_async_context(listening(house, user))
        await heard(first, "status")
        id_ = await prompted(user, small(30), client_id="me")
        await heard(first, "progress", seconds=SECONDS, node="24")
        late = await stack.enter_async_context(listening(house, user))  # it takes the first one's place
        begun = await heard(late, "progress", seconds=SECONDS, node="24")
        assert "execution_start" not in [one["type"] for one in begun]
        assert set(entered(begun)) <= {"24"} | BEFORE_THE_SAMPLER
        assert (opened(bench), counted(house, "kinora_gateway_live_streams")) == (1, 1)
        bench.go()
        rest = await to_the_end(late)
        seen = steps([*begun, *rest], "24")
        assert seen == list(range(1, 31))
        assert "executed" in [one["type"] for one in about(rest, id_)]


async def test_an_agent_that_dies_leaves_the_word_to_the_status_and_its_successor_goes_on(
    house: House, user: httpx.AsyncClient, start_operator: Operator, tmp_path: Path
) -> None:
    async with (
        rendering(house, start_operator, MODEL, tmp_path / "pod", live=True, steps=3) as bench,
        listening(house, user) as socket,
    ):
        await heard(socket, "status")
        id_ = await prompted(user, small(40), client_id="me")
        begun = await heard(socket, "progress", seconds=SECONDS, node="24", value=3)
        await bench.kill_agent()
        job = await known(house, id_)
        await until(lambda: house.gateway is not None and house.gateway.live.voice(job) is Voice.NONE)
        await bench.start_agent()
        await is_live(house, id_)
        bench.go()
        told = about([*begun, *await to_the_end(socket)], id_)
        kinds = [one["type"] for one in told]
        assert kinds[-3:] == ["executed", "execution_success", "executing"]
        for once in ("execution_start", "execution_cached", "executed", "execution_success"):
            assert kinds.count(once) == 1, once
        order = entered(told)
        assert len(order) == len(set(order)), "no node is told twice"
        assert order[-1] == "32"
        seen = steps(told, "24")
        assert seen == sorted(set(seen)), "and no step goes back"


async def test_an_attempt_that_is_lost_and_the_next_one_are_one_story(
    house: House, user: httpx.AsyncClient, start_operator: Operator, tmp_path: Path
) -> None:
    async with (
        rendering(house, start_operator, MODEL, tmp_path / "pod", live=True, steps=0) as bench,
        listening(house, user) as socket,
    ):
        await heard(socket, "status")
        id_ = await prompted(user, small(12), client_id="me")
        await is_live(house, id_)
        bench.hold(4)
        begun = await heard(socket, "progress", seconds=SECONDS, node="24", value=4)
        bench.hold(0)
        os.kill(await bench.engine_process(), signal.SIGKILL)
        await is_live(house, id_, attempt=2)
        bench.go()
        rest = await to_the_end(socket)
        assert (await house.job(id_))["status"]["attempt"] == 2
        told = about([*begun, *rest], id_)
        kinds = [one["type"] for one in told]
        for once in ("execution_start", "execution_cached", "executed", "execution_success"):
            assert kinds.count(once) == 1, once
        seen = steps(told, "24")
        again = seen.index(1, 1)
        assert seen[:again] == list(range(1, again + 1)), "the attempt that was lost"
        assert seen[again:] == list(range(1, 13)), "and the next one, whole"
        second = entered(rest)[entered(rest).index("24") - 6 :]
        assert set(second[:6]) == BEFORE_THE_SAMPLER
        assert second[6:] == ["24", "30", "31", "32"]


async def test_whoever_does_not_read_holds_nobody_up(
    house: House, user: httpx.AsyncClient, start_operator: Operator, tmp_path: Path
) -> None:
    async with (
        rendering(house, start_operator, MODEL, tmp_path / "pod", live=True, steps=1) as bench,
        listening(house, user) as socket,
    ):
        await heard(socket, "status")
        id_ = await prompted(user, small(100), client_id="me")
        await heard(socket, "progress", seconds=SECONDS, node="24")
        socket.transport.pause_reading()
        token = await _token(house, id_, bench)
        with _deaf(bench.live_port, f"/live/{(await house.job(id_))['metadata']['uid']}/1", token):
            await until(lambda: opened(bench) == 2)
            bench.go()
            name = (await house.job(id_))["metadata"]["name"]
            status = await bench.status_when(name, lambda status: status["phase"] == "Succeeded")
        assert status["attempt"] == 1


@contextlib.contextmanager
def _deaf(port: int, path: str, token: str) -> Iterator[None]:
    """One who asks for the stream and reads nothing of it."""
    with sockets.socket() as one:
        one.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 1024)
        one.connect(("127.0.0.1", port))
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        yield


async def _key(house: House) -> bytes:
    return keys_in(await house.kube.get(SECRET, house.namespace, names.LIVE_SECRET))[0]


async def _token(house: House, id_: str, bench: Bench) -> str:
    job = await house.job(id_)
    listens = Listening(bench.pod["metadata"]["uid"], job["metadata"]["uid"], int(job["status"]["attempt"]))
    return livetoken.sign(await _key(house), listens, time.time())


async def test_only_a_token_for_this_pod_this_job_and_this_attempt_opens_a_stream(
    house: House, user: httpx.AsyncClient, start_operator: Operator, tmp_path: Path
) -> None:
    async with (
        rendering(house, start_operator, MODEL, tmp_path / "pod", step_seconds=0.2, live=True, steps=1) as bench,
        listening(house, user) as socket,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{bench.live_port}", timeout=20) as agent,
    ):
        id_ = await prompted(user, small(100), client_id="me")
        await heard(socket, "progress", seconds=SECONDS, node="24")
        key, now = await _key(house), time.time()
        pod, job = bench.pod["metadata"]["uid"], (await house.job(id_))["metadata"]["uid"]
        path = f"/live/{job}/1"
        other = "00000000-0000-4000-8000-000000000000"
        for why, token in {
            "none": "",
            "an API key": user.headers["authorization"],
            "forged": livetoken.sign(b"x" * 32, Listening(pod, job, 1), now),
            "expired": livetoken.sign(key, Listening(pod, job, 1), now - livetoken.LIFETIME_SECONDS - 2),
            "of another job": livetoken.sign(key, Listening(pod, other, 1), now),
            "of another pod": livetoken.sign(key, Listening(other, job, 1), now),
            "of another attempt": livetoken.sign(key, Listening(pod, job, 2), now),
        }.items():
            answer = await agent.get(path, headers={"Authorization": token})
            assert (answer.status_code, answer.json()["reason"]) == (401, "BadToken"), why
        good = livetoken.sign(key, Listening(pod, job, 1), time.time())
        for elsewhere in (f"/live/{other}/1", f"/live/{job}/2", f"/live/{job}/1x", "/live/../1/1", f"/live/{job}/0"):
            assert (await agent.get(elsewhere, headers={"Authorization": good})).status_code in (401, 404), elsewhere
        unknown = livetoken.sign(key, Listening(pod, other, 1), time.time())
        assert (await agent.get(f"/live/{other}/1", headers={"Authorization": unknown})).status_code == 404
        assert (await agent.post(path, headers={"Authorization": good})).status_code == 405
        await _streams_are_few(path, livetoken.sign(key, Listening(pod, job, 1), time.time()), bench)


async def _streams_are_few(path: str, token: str, bench: Bench) -> None:
    """As many as there may be; each tells the whole story; one more is refused."""
    url = f"http://127.0.0.1:{bench.live_port}{path}"
    async with aiohttp.ClientSession(headers={"Authorization": token}) as session:
        streams: list[aiohttp.ClientResponse] = []
        while opened(bench) < MAX_STREAMS:
            streams.append(await session.get(url))
            assert streams[-1].status == 200
            story = [live.parsed(await streams[-1].content.readline())]
            while story[-1] != live.Caught():
                story.append(live.parsed(await streams[-1].content.readline()))
            assert {event.node for event in story if isinstance(event, live.Entered)} == {*BEFORE_THE_SAMPLER, "24"}
        full = await session.get(url)
        assert (full.status, (await full.json())["reason"]) == (503, "Full")
    bench.go()  # who has gone is noticed when something is said
    await until(lambda: opened(bench) == 1)
