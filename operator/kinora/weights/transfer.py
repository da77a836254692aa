"""One file from its source into a partial file: several parts at once, each tried again by itself, hashed on the way.

Bytes are written by threads, so that a slow disk stalls no connection. A thread of its own hashes the file in its
order, behind the part that is furthest back, out of the page cache: parts may then land in any order.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kinora.weights.faults import Permanent, Transient
from kinora.weights.origin import Origin
from kinora.weights.partial import Part, Partial

_T = TypeVar("_T")
_WRITE = 1 << 20  # bytes handed to a thread at a time
_HASH = 1 << 20  # bytes hashed at a time: they stay in the cache
_NOTE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard it tries. Seconds; `tries` without a byte of progress, a part, before the file is given up."""

    connections: int = 4
    tries: int = 8
    first_pause: float = 0.5
    longest_pause: float = 30.0
    stall_seconds: float = 30.0


@dataclass
class Transfer:
    """Brings the rest of one file. `landed(n)` hears of bytes as they come."""

    origin: Origin
    partial: Partial
    landed: Callable[[int], None]
    pace: Pace = field(default_factory=Pace)

    @staticmethod
    async def patiently(ask: Callable[[], Awaitable[_T]], pace: Pace) -> _T:
        """The answer to one question, asked again while another try may help. Raises what `ask` does."""
        pause = pace.first_pause
        for _ in range(pace.tries - 1):
            try:
                return await ask()
            except Transient as fault:
                await asyncio.sleep(max(fault.retry_after, pause * random.uniform(0.8, 1.2)))  # noqa: S311
                pause = min(pause * 2, pace.longest_pause)
        return await ask()

    async def run(self) -> str:
        """Bring what is missing; the sha256 of the whole. Raises SourceChanged, Transient, Permanent, OSError."""
        queue = [part for part in reversed(self.partial.parts) if part.left]
        workers = min(self.pace.connections, len(queue))
        hasher = _Hasher(self.partial)
        hasher.start()
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="write") as self._threads:
            try:
                async with asyncio.TaskGroup() as group:
                    notes = group.create_task(self._note())
                    tasks = [group.create_task(self._work(queue)) for _ in range(workers)]
                    await asyncio.gather(*tasks)
                    notes.cancel()
                return await asyncio.to_thread(hasher.result)
            except BaseExceptionGroup as group_error:
                raise _first(group_error) from None
            finally:
                hasher.stop()
                await asyncio.to_thread(hasher.join)

    async def _note(self) -> None:
        while True:
            await asyncio.sleep(_NOTE_SECONDS)
            await asyncio.to_thread(self.partial.note)

    async def _work(self, queue: list[Part]) -> None:
        while queue:
            await self._bring(queue.pop())

    async def _bring(self, part: Part) -> None:
        """One part, tried until it is there or `tries` in a row brought nothing."""
        failures, pause = 0, self.pace.first_pause
        while part.left:
            before = part.done
            if not self.partial.remote.ranges:
                self.landed(-part.done)
                before = part.done = 0
            try:
                await self._stream(part)
            except Transient as fault:
                if part.done > before and self.partial.remote.ranges:
                    failures, pause = 0, self.pace.first_pause
                failures += 1
                if failures >= self.pace.tries:
                    raise Transient(f"{fault}; tried {failures} times") from None
                await asyncio.sleep(max(fault.retry_after, pause * random.uniform(0.8, 1.2)))  # noqa: S311
                pause = min(pause * 2, self.pace.longest_pause)

    async def _stream(self, part: Part) -> None:
        async with self.origin.body(self.partial.remote, part.start + part.done, part.end) as body:
            chunks: list[bytes] = []
            held = 0
            try:
                async for chunk in body.iter_any():
                    chunks.append(chunk)
                    held += len(chunk)
                    if held > part.left:
                        chunks = []
                        raise Permanent(f"{self.origin.source.shown}: more bytes came than the server had said")
                    if held >= _WRITE:
                        taken, chunks = chunks, []
                        await self._write(part, taken)
                        held = 0
            finally:  # what came before a break is worth keeping
                await self._write(part, chunks)
        if part.left:
            raise Transient(f"{self.origin.source.shown}: the connection ended before the file did")

    async def _write(self, part: Part, chunks: list[bytes]) -> None:
        if not chunks:
            return
        held = sum(map(len, chunks))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, _write, self.partial.descriptor, chunks, part.start + part.done)
        part.done += held
        self.landed(held)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _write(descriptor: int, chunks: list[bytes], at: int) -> None:
    left = [memoryview(chunk) for chunk in chunks]
    while left:
        written = os.pwritev(descriptor, left[:512], at)
        at += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


class _Hasher(threading.Thread):
    """Hashes a partial file from its beginning as far as it has landed, until it is whole."""

    def __init__(self, partial: Partial) -> None:
        super().__init__(name="hash", daemon=True)
        self._partial = partial
        self._stopped = threading.Event()
        self._found = hashlib.sha256()
        self._error: OSError | None = None
        self._whole = False

    def run(self) -> None:
        """Follow the bytes."""
        buffer = bytearray(_HASH)
        view = memoryview(buffer)
        at, size = 0, self._partial.remote.size
        try:
            while at < size and not self._stopped.is_set():
                ready = self._partial.prefix
                if ready - at < _HASH and ready < size:
                    self._stopped.wait(0.02)
                    continue
                length = os.preadv(self._partial.descriptor, [view[: min(_HASH, ready - at)]], at)
                self._found.update(view[:length])
                at += length
            self._whole = at == size
        except OSError as error:
            self._error = error

    def stop(self) -> None:
        """No more is coming."""
        self._stopped.set()

    def result(self) -> str:
        """The sha256, once the file is whole. Blocks. Raises OSError."""
        self.join()
        if self._error is not None:
            raise self._error
        if not self._whole:
            raise OSError("the file could not be read again")
        return self._found.hexdigest()
