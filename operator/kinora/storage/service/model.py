"""What the store service is about: uploads by content, names that point at them, objects that are read. No I/O.

An upload lies under `uploads/<namespace>/<tenant>/<sha256>`; `tenant` is a digest of the tenant's name. A name is any
text of at most 1,024 characters in a scope of the tenant; it points at an upload, and is what may change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final, Protocol

from kinora.storage.keys import KeyRefused
from kinora.storage.store import StoreError

SERVICE_PATH: Final = "/v1"
MAX_NAME: Final = 1024  # characters
MAX_VALUE: Final = 4096  # bytes of JSON: what a name points at, and what its writer notes of it
MAX_NAMES: Final = 10_000  # of a tenant in one scope
SMALLEST_CHARGE: Final = 4096  # bytes: what an upload costs a quota at least, so that empty files are not free
_TENANT = re.compile(r"[0-9a-f]{10}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCOPE = re.compile(r"[a-z]{1,20}")


class OverLimit(StoreError):  # noqa: N818 - a verdict
    """More bytes, or more names, than are allowed. `what`: bytes | quota | names; `limit`: how many are."""

    def __init__(self, what: str, limit: int) -> None:
        words = {
            "bytes": f"more than {limit} bytes, which is what one file may have",
            "quota": f"the tenant's uploads would have more than {limit} bytes in all; delete some, or wait for unused "
            "ones to expire",
            "names": f"more than {limit} names; delete some, or wait for unused ones to expire",
        }
        super().__init__(words.get(what, f"more than {limit}"))
        self.what, self.limit = what, limit


class NameTaken(StoreError):  # noqa: N818 - a verdict
    """The name points at other content, and was to be made anew. `value`: what it points at."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__("the name is taken by other content")
        self.value = dict(value)


class NotDrawable(StoreError):  # noqa: N818 - a verdict
    """Nothing can be drawn of the object. The message says why."""


class Busy(StoreError):  # noqa: N818 - a verdict
    """Too much is being drawn; it may be asked for again soon."""


class PreviewKind(StrEnum):
    """What can be drawn of a video: one frame as WebP, or a sheet of frames as JPEG."""

    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in the store. `created` is False where the same content was there already."""

    tenant: str
    sha256: str
    bytes: int
    created: bool = False

    @property
    def key(self) -> str:
        """What `Source.upload` of a VideoJob says: the key after `uploads/<namespace>/`."""
        return f"{self.tenant}/{self.sha256}"


@dataclass(frozen=True, slots=True)
class Name:
    """A name and what it points at: JSON with `sha256` and `bytes`, and what its writer notes."""

    name: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant's uploads take."""

    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where an object is read directly, for a short while: a presigned URL."""

    url: str


class Content(Protocol):
    """An object that is open for reading. `etag`: its sha256 where the key tells it, else another strong validator."""

    size: int
    etag: str
    head: bytes  # the first bytes, by which its type is known

    def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """So many bytes from there. StoreError when they are not all there."""
        ...

    async def close(self) -> None:
        """Done."""
        ...


class UploadDraft(Protocol):
    """An upload that is coming in; nobody sees it until it is kept."""

    @property
    def file(self) -> BinaryIO:
        """Where it is written."""
        ...

    async def keep(self, sha256: str) -> str:
        """Make it the object of that content, durably; its key. One that is there already stays as it is."""
        ...


class FileStore(Protocol):
    """What the service stands on: a volume, or an object store. All methods raise StoreError."""

    root: str  # as URIs in status begin: `pvc://claim/`
    namespace: str

    def draft(self, tenant: str) -> AbstractAsyncContextManager[UploadDraft]:
        """A new upload of the tenant."""
        ...

    async def open(
        self, key: str, *, redirect: bool = False, content_type: str = "", disposition: str = ""
    ) -> Content | Elsewhere:
        """An object; `redirect`: a direct URL will do, which answers with these two headers. NotStoredError."""
        ...

    async def renew(self, tenant: str, sha256: str) -> int | None:
        """Count the upload as used now; its bytes, None where it is not there."""
        ...

    async def remove(self, tenant: str, sha256: str) -> bool:
        """Remove an upload; whether it was there."""
        ...

    async def usage(self, tenant: str) -> Usage:
        """What the tenant's uploads take, each at least SMALLEST_CHARGE."""
        ...

    async def put_name(self, tenant: str, scope: str, name: Name, *, create: bool) -> None:
        """Point the name there. `create`: only a new one, or one that points there already. NameTaken, OverLimit."""
        ...

    async def get_name(self, tenant: str, scope: str, digest: str) -> Name:
        """By the name's sha256. NotStoredError."""
        ...

    async def remove_name(self, tenant: str, scope: str, digest: str) -> bool:
        """Whether it was there. The upload stays."""
        ...

    async def names(self, tenant: str, scope: str) -> list[Name]:
        """All of a scope, in the order of names."""
        ...

    async def sweep_uploads(self, keep_seconds: float, is_used: Callable[[str], bool]) -> int:
        """Remove uploads unused for so long, drafts that nobody writes, names whose upload is gone; how many uploads.

        `is_used` is asked with what `Source.upload` says.
        """
        ...


def checked_tenant(tenant: str) -> str:
    """The digest itself, if it is one: 10 hex digits. KeyRefused."""
    if not _TENANT.fullmatch(tenant):
        raise KeyRefused(f"{tenant[:80]!r} is no tenant's digest")
    return tenant


def checked_digest(sha256: str) -> str:
    """The sha256 itself, if it is one. KeyRefused."""
    if not _SHA256.fullmatch(sha256):
        raise KeyRefused(f"{sha256[:80]!r} is no sha256")
    return sha256


def checked_scope(scope: str) -> str:
    """The scope itself, if it is one: 1 to 20 small letters. KeyRefused."""
    if not _SCOPE.fullmatch(scope):
        raise KeyRefused(f"{scope[:80]!r} is no scope of names")
    return scope


def name_digest(name: str) -> str:
    """By which a name is stored: so no name, whatever it holds, leads anywhere. KeyRefused for one that is too long."""
    if not name or len(name) > MAX_NAME:
        raise KeyRefused(f"a name of {len(name)} characters; allowed: 1 to {MAX_NAME}")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
