"""Which webhooks are not settled, as the watch tells: of each job only what decides when to look at it. No I/O.

Bounded by what is undelivered, not by what has finished: the API server leaves settled ones out of the selection.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kinora.api.names import key as key_of
from kinora.gateway.webhooks.decide import due_time
from kinora.gateway.webhooks.lanes import Place
from kinora.storage.guard.urls import UrlRefused, parse_url

Object = dict[str, Any]
_GONE = 8192  # jobs that were settled or deleted here, so that a late echo of the watch revives none


def shard_of(uid: str, count: int) -> int:
    """The shard of a job: from its uid, so that jobs of one host and namespace are spread over all replicas."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) % count


def trim(job: Object) -> Object:
    """What is kept of a job while a list of them is read."""
    metadata, status = job["metadata"], job.get("status") or {}
    return {
        "metadata": {name: metadata[name] for name in ("namespace", "name", "uid", "resourceVersion")},
        "spec": {"webhook": job["spec"].get("webhook")},
        "status": {name: status[name] for name in ("phase", "completionTime", "webhook") if name in status},
    }


@dataclass(frozen=True, slots=True)
class Entry:
    """An undelivered webhook: whose it is, and when it is `due` (None: at once). The rest is read when it is sent."""

    namespace: str
    name: str
    uid: str
    due: dt.datetime | None
    shard: int
    place: Place
    version: int


@dataclass
class Backlog:
    """Undelivered webhooks by `namespace/name`. An older state of a job never replaces a newer one."""

    shards: int
    _entries: dict[str, Entry] = field(default_factory=dict)
    _gone: dict[str, int] = field(default_factory=dict)

    def get(self, key: str) -> Entry | None:
        """The entry of that job."""
        return self._entries.get(key)

    def of(self, shard: int) -> Iterator[str]:
        """The keys of one shard."""
        return (key for key, entry in self._entries.items() if entry.shard == shard)

    def count(self, shards: Iterable[int]) -> int:
        """How many these shards have."""
        wanted = set(shards)
        return sum(entry.shard in wanted for entry in self._entries.values())

    def apply(self, job: Object) -> str | None:
        """Take in one state of an undelivered job; its key, or None where a newer state is known."""
        uid, key, version = job["metadata"]["uid"], key_of(job), _version(job)
        known = self._entries.get(key)
        if self._gone.get(uid, -1) >= version:
            return None
        if known is not None and known.uid == uid and known.version >= version:
            return None
        namespace = sys.intern(job["metadata"]["namespace"])  # one text for all jobs of a namespace, or a host
        place = Place(namespace, sys.intern(_host(job)))
        shard = shard_of(uid, self.shards)
        self._entries[key] = Entry(namespace, job["metadata"]["name"], uid, due_time(job), shard, place, version)
        return key

    def forget(self, key: str, uid: str) -> None:
        """Forget one whose job is not there any more."""
        known = self._entries.get(key)
        if known is not None and known.uid == uid:
            del self._entries[key]

    def remove(self, job: Object) -> None:
        """Forget one that was settled or deleted."""
        uid, key = job["metadata"]["uid"], key_of(job)
        known = self._entries.get(key)
        if known is not None and known.uid == uid:
            del self._entries[key]
        self._gone[uid] = max(_version(job), known.version if known else 0)
        while len(self._gone) > _GONE:
            del self._gone[next(iter(self._gone))]

    def replace(self, jobs: Iterable[Object], scope: str | None, version: int) -> list[str]:
        """A full list (of one namespace) as of `version`: what is not in it, and not newer, is gone. The new keys."""
        listed, news = set(), []
        for job in jobs:
            listed.add(key_of(job))
            key = self.apply(job)
            if key is not None:
                news.append(key)
        for key, entry in list(self._entries.items()):
            within = scope is None or entry.namespace == scope
            if within and key not in listed and entry.version <= version:
                del self._entries[key]
        return news


def _host(job: Mapping[str, Any]) -> str:
    """Who answers for the URL, as far as its text tells; all that cannot be sent to share a lane."""
    try:
        return parse_url(str((job["spec"].get("webhook") or {}).get("url") or ""), "").authority
    except UrlRefused:
        return ""


def _version(job: Mapping[str, Any]) -> int:
    text = str(job["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
