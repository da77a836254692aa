"""Pictures that are worked on: a channel alone, a preview, a mask put on. Each in a child process, one at a time.

The gateway's container has little memory, and a picture of a few bytes may have millions of pixels: what is read, how
many pixels it has, what the child may take, and how many requests wait for it are all bounded.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, BinaryIO, Final

from starlette.responses import Response

from kinora.gateway.delivery import Streamed
from kinora.gateway.errors import Unavailable
from kinora.media import child

MAX_PICTURE: Final = 32 * 1024**2  # bytes
_MiB: Final = 1024 * 1024
#: Of alpha.MAX_PIXELS the child holds three copies at most, besides its own code.
LIMITS: Final = child.Limits(
    wall_seconds=30, cpu_seconds=20, data_bytes=352 * _MiB, address_bytes=2048 * _MiB, file_bytes=64 * _MiB
)
_MOST_WAITING: Final = 16
_RETRY: Final = 2.0

Work = Callable[[BinaryIO, child.Limits], Awaitable[Any]]


class Pictures:
    """The one place where this replica works on pictures."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the others. Unavailable, when too many do."""
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("too many pictures are being worked on; ask again", _RETRY)
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1

    @staticmethod
    async def made(work: Work) -> BinaryIO:
        """What the work writes to its output, an open file without a name. MediaError."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            await work(output, LIMITS)
        except BaseException:
            output.close()
            raise
        output.seek(0)
        return output


async def opened(content: bytes) -> BinaryIO:
    """A file without a name, for the child. The caller closes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    await asyncio.to_thread(file.write, content)
    file.flush()
    return file


async def chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    """The file from its beginning."""
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, 1 << 18):
        yield chunk


def shown(file: BinaryIO, headers: dict[str, str]) -> Response:
    """An answer that streams the file, and closes it."""
    held = AsyncExitStack()
    held.callback(file.close)
    length = str(file.seek(0, 2))
    return Streamed(held, chunks(file), 200, {**headers, "Content-Length": length, "X-Content-Type-Options": "nosniff"})
