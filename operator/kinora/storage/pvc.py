"""Artifacts on a mounted volume. Written beside their place, synced and linked: a key appears whole or not at all."""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.storage.keys import checked_key
from kinora.storage.store import NotStoredError, Stored, StoreError

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class PvcStore:
    """The artifact store on the volume of `claim_name`, mounted at `root`. Disk work is done in threads."""

    def __init__(self, root: Path, claim_name: str) -> None:
        self._root, self._claim = root, claim_name

    def uri(self, key: str) -> str:
        """`pvc://claim/key`."""
        return f"pvc://{self._claim}/{checked_key(key)}"

    async def put(self, key: str, source: BinaryIO) -> Stored:
        """See ArtifactStore. A put that is cancelled goes on in its thread; it can only create."""
        checked_key(key)
        return await asyncio.to_thread(self._put, key, source)

    async def read_back(self, key: str) -> Stored:
        """See ArtifactStore."""
        return await asyncio.to_thread(self._read_back, key)

    async def size(self, key: str) -> int | None:
        """See ArtifactStore."""
        try:
            with await self.open_read(key) as file:
                return os.fstat(file.fileno()).st_size
        except NotStoredError:
            return None

    async def open_read(self, key: str) -> BinaryIO:
        """See ArtifactStore."""
        return await asyncio.to_thread(self._open, key)

    def _open(self, key: str) -> BinaryIO:
        try:
            return open_beneath(self._root, checked_key(key))
        except FileNotThere:
            raise NotStoredError(f"{key}: not in the store") from None
        except FileRefused as refused:
            raise StoreError(str(refused)) from None

    def _read_back(self, key: str) -> Stored:
        with as_store_error(key), self._open(key) as file:
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return Stored(self.uri(key), size, digest.hexdigest())

    def _put(self, key: str, source: BinaryIO) -> Stored:
        with suppress(NotStoredError):
            return self._read_back(key)
        *folders, name = key.split("/")
        with as_store_error(key), folder_beneath(self._root, folders) as folder:
            partial = f".{name[:100]}.{secrets.token_hex(8)}.partial"
            try:
                size, digest = _write(folder, partial, source)
                os.link(partial, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return self._read_back(key)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial, dir_fd=folder)
            os.fsync(folder)
        return Stored(self.uri(key), size, digest, created=True)


def _write(folder: int, name: str, source: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    source.seek(0)
    with os.fdopen(os.open(name, _NEW, 0o644, dir_fd=folder), "wb") as file:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


@contextmanager
def folder_beneath(root: Path, names: list[str]) -> Iterator[int]:
    """A descriptor of the folder below `root`, made where it is not there; no link is followed."""
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=current)
                os.fsync(current)
            inner = os.open(name, _FOLDER, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)


@contextmanager
def existing_folder(root: Path, names: list[str]) -> Iterator[int]:
    """As folder_beneath, but nothing is made: FileNotFoundError."""
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            inner = os.open(name, _FOLDER, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)


@contextmanager
def as_store_error(key: str) -> Iterator[None]:
    """What the volume says, as a StoreError that names the key and no path."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise StoreError(f"{key}: the volume refuses hard links, which create-only keys need") from None
        raise StoreError(f"{key}: {error.strerror or 'the volume failed'}") from None
