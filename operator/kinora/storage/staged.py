"""What a stager does with its store, of whatever kind: inputs are drafts first, then objects named by their content."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, Protocol


class Draft(Protocol):
    """A file that is being written. `keep` makes an object of it; one that is not kept leaves nothing."""

    @property
    def file(self) -> BinaryIO:
        """Where it is written."""
        ...

    def reading(self) -> BinaryIO:
        """What was written so far, opened anew for reading alone: for a child that must not change it."""
        ...

    async def keep(self, sha256: str) -> str:
        """Make it the object of that content, durably; its key. One that is there already stays. Raises StoreError."""
        ...


class StagedInputs(Protocol):
    """The inputs of a namespace's jobs in one store, and a stager's notes of them. Every method raises StoreError."""

    @property
    def root(self) -> str:
        """How the store's uris begin, as status has it."""
        ...

    def draft(self) -> AbstractAsyncContextManager[Draft]:
        """A new file."""
        ...

    async def renew(self, sha256: str) -> int | None:
        """Count the object of that content as used now; its bytes, None where there is none."""
        ...

    async def open_upload(self, upload: str) -> BinaryIO:
        """What a user has uploaded to the namespace. NotStoredError, KeyRefused."""
        ...

    async def note(self, job_uid: str, name: str, found: Mapping[str, Any]) -> None:
        """Remember what was found of one input."""
        ...

    async def recall(self, job_uid: str, name: str) -> dict[str, Any] | None:
        """What `note` was told, or None."""
        ...

    async def forget(self, job_uid: str) -> None:
        """Drop the notes of a job."""
        ...

    async def sweep(self, unfinished: Collection[str]) -> int:
        """Remove drafts that nobody writes, and notes of jobs (by UID) that are not `unfinished`; how many drafts."""
        ...
