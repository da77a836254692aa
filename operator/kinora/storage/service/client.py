"""Asks a store service: signs, streams both ways at the slower side's pace, tells failures apart. Knows no tenants."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from kinora.storage.keys import KeyRefused
from kinora.storage.service import signing
from kinora.storage.service.model import (
    SERVICE_PATH,
    Busy,
    Name,
    NameTaken,
    NotDrawable,
    OverLimit,
    PreviewKind,
    Upload,
    Usage,
    name_digest,
)
from kinora.storage.store import NotStoredError, StoreError

READ_BUFFER: Final = 1 << 18  # bytes that are read ahead of whoever takes them
_CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 60.0  # without a byte
_WHOLE_SECONDS: Final = 30.0  # of a request that streams nothing
_DRAWN_SECONDS: Final = 150.0  # of a preview: others may be before it


class StoreAway(StoreError):  # noqa: N818 - a verdict
    """The service does not answer, or not in time: it may be starting."""


class StoreRefused(StoreError):  # noqa: N818 - a verdict
    """The service does not know the key that signed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An object as it comes: 200, 206, 302 (then `location`) or 416, and the headers that matter."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    location: str = ""


class StoreClient:
    """One store service at `url`; `store` is its root, such as `pvc://claim/`. The session belongs to the caller."""

    def __init__(self, session: aiohttp.ClientSession, url: str, store: str, key: bytes) -> None:
        self._session, self._url, self.store, self._key = session, url.rstrip("/"), store, key

    async def upload(self, tenant: str, chunks: AsyncIterator[bytes], *, max_bytes: int, quota: int) -> Upload:
        """Stream an upload in. OverLimit, StoreError; what `chunks` raises comes through, and nothing is kept then."""
        failed: list[Exception] = []

        async def passed_on() -> AsyncIterator[bytes]:
            try:
                async for chunk in chunks:
                    yield chunk
            except Exception as error:  # not the end that it is put to when the answer comes before the last byte
                failed.append(error)
                raise

        try:
            answer = await self._ask(
                "POST", f"/uploads/{tenant}", data=passed_on(), max_bytes=max_bytes, quota=quota, streamed=True
            )
        except StoreError:
            if failed:
                raise failed[0] from None
            raise
        if failed:  # it answered before it had all: the answer is of no use
            raise failed[0]
        return Upload(tenant, str(answer["sha256"]), int(answer["bytes"]), created=bool(answer["created"]))

    async def preview(self, tenant: str, kind: PreviewKind, key: str, *, max_bytes: int, quota: int) -> Upload:
        """Have a preview of the object drawn and kept as an upload. NotStoredError, NotDrawable, Busy, OverLimit."""
        place = f"/previews/{tenant}/{kind}/{quote(key)}"
        answer = await self._ask("POST", place, max_bytes=max_bytes, quota=quota, seconds=_DRAWN_SECONDS)
        return Upload(tenant, str(answer["sha256"]), int(answer["bytes"]), created=bool(answer["created"]))

    async def renew(self, tenant: str, sha256: str) -> int:
        """Count the upload as used now; its bytes. NotStoredError."""
        return int((await self._ask("POST", f"/uploads/{tenant}/{sha256}"))["bytes"])

    async def remove(self, tenant: str, sha256: str) -> bool:
        """Whether it was there."""
        return await self._gone(f"/uploads/{tenant}/{sha256}")

    async def usage(self, tenant: str) -> Usage:
        """What the tenant's uploads take."""
        found = await self._ask("GET", f"/uploads/{tenant}")
        return Usage(int(found["bytes"]), int(found["files"]))

    async def put_name(self, tenant: str, scope: str, name: Name, *, create: bool = False) -> None:
        """See FileStore.put_name."""
        body = json.dumps({"name": name.name, "value": dict(name.value)}).encode()
        place = f"/names/{tenant}/{scope}/{name_digest(name.name)}" + ("?create=1" if create else "")
        await self._ask("PUT", place, data=body)

    async def get_name(self, tenant: str, scope: str, name: str) -> Name:
        """NotStoredError."""
        found = await self._ask("GET", f"/names/{tenant}/{scope}/{name_digest(name)}")
        return Name(str(found["name"]), found["value"])

    async def remove_name(self, tenant: str, scope: str, name: str) -> bool:
        """Whether it was there. The upload stays."""
        return await self._gone(f"/names/{tenant}/{scope}/{name_digest(name)}")

    async def names(self, tenant: str, scope: str) -> list[Name]:
        """All of a scope, in the order of names."""
        found = await self._ask("GET", f"/names/{tenant}/{scope}")
        return [Name(str(one["name"]), one["value"]) for one in found["names"]]

    @asynccontextmanager
    async def read(
        self,
        key: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        redirect: bool = False,
        content_type: str = "",
        disposition: str = "",
    ) -> AsyncIterator[Reading]:
        """An object, with the Range and If-Range of `headers`. NotStoredError, StoreError (also while it streams)."""
        said = {"redirect": "1", "type": content_type, "disposition": disposition} if redirect else {}
        place = f"/objects/{quote(key)}" + (f"?{urlencode(said)}" if said else "")
        async with self._request(method, place, headers=headers) as response:
            if response.status not in (200, 206, 302, 416):
                raise await _told(response)
            location = response.headers.get("Location", "") if response.status == 302 else ""
            yield Reading(response.status, response.headers, _chunks(response), location)

    async def _gone(self, place: str) -> bool:
        try:
            await self._ask("DELETE", place)
        except NotStoredError:
            return False
        return True

    async def _ask(self, method: str, place: str, **options: Any) -> dict[str, Any]:
        async with self._request(method, place, **options) as response:
            if response.status >= 300:
                raise await _told(response)
            try:
                found: dict[str, Any] = json.loads(await response.read() or b"{}")
            except (ValueError, aiohttp.ClientError, TimeoutError) as error:
                raise StoreAway(f"the store's answer ended early ({type(error).__name__})") from None
            return found

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        place: str,
        *,
        data: AsyncIterator[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 0,
        quota: int = 0,
        streamed: bool = False,
        seconds: float = _WHOLE_SECONDS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(self._url + SERVICE_PATH + place, encoded=True)
        signed = signing.Request(method, url.raw_path_qs, self.store, max_bytes, quota)
        whole = None if streamed or place.startswith("/objects/") else seconds
        asking = self._session.request(
            method,
            url,
            data=data,
            headers={**(headers or {}), "Authorization": signing.sign(self._key, signed, time.time())},
            allow_redirects=False,
            read_bufsize=READ_BUFFER,
            timeout=aiohttp.ClientTimeout(total=whole, connect=_CONNECT_SECONDS, sock_read=max(_IDLE_SECONDS, seconds)),
        )
        try:
            response = await asking
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise StoreAway(f"the store does not answer ({type(error).__name__})") from None
        async with response:
            yield response


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StoreAway(f"the store's answer ended early ({type(error).__name__})") from None


async def _told(response: aiohttp.ClientResponse) -> Exception:
    """The error that the service's answer stands for."""
    try:
        found = json.loads(await response.read())
    except (ValueError, aiohttp.ClientError, TimeoutError):
        found = {}
    message = str(found.get("message") or f"the store answered {response.status}") if isinstance(found, dict) else ""
    if response.status == 401:
        return StoreRefused(message)
    if response.status == 422:
        return NotDrawable(message)
    if response.status == 429:
        return Busy(message)
    if response.status == 404:
        return NotStoredError(message)
    if response.status == 413:
        return OverLimit(str(found.get("what", "bytes")), int(found.get("limit", 0)))
    if response.status == 409:
        return NameTaken(found.get("value") or {})
    if response.status == 400:
        return KeyRefused(message)
    return StoreAway(message) if response.status in (502, 503, 504) else StoreError(message)
