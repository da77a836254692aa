"""Who asks: tenants, what they may, and the keys that name them. Pure; where keys come from is auth.py's affair."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

DIALECTS = ("comfyui", "dashscope", "wavespeed", "runcomfy", "openai")
MIN_KEY = 20  # characters; keys are stored as plain sha256, which is safe for keys that nobody can guess only

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Limits(BaseModel):
    """What one tenant may use. Rates hold for each replica; unfinished jobs are counted in the cluster."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    submits_per_minute: float = Field(600, gt=0)
    burst: int = Field(60, ge=1)
    concurrent: int = Field(1000, ge=1)
    upload_bytes: int = Field(1024**3, ge=1)
    upload_quota_bytes: int = Field(20 * 1024**3, ge=1)


@dataclass(frozen=True)
class Tenant:
    """One that submits jobs. Its jobs live in `namespace`; `dialects` None: all of them.

    `account`: it is known by a token of the cluster, and stands in no Secret of keys.
    """

    name: str
    namespace: str
    queue: str = "default"
    dialects: frozenset[str] | None = None
    limits: Limits = field(default_factory=Limits)
    account: bool = False

    @cached_property
    def digest(self) -> str:
        """Ten hex digits of the name: in names of objects, in labels, and in keys of stores."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:10]


class Entry(BaseModel):
    """One entry of the Secret of keys: the JSON under its name. A key itself is not in it, only its sha256."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    hashes: list[_Digest] = Field(min_length=1, max_length=8)
    namespace: _Label
    tenant: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    queue: Annotated[str, StringConstraints(min_length=1, max_length=63)] = "default"
    dialects: list[str] | None = None
    limits: Limits = Field(default_factory=Limits)
    expires: datetime | None = None


class EntryError(ValueError):
    """An entry that cannot be used; the message names it, its field and what is allowed."""


def hash_of(key: str) -> str:
    """What the Secret holds of a key: its sha256 as hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def parse_entry(name: str, text: str) -> Entry:
    """One entry. Raises EntryError."""
    try:
        entry = Entry.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the entry"
        raise EntryError(f"key entry {name}: {place}: {first['msg']}") from None
    unknown = sorted(set(entry.dialects or ()) - set(DIALECTS))
    if unknown:
        raise EntryError(f"key entry {name}: dialects: {', '.join(unknown)}; allowed: {', '.join(DIALECTS)}")
    if entry.expires is not None and entry.expires.tzinfo is None:
        raise EntryError(
            f"key entry {name}: expires: {entry.expires}; allowed: a time with its zone, as 2030-01-31T00:00Z"
        )
    return entry


@dataclass(frozen=True)
class KeyRing:
    """All keys of the moment, by hash."""

    entries: Mapping[str, tuple[str, Entry]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Entry]]) -> KeyRing:
        """A ring of named entries; of two with one hash the first stands."""
        found: dict[str, tuple[str, Entry]] = {}
        for name, entry in entries:
            for digest in entry.hashes:
                found.setdefault(digest, (name, entry))
        return cls(found)

    def find(self, key: str, now: datetime) -> Tenant | None:
        """The tenant of a key; None: nobody's, or expired. What is compared are hashes, in constant time."""
        digest = hash_of(key)
        name, entry = self.entries.get(digest, ("", None))
        if entry is None or not any(hmac.compare_digest(digest, known) for known in entry.hashes):
            return None
        if _is_over(entry, now):
            return None
        dialects = None if entry.dialects is None else frozenset(entry.dialects)
        return Tenant(entry.tenant or name, entry.namespace, entry.queue, dialects, entry.limits)

    def has(self, tenant: str, namespace: str, now: datetime) -> bool:
        """Whether any key of the moment is that tenant's."""
        return any(
            (entry.tenant or name, entry.namespace) == (tenant, namespace) and not _is_over(entry, now)
            for name, entry in self.entries.values()
        )


def _is_over(entry: Entry, now: datetime) -> bool:
    return entry.expires is not None and now.astimezone(UTC) >= entry.expires


def entry_text(entry: Entry) -> str:
    """The entry as it stands in the Secret."""
    return json.dumps(entry.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=True)
