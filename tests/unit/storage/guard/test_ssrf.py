"""The stager's fetcher against the whole table: asked for directly, and led there by a redirect."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence

import pytest

from kinora.storage.guard.fetch import GuardedFetcher, Limits
from kinora.storage.guard.policy import Policy
from kinora.storage.guard.urls import UrlRefused
from rawserver import Server, listening
from unit.storage.guard.ssrf import TRICKS, Trick, connections, resolver

LIMITS = Limits(max_bytes=1 << 20, total_seconds=5, idle_seconds=2, connect_seconds=2)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as made:
        yield made


def fetcher(trick: Trick, port: int = 0) -> GuardedFetcher:
    """Only `friend` is opened, which is this test's server."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "friend" else await resolver(trick.names, host)

    return GuardedFetcher(Policy.of([f"friend:{port}"]), resolve=resolve)


def test_the_table_is_long_and_names_each_trick_once() -> None:
    assert len(TRICKS) >= 60
    assert len({trick.why for trick in TRICKS}) == len(TRICKS)


@pytest.mark.parametrize("trick", TRICKS, ids=str)
async def test_nothing_is_fetched_and_nobody_connected_to(trick: Trick) -> None:
    with connections() as made, pytest.raises(UrlRefused) as refused:
        await fetcher(trick).fetch(trick.url, io.BytesIO(), LIMITS, field="spec.inputs.video.url")
    assert trick.word in str(refused.value)
    assert made == []


@pytest.mark.parametrize("trick", [trick for trick in TRICKS if "\n" not in trick.url], ids=str)
async def test_no_redirect_leads_there(trick: Trick, server: Server) -> None:
    server.answers["/a"] = b"HTTP/1.1 302 X\r\nLocation: " + trick.url.encode() + b"\r\nContent-Length: 0\r\n\r\n"
    with connections() as made, pytest.raises(UrlRefused, match=r"^f \(redirected\)"):
        await fetcher(trick, server.port).fetch(f"http://friend:{server.port}/a", io.BytesIO(), LIMITS, field="f")
    assert made == [("127.0.0.1", server.port)]
    assert len(server.requests) == 1
