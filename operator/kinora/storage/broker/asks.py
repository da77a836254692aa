"""What an agent asks a broker to sign: one request of the bucket, for one attempt of one job. Pure.

An agent names an action and what belongs to it, never a method, a query or a header: both sides make the request from
that alone, so that nothing else can be had signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from kinora.api.base import ApiModel

PATH: Final = "/v1/agents/urls"
UNAUTHORIZED: Final = "Unauthorized"  # the code of an answer to a token that is nobody's
MAX_ASK: Final = 16 * 1024  # bytes of an ask on the wire
MAX_PIECE: Final = 16 << 20  # bytes of one request: an object, or a part of one
MAX_PARTS: Final = 512  # of one object: 8 GiB
MAX_COMPLETION: Final = 1 << 20  # bytes of the list of parts
META_SHA256: Final = "x-amz-meta-sha256"


class AskError(ValueError):
    """It is no ask; the message names the field."""


class Action(StrEnum):
    """What is done with an object."""

    LOOK = "Look"
    READ = "Read"
    CREATE = "Create"
    BEGIN = "Begin"  # an upload in parts
    PART = "Part"
    COMPLETE = "Complete"
    ABORT = "Abort"
    UPLOADS = "Uploads"  # which uploads in parts of the key are open


READS: Final = frozenset({Action.LOOK, Action.READ})
#: The fields that each action comes with, beside the job and the key.
_FIELDS: Final[Mapping[Action, frozenset[str]]] = {
    Action.LOOK: frozenset(),
    Action.READ: frozenset(),
    Action.CREATE: frozenset({"bytes", "md5", "sha256", "content_type"}),
    Action.BEGIN: frozenset({"sha256", "content_type"}),
    Action.PART: frozenset({"upload", "part", "bytes", "md5"}),
    Action.COMPLETE: frozenset({"upload", "bytes"}),
    Action.ABORT: frozenset({"upload"}),
    Action.UPLOADS: frozenset(),
}
_MOST: Final = {Action.CREATE: MAX_PIECE, Action.PART: MAX_PIECE, Action.COMPLETE: MAX_COMPLETION}

_Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]


class Claim(ApiModel):
    """The attempt that an agent asks for."""

    model_config = ConfigDict(extra="forbid")

    name: _Name
    uid: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z-]{1,64}$")]
    attempt: int = Field(ge=1, le=1_000_000, strict=True)


class Ask(ApiModel):
    """One request. `key`: without the store's prefix. `anew`: with `If-None-Match: *`, as every create should be."""

    model_config = ConfigDict(extra="forbid")

    job: Claim
    action: Action
    key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    upload: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,1024}$")] | None = None
    part: int | None = Field(None, ge=1, le=MAX_PARTS, strict=True)
    bytes: int | None = Field(None, ge=0, strict=True)
    md5: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{22}==$")] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    content_type: (
        Annotated[str, StringConstraints(pattern=r"^((video|image)/[a-z0-9.+-]{1,64}|application/octet-stream)$")]
        | None
    ) = None
    anew: bool = Field(True, strict=True)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        given -= {"job", "action", "key", "anew"}
        wanted = _FIELDS[self.action]
        if given != wanted:
            raise ValueError(f"{self.action} comes with {', '.join(sorted(wanted)) or 'a key alone'}")
        most = _MOST.get(self.action)
        if most is not None and (self.bytes or 0) > most:
            raise ValueError(f"bytes is {self.bytes}; allowed: at most {most}")
        if not self.anew and self.action not in (Action.CREATE, Action.COMPLETE):
            raise ValueError(f"anew is false; allowed with {Action.CREATE} and {Action.COMPLETE} alone")
        return self


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as it is signed. `key` is whole; empty: the bucket. Header names are lower case."""

    method: str
    key: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def parsed(text: bytes) -> Ask:
    """An ask as it came. AskError."""
    try:
        return Ask.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise AskError(f"{place or 'the ask'}: {first['msg']}"[:300]) from None


def wire(ask: Ask) -> dict[str, Any]:
    """The ask as it goes over the wire."""
    return ask.model_dump(mode="json", by_alias=True, exclude_none=True)


def wanted(ask: Ask, prefix: str) -> Wanted:
    """The request that the ask stands for, in a store whose keys begin with `prefix`.

    A signed URL says nothing of a body: its length and its MD5 are headers, which the server holds it against.
    """
    key, action = f"{prefix}{ask.key}", ask.action
    upload = {"uploadId": ask.upload} if ask.upload is not None else {}
    headers: dict[str, str] = {}
    if ask.bytes is not None:
        headers["content-length"] = str(ask.bytes)
    if ask.md5 is not None:
        headers["content-md5"] = ask.md5
    if ask.sha256 is not None and ask.content_type is not None:
        headers |= {META_SHA256: ask.sha256, "content-type": ask.content_type}
    if action in (Action.CREATE, Action.COMPLETE) and ask.anew:
        headers["if-none-match"] = "*"
    match action:
        case Action.LOOK:
            return Wanted("HEAD", key)
        case Action.READ:
            return Wanted("GET", key)
        case Action.CREATE:
            return Wanted("PUT", key, {}, headers)
        case Action.BEGIN:
            return Wanted("POST", key, {"uploads": ""}, headers)
        case Action.PART:
            return Wanted("PUT", key, {"partNumber": str(ask.part), **upload}, headers)
        case Action.COMPLETE:
            return Wanted("POST", key, upload, headers)
        case Action.ABORT:
            return Wanted("DELETE", key, upload)
        case Action.UPLOADS:
            return Wanted("GET", "", {"prefix": key, "uploads": ""})
