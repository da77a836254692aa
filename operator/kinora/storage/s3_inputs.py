"""The inputs of jobs in a bucket: drafts are files of this pod until they become objects; notes are objects of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from kinora.s3.client import Body, Call, Found
from kinora.storage.keys import checked_key, input_key, intake_key, upload_key
from kinora.storage.s3 import S3Store, as_store_error
from kinora.storage.store import NotStoredError, StoreError

USED: Final = ".used"  # ends the name of the object that tells when another was used last
_YOUNG_SECONDS: Final = 600.0  # no sweep looks at what is so young
_MAX_NOTE: Final = 64 * 1024


@dataclass(frozen=True)
class S3Draft:
    """See staged.Draft. The file has no name: it goes with this process."""

    file: BinaryIO
    store: S3Store
    place: str

    def reading(self) -> BinaryIO:
        """See Draft."""
        self.file.flush()
        return open(f"/proc/self/fd/{self.file.fileno()}", "rb")

    async def keep(self, sha256: str) -> str:
        """See Draft."""
        key = checked_key(f"{self.place}/{sha256}")
        found = await self.store.look(key)
        if found is None:
            made = await self.store.create(key, self.file)
            if made is not None and made.sha256 != sha256:
                raise StoreError(f"{key}: the draft changed while it was stored")
            if made is not None:
                return key
            found = await self.store.look(key)
        there, own = await _kept(self.store, key, found) or 0, os.fstat(self.file.fileno()).st_size
        if there != own:
            raise StoreError(f"{key}: is there and has {there} bytes, which are not its own")
        return key


async def mark_used(store: S3Store, key: str) -> None:
    """Count an object as used now: its own time cannot be changed, that of the empty one beside it can. StoreError."""
    with as_store_error(key):
        await store.client.ask(Call("PUT", f"{store.whole(key)}{USED}", body=Body.of(b"")))


async def _kept(store: S3Store, key: str, found: Found | None) -> int | None:
    """Count an object that was looked at as used now, unless it is young; its bytes, None where it is not there."""
    if found is None or time.time() - found.modified < _YOUNG_SECONDS:
        return None if found is None else found.bytes
    await mark_used(store, key)
    return await store.size(key)  # it may have gone in between


@asynccontextmanager
async def drafting(store: S3Store, place: str, scratch: Path | None) -> AsyncIterator[S3Draft]:
    """A draft of an object beneath `place`. StoreError."""
    with as_store_error(place):
        file = await asyncio.to_thread(tempfile.TemporaryFile, dir=scratch, prefix="kinora-")
    try:
        yield S3Draft(cast(BinaryIO, file), store, place)
    finally:
        await asyncio.to_thread(file.close)


class S3Inputs:
    """See staged.StagedInputs: inputs in the bucket of `store`, for the jobs of `namespace`."""

    def __init__(self, store: S3Store, namespace: str, *, scratch: Path | None = None) -> None:
        self._store, self._namespace, self._scratch = store, namespace, scratch

    @property
    def root(self) -> str:
        """`s3://bucket/prefix/`, as status has it."""
        return self._store.root

    def draft(self) -> AbstractAsyncContextManager[S3Draft]:
        """See StagedInputs."""
        return drafting(self._store, "inputs", self._scratch)

    async def renew(self, sha256: str) -> int | None:
        """See StagedInputs."""
        key = input_key(sha256)
        return await _kept(self._store, key, await self._store.look(key))

    async def open_upload(self, upload: str) -> BinaryIO:
        """See StagedInputs. A copy here, which goes when it is closed."""
        try:
            return await self._store.open_read(upload_key(self._namespace, upload))
        except NotStoredError:
            raise NotStoredError(f"{upload}: not in the store") from None

    async def note(self, job_uid: str, name: str, found: Mapping[str, Any]) -> None:
        """See StagedInputs."""
        key, text = intake_key(self._namespace, job_uid, name), json.dumps(dict(found)).encode()
        with as_store_error(key):
            headers = {"Content-Type": "application/json"}
            await self._store.client.ask(Call("PUT", self._store.whole(key), headers=headers, body=Body.of(text)))

    async def recall(self, job_uid: str, name: str) -> dict[str, Any] | None:
        """See StagedInputs."""
        key, parts = intake_key(self._namespace, job_uid, name), bytearray()
        try:
            with as_store_error(key):
                await self._store.client.read(self._store.whole(key), parts.extend, max_bytes=_MAX_NOTE)
            found = json.loads(parts)
        except (StoreError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    async def forget(self, job_uid: str) -> None:
        """See StagedInputs. What cannot be removed now, a sweep removes."""
        key = checked_key(f"intake/{self._namespace}/{job_uid}")
        try:
            await self._remove(f"{self._store.whole(key)}/")
        except StoreError:
            return

    async def sweep(self, unfinished: Collection[str]) -> int:
        """See StagedInputs. Drafts went with their process: none is ever left."""
        place = f"{self._store.whole(checked_key(f'intake/{self._namespace}'))}/"
        with as_store_error("intake"):
            found = [one async for page in self._store.client.list(place, delimiter="/") for one in page.prefixes]
        for prefix in found:
            if prefix.removeprefix(place).rstrip("/") not in unfinished:
                await self._remove(prefix)
        return 0

    async def _remove(self, prefix: str) -> None:
        client = self._store.client
        with as_store_error("intake"):
            for key in [entry.key async for page in client.list(prefix) for entry in page.entries]:
                if key.startswith(prefix):  # whatever the server says
                    await client.delete(key)
