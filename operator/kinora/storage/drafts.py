"""Files of a volume that are being written: hidden beside the objects, locked by their writer, whole or never seen.

A draft becomes an object, named by its content, by a link. A process that is killed leaves drafts that nobody holds the
lock of: `remove_left_behind` knows them.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kinora.storage.pvc import as_store_error, folder_beneath
from kinora.storage.store import StoreError

_SUFFIX: Final = ".draft"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_SECONDS: Final = 24 * 3600  # a draft on a volume without locks counts as left behind after that
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Draft:
    """A file that is being written. `keep` makes an object of it; `place` is the folder's key."""

    file: BinaryIO
    name: str
    folder: int
    place: str

    def reading(self) -> BinaryIO:
        """What was written so far, opened anew for reading alone: for a child that must not change it."""
        self.file.flush()
        descriptor = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
        return os.fdopen(descriptor, "rb")

    async def keep(self, sha256: str) -> str:
        """Make it the object of that content, durably; its key. One that is there already stays as it is."""
        return await asyncio.to_thread(self._keep, sha256)

    def _keep(self, sha256: str) -> str:
        key = f"{self.place}/{sha256}"
        with as_store_error(key):
            self.file.flush()
            os.fsync(self.file.fileno())
            while not self._linked(key, sha256):
                pass  # it was removed in the moment in which it was found
            os.fsync(self.folder)
        return key

    def _linked(self, key: str, sha256: str) -> bool:
        try:
            os.link(self.name, sha256, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
        except FileExistsError:
            there = used_now(self.folder, sha256)
            if there is not None and there != os.fstat(self.file.fileno()).st_size:
                raise StoreError(f"{key}: is there and has {there} bytes, which are not its own") from None
            return there is not None
        with suppress(OSError):  # from now on the lock is that of an object: held for moments
            fcntl.flock(self.file.fileno(), fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        """Remove the draft itself; an object that was made of it stays."""
        with suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)
        with suppress(OSError):  # what was not flushed is not wanted
            self.file.close()
        os.close(self.folder)


@asynccontextmanager
async def drafting(root: Path, place: str) -> AsyncIterator[Draft]:
    """A new draft in the folder `place` (a key) beneath `root`. StoreError."""
    opening = asyncio.ensure_future(asyncio.to_thread(_open, root, place))
    try:
        draft = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)  # its thread goes on, and what it opens is nobody's else
        raise
    try:
        yield draft
    finally:
        await asyncio.shield(asyncio.to_thread(draft.close))


def _close_unwanted(opening: asyncio.Future[Draft]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(root: Path, place: str) -> Draft:
    with as_store_error(place):
        while True:
            with folder_beneath(root, place.split("/")) as opened:
                folder = os.dup(opened)
            name = f".{secrets.token_hex(16)}{_SUFFIX}"
            descriptor = os.open(name, _NEW, 0o644, dir_fd=folder)
            if lock(descriptor) is not False and os.fstat(descriptor).st_nlink:  # else a sweep came between
                return Draft(os.fdopen(descriptor, "w+b"), name, folder, place)
            os.close(descriptor)
            os.close(folder)


def lock(descriptor: int) -> bool | None:
    """Whether the file is ours now; None where the volume has no locks. The lock goes with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """With the file's lock, waiting for it (it is held for moments); without one where the volume has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    yield


def used_now(folder: int, name: str) -> int | None:
    """Count an object as used now, so that no sweep takes it for old; its bytes, None where it is not there."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        with locked(descriptor):
            found = os.fstat(descriptor)
            if not found.st_nlink:
                return None
            with suppress(PermissionError):  # put there by somebody else
                os.utime(descriptor)
            return found.st_size
    finally:
        os.close(descriptor)


def remove_unused(folder: int, name: str, before: float) -> bool:
    """Remove an object that was last used before that time, with its lock held; whether it went."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        with locked(descriptor):
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_mtime >= before or not found.st_nlink:
                return False  # without a link it is gone, and what has its name by now is another
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                return True
            return False
    finally:
        os.close(descriptor)


def is_draft(name: str) -> bool:
    """Whether a file's name is that of a draft."""
    return name.startswith(".") and name.endswith(_SUFFIX)


def remove_left_behind(folder: int, name: str) -> bool:
    """Remove a draft whose writer is gone, with its lock held, so that no writer can take it meanwhile."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        held = lock(descriptor)
        old = time.time() - os.fstat(descriptor).st_mtime > _OLD_SECONDS
        if held or (held is None and old):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                return True
        return False
    finally:
        os.close(descriptor)
