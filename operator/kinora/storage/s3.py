"""Artifacts in an S3-compatible bucket. Create-only, and proven by reading every byte back.

The protocol is kinora.s3; this says what is stored where, and turns its errors into the store's.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from kinora.s3.client import Found, S3Client
from kinora.s3.faults import S3Error
from kinora.s3.upload import Slices, Survey, Uploader
from kinora.storage.keys import checked_key
from kinora.storage.store import NotStoredError, Stored, StoreError

#: Of an object that is read into a file here: twice what an input may have.
MAX_READ_BYTES: Final = 4 * 1024**3
_NOT_THERE: Final = ("NoSuchKey", "")  # other things are not found as well: buckets, uploads, access keys


class S3Store:
    """The artifact store in the bucket of `client`. What is read lies in a nameless file beneath `scratch`."""

    def __init__(self, client: S3Client, *, scratch: Path | None = None, max_read_bytes: int = MAX_READ_BYTES) -> None:
        self.client = client
        self._uploader = Uploader(client)
        self._scratch, self._max = scratch, max_read_bytes

    @property
    def root(self) -> str:
        """`s3://bucket/prefix/`."""
        return self.client.bucket.root

    def uri(self, key: str) -> str:
        """`s3://bucket/prefix/key`."""
        return f"{self.root}{checked_key(key)}"

    async def put(self, key: str, source: BinaryIO) -> Stored:
        """See ArtifactStore. One put of a key at a time: its open uploads are taken for those of a killed process."""
        uri = self.uri(key)
        if await self._is_there(key):
            return await self.read_back(key)
        made = await self.create(key, source, alone=True)
        return await self.read_back(key) if made is None else Stored(uri, made.bytes, made.sha256, created=True)

    async def create(self, key: str, source: BinaryIO, *, alone: bool = False) -> Survey | None:
        """Store all of the open file as a new object; None where the key has one. Raises StoreError, KeyRefused.

        `alone`: nobody else writes this key now.
        """
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        with as_store_error(key):
            slices = Slices(source)
            survey = await asyncio.to_thread(slices.survey, self.client.pace.part_bytes)
            made = await self._uploader.create(self.whole(key), slices, survey, kind, alone=alone)
        return survey if made else None

    async def read_back(self, key: str) -> Stored:
        """See ArtifactStore."""
        uri, digest = self.uri(key), hashlib.sha256()
        with as_store_error(key):
            found = await self.client.read(self.whole(key), digest.update)
        return Stored(uri, found.bytes, digest.hexdigest())

    async def size(self, key: str) -> int | None:
        """See ArtifactStore."""
        found = await self.look(key)
        return None if found is None else found.bytes

    async def look(self, key: str) -> Found | None:
        """What the store tells of the object without reading it; None where there is none. StoreError."""
        with as_store_error(key):
            return await self.client.head(self.whole(key))

    async def open_read(self, key: str) -> BinaryIO:
        """See ArtifactStore. The file is a copy beneath `scratch`, and goes when it is closed."""
        whole = self.whole(key)
        file = cast(BinaryIO, await asyncio.to_thread(tempfile.TemporaryFile, dir=self._scratch, prefix="kinora-"))
        try:
            with as_store_error(key):
                await self.client.read(whole, lambda block: _written(file, block), max_bytes=self._max)
                file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def link(self, key: str, seconds: int, *, disposition: str | None = None, content_type: str | None = None) -> str:
        """A URL at the public endpoint by which anybody may read the object for `seconds`. Raises StoreError."""
        with as_store_error(key):
            try:
                return self.client.presigned_get(
                    self.whole(key), seconds, disposition=disposition, content_type=content_type
                )
            except ValueError as error:
                raise StoreError(str(error)) from None

    def whole(self, key: str) -> str:
        """The object's key in the bucket. Raises KeyRefused."""
        return f"{self.client.bucket.prefix}{checked_key(key)}"

    async def _is_there(self, key: str) -> bool:
        try:
            with as_store_error(key):
                return await self.client.head(self.whole(key)) is not None
        except ForbiddenError:
            return False  # without the right to list, what is not there is forbidden: the write decides


class ForbiddenError(StoreError):
    """The credentials may not do that."""


@contextmanager
def as_store_error(key: str) -> Iterator[None]:
    """What the server says, as a StoreError that names the key; what a file here says, likewise."""
    try:
        yield
    except S3Error as error:
        if error.status == 404 and error.code in _NOT_THERE:
            raise NotStoredError(f"{key}: not in the store") from None
        raise (ForbiddenError if error.status == 403 else StoreError)(str(error)) from None
    except OSError as error:
        raise StoreError(f"{key}: {error.strerror or 'a file here failed'}") from None


def _written(file: BinaryIO, block: bytes) -> None:
    file.write(block)
