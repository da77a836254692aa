"""The store service's files on a volume: uploads by content, the names that point at them, objects for reading.

Uploads are drafts until they are whole. The time of an upload's last use is its file's own time; whoever renews or
removes one holds the file's lock, so that none goes in the moment in which it is used again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.storage.drafts import Draft, drafting, is_draft, locked, remove_left_behind, remove_unused
from kinora.storage.keys import KeyRefused, checked_key, readable, upload_key
from kinora.storage.pvc import as_store_error, folder_beneath
from kinora.storage.service import model
from kinora.storage.service.model import Elsewhere, Name, NameTaken, OverLimit, Usage
from kinora.storage.sniff import HEAD_BYTES
from kinora.storage.store import NotStoredError, StoreError

_CHUNK: Final = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENANT = re.compile(r"[0-9a-f]{10}")
_SCOPE = re.compile(r"[a-z]{1,20}")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_FILE: Final = 4 * (model.MAX_NAME + model.MAX_VALUE)  # JSON escapes grow what is stored of a name
_PARTIAL: Final = ".part"
_OLD_PARTIAL_SECONDS: Final = 3600.0


class PvcContent:
    """An object, open. See kinora.storage.service.model.Content."""

    def __init__(self, file: BinaryIO, key: str) -> None:
        found = os.fstat(file.fileno())
        name = key.rpartition("/")[2]
        self._file, self._key = file, key
        self.size = found.st_size
        self.etag = name if _SHA256.fullmatch(name) else f"{found.st_size:x}-{found.st_mtime_ns:x}"
        self.head = os.pread(file.fileno(), HEAD_BYTES, 0)

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """See Content."""
        while length:
            chunk = await asyncio.to_thread(self._read, start, min(_CHUNK, length))
            yield chunk
            start, length = start + len(chunk), length - len(chunk)

    def _read(self, start: int, length: int) -> bytes:
        with as_store_error(self._key):
            chunk = os.pread(self._file.fileno(), length, start)
        if not chunk:
            raise StoreError(f"{self._key}: ends before its size")
        return chunk

    async def close(self) -> None:
        """See Content."""
        self._file.close()


class PvcFiles:
    """See kinora.storage.service.model.FileStore. The volume of `claim_name` is mounted at `root`."""

    def __init__(self, root: Path, claim_name: str, namespace: str) -> None:
        self._root, self.namespace = root, namespace
        self.root = f"pvc://{claim_name}/"

    def draft(self, tenant: str) -> AbstractAsyncContextManager[Draft]:
        """See FileStore."""
        return drafting(self._root, self._uploads(tenant))

    async def open(
        self, key: str, *, redirect: bool = False, content_type: str = "", disposition: str = ""
    ) -> PvcContent | Elsewhere:
        """See FileStore. Always streamed: a volume has no address."""
        del redirect, content_type, disposition
        if not readable(key, self.namespace):
            raise KeyRefused(f"{key[:80]!r} is no artifact or upload of namespace {self.namespace}")
        return await asyncio.to_thread(lambda: PvcContent(self._open(key), key))

    async def renew(self, tenant: str, sha256: str) -> int | None:
        """See FileStore."""
        return await asyncio.to_thread(self._renew, self._uploads(tenant), model.checked_digest(sha256))

    async def remove(self, tenant: str, sha256: str) -> bool:
        """See FileStore."""
        folder, name = self._uploads(tenant), model.checked_digest(sha256)
        return await asyncio.to_thread(self._remove, folder, name)

    async def usage(self, tenant: str) -> Usage:
        """See FileStore."""
        return await asyncio.to_thread(self._usage, self._uploads(tenant))

    async def put_name(self, tenant: str, scope: str, name: Name, *, create: bool) -> None:
        """See FileStore."""
        await asyncio.to_thread(self._put_name, self._names(tenant, scope), name, create)

    async def get_name(self, tenant: str, scope: str, digest: str) -> Name:
        """See FileStore."""
        key = f"{self._names(tenant, scope)}/{model.checked_digest(digest)}"
        found = await asyncio.to_thread(self._read_name, key)
        if found is None:
            raise NotStoredError(f"no such name in {scope}")
        return found

    async def remove_name(self, tenant: str, scope: str, digest: str) -> bool:
        """See FileStore."""
        return await asyncio.to_thread(self._remove, self._names(tenant, scope), model.checked_digest(digest))

    async def names(self, tenant: str, scope: str) -> list[Name]:
        """See FileStore."""
        return await asyncio.to_thread(self._list_names, self._names(tenant, scope))

    async def sweep_uploads(self, keep_seconds: float, is_used: Callable[[str], bool]) -> int:
        """See FileStore."""
        return await asyncio.to_thread(self._sweep, time.time() - keep_seconds, is_used)

    # --- in threads ---------------------------------------------------------------------------------------------------

    def _uploads(self, tenant: str) -> str:
        return upload_key(self.namespace, model.checked_tenant(tenant))

    def _names(self, tenant: str, scope: str) -> str:
        return checked_key(f"names/{self.namespace}/{model.checked_tenant(tenant)}/{model.checked_scope(scope)}")

    def _open(self, key: str) -> BinaryIO:
        try:
            return open_beneath(self._root, key)
        except FileNotThere:
            raise NotStoredError(f"{key}: not in the store") from None
        except FileRefused:
            raise StoreError(f"{key}: not a regular file in the store") from None

    def _renew(self, folder: str, name: str) -> int | None:
        try:
            file = self._open(f"{folder}/{name}")
        except NotStoredError:
            return None
        with file, as_store_error(name), locked(file.fileno()):
            os.utime(file.fileno())
            found = os.fstat(file.fileno())
            return found.st_size if found.st_nlink else None

    def _remove(self, folder: str, name: str) -> bool:
        try:
            with self._beneath(folder) as opened:
                os.unlink(name, dir_fd=opened)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _beneath(self, place: str) -> Iterator[int]:
        """The folder, where it is there; FileNotFoundError. Other failures are StoreErrors."""
        try:
            os.stat(self._root / place, follow_symlinks=False)
            with folder_beneath(self._root, place.split("/")) as opened:
                yield opened
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{place}: {error.strerror or 'the volume failed'}") from None

    def _usage(self, place: str) -> Usage:
        total = files = 0
        with suppress(FileNotFoundError), self._beneath(place) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if _SHA256.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        total += max(entry.stat(follow_symlinks=False).st_size, model.SMALLEST_CHARGE)
                        files += 1
        return Usage(total, files)

    def _put_name(self, place: str, name: Name, create: bool) -> None:
        digest, partial = model.name_digest(name.name), f".{secrets.token_hex(8)}{_PARTIAL}"
        data = json.dumps({"name": name.name, "value": dict(name.value)}).encode()
        with as_store_error(place), folder_beneath(self._root, place.split("/")) as folder:
            known = self._read_name(f"{place}/{digest}")
            if known is None and len(os.listdir(folder)) >= model.MAX_NAMES:
                raise OverLimit("names", model.MAX_NAMES)
            try:
                with os.fdopen(os.open(partial, _NEW, 0o644, dir_fd=folder), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if create:
                    os.link(partial, digest, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                else:
                    os.replace(partial, digest, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except FileExistsError:
                there = self._read_name(f"{place}/{digest}")
                if there is None or self._leads_nowhere(place.split("/")[2], there):  # expired: as good as free
                    os.replace(partial, digest, src_dir_fd=folder, dst_dir_fd=folder)
                elif there.value.get("sha256") != name.value.get("sha256"):
                    raise NameTaken(there.value) from None
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial, dir_fd=folder)

    def _read_name(self, key: str) -> Name | None:
        try:
            with open_beneath(self._root, key) as file:
                found: Any = json.loads(file.read(_MAX_FILE))
            return Name(str(found["name"]), dict(found["value"]))
        except FileNotThere:
            return None
        except (FileRefused, OSError, ValueError, KeyError, TypeError):
            return None  # not written by a stager: the name is free

    def _list_names(self, place: str) -> list[Name]:
        with suppress(FileNotFoundError), self._beneath(place) as folder:
            found = [self._read_name(f"{place}/{entry}") for entry in os.listdir(folder) if _SHA256.fullmatch(entry)]
            return sorted((one for one in found if one is not None), key=lambda one: one.name)
        return []

    # --- tidying up ---------------------------------------------------------------------------------------------------

    def _sweep(self, before: float, is_used: Callable[[str], bool]) -> int:
        removed = 0
        for tenant in self._tenants("uploads"):
            with suppress(FileNotFoundError), self._beneath(self._uploads(tenant)) as folder:
                for name in os.listdir(folder):
                    if is_draft(name):
                        remove_left_behind(folder, name)
                    elif _SHA256.fullmatch(name) and not is_used(f"{tenant}/{name}"):
                        removed += remove_unused(folder, name, before)
        for tenant in self._tenants("names"):
            self._sweep_names(tenant, before)
        return removed

    def _tenants(self, kind: str) -> list[str]:
        try:
            with self._beneath(f"{kind}/{self.namespace}") as folder:
                return [name for name in os.listdir(folder) if _TENANT.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _sweep_names(self, tenant: str, before: float) -> None:
        scopes: list[str] = []
        with suppress(FileNotFoundError), self._beneath(f"names/{self.namespace}/{tenant}") as opened:
            scopes += [name for name in os.listdir(opened) if _SCOPE.fullmatch(name)]
        for scope in scopes:
            place = f"names/{self.namespace}/{tenant}/{scope}"
            with suppress(FileNotFoundError), self._beneath(place) as folder:
                for entry in os.listdir(folder):
                    with suppress(FileNotFoundError):
                        if self._is_stale(tenant, f"{place}/{entry}", entry, folder, before):
                            os.unlink(entry, dir_fd=folder)

    def _is_stale(self, tenant: str, key: str, entry: str, folder: int, before: float) -> bool:
        written = os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mtime
        if entry.startswith(".") and entry.endswith(_PARTIAL):
            return written < time.time() - _OLD_PARTIAL_SECONDS
        if not _SHA256.fullmatch(entry) or written >= before:
            return False
        found = self._read_name(key)
        return found is None or self._leads_nowhere(tenant, found)

    def _leads_nowhere(self, tenant: str, name: Name) -> bool:
        try:
            sha256 = model.checked_digest(str(name.value["sha256"]))
            with open_beneath(self._root, f"{self._uploads(tenant)}/{sha256}"):
                return False
        except (KeyRefused, KeyError, FileRefused):
            return True
