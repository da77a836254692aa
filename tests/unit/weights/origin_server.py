"""A file server on loopback that speaks the real protocol and has its bad days: what a test tells it to do wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

#: (request's number for the path from 1 on, request) -> an answer in place of the right one, or None.
Fault = Callable[[int, web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class Server:
    """`files` by path; what was asked for and how many bytes went out."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    ranges: bool = True
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    served: int = 0

    def put(self, path: str, content: bytes) -> str:
        """Serve it; the URL."""
        self.files[path] = content
        self.tags[path] = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        return f"{self.url}/{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The right answer, unless a fault has another one."""
        path = request.path.lstrip("/")
        self.requests.append((path, dict(request.headers)))
        count = sum(1 for name, _ in self.requests if name == path)
        if self.fault is not None:
            wrong = await self.fault(count, request)
            if wrong is not None:
                return wrong
        if path not in self.files:
            return web.Response(status=404)
        return await self.send(request, path)

    async def send(self, request: web.Request, path: str, cut_after: int | None = None) -> web.StreamResponse:
        """The file or the range asked for. `cut_after`: break the connection after so many bytes."""
        content, headers = self.files[path], {"ETag": self.tags[path]}
        start, end, status = 0, len(content), 200
        wanted = request.http_range if self.ranges else slice(None, None)
        if wanted.start is not None and request.headers.get("If-Range", self.tags[path]) == self.tags[path]:
            start, end, status = wanted.start, min(wanted.stop or end, end), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end]
        answer = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(body))})
        await answer.prepare(request)
        part = body if cut_after is None else body[:cut_after]
        self.served += len(part)
        await answer.write(part)
        if cut_after is not None:
            assert request.transport is not None
            request.transport.close()
        return answer


def gets(server: Server) -> list[str]:
    """The ranges that were asked for, without the first look at each file."""
    return [headers.get("Range", "whole") for _, headers in server.requests if headers.get("Range") != "bytes=0-0"]


@asynccontextmanager
async def serving(server: Server | None = None) -> AsyncIterator[Server]:
    """A server that answers until the end."""
    server = server or Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    sockets: Any = site._server.sockets  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def stalled(seconds: float = 60.0) -> Fault:
    """The first answer begins and goes no further."""

    async def fault(count: int, request: web.Request) -> web.StreamResponse | None:
        if count != 2:
            return None
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await asyncio.wait_for(asyncio.Event().wait(), seconds)
        return answer

    return fault
