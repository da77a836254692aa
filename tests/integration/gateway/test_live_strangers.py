"""Whoever answers in an agent's place, or nobody: the client hears what the status says, whole and once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from integration.gateway.comfyui import finished, heard, listening, prompted
from integration.gateway.house import House
from integration.gateway.rendering import ADDRESS
from kinora.api import transitions
from kinora.api.names import LIVE_SECRET, LIVE_SECRET_TYPE
from kinora.controller.modelserver.desired import service_account
from kinora.gateway.live import agents
from kinora.kube.resources import POD, SECRET, SERVICE_ACCOUNT, VIDEOJOB
from kinora.kube.secret_keys import secret_body
from waiting import until

pytestmark = pytest.mark.integration
Object = dict[str, Any]
Stranger = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
DEADLINE = 30.0


def says(*lines: bytes, then_stay: bool = False) -> Stranger:
    """One that answers so, whatever it is asked."""

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for line in lines:
                writer.write(line)
                await writer.drain()
            if then_stay:
                await reader.read()
        writer.close()

    return stranger


@contextlib.asynccontextmanager
async def answered_by(house: House, stranger: Stranger, **spec: Any) -> AsyncIterator[Object]:
    """The pod of a job, at whose address somebody else answers."""
    kube, namespace = house.kube, house.namespace
    await kube.create(SERVICE_ACCOUNT, namespace, service_account(namespace))
    account = {"serviceAccountName": "kinora-agent", "automountServiceAccountToken": False}
    body = {"metadata": {"name": "vace-0"}, "spec": {**account, "containers": [{"name": "a", "image": "none"}], **spec}}
    pod = await kube.create(POD, namespace, body)
    status = {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}
    await kube.patch(POD, namespace, "vace-0", {"status": status}, subresource="status")
    assert house.gateway is not None
    async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        house.gateway.live.agents.url = lambda _host: f"http://127.0.0.1:{port}"
        yield pod


async def key(house: House) -> None:
    body = secret_body(house.namespace, b"k" * 32, name=LIVE_SECRET, kind=LIVE_SECRET_TYPE)
    await house.kube.create(SECRET, house.namespace, body)


async def bound(house: House, id_: str, pod: Object, uid: str = "") -> None:
    """To this pod, as the operator binds."""
    job = await house.job(id_)
    assignment = {"podName": pod["metadata"]["name"], "podUID": uid or pod["metadata"]["uid"], "promptID": "p"}
    now = transitions.parse_time(job["metadata"]["creationTimestamp"])
    status = {**transitions.bound(job, assignment, now), "submitTime": job["metadata"]["creationTimestamp"]}
    await house.kube.patch(VIDEOJOB, house.namespace, job["metadata"]["name"], {"status": status}, subresource="status")


async def failed(house: House, reason: str) -> None:
    assert house.gateway is not None
    registry = house.gateway.metrics.registry
    await until(
        lambda: bool(registry.get_sample_value("kinora_gateway_live_failures_total", {"reason": reason})), DEADLINE
    )


async def the_whole_story(house: House, user: httpx.AsyncClient, pod: Object, reason: str, uid: str = "") -> None:
    """The render goes on, the stream is lost for this reason, and the status tells everything once."""
    async with listening(house, user) as socket:
        await heard(socket, "status")
        id_ = await prompted(user, client_id="me")
        await bound(house, id_, pod, uid)
        await house.run(id_, stage="Sample", step=1, steps=20)
        begun = await heard(socket, "progress", seconds=DEADLINE, node="24", value=1)
        await failed(house, reason)
        await house.run(id_, stage="Sample", step=2, steps=20)
        await finished(house, id_)
        told = [*begun, *await heard(socket, "executing", seconds=DEADLINE, node=None)]
    nodes = [one["data"]["node"] for one in told if one["type"] == "executing"]
    assert nodes[-3:] == ["24", "32", None]
    assert len(nodes) == len(set(nodes))
    passing = ("status", "progress_state", "progress", "executing")
    kinds = [one["type"] for one in told if one["type"] not in passing]
    assert kinds == ["execution_start", "execution_cached", "executed", "execution_success"]
    assert [one["data"]["value"] for one in told if one["type"] == "progress"] == [1, 2]
    assert all(one["data"].get("prompt_id") == id_ for one in told if one["type"] != "status")
    assert "evil" not in str(told)


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        (says(), "Cut"),
        (says(b"garbage\r\n\r\n"), "Cut"),
        (says(b"HTTP/1.1 500 evil\r\nContent-Length: 0\r\n\r\n"), "Status"),
        (says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/evil\r\nContent-Length: 0\r\n\r\n"), "Status"),
        (says(OK, b"not json\n"), "Garbled"),
        (says(OK, b'{"node": {"evil": 1}}\n'), "Garbled"),
        (says(OK, *[b"x" * 65536] * 64), "Garbled"),
        (says(OK, b'{"node": "evil"}\n{"node": "evil", "value": 1, "max": 2}\n{"cached": ["evil"]}\n'), "Cut"),
        (says(OK, b'{"node"'), "Garbled"),
    ],
    ids=["nothing", "no http", "an error", "a redirect", "no json", "no node", "no line", "other nodes", "half a line"],
)
async def test_what_a_stranger_says_reaches_nobody(
    house: House, user: httpx.AsyncClient, stranger: Stranger, reason: str
) -> None:
    await key(house)
    async with answered_by(house, stranger) as pod:
        await the_whole_story(house, user, pod, reason)


async def test_one_who_says_nothing_is_waited_for_and_left(
    house: House, user: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await key(house)
    async with answered_by(house, says(OK, then_stay=True)) as pod:
        await the_whole_story(house, user, pod, "Timeout")


async def test_a_pod_that_is_not_the_one_that_renders_is_not_asked(house: House, user: httpx.AsyncClient) -> None:
    await key(house)
    asked = asyncio.Event()

    async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()

    async with answered_by(house, never) as pod:
        await the_whole_story(house, user, pod, "NoAddress", "00000000-0000-4000-8000-000000000009")
    assert not asked.is_set()


async def test_without_a_key_nobody_is_asked(house: House, user: httpx.AsyncClient) -> None:
    async with answered_by(house, says()) as pod:
        await the_whole_story(house, user, pod, "NoKey")


async def test_a_flood_is_read_at_a_bounded_rate_and_other_clients_go_on(
    house: House, user: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await key(house)
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b'{"node":"24"}\n{"now":1}\n')
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"".join(b'{"node":"24","value":%d,"max":9}\n' % (value % 9) for value in range(1000)))
                await writer.drain()
                sent += 1000

    async with answered_by(house, flood) as pod, listening(house, user) as socket:
        await heard(socket, "status")
        id_ = await prompted(user, client_id="me")
        await bound(house, id_, pod)
        await house.run(id_)
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        others = asyncio.create_task(_asked_again_and_again(user))
        while loop.time() - began < 3.0 or count == 0:
            count += sum(one["type"] == "progress" for one in await heard(socket, "progress", seconds=DEADLINE))
        assert count <= agents.MAX_RATE * (loop.time() - began + 2.0)
        others.cancel()
        assert await others > 0
        await finished(house, id_)
        assert (await heard(socket, "executing", seconds=DEADLINE, node=None))[-3]["type"] == "execution_success"


async def _asked_again_and_again(user: httpx.AsyncClient) -> int:
    """How many requests were answered until it is cancelled."""
    answered = 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            assert (await user.get("/queue")).status_code == 200
            answered += 1
    return answered
