"""The API client's parts that need no server: paths, errors, event bodies, lines of a watch."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kinora.kube import client
from kinora.kube.client import ApiError, KubeClient, WriteRefusedError
from kinora.kube.config import Connection
from kinora.kube.events import event_body
from kinora.kube.resources import EVENT, MODELSERVER, NODE, POD, VIDEOJOB, Resource

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("resource", "parts", "path"),
    [
        (POD, (), "/api/v1/pods"),
        (POD, ("films",), "/api/v1/namespaces/films/pods"),
        (POD, ("films", "a", "status"), "/api/v1/namespaces/films/pods/a/status"),
        (NODE, ("films", "n"), "/api/v1/nodes/n"),
        (EVENT, ("films",), "/apis/events.k8s.io/v1/namespaces/films/events"),
        (VIDEOJOB, ("films", "cat"), "/apis/kinora.dev/v1alpha1/namespaces/films/videojobs/cat"),
        (MODELSERVER, (None,), "/apis/kinora.dev/v1alpha1/modelservers"),
    ],
)
def test_paths(resource: Resource, parts: tuple[str | None, ...], path: str) -> None:
    assert resource.path(*parts) == path


@pytest.mark.parametrize(
    ("status", "reason", "facts"),
    [
        (404, "NotFound", {"is_not_found"}),
        (409, "Conflict", {"is_conflict"}),
        (409, "AlreadyExists", {"already_exists"}),
        (410, "Expired", {"is_gone"}),
        (422, "Invalid", set()),
    ],
)
def test_what_an_error_means(status: int, reason: str, facts: set[str]) -> None:
    error = ApiError(status, reason, "no")
    every = {"is_not_found", "is_conflict", "already_exists", "is_gone"}
    assert {fact for fact in every if getattr(error, fact)} == facts
    assert str(error) == f"{status} {reason}: no"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class Stream:
    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def iter_any(self) -> AsyncIterator[bytes]:
        return chunks(*self._parts)


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ((b'{"a":1}\n{"b":2}\n',), [b'{"a":1}', b'{"b":2}']),
        ((b'{"a"', b":1}", b"\n", b'{"b":2}\n'), [b'{"a":1}', b'{"b":2}']),
        ((b"a\n\nb\nc",), [b"a", b"b"]),
        ((b"x" * 300_000, b"\n"), [b"x" * 300_000]),
        ((), []),
    ],
)
async def test_lines_of_a_watch_whatever_the_chunks(parts: tuple[bytes, ...], lines: list[bytes]) -> None:
    assert [line async for line in client._lines(Stream(*parts))] == lines  # type: ignore[arg-type]


async def test_a_watch_event_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MAX_LINE", 10)
    with pytest.raises(ApiError, match="over 10 bytes"):
        assert [line async for line in client._lines(Stream(b"x" * 8, b"x" * 8)) if line]  # type: ignore[arg-type]


async def test_a_client_outside_its_context_says_so() -> None:
    lost = KubeClient(Connection("http://127.0.0.1:1", None, lambda: None, "films"))
    with pytest.raises(RuntimeError, match="async with KubeClient"):
        await lost.get(POD, "films", "a")


def job(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "films", "uid": "u", "resourceVersion": "7"}
    return {"apiVersion": "kinora.dev/v1alpha1", "kind": "VideoJob", "metadata": metadata}


def body(name: str = "cat", note: str = "why", now: dt.datetime = NOW) -> dict[str, Any]:
    return event_body(
        job(name), kind="Warning", reason="Retry", note=note, action="Requeue", reporter="r", instance="i", now=now
    )


def test_an_event_of_the_same_moment_is_the_same_event() -> None:
    assert body() == body()
    later = NOW + dt.timedelta(microseconds=1)
    assert (
        len({body()["metadata"]["name"], body(note="x")["metadata"]["name"], body(now=later)["metadata"]["name"]}) == 3
    )
    assert body()["regarding"]["uid"] == "u"


@pytest.mark.parametrize("name", ["cat", "a" * 253, "a" * 199 + "." + "b" * 50, "a" * 198 + "-.b"])
def test_an_events_name_is_one_that_the_api_server_takes(name: str) -> None:
    made = body(name, note="x" * 5000)
    assert len(made["metadata"]["name"]) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", made["metadata"]["name"])
    assert len(made["note"]) == 1024


# --- who may write


@pytest.fixture
async def busy_server() -> AsyncIterator[tuple[KubeClient, list[str]]]:
    """A server that is too busy for every request, and what was asked of it."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({"reason": "ServiceUnavailable", "message": "busy"}, status=503)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(application) as server:
        connection = Connection(f"http://127.0.0.1:{server.port}", None, lambda: None, "films")
        async with KubeClient(connection) as kube:
            yield kube, asked


async def test_permission_is_asked_for_before_each_attempt_of_a_write(
    busy_server: tuple[KubeClient, list[str]],
) -> None:
    kube, asked = busy_server

    def permit() -> None:
        if asked:
            raise WriteRefusedError("not the leader any more")

    kube.permit = permit
    with pytest.raises(WriteRefusedError, match="not the leader any more"):
        await kube.create(VIDEOJOB, "films", {})
    assert asked == ["POST"], "the second attempt was not sent"


async def test_reading_needs_no_permission(
    busy_server: tuple[KubeClient, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kube, asked = busy_server
    monkeypatch.setattr(client, "_ATTEMPTS", 1)

    def permit() -> None:
        raise WriteRefusedError("never")

    kube.permit = permit
    with pytest.raises(ApiError, match="busy"):
        await kube.get(VIDEOJOB, "films", "cat")
    assert asked == ["GET"]
