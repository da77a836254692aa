"""Draws what stands for a video in the store (a thumbnail, a sheet of its frames) and keeps it as an upload.

On demand, since most videos are never asked for one. One at a time, in the media child; few wait, and of one tenant
fewer. What is drawn counts against the tenant's quota, and goes as unused uploads do.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import BinaryIO, Final

from kinora.media import child
from kinora.media.child import IsolationError
from kinora.media.info import MediaError
from kinora.stager.receive import Receiver
from kinora.storage.service.model import (
    Busy,
    Content,
    Elsewhere,
    FileStore,
    NotDrawable,
    OverLimit,
    PreviewKind,
    Upload,
)
from kinora.storage.store import StoreError

MAX_SOURCE: Final = 1024**3  # bytes of a video
_MiB: Final = 1024 * 1024
#: Beside the child that looks at inputs, which may have 1 GiB of the container's 2.
_LIMITS: Final = child.Limits(wall_seconds=120, cpu_seconds=110, data_bytes=512 * _MiB, file_bytes=16 * _MiB)
_MOST_WAITING: Final = 16
_MOST_OF_ONE: Final = 4
_CHUNK: Final = 1 << 18


class Previews:
    """Of one store. All methods raise StoreError."""

    def __init__(self, store: FileStore, receiver: Receiver) -> None:
        self._store, self._receiver = store, receiver
        self._turn = asyncio.Semaphore(1)
        self._waiting: Counter[str] = Counter()

    async def make(self, tenant: str, kind: PreviewKind, key: str, *, max_bytes: int, quota: int) -> Upload:
        """The picture, as an upload of the tenant. NotStoredError, KeyRefused, OverLimit, Busy, NotDrawable."""
        async with self._place(tenant):
            with ExitStack() as opened:
                video = opened.enter_context(tempfile.TemporaryFile())
                output = opened.enter_context(tempfile.TemporaryFile())
                await self._fetch(key, video)
                draw = child.thumbnail if kind is PreviewKind.THUMBNAIL else child.spritesheet
                try:
                    await draw(video, output, _LIMITS)
                except MediaError as error:
                    raise NotDrawable(f"the {kind} cannot be drawn: {error}") from None
                except (IsolationError, OSError) as error:
                    raise StoreError(f"the {kind} cannot be drawn now: {error}") from None
                return await self._receiver.take(tenant, _chunks(output), max_bytes=max_bytes, quota=quota)

    async def _fetch(self, key: str, file: BinaryIO) -> None:
        found = await self._store.open(key)
        assert not isinstance(found, Elsewhere)
        try:
            await _copy(found, file)
        finally:
            await found.close()

    @asynccontextmanager
    async def _place(self, tenant: str) -> AsyncIterator[None]:
        if self._waiting.total() >= _MOST_WAITING or self._waiting[tenant] >= _MOST_OF_ONE:
            raise Busy("too many previews are being drawn")
        self._waiting[tenant] += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]


async def _copy(content: Content, file: BinaryIO) -> None:
    if content.size > MAX_SOURCE:
        raise OverLimit("bytes", MAX_SOURCE)
    async for chunk in content.read(0, content.size):
        await asyncio.to_thread(file.write, chunk)
    file.flush()


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk
