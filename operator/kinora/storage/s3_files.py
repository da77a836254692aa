"""The store service's files in a bucket: uploads by content, the names that point at them, objects for reading.

When an upload was last used is when it, or the empty object beside it (`<sha256>.used`), was written: an object's time
cannot be changed. Whoever may have a URL is sent to the bucket itself.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from kinora.s3.answers import Entry
from kinora.s3.client import Body, Call, Found
from kinora.storage.keys import KeyRefused, checked_key, readable, upload_key
from kinora.storage.s3 import S3Store, as_store_error
from kinora.storage.s3_inputs import USED, S3Draft, drafting, mark_used
from kinora.storage.service import model
from kinora.storage.service.model import Elsewhere, Name, NameTaken, OverLimit, Usage
from kinora.storage.sniff import HEAD_BYTES
from kinora.storage.store import NotStoredError

LINK_SECONDS: Final = 900  # of a presigned URL that a request is sent to
_RENEWED_SECONDS: Final = 600.0  # an upload that was renewed so lately is not renewed again
_REMEMBERED: Final = 10_000  # uploads
_SIDE_BY_SIDE: Final = 16  # names that are read at a time
_MAX_NAME_BYTES: Final = 4 * (model.MAX_NAME + model.MAX_VALUE)
_UPLOAD = re.compile(r"(?P<tenant>[0-9a-f]{10})/(?P<sha256>[0-9a-f]{64})(?P<used>\.used)?")
_NAME = re.compile(r"(?P<tenant>[0-9a-f]{10})/[a-z]{1,20}/[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class S3Content:
    """See kinora.storage.service.model.Content."""

    def __init__(self, store: S3Store, key: str, found: Found, head: bytes) -> None:
        name = key.rpartition("/")[2]
        self._store, self._key, self._found = store, key, found
        self.size, self.head = found.bytes, head
        self.etag = name if _SHA256.fullmatch(name) else found.sha256 or found.etag.strip('"')

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """See Content."""
        chunks = self._store.client.chunks(self._store.whole(self._key), start, length, self._found.etag)
        try:
            with as_store_error(self._key):
                async for chunk in chunks:
                    yield chunk
        finally:
            await chunks.aclose()

    async def close(self) -> None:
        """See Content: nothing is held between two reads."""


class S3Files:
    """See kinora.storage.service.model.FileStore: files of a namespace in the bucket of `store`."""

    def __init__(self, store: S3Store, namespace: str, *, scratch: Path | None = None) -> None:
        self._store, self.namespace, self._scratch = store, namespace, scratch
        self.root = store.root
        self._renewed: dict[str, float] = {}

    def draft(self, tenant: str) -> AbstractAsyncContextManager[S3Draft]:
        """See FileStore. It is a file of this pod until it is kept."""
        return drafting(self._store, self._uploads(tenant), self._scratch)

    async def open(
        self, key: str, *, redirect: bool = False, content_type: str = "", disposition: str = ""
    ) -> S3Content | Elsewhere:
        """See FileStore."""
        if not readable(key, self.namespace):
            raise KeyRefused(f"{key[:80]!r} is no artifact or upload of namespace {self.namespace}")
        if redirect:
            if await self._store.look(key) is None:
                raise NotStoredError(f"{key}: not in the store")
            wanted = {"disposition": disposition or None, "content_type": content_type or None}
            return Elsewhere(self._store.link(key, LINK_SECONDS, **wanted))
        with as_store_error(key):
            found, head = await self._store.client.peek(self._store.whole(key), HEAD_BYTES)
        return S3Content(self._store, key, found, head)

    # --- uploads ------------------------------------------------------------------------------------------------------

    async def renew(self, tenant: str, sha256: str) -> int | None:
        """See FileStore."""
        key = f"{self._uploads(tenant)}/{model.checked_digest(sha256)}"
        found = await self._store.look(key)
        if found is None:
            return None
        now = time.monotonic()
        if now - self._renewed.get(key, -_RENEWED_SECONDS) >= _RENEWED_SECONDS:
            await mark_used(self._store, key)
            if len(self._renewed) >= _REMEMBERED:
                self._renewed.clear()
            self._renewed[key] = now
        return found.bytes

    async def remove(self, tenant: str, sha256: str) -> bool:
        """See FileStore."""
        key = f"{self._uploads(tenant)}/{model.checked_digest(sha256)}"
        there = await self._store.look(key) is not None
        await self._delete(key, f"{key}{USED}")
        self._renewed.pop(key, None)
        return there

    async def usage(self, tenant: str) -> Usage:
        """See FileStore."""
        found = [entry for entry in await self._list(self._uploads(tenant)) if not entry.key.endswith(USED)]
        return Usage(sum(max(entry.bytes, model.SMALLEST_CHARGE) for entry in found), len(found))

    # --- names --------------------------------------------------------------------------------------------------------

    async def put_name(self, tenant: str, scope: str, name: Name, *, create: bool) -> None:
        """See FileStore."""
        place = self._names(tenant, scope)
        key = f"{place}/{model.name_digest(name.name)}"
        data = json.dumps({"name": name.name, "value": dict(name.value)}).encode()
        known = await self._read_name(key)
        if known is None and len(await self._list(place)) >= model.MAX_NAMES:
            raise OverLimit("names", model.MAX_NAMES)
        if not create:
            await self._write(key, data)
            return
        if known is None and await self._store.create(key, io.BytesIO(data)) is not None:
            return
        there = known or await self._read_name(key)
        if there is None or await self._leads_nowhere(tenant, there):  # expired: as good as free
            await self._write(key, data)
        elif there.value.get("sha256") != name.value.get("sha256"):
            raise NameTaken(there.value)

    async def get_name(self, tenant: str, scope: str, digest: str) -> Name:
        """See FileStore."""
        found = await self._read_name(f"{self._names(tenant, scope)}/{model.checked_digest(digest)}")
        if found is None:
            raise NotStoredError(f"no such name in {scope}")
        return found

    async def remove_name(self, tenant: str, scope: str, digest: str) -> bool:
        """See FileStore."""
        key = f"{self._names(tenant, scope)}/{model.checked_digest(digest)}"
        there = await self._store.look(key) is not None
        await self._delete(key)
        return there

    async def names(self, tenant: str, scope: str) -> list[Name]:
        """See FileStore."""
        turn = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def read(entry: Entry) -> Name | None:
            async with turn:
                return await self._read_name(entry.key)

        entries = [
            entry for entry in await self._list(self._names(tenant, scope)) if _SHA256.fullmatch(entry.key[-64:])
        ]
        found = await asyncio.gather(*map(read, entries))
        return sorted((one for one in found if one is not None), key=lambda one: one.name)

    # --- tidying up ---------------------------------------------------------------------------------------------------

    async def sweep_uploads(self, keep_seconds: float, is_used: Callable[[str], bool]) -> int:
        """See FileStore."""
        before, removed = time.time() - keep_seconds, 0
        place = upload_key(self.namespace, "x")[:-1]
        last: dict[str, float] = {}
        there: set[str] = set()
        for entry in await self._list(place[:-1]):
            match = _UPLOAD.fullmatch(entry.key.removeprefix(place))
            if match is None:
                continue
            source = f"{match['tenant']}/{match['sha256']}"
            last[source] = max(last.get(source, 0.0), entry.modified)
            if not match["used"]:
                there.add(source)
        for source, used in last.items():
            if used < before and not is_used(source) and not await self._used_again(f"{place}{source}", before):
                await self._delete(f"{place}{source}", f"{place}{source}{USED}")
                removed += source in there
                there.discard(source)
        await self._sweep_names(before, there)
        return removed

    async def _used_again(self, key: str, before: float) -> bool:
        """Whether somebody has used the upload since it was listed."""
        place, _, _ = key.rpartition("/")
        found = await self._list(place, key.rpartition("/")[2])
        return any(entry.modified >= before for entry in found)

    async def _sweep_names(self, before: float, uploads: set[str]) -> None:
        place = f"{checked_key(f'names/{self.namespace}')}/"
        for entry in await self._list(place[:-1]):
            match = _NAME.fullmatch(entry.key.removeprefix(place))
            if match is None or entry.modified >= before:
                continue
            found = await self._read_name(entry.key)
            if found is not None and f"{match['tenant']}/{found.value.get('sha256')}" in uploads:
                continue
            if found is None or await self._leads_nowhere(match["tenant"], found):
                await self._delete(entry.key)

    # --- objects ------------------------------------------------------------------------------------------------------

    def _uploads(self, tenant: str) -> str:
        return upload_key(self.namespace, model.checked_tenant(tenant))

    def _names(self, tenant: str, scope: str) -> str:
        return checked_key(f"names/{self.namespace}/{model.checked_tenant(tenant)}/{model.checked_scope(scope)}")

    async def _list(self, place: str, begins: str = "") -> list[Entry]:
        """The objects beneath a key, with their keys as the store has them."""
        prefix = f"{self._store.whole(place)}/{begins}"
        skipped = len(self._store.client.bucket.prefix)
        with as_store_error(place):
            return [
                Entry(entry.key[skipped:], entry.bytes, entry.modified)
                async for page in self._store.client.list(prefix)
                for entry in page.entries
                if entry.key.startswith(prefix)
            ]

    async def _write(self, key: str, data: bytes) -> None:
        body = Body.of(data)
        with as_store_error(key):
            await self._store.client.ask(Call("PUT", self._store.whole(key), body=body))

    async def _delete(self, *keys: str) -> None:
        for key in keys:
            with as_store_error(key):
                await self._store.client.delete(self._store.whole(key))

    async def _read_name(self, key: str) -> Name | None:
        parts = bytearray()
        try:
            with as_store_error(key):
                await self._store.client.read(self._store.whole(key), parts.extend, max_bytes=_MAX_NAME_BYTES)
            found: Any = json.loads(parts)
            return Name(str(found["name"]), dict(found["value"]))
        except NotStoredError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # not written by a stager: the name is free

    async def _leads_nowhere(self, tenant: str, name: Name) -> bool:
        try:
            sha256 = model.checked_digest(str(name.value["sha256"]))
        except (KeyRefused, KeyError):
            return True
        return await self._store.look(f"{self._uploads(tenant)}/{sha256}") is None
