"""What every artifact store does. Keys are create-only: one that is there is read back, never written again."""

from dataclasses import dataclass
from typing import BinaryIO, Protocol


class StoreError(Exception):
    """The store failed (full, gone, refused): not the job's fault. The message names the key, no local path."""


class NotStoredError(StoreError):
    """No artifact has this key."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An artifact in the store, as read or written. `created` is False where it was there already."""

    uri: str
    bytes: int
    sha256: str
    created: bool = False


class ArtifactStore(Protocol):
    """A place for finished outputs. Every method raises StoreError, and KeyRefused for what is no key."""

    def uri(self, key: str) -> str:
        """The absolute address of the key, as it stands in status."""
        ...

    async def put(self, key: str, source: BinaryIO) -> Stored:
        """Store all of the open file under the key, durably and at once, or read back what is there already."""
        ...

    async def read_back(self, key: str) -> Stored:
        """Read every byte of the artifact again. NotStoredError."""
        ...

    async def size(self, key: str) -> int | None:
        """Bytes of the artifact, None where there is none."""
        ...

    async def open_read(self, key: str) -> BinaryIO:
        """The artifact, open for reading and seekable; the caller closes it. NotStoredError."""
        ...
