"""Storing a file as an object: create-only, in one request or in parts. Never more than a few pieces in memory.

Facts: PutObject, CreateMultipartUpload, UploadPart, CompleteMultipartUpload with `If-None-Match: *`, Amazon S3 API
Reference. Servers that do not know the header refuse it (it is left out then) or say nothing: so the key is looked for
before the upload and once more before it is completed. What is left of a race on such a server: docs/storage.md.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

from kinora.s3 import answers
from kinora.s3.client import META_SHA256, Body, Call, S3Client
from kinora.s3.faults import S3Error

log = logging.getLogger(__name__)

_MAX_PARTS: Final = 10_000
_ROUND: Final = 1 << 20
_HASH: Final = 1 << 20  # bytes hashed at a time
_ABORT_SECONDS: Final = 15.0
#: What servers say that do not know `If-None-Match` on a write.
_UNKNOWN_STATUS: Final = frozenset({400, 501})
_KNOWN_CODES: Final = frozenset({"NoSuchUpload", "InvalidPart", "BadDigest"})  # which have another reason


@dataclass(frozen=True, slots=True)
class Survey:
    """A file as it was read through: its length and sha256; of each of its parts sha256 in hex, and MD5 in base64."""

    bytes: int
    sha256: str
    part_bytes: int
    parts: tuple[str, ...]
    md5s: tuple[str, ...]


class Slices:
    """An open file, read at any place by several threads; its own position is left alone where it is a real file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, threading.Lock()
        file.flush()
        try:
            self._descriptor: int | None = file.fileno()
        except (OSError, io.UnsupportedOperation):
            self._descriptor = None

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes."""
        if self._descriptor is not None:
            return os.pread(self._descriptor, length, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def size(self) -> int:
        """Bytes in all."""
        if self._descriptor is not None:
            return os.fstat(self._descriptor).st_size
        with self._lock:
            return self._file.seek(0, io.SEEK_END)

    def survey(self, part_bytes: int) -> Survey:
        """Read it through. `part_bytes`: of a part; more where the file would have more parts than S3 takes."""
        size = self.size()
        least = -(-size // _MAX_PARTS)
        part_bytes = max(part_bytes, -(-least // _ROUND) * _ROUND)
        whole, part, parts, md5, md5s = hashlib.sha256(), hashlib.sha256(), [], _md5(), []
        at = 0
        while at < size:
            chunk = self.read(at, min(_HASH, part_bytes - at % part_bytes))
            if not chunk:
                raise OSError("the file became shorter while it was read")
            whole.update(chunk)
            part.update(chunk)
            md5.update(chunk)
            at += len(chunk)
            if at % part_bytes == 0 or at == size:
                parts.append(part.hexdigest())
                md5s.append(base64.b64encode(md5.digest()).decode())
                part, md5 = hashlib.sha256(), _md5()
        if not size:
            md5s = [base64.b64encode(md5.digest()).decode()]
        return Survey(size, whole.hexdigest(), part_bytes, tuple(parts), tuple(md5s))


def _md5() -> hashlib._Hash:
    """What S3 holds a body against whose signature says nothing of it: not for secrecy, and FIPS need not mind."""
    return hashlib.md5(usedforsecurity=False)


class Uploader:
    """Stores files in the bucket of one client; remembers whether its server knows create-only writes."""

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._conditional = True

    async def create(self, key: str, slices: Slices, survey: Survey, content_type: str, *, alone: bool = False) -> bool:
        """Store the surveyed file under the whole key; False where an object has it already. Raises S3Error, OSError.

        `alone`: nobody else writes this key now, so that open uploads of it are some killed process's, and go.
        """
        headers = {"Content-Type": content_type, META_SHA256: survey.sha256}
        if survey.bytes <= survey.part_bytes or not self._client.signs:  # S3 begins no upload in parts for anybody
            body = Body(survey.bytes, survey.sha256, survey.md5s[0], slices.read)  # unsigned it is held against none
            return await self._written(Call("PUT", key, headers=headers, body=body))
        return await self._in_parts(key, slices, survey, headers, alone=alone)

    async def _written(self, call: Call) -> bool:
        """Send a write that creates an object; False where there was one."""
        if self._conditional:
            sent = Call(call.method, call.key, call.query, {**call.headers, "If-None-Match": "*"}, call.body)
            try:
                await self._client.ask(sent)
                return True
            except S3Error as error:
                if error.status == 412:
                    return False
                if error.status not in _UNKNOWN_STATUS or error.code in _KNOWN_CODES:
                    raise
        if await self._exists(call.key):
            return False
        await self._client.ask(call)
        if self._conditional:
            log.warning("the store knows no create-only writes; keys are looked for before they are written")
            self._conditional = False
        return True

    async def _exists(self, key: str) -> bool:
        try:
            return await self._client.head(key) is not None
        except S3Error as error:
            if error.status == 403:  # without the right to list, what is not there is forbidden
                return False
            raise

    async def _in_parts(
        self, key: str, slices: Slices, survey: Survey, headers: Mapping[str, str], *, alone: bool
    ) -> bool:
        begun = await self._client.ask(Call("POST", key, (("uploads", ""),), headers))
        upload = answers.upload_id(begun.body)
        if not upload:
            raise S3Error(f"{key}: the store begins no upload in parts")
        try:
            if alone:
                await self._tidy(key, upload)
            etags = await self._parts(key, upload, slices, survey)
            created = not await self._exists(key) and await self._completed(key, upload, etags)
        except BaseException:
            await self._abort(key, upload)
            raise
        if not created:
            await self._abort(key, upload)
        return created

    async def _parts(self, key: str, upload: str, slices: Slices, survey: Survey) -> list[str]:
        waiting = list(reversed(range(len(survey.parts))))
        etags = [""] * len(survey.parts)

        async def work() -> None:
            while waiting:
                index = waiting.pop()
                etags[index] = await self._part(key, upload, slices, survey, index)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._client.pace.connections, len(waiting))):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return etags

    async def _part(self, key: str, upload: str, slices: Slices, survey: Survey, index: int) -> str:
        start = index * survey.part_bytes
        body = Body(
            min(survey.part_bytes, survey.bytes - start),
            survey.parts[index],
            survey.md5s[index],
            lambda offset, length: slices.read(start + offset, length),
        )
        query = (("partNumber", str(index + 1)), ("uploadId", upload))
        answer = await self._client.ask(Call("PUT", key, query, body=body))
        etag = answer.headers.get("etag", "")
        if not etag:
            raise S3Error(f"{key}: the store gives part {index + 1} no ETag")
        return etag

    async def _completed(self, key: str, upload: str, etags: list[str]) -> bool:
        body = Body.of(answers.completion(etags))
        try:
            return await self._written(Call("POST", key, (("uploadId", upload),), body=body))
        except S3Error as error:
            # An earlier try may have been carried out and its answer lost: the upload is gone, and the object is there.
            if error.status == 404 and await self._exists(key):
                return False
            raise

    async def _tidy(self, key: str, mine: str) -> None:
        """Abort the other uploads of this key, of a process that was killed or of a try whose answer was lost."""
        with suppress(S3Error):  # a courtesy, and not every policy allows it
            answer = await self._client.ask(Call("GET", query=(("prefix", key), ("uploads", ""))))
            for other in answers.open_uploads(answer.body):
                if other.key == key and other.upload_id != mine:
                    await self._abort(key, other.upload_id)

    async def _abort(self, key: str, upload: str) -> None:
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._client.ask(Call("DELETE", key, (("uploadId", upload),)))
        except S3Error as error:
            if error.status != 404:  # completed after all, or aborted already
                log.warning("an upload in parts could not be aborted: %s", error)
        except TimeoutError:
            log.warning("%s: an upload in parts could not be aborted in time", key)
