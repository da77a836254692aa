"""Takes uploads in: hashed and counted while they stream, within the size of a file and the quota of their tenant.

What is cut, too large or over the quota leaves nothing. How a request comes, and is answered, is `routes.py`'s affair.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from kinora.storage.service.model import SMALLEST_CHARGE, FileStore, OverLimit, Upload

_BLOCK: Final = 1 << 20  # bytes that go to the volume at once, and what an upload holds in memory
_TRUSTED_SECONDS: Final = 30.0  # for which the use of a tenant that was looked up is added to, not looked up again


class Receiver:
    """The uploads that are coming in, and what each tenant's take."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._coming: defaultdict[str, int] = defaultdict(int)  # bytes of a tenant that are no upload yet
        self._known: dict[str, tuple[float, int]] = {}  # a tenant's use, and when it was looked up

    async def take(self, tenant: str, chunks: AsyncIterator[bytes], *, max_bytes: int, quota: int) -> Upload:
        """The upload, whole. OverLimit, StoreError; whatever `chunks` raises. None of them leaves anything."""
        used = await self._used(tenant)
        async with self._store.draft(tenant) as draft:
            counted = _Counted(self, tenant, max_bytes, quota, used)
            try:
                async for block in _blocks(chunks):
                    counted.add(len(block))
                    await asyncio.to_thread(counted.write, draft.file, block)
                sha256 = counted.digest.hexdigest()
                there = await self._store.renew(tenant, sha256)
                if there is None:
                    counted.charge_whole()
                    await draft.keep(sha256)
                    self._add(tenant, max(counted.size, SMALLEST_CHARGE))
            finally:
                counted.done()
        return Upload(tenant, sha256, counted.size, created=there is None)

    def forget(self, tenant: str) -> None:
        """Look the tenant's use up again: something was removed."""
        self._known.pop(tenant, None)

    async def _used(self, tenant: str) -> int:
        now = asyncio.get_running_loop().time()
        found = self._known.get(tenant)
        if found is None or now - found[0] > _TRUSTED_SECONDS:
            found = self._known[tenant] = (now, (await self._store.usage(tenant)).bytes)
        return found[1]

    def _add(self, tenant: str, size: int) -> None:
        if tenant in self._known:
            looked, used = self._known[tenant]
            self._known[tenant] = (looked, used + size)

    def coming(self, tenant: str, size: int) -> int:
        """Count bytes that are coming in for the tenant (or, below 0, have come); all of them now."""
        self._coming[tenant] += size
        total = self._coming[tenant]
        if not total:
            del self._coming[tenant]
        return total


class _Counted:
    """The bytes of one upload: hashed, and refused once there are too many."""

    def __init__(self, receiver: Receiver, tenant: str, max_bytes: int, quota: int, used: int) -> None:
        self._receiver, self._tenant, self._max, self._quota, self._used = receiver, tenant, max_bytes, quota, used
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
        if self._used + self._receiver.coming(self._tenant, size) > self._quota:
            raise OverLimit("quota", self._quota)

    def write(self, file: BinaryIO, block: bytes) -> None:
        """In a thread."""
        self.digest.update(block)
        file.write(block)

    def done(self) -> None:
        """Nothing of it is coming any more."""
        self._receiver.coming(self._tenant, -self._charged)


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
