"""One attempt: at a real receiver on the loopback, which the tests' policy opens, and at all of the table of tricks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from kinora.api.webhooks import Destinations
from kinora.gateway.webhooks.decide import Answered, Unanswered, Unusable
from kinora.gateway.webhooks.payload import payload
from kinora.gateway.webhooks.send import Sender, policy_of, retry_after
from kinora.gateway.webhooks.sign import headers
from kinora.storage.guard.connect import GuardedClient
from rawserver import Answer, Server, listening
from unit.gateway.webhooks.builders import KEY, job
from unit.storage.guard.ssrf import TRICKS, Trick, connections, resolver

BODY = payload(job())
SIGNED = headers("msg_1", 1777636800, BODY, (KEY,))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as made:
        yield made


def sender(port: int, trick: Trick | None = None, timeout_seconds: float = 2.0) -> Sender:
    """Only `friend` is opened, which is this test's server."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "friend" else await resolver(trick.names if trick else {}, host)

    allow = Destinations(hosts=[f"friend:{port}"], http=True)
    return Sender(GuardedClient(policy_of(allow), resolve=resolve, agent="kinora/test"), timeout_seconds)


async def send(server: Server, answer: bytes | Answer, **more: float) -> Answered | Unanswered | Unusable:
    server.answers["/hook"] = answer
    return await sender(server.port, **more).send(f"http://friend:{server.port}/hook?a=b", BODY, SIGNED)  # type: ignore[arg-type]


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode()


async def test_what_a_receiver_gets(server: Server) -> None:
    bodies: list[bytes] = []

    async def receive(request: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = next(int(line[15:]) for line in request.split("\r\n") if line.lower().startswith("content-length:"))
        bodies.append(await reader.readexactly(length))
        writer.write(head("204 No Content"))
        await writer.drain()

    server.with_body["/hook"] = receive
    assert await sender(server.port).send(f"http://friend:{server.port}/hook?a=b", BODY, SIGNED) == Answered(204)
    request, *lines = server.requests[0].rstrip().split("\r\n")
    assert request == "POST /hook?a=b HTTP/1.1"
    got = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert got["host"] == f"friend:{server.port}"
    assert got["content-type"] == "application/json"
    assert got["user-agent"] == "kinora/test"
    assert {name: got[name] for name in SIGNED} == SIGNED
    assert "authorization" not in got
    assert json.loads(bodies[0]) == json.loads(BODY)
    assert bodies[0] == BODY, "what was signed is what was sent"


async def _silent(_: str, writer: asyncio.StreamWriter) -> None:
    await writer.wait_closed()


async def _slow_head(_: str, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def _endless_head(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: " + b"x" * 4000 + b"\r\n")
        await writer.drain()


async def _endless_interim(_: str, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(head("103 Early Hints", "Link: </style.css>"))
        await writer.drain()
        await asyncio.sleep(0)


async def _dripping_body(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", "Content-Length: 1000"))
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (head("200 OK", "Content-Length: 2") + b"ok", Answered(200)),
        (head("500 Oops", "Content-Length: 0"), Answered(500)),
        (head("410 Gone", "Content-Length: 0"), Answered(410)),
        (head("429 Slow", "Retry-After: 7", "Content-Length: 0"), Answered(429, 7.0)),
        (head("200 OK", "Content-Length: 1000") + b"cut", Answered(200)),
        (head("200 OK", "Content-Encoding: gzip", "Content-Length: 3") + b"abc", Answered(200)),
        (_dripping_body, Answered(200)),
    ],
)  # fmt: skip
async def test_the_head_of_the_answer_decides_and_its_body_is_dropped(
    server: Server, answer: bytes | Answer, outcome: Answered
) -> None:
    started = time.monotonic()
    assert await send(server, answer) == outcome
    assert time.monotonic() - started < 3


async def test_a_gigabyte_of_an_answer_is_not_taken(server: Server) -> None:
    taken, ended = 0, asyncio.Event()

    async def gigabyte(_: str, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        try:
            writer.write(head("200 OK", f"Content-Length: {1 << 30}"))
            while taken < 1 << 30:
                writer.write(bytes(1 << 16))
                await writer.drain()
                taken += 1 << 16
        finally:
            ended.set()

    assert await send(server, gigabyte) == Answered(200)
    await asyncio.wait_for(ended.wait(), 5)
    assert taken < 64 << 20, "what the kernel's buffers hold, and no more"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_silent, "no answer within 0.3 s"),
        (_slow_head, "no answer within 0.3 s"),
        (_endless_interim, "while sending"),
        (_endless_head, "while sending"),
        (b"", "while sending"),
        (b"HTTP/1.1 200 O", "while sending"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "while sending"),
        (head("200 OK", "Content-Length: -1"), "while sending"),
    ],
)
async def test_no_whole_head_is_no_answer(server: Server, answer: bytes | Answer, words: str) -> None:
    outcome = await send(server, answer, timeout_seconds=0.3)
    assert isinstance(outcome, Unanswered)
    assert outcome.reason == "NoAnswer"
    assert words in outcome.message or "no answer within" in outcome.message


async def test_a_receiver_that_is_not_there(server: Server) -> None:
    outcome = await sender(server.port).send("https://nowhere.example/", BODY, SIGNED)
    assert outcome == Unanswered("spec.webhook.url: host nowhere.example cannot be resolved")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data/", "/elsewhere", "https://good.example/"])
async def test_redirects_are_not_followed(server: Server, status: int, to: str) -> None:
    server.redirect("/hook", to, status)
    with connections() as made:
        outcome = await sender(server.port).send(f"http://friend:{server.port}/hook", BODY, SIGNED)
    assert outcome == Answered(status)
    assert made == [("127.0.0.1", server.port)]
    assert len(server.requests) == 1


@pytest.mark.parametrize("trick", TRICKS, ids=str)
async def test_no_trick_leads_a_webhook_anywhere(trick: Trick) -> None:
    with connections() as made:
        outcome = await sender(0, trick).send(trick.url, BODY, SIGNED)
    assert isinstance(outcome, Unusable) or (
        isinstance(outcome, Unanswered) and outcome.reason == "DestinationRefused"
    ), outcome
    assert trick.word in outcome.message
    assert outcome.message.startswith("spec.webhook.url")
    assert made == []


async def test_plain_http_is_shut_unless_it_is_opened() -> None:
    shut = Sender(GuardedClient(policy_of(Destinations())), 1.0)
    outcome = await shut.send("http://good.example/hook", BODY, SIGNED)
    assert outcome == Unanswered("spec.webhook.url: scheme is http; allowed: https", "DestinationRefused")


NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None), ("", None), ("0", 0), ("120", 120), (" 5 ", 5), ("-5", None), ("1.5", None), ("soon", None),
        ("999999999", 86400), ("9" * 40, None), ("１２", None),
        ("Fri, 01 May 2026 12:10:00 GMT", 600), ("Fri, 01 May 2026 11:00:00 GMT", 0),
        ("Fri, 01 May 2026 12:10:00 -0000", 600), ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Fri, 99 May 2026 12:10:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds
