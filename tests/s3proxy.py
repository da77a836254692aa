"""A proxy before an S3 server that fails as networks and servers do: by rules, each of which is used up."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

Matches = Callable[[web.Request], bool]
_HOP = {"transfer-encoding", "connection", "keep-alive", "content-encoding", "date", "server"}


@dataclass
class Fault:
    """What happens to the next `times` requests that match."""

    matches: Matches
    kind: str
    times: int = 1
    code: str = "SlowDown"
    status: int = 503
    after: int = 0  # bytes that come through before a cut


@dataclass
class S3Proxy:
    """`port` is where it listens; `asked` is what came through or was refused."""

    target: int
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    "Set when a request is held (kind `hold`)."

    def fail(self, matches: Matches, kind: str, **more: Any) -> None:
        """Add a rule. Kinds: refuse, cut, hold, lose (carried out, and the answer cut), twice,
        truncate, drip (the answer comes in pieces, `after` bytes each), late (passed on when its URL has ended).
        """
        self.faults.append(Fault(matches, kind, **more))

    def count(self, words: str) -> int:
        """Requests whose line has these words."""
        return sum(words in line for line in self.asked)

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                return fault
        return None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request."""
        fault = self._fault(request)
        self.asked.append(f"{request.method} {request.raw_path}")
        if fault is None:
            return await self._forward(request, await request.read())
        if fault.kind == "refuse":
            await request.read()
            body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>no</Message></Error>"
            return web.Response(status=fault.status, text=body, content_type="application/xml")
        if fault.kind == "cut":
            await request.content.readexactly(fault.after)
            return self._cut(request)
        if fault.kind == "hold":
            self.held.set()
            await asyncio.Event().wait()
        content = await request.read()
        if fault.kind == "late":
            await self._until_it_ended(request)
            return await self._forward(request, content)
        if fault.kind == "lose":
            await self._forward(request, content)
            return self._cut(request)
        if fault.kind == "twice":
            await self._forward(request, content)
            return await self._forward(request, content)
        if fault.kind == "drip":
            return await self._drip(request, await self._forward(request, content), fault.after)
        assert fault.kind == "truncate", fault.kind
        return await self._truncate(request, await self._forward(request, content), fault.after)

    @staticmethod
    async def _until_it_ended(request: web.Request) -> None:
        signed = dt.datetime.strptime(request.query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        end = signed + dt.timedelta(seconds=int(request.query["X-Amz-Expires"]) + 1)
        await asyncio.sleep(max(0.0, (end - dt.datetime.now(dt.UTC)).total_seconds()))

    @staticmethod
    def _cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    @staticmethod
    async def _drip(request: web.Request, whole: web.Response, piece: int) -> web.StreamResponse:
        assert isinstance(whole.body, bytes)
        answer = web.StreamResponse(status=whole.status)
        answer.content_length = len(whole.body)
        await answer.prepare(request)
        for start in range(0, len(whole.body), piece):
            await answer.write(whole.body[start : start + piece])
            await asyncio.sleep(0.15)  # the server is slow, the test does not wait for it
        return answer

    @staticmethod
    async def _truncate(request: web.Request, whole: web.Response, after: int) -> web.StreamResponse:
        assert isinstance(whole.body, bytes)
        kept = {name: value for name, value in whole.headers.items() if name.lower() != "content-length"}
        answer = web.StreamResponse(status=whole.status, headers=kept)
        answer.content_length = len(whole.body)
        await answer.prepare(request)
        await answer.write(whole.body[:after])
        assert request.transport is not None
        request.transport.close()
        return answer

    async def _forward(self, request: web.Request, content: bytes) -> web.Response:
        url = URL(f"http://127.0.0.1:{self.target}{request.raw_path}", encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, url, headers=headers, data=content, skip_auto_headers={"Content-Type"},
                allow_redirects=False,
            ) as answer,
        ):  # fmt: skip
            body = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.method != "HEAD":
                kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
            return web.Response(status=answer.status, body=body, headers=kept)


@asynccontextmanager
async def s3_proxy(target: int) -> AsyncIterator[S3Proxy]:
    """A proxy before the server on this port."""
    proxy = S3Proxy(target)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{rest:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.port = runner.addresses[0][1]
    try:
        yield proxy
    finally:
        with suppress(TimeoutError):
            await runner.cleanup()
