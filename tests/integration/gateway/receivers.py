"""Receivers of webhooks on the loopback, which answer as a test says, and the replicas that deliver to them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from waiting import DEADLINE

Object = dict[str, Any]
KEY = bytes(range(32))
WHSEC = f"whsec_{base64.b64encode(KEY).decode()}"

#: What a receiver does with one request: a status to answer, or anything with the connection.
Behaviour = int | bytes | Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """What came: header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Object:
        """The document."""
        found: Object = json.loads(self.body)
        return found

    def is_signed_with(self, key: bytes) -> bool:
        """As a receiver checks it (docs/webhooks.md)."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        given = [one.removeprefix("v1,") for one in self.headers.get("webhook-signature", "").split(" ")]
        return any(hmac.compare_digest(wanted, one) for one in given)


@dataclass
class Receiver:
    """Answers requests one after another as `script` says, and then all of them by the last of it."""

    script: list[Behaviour] = field(default_factory=lambda: [204])
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its own."""
        return f"http://127.0.0.1:{self.port}/hook"

    def ids(self) -> Counter[str]:
        """How often each webhook-id came."""
        return Counter(request.headers["webhook-id"] for request in self.requests)

    async def until(self, count: int, deadline: float = DEADLINE) -> list[Request]:
        """Wait for so many requests."""
        try:
            async with asyncio.timeout(deadline), self._came:
                await self._came.wait_for(lambda: len(self.requests) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.requests)} webhooks came in {deadline:g} s; wanted: {count}") from None
        return self.requests

    def leave(self) -> None:
        """Break all connections: whoever waits for an answer has none."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._writers.add(writer)
        try:
            request = await _read(reader)
            behaviour = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(request)
            async with self._came:
                self._came.notify_all()
            if isinstance(behaviour, int):
                behaviour = f"HTTP/1.1 {behaviour} X\r\nContent-Length: 0\r\n\r\n".encode()
            if isinstance(behaviour, bytes):
                writer.write(behaviour)
                await writer.drain()
            else:
                await behaviour(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Request(first.split(" ")[1], headers, await reader.readexactly(int(headers["content-length"])))


async def hang(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Say nothing for as long as the client stays."""
    await writer.wait_closed()


@asynccontextmanager
async def receiving(*script: Behaviour) -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    made = Receiver(list(script) or [204])
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.leave()
