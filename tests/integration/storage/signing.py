"""Stores of a real S3 server for tests: of a process with keys, or of one that has each request signed by another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from kinora.s3.address import Bucket
from kinora.s3.client import Call, Pace, S3Client
from kinora.storage.broker.asks import PATH, parsed, wanted
from kinora.storage.broker.signer import BrokerSigner, working_on
from kinora.storage.s3 import S3Store
from s3proxy import S3Proxy
from s3server import S3Server

MiB = 1 << 20
PACE = Pace(first_pause=0.01, longest_pause=0.05, part_bytes=5 * MiB, stall_seconds=10)
KEY = "films/cup/0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55/1/0-cup.mp4"


class Stores:
    """Makes stores, and closes their clients. `brokered`: they have no keys, and have each request signed."""

    def __init__(self, server: S3Server, proxy: S3Proxy, stack: AsyncExitStack, *, brokered: bool) -> None:
        self._server, self._proxy, self._stack, self._brokered = server, proxy, stack, brokered

    async def __call__(self, pace: Pace = PACE, bucket: Bucket | None = None, **more: Any) -> S3Store:
        at = bucket or self._server.bucket(port=self._proxy.port, prefix="out/")
        provider = more.pop("credentials", lambda: self._server.credentials)
        client = S3Client(at, provider, pace=pace)
        if self._brokered:
            url, token = await self._stack.enter_async_context(signing(self._server, at))
            signer = await self._stack.enter_async_context(Signer(url, at, token))
            client = S3Client(at, pace=pace, signer=signer)
        return S3Store(await self._stack.enter_async_context(client), **more)


class Signer(BrokerSigner):
    """Asks for the attempt that KEY is of."""

    async def __call__(self, call: Call) -> tuple[str, Mapping[str, str]]:
        with working_on("cup", KEY.split("/")[2], 1):
            return await super().__call__(call)


@asynccontextmanager
async def signing(server: S3Server, bucket: Bucket) -> AsyncIterator[tuple[str, Path]]:
    """What a stager does once it knows that an agent may: its URL, and the file with a token (which it does not mind).

    The whole, with tokens and jobs: tests/integration/stager/test_broker.py.
    """
    keys = S3Client(bucket, lambda: server.credentials)

    async def sign(request: web.Request) -> web.Response:
        asked = wanted(parsed(await request.read()), bucket.prefix)
        return web.json_response({"url": keys.presigned(asked.method, asked.key, asked.query, asked.headers, 60)})

    app = web.Application()
    app.router.add_post(PATH, sign)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    token = server.folder / "token"
    token.write_text("a.b.c")
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", token
    finally:
        await runner.cleanup()
