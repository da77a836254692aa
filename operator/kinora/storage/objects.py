"""All objects of an artifact store, to tidy it up: listed with their times, removed where nobody used them since.

What may go is garbage.py's to say. Uploads, names and notes are the store service's and the stagers' own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from kinora.s3.answers import Entry
from kinora.storage.drafts import is_draft, remove_unused
from kinora.storage.garbage import INPUTS, Listed
from kinora.storage.keys import KeyRefused, checked_key
from kinora.storage.pvc import as_store_error, existing_folder
from kinora.storage.s3 import S3Store
from kinora.storage.s3 import as_store_error as as_bucket_error
from kinora.storage.s3_inputs import USED

_AWAY: Final = ("uploads", "names", "intake")  # at the root: nothing of these is listed
_UP: Final = 3  # the folders above a file that are an artifact's own: attempt, UID, job


class Objects(Protocol):
    """The artifacts and inputs of a store. Every method raises StoreError."""

    @property
    def root(self) -> str:
        """How the store's uris begin."""
        ...

    async def listed(self, place: str = "") -> list[Listed]:
        """Those whose key begins with `place` (a whole key's beginning, such as `inputs/`), in no order."""
        ...

    async def remove(self, one: Listed) -> bool:
        """Remove an object that is still as it was listed; whether it went."""
        ...


class PvcObjects:
    """See Objects. The volume of `claim_name` is mounted at `root`; no link is followed."""

    def __init__(self, root: Path, claim_name: str) -> None:
        self._root, self.root = root, f"pvc://{claim_name}/"

    async def listed(self, place: str = "") -> list[Listed]:
        """See Objects. A file that is being written is listed under its hidden name."""
        return await asyncio.to_thread(lambda: list(self._walk(place)))

    async def remove(self, one: Listed) -> bool:
        """See Objects. Folders that it leaves empty go with it."""
        return await asyncio.to_thread(self._remove, one)

    def _walk(self, place: str) -> Iterator[Listed]:
        with as_store_error(place or "the store"), suppress(FileNotFoundError):
            above = place.rpartition("/")[0]
            for path, folders, names, folder in os.fwalk(self._root / above, follow_symlinks=False):
                relative = os.path.relpath(path, self._root)
                beneath = "" if relative == "." else f"{relative}/"
                if not beneath:
                    folders[:] = [name for name in folders if name not in _AWAY]
                for name in names:
                    key = f"{beneath}{name}"
                    if not key.startswith(place) or is_draft(name):
                        continue
                    with suppress(FileNotFoundError):
                        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        yield Listed(key, found.st_size, found.st_mtime)

    def _remove(self, one: Listed) -> bool:
        *folders, name = one.key.split("/")
        if any(part in ("", ".", "..") for part in (*folders, name)):
            raise KeyRefused(f"{one.key[:80]!r} is no key of this store")
        with as_store_error(one.key):
            try:
                with existing_folder(self._root, folders) as folder:
                    removed = remove_unused(folder, name, one.used + 0.001)
            except (FileNotFoundError, NotADirectoryError):  # gone, or something else by now
                return False
            if removed and not one.key.startswith(INPUTS):
                self._tidy(folders)
        return removed

    def _tidy(self, folders: list[str]) -> None:
        """The emptied folders of an attempt, of the job's UID and of the job; one that is not empty stays."""
        for count in range(min(_UP, len(folders) - 1)):
            *above, last = folders[: len(folders) - count]
            try:
                with existing_folder(self._root, above) as folder:
                    os.rmdir(last, dir_fd=folder)
            except OSError:
                return


class S3Objects:
    """See Objects."""

    def __init__(self, store: S3Store) -> None:
        self._store, self.root = store, store.root

    async def listed(self, place: str = "") -> list[Listed]:
        """See Objects. An input was used when it, or the empty object beside it, was written."""
        found: dict[str, Entry] = {}
        uses: dict[str, float] = {}
        for entry in await self._entries(place):
            key = entry.key.removeprefix(self._store.client.bucket.prefix)
            if key.partition("/")[0] in _AWAY:
                continue
            if key.startswith(INPUTS) and key.endswith(USED):
                uses[key.removesuffix(USED)] = entry.modified
            else:
                found[key] = entry
        return [
            Listed(key, one.bytes, max(one.modified, uses.get(key, 0.0)))
            for key, one in found.items()
            if one.modified  # a server that tells no times leaves nothing to go by
        ]

    async def remove(self, one: Listed) -> bool:
        """See Objects."""
        key = checked_key(one.key)
        is_input = key.startswith(INPUTS)
        now = await self.listed(key)
        if not any(found.key == key and found.used <= one.used for found in now):
            return False
        with as_bucket_error(key):
            for name in (key, f"{key}{USED}") if is_input else (key,):
                await self._store.client.delete(self._store.whole(name))
        return True

    async def _entries(self, place: str) -> list[Entry]:
        prefix = f"{self._store.client.bucket.prefix}{place}"
        with as_bucket_error(place or "the store"):
            return [
                entry
                async for page in self._store.client.list(prefix)
                for entry in page.entries
                if entry.key.startswith(prefix)
            ]
