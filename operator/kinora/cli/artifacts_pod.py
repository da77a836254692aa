"""The objects of a claim through a short-lived pod: what serves them there, and what asks from here.

The pod's port is open to the cluster while the pod lives, so every request carries a secret; the pod's spec shows only
its hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from kinora.api import names
from kinora.cli.pods import claim_pod, proxied, running
from kinora.kube.client import KubeClient
from kinora.storage.garbage import Listed
from kinora.storage.keys import KeyRefused
from kinora.storage.objects import PvcObjects
from kinora.storage.store import StoreError

HASH_VARIABLE: Final = "KINORA_TOKEN_SHA256"
_HEADER: Final = "X-Kinora-Token"
_SECONDS: Final = 3600  # that the pod lives at most
_BATCH: Final = 500  # objects that are removed by one request
_MAX_BODY: Final = 4 << 20
_PAUSE_SECONDS: Final = 20.0  # without a byte of an answer: who asks waits for 60


def application(root: Path, token_sha256: str, *, pause: float = _PAUSE_SECONDS) -> web.Application:
    """What the pod serves: GET /objects, a JSON line each; POST /remove takes such lines and answers those removed."""
    objects = PvcObjects(root, "")

    def checked(request: web.Request) -> None:
        given = hashlib.sha256(request.headers.get(_HEADER, "").encode()).hexdigest()
        if not token_sha256 or not hmac.compare_digest(given, token_sha256):
            raise web.HTTPForbidden(text="not the token of this pod\n")

    async def listed(request: web.Request) -> web.StreamResponse:
        checked(request)
        listing = asyncio.ensure_future(objects.listed())
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await asyncio.wait({listing}, timeout=pause)
        if listing.done() and isinstance(error := listing.exception(), StoreError):
            raise web.HTTPInsufficientStorage(text=f"{error}\n")
        await response.prepare(request)
        while not listing.done():  # a large volume takes its time: an empty line says that it goes on
            await response.write(b"\n")
            await asyncio.wait({listing}, timeout=pause)
        found = listing.result()
        for start in range(0, len(found), _BATCH):
            await response.write(b"".join(_line(one) for one in found[start : start + _BATCH]))
        await response.write_eof()
        return response

    async def remove(request: web.Request) -> web.Response:
        checked(request)
        try:
            wanted = [_read(line) for line in (await request.read()).splitlines()]
            gone = [one for one in wanted if await objects.remove(one)]
        except (ValueError, TypeError, KeyRefused) as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        except StoreError as error:
            raise web.HTTPInsufficientStorage(text=f"{error}\n") from None
        return web.Response(body=b"".join(_line(one) for one in gone))

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=_MAX_BODY)
    app.add_routes([web.get("/", alive), web.get("/objects", listed), web.post("/remove", remove)])
    return app


class RemoteObjects:
    """See kinora.storage.objects.Objects: of the claim that a pod of ours serves. Raises ApiError."""

    def __init__(self, client: KubeClient, namespace: str, pod: str, claim: str, token: str) -> None:
        self._client, self._namespace, self._pod = client, namespace, pod
        self._headers = {_HEADER: token}
        self.root = f"pvc://{claim}/"

    async def listed(self, place: str = "") -> list[Listed]:
        """See Objects."""
        return [one for one in await self._ask("objects", None) if one.key.startswith(place)]

    async def remove_all(self, wanted: list[Listed]) -> list[Listed]:
        """Remove those that are still as they were listed; which went."""
        gone: list[Listed] = []
        for start in range(0, len(wanted), _BATCH):
            gone += await self._ask("remove", b"".join(_line(one) for one in wanted[start : start + _BATCH]))
        return gone

    async def _ask(self, path: str, body: bytes | None) -> list[Listed]:
        answer = bytearray()
        where = proxied(self._namespace, self._pod, path)
        async for chunk in self._client.download(where, headers=self._headers, body=body):
            answer += chunk
        return [_read(line) for line in bytes(answer).splitlines() if line]


@asynccontextmanager
async def claim_objects(
    client: KubeClient, namespace: str, claim: str, *, image: str, read_only: bool, timeout_seconds: float
) -> AsyncIterator[RemoteObjects]:
    """The objects of a claim, for as long as the context lasts. PodError, ApiError."""
    token = secrets.token_urlsafe(32)
    pod = claim_pod(
        namespace,
        claim,
        ["kinora", "serve-claim", names.ARTIFACTS_DIR],
        image=image,
        read_only=read_only,
        env={HASH_VARIABLE: hashlib.sha256(token.encode()).hexdigest()},
        seconds=_SECONDS,
    )
    async with running(client, pod, timeout_seconds) as name:
        yield RemoteObjects(client, namespace, name, claim, token)


def _line(one: Listed) -> bytes:
    return json.dumps([one.key, one.bytes, one.used]).encode() + b"\n"


def _read(line: bytes) -> Listed:
    told: Any = json.loads(line)
    key, size, used = told
    return Listed(str(key), int(size), float(used))
