"""Takes uploads in: hashed and counted while they stream, within the size of a file and the quota of their tenant.

What is cut, too large or over the quota leaves nothing. How a request comes, and is answered, is `routes.py`'s affair.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from kinora.storage.service.model import SMALLEST_CHARGE, FileStore, OverLimit, Upload

_BLOCK: Final = 1 << 20  # bytes that go to the volume at once, and what an upload holds in memory
_TRUSTED_SECONDS: Final = 30.0  # for which the use of a tenant that was looked up is added to, not looked up again


@dataclass
class _Use:
    """What a tenant's uploads take, as far as is known: never less than they do."""

    looked: float = -math.inf  # when the store was asked
    there: int = 0  # what it said
    added: int = 0  # what has become an upload since it was asked
    coming: int = 0  # what is no upload yet
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def total(self) -> int:
        """All of it."""
        return self.there + self.added + self.coming


class Receiver:
    """The uploads that are coming in, and what each tenant's take."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._uses: defaultdict[str, _Use] = defaultdict(_Use)

    async def take(self, tenant: str, chunks: AsyncIterator[bytes], *, max_bytes: int, quota: int) -> Upload:
        """The upload, whole. OverLimit, StoreError; whatever `chunks` raises. None of them leaves anything."""
        use = await self._use(tenant)
        async with self._store.draft(tenant) as draft:
            counted = _Counted(use, max_bytes, quota)
            try:
                async for block in _blocks(chunks):
                    counted.add(len(block))
                    await asyncio.to_thread(counted.write, draft.file, block)
                sha256 = counted.digest.hexdigest()
                there = await self._store.renew(tenant, sha256)
                if there is None:
                    counted.charge_whole()
                    await draft.keep(sha256)
                    use.added += max(counted.size, SMALLEST_CHARGE)
            finally:
                counted.done()
        return Upload(tenant, sha256, counted.size, created=there is None)

    def forget(self, tenant: str) -> None:
        """Ask the store again before the next upload: something was removed."""
        self._uses[tenant].looked = -math.inf

    async def _use(self, tenant: str) -> _Use:
        use, now = self._uses[tenant], asyncio.get_running_loop().time()
        async with use.looking:
            if now - use.looked > _TRUSTED_SECONDS:
                before, last, use.looked = use.added, use.looked, now  # `forget` may come meanwhile, and has to stay
                try:
                    there = (await self._store.usage(tenant)).bytes
                except BaseException:
                    use.looked = last
                    raise
                # What became an upload meanwhile may be counted twice until the next look, and is never forgotten.
                use.there, use.added = there, use.added - before
        return use


class _Counted:
    """The bytes of one upload: hashed, and refused once there are too many."""

    def __init__(self, use: _Use, max_bytes: int, quota: int) -> None:
        self._use, self._max, self._quota = use, max_bytes, quota
        self.size, self._charged, self.digest = 0, 0, hashlib.sha256()

    def add(self, size: int) -> None:
        """OverLimit when that is more than one file, or all of the tenant's, may have."""
        self.size += size
        if self.size > self._max:
            raise OverLimit("bytes", self._max)
        self._charge(size)

    def charge_whole(self) -> None:
        """A small file costs as much as the smallest."""
        self._charge(max(0, SMALLEST_CHARGE - self.size))

    def _charge(self, size: int) -> None:
        self._charged += size
        self._use.coming += size
        if self._use.total > self._quota:
            raise OverLimit("quota", self._quota)

    def write(self, file: BinaryIO, block: bytes) -> None:
        """In a thread."""
        self.digest.update(block)
        file.write(block)

    def done(self) -> None:
        """Nothing of it is coming any more."""
        self._use.coming -= self._charged


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of about a MiB."""
    held: list[bytes] = []
    size = 0
    async for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
