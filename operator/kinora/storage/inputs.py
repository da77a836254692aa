"""The inputs of jobs in the store on a volume: drafts that become objects named by their content, and a stager's notes.

A draft is a hidden file beside the objects; it becomes one whole, by a link, or is never seen. A process that is killed
leaves drafts that nobody holds the lock of: `sweep` removes them. Notes are what a stager need not find out twice.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.storage.keys import checked_key, input_key, intake_key, upload_key
from kinora.storage.pvc import as_store_error, folder_beneath
from kinora.storage.store import NotStoredError, StoreError

_FOLDER: Final = "inputs"
_SUFFIX: Final = ".draft"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_SECONDS: Final = 24 * 3600  # a draft on a volume without locks counts as left behind after that
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_MAX_NOTE: Final = 64 * 1024


@dataclass(frozen=True)
class Draft:
    """A file that is being written. `keep` makes an object of it."""

    file: BinaryIO
    name: str
    folder: int

    def reading(self) -> BinaryIO:
        """What was written so far, opened anew for reading alone: for a child that must not change it."""
        self.file.flush()
        descriptor = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
        return os.fdopen(descriptor, "rb")

    async def keep(self, sha256: str) -> str:
        """Make it the object of that content, durably; its key. One that is there already stays as it is."""
        return await asyncio.to_thread(self._keep, sha256)

    def _keep(self, sha256: str) -> str:
        key = input_key(sha256)
        with as_store_error(key):
            self.file.flush()
            os.fsync(self.file.fileno())
            try:
                os.link(self.name, sha256, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
            except FileExistsError:
                there = os.stat(sha256, dir_fd=self.folder, follow_symlinks=False).st_size
                if there != os.fstat(self.file.fileno()).st_size:
                    raise StoreError(f"{key}: is there and has {there} bytes, which are not its own") from None
            os.fsync(self.folder)
        return key

    def close(self) -> None:
        """Remove the draft itself; an object that was made of it stays."""
        with suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)
        with suppress(OSError):  # what was not flushed is not wanted
            self.file.close()
        os.close(self.folder)


class PvcInputs:
    """Inputs on the volume of `claim_name`, mounted at `root`, for the jobs of `namespace`."""

    def __init__(self, root: Path, claim_name: str, namespace: str) -> None:
        self._root, self._claim, self._namespace = root, claim_name, namespace

    @property
    def root(self) -> str:
        """`pvc://claim/`, as status has it."""
        return f"pvc://{self._claim}/"

    @asynccontextmanager
    async def draft(self) -> AsyncIterator[Draft]:
        """A new file. StoreError."""
        draft = await asyncio.to_thread(self._open_draft)
        try:
            yield draft
        finally:
            await asyncio.to_thread(draft.close)

    async def size(self, sha256: str) -> int | None:
        """Bytes of the object of that content; None where there is none."""
        return await asyncio.to_thread(self._size, sha256)

    async def open_upload(self, upload: str) -> BinaryIO:
        """What a user has uploaded to the namespace. NotStoredError, StoreError, KeyRefused."""
        return await asyncio.to_thread(self._open, upload_key(self._namespace, upload), upload)

    async def note(self, job_uid: str, name: str, found: Mapping[str, Any]) -> None:
        """Remember what was found of one input."""
        await asyncio.to_thread(self._note, intake_key(self._namespace, job_uid, name), found)

    async def recall(self, job_uid: str, name: str) -> dict[str, Any] | None:
        """What `note` was told, or None."""
        return await asyncio.to_thread(self._recall, intake_key(self._namespace, job_uid, name))

    async def forget(self, job_uid: str) -> None:
        """Drop the notes of a job."""
        folder = checked_key(f"intake/{self._namespace}/{job_uid}")
        await asyncio.to_thread(shutil.rmtree, self._root / folder, ignore_errors=True)

    async def sweep(self, unfinished: Collection[str]) -> int:
        """Remove drafts that nobody writes, and notes of jobs (by UID) that are not `unfinished`; how many drafts."""
        return await asyncio.to_thread(self._sweep, frozenset(unfinished))

    # --- in threads ---------------------------------------------------------------------------------------------------

    def _open_draft(self) -> Draft:
        with as_store_error(_FOLDER):
            while True:
                with folder_beneath(self._root, [_FOLDER]) as opened:
                    folder = os.dup(opened)
                name = f".{secrets.token_hex(16)}{_SUFFIX}"
                descriptor = os.open(name, _NEW, 0o644, dir_fd=folder)
                if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:  # else a sweep came between
                    return Draft(os.fdopen(descriptor, "w+b"), name, folder)
                os.close(descriptor)
                os.close(folder)

    def _open(self, key: str, shown: str) -> BinaryIO:
        try:
            return open_beneath(self._root, key)
        except FileNotThere:
            raise NotStoredError(f"{shown}: not in the store") from None
        except FileRefused:
            raise StoreError(f"{shown}: not a regular file in the store") from None

    def _size(self, sha256: str) -> int | None:
        try:
            with self._open(input_key(sha256), sha256) as file:
                return os.fstat(file.fileno()).st_size
        except NotStoredError:
            return None

    def _note(self, key: str, found: Mapping[str, Any]) -> None:
        *folders, name = key.split("/")
        partial = f".{secrets.token_hex(8)}.part"
        with as_store_error(key), folder_beneath(self._root, folders) as folder:
            with os.fdopen(os.open(partial, _NEW, 0o644, dir_fd=folder), "wb") as file:
                file.write(json.dumps(dict(found)).encode())
            os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _recall(self, key: str) -> dict[str, Any] | None:
        try:
            with open_beneath(self._root, key) as file:
                found = json.loads(file.read(_MAX_NOTE))
        except (FileRefused, OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _sweep(self, unfinished: frozenset[str]) -> int:
        removed = 0
        with as_store_error(_FOLDER), folder_beneath(self._root, [_FOLDER]) as folder:
            for name in os.listdir(folder):
                if name.endswith(_SUFFIX) and name.startswith("."):
                    removed += _remove_left_behind(folder, name)
        notes = self._root / "intake" / self._namespace
        with suppress(OSError):
            for entry in os.scandir(notes):
                if entry.name not in unfinished and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
        return removed


def _lock(descriptor: int) -> bool | None:
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


def _remove_left_behind(folder: int, name: str) -> bool:
    """Remove a draft whose writer is gone, with its lock held, so that no writer can take it meanwhile."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        held = _lock(descriptor)
        old = time.time() - os.fstat(descriptor).st_mtime > _OLD_SECONDS
        if held or (held is None and old):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                return True
        return False
    finally:
        os.close(descriptor)
