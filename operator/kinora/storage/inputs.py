"""The inputs of jobs in the store on a volume: objects named by their content, and a stager's notes.

An input is a draft (`drafts.py`) until it is whole. Notes are what a stager need not find out twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.storage.drafts import Draft, drafting, is_draft, remove_left_behind, used_now
from kinora.storage.keys import checked_key, input_key, intake_key, upload_key
from kinora.storage.pvc import as_store_error, folder_beneath
from kinora.storage.store import NotStoredError, StoreError

_FOLDER: Final = "inputs"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NOTE: Final = 64 * 1024


class PvcInputs:
    """Inputs on the volume of `claim_name`, mounted at `root`, for the jobs of `namespace`."""

    def __init__(self, root: Path, claim_name: str, namespace: str) -> None:
        self._root, self._claim, self._namespace = root, claim_name, namespace

    @property
    def root(self) -> str:
        """`pvc://claim/`, as status has it."""
        return f"pvc://{self._claim}/"

    def draft(self) -> AbstractAsyncContextManager[Draft]:
        """A new file. StoreError."""
        return drafting(self._root, _FOLDER)

    async def renew(self, sha256: str) -> int | None:
        """See StagedInputs."""
        return await asyncio.to_thread(self._renew, sha256)

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

    def _open(self, key: str, shown: str) -> BinaryIO:
        try:
            return open_beneath(self._root, key)
        except FileNotThere:
            raise NotStoredError(f"{shown}: not in the store") from None
        except FileRefused:
            raise StoreError(f"{shown}: not a regular file in the store") from None

    def _renew(self, sha256: str) -> int | None:
        key = input_key(sha256)
        with as_store_error(key), folder_beneath(self._root, [_FOLDER]) as folder:
            return used_now(folder, sha256)

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
                if is_draft(name):
                    removed += remove_left_behind(folder, name)
        notes = self._root / "intake" / self._namespace
        with suppress(OSError):
            for entry in os.scandir(notes):
                if entry.name not in unfinished and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
        return removed
