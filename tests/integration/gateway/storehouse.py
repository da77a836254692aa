"""A store service without a cluster: a stager's own routes over a folder, on a loopback port, with a known key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from kinora.api.names import stager_name
from kinora.kube.secret_keys import secret_body
from kinora.stager.routes import service
from kinora.storage.service.client import StoreClient
from kinora.storage.service.model import FileStore
from kinora.storage.uploads import PvcFiles

KEY = bytes(range(32))


@dataclass
class StoreHouse:
    """The store of the claim, served at `url` (a template without fields, for `GatewayValues.store_url`)."""

    root: Path
    namespace: str
    claim: str
    url: str
    client: StoreClient
    keys: list[bytes]  # that its service knows; the first one is in the Secret

    @property
    def secret(self) -> dict[str, Any]:
        """The Secret `kinora-store` that the gateway reads: to be created in the namespace."""
        return secret_body(self.namespace, self.keys[0])

    def artifact(self, key: str, content: bytes) -> str:
        """Put an artifact there as an agent would; its URI."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"pvc://{self.claim}/{key}"

    def uploads(self) -> list[Path]:
        """Every whole upload in the folder."""
        return sorted(path for path in (self.root / "uploads").rglob("*") if path.is_file() and path.name[0] != ".")

    def drafts(self) -> list[Path]:
        """What is coming in, or was left behind."""
        return sorted(path for path in self.root.rglob(".*") if path.is_file())


@asynccontextmanager
async def storehouse(root: Path, namespace: str = "films", claim: str = "artifacts") -> AsyncIterator[StoreHouse]:
    """Serve the folder until the end of the block."""
    known = [KEY]
    async with serving(PvcFiles(root, claim, namespace), known) as (url, client):
        yield StoreHouse(root, namespace, claim, url, client, known)


@asynccontextmanager
async def serving(files: FileStore, known: list[bytes]) -> AsyncIterator[tuple[str, StoreClient]]:
    """The routes over any store, whose requests these keys sign: where they are, and a client of them."""

    async def keys(_anew: bool) -> list[bytes]:
        return known

    runner = web.AppRunner(service(files, keys), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        try:
            yield url, StoreClient(session, url, files.root, known[0])
        finally:
            await runner.cleanup()


@asynccontextmanager
async def two_stores(root: Path, namespace: str, claims: tuple[str, str]) -> AsyncIterator[str]:
    """The stores of two claims, in folders beneath `root`, as two stagers serve them; the template of their URLs."""

    async def keys(_anew: bool) -> list[bytes]:
        return [KEY]

    app = web.Application()
    for claim in claims:
        (root / claim).mkdir(parents=True, exist_ok=True)
        app.add_subapp(f"/{stager_name(claim)}", service(PvcFiles(root / claim, claim, namespace), keys))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/{{service}}"
    finally:
        await runner.cleanup()
