"""What the operator has seen of the cluster: one cache a kind, filled by the watches and by the answers of own writes.

Nothing is decided here. Objects are raw dicts, never changed in place. An older resourceVersion never replaces a newer
one, so that an echo cannot undo the answer of an own write that was applied at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from kinora.api.intake import inputs_condition
from kinora.api.names import key, server_of
from kinora.api.transitions import is_assigned
from kinora.controller.compact import compact
from kinora.controller.modelserver.notice import is_virtual, node_mark
from kinora.controller.pools.load import load_providers

Object = dict[str, Any]


@dataclass
class Entry:
    """One object and since when (monotonic seconds) something about it has been seen."""

    obj: Object
    seen: float
    since: dict[str, float] = field(default_factory=dict)
    suspended_seconds: float = 0.0


def _version(obj: Object) -> int:
    version = obj["metadata"].get("resourceVersion", "0")
    return int(version) if version.isdigit() else 0


class Cache:
    """Objects of one kind by key (``namespace/name``; ``name`` for cluster-scoped ones)."""

    def __init__(
        self,
        clock: Callable[[], float],
        changed: Callable[[str, Object | None, Object | None], None],
        replaced: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._replaced = replaced
        self.entries: dict[str, Entry] = {}
        self._gone: dict[str, int] = {}  # the newest version of what was deleted: a late echo must not revive it
        self.synced = False

    def get(self, name: str) -> Object | None:
        """The object of that key."""
        entry = self.entries.get(name)
        return entry.obj if entry else None

    def apply(self, obj: Object) -> None:
        """Take in one object unless a newer state of it is known."""
        name = _key(obj)
        entry = self.entries.get(name)
        if entry and entry.obj["metadata"]["uid"] == obj["metadata"]["uid"]:
            if _version(obj) <= _version(entry.obj):
                return
            old = entry.obj
            entry.obj = obj = compact(obj)
            self._changed(name, old, obj)
            return
        if self._gone.get(obj["metadata"]["uid"], -1) >= _version(obj):
            return
        obj = compact(obj)
        before = entry.obj if entry else None
        self.entries[name] = Entry(obj, self._clock())
        self._changed(name, before, obj)

    def remove(self, obj: Object, *, listed_version: int = 0) -> None:
        """Forget one object (if the known one has its UID).

        ``listed_version``: of a list that it was not in. No state before that can bring it back: not the answer of an
        own write either, which may come after the watch has told of the end.
        """
        name, uid = _key(obj), obj["metadata"]["uid"]
        entry = self.entries.get(name)
        known = entry if entry and entry.obj["metadata"]["uid"] == uid else None
        self._remember_gone(uid, max(_version(obj), listed_version, _version(known.obj) if known else 0))
        if known is not None:
            del self.entries[name]
            self._changed(name, known.obj, None)

    def replace(
        self, objects: Iterable[Object], *, listed_version: int | None = None, scope: str | None = None
    ) -> None:
        """A full list (of one namespace): take all in, forget what is not in it and is not newer than the list."""
        self.prune(self.take(objects), listed_version=listed_version, scope=scope)

    def take(self, objects: Iterable[Object]) -> set[str]:
        """A page of a full list; the keys in it, for ``prune``."""
        listed = set()
        for obj in objects:
            listed.add(_key(obj))
            self.apply(obj)
        return listed

    def prune(self, listed: Collection[str], *, listed_version: int | None = None, scope: str | None = None) -> None:
        """The end of a full list: forget what was not in it and is not newer."""
        for name in [name for name in self.entries if name not in listed]:
            if scope is not None and not name.startswith(f"{scope}/"):
                continue
            obj = self.entries[name].obj
            if listed_version is None or _version(obj) <= listed_version:
                self.remove(obj, listed_version=listed_version or 0)
        self.synced = True
        self._replaced()

    def _remember_gone(self, uid: str, version: int) -> None:
        self._gone[uid] = max(version, self._gone.pop(uid, 0))  # the newest last: the oldest are forgotten first
        while len(self._gone) > 4096:
            del self._gone[next(iter(self._gone))]


class ChildCache(Cache):
    """Children of ModelServers, found by their server's key."""

    def of(self, server: str) -> list[Object]:
        """The children of one server, by their label. They are few."""
        return [entry.obj for entry in self.entries.values() if server_of(entry.obj) == server]


def _key(obj: Object) -> str:
    return key(obj) if obj["metadata"].get("namespace") else str(obj["metadata"]["name"])


class Store:
    """The caches of the operator, and the indexes that its decisions need."""

    def __init__(self, clock: Callable[[], float], notify: Callable[[str, str], None]) -> None:
        """``notify(kind, key)`` is told of every change: kind is job, server, pod, claim, node, stager or child.

        A node changes when its readiness does, or what it says of its end. ``offer`` is told beside ``server`` when a
        spec changes: a status says nothing new to the jobs that wait. ``child`` is told with the key of the server
        whose weights Job, or its pod, changed.
        """
        self._clock = clock
        self._notify = notify
        self.ready = asyncio.Event()  # set once a full list of each kind has replaced the store
        self.jobs = Cache(clock, self._job_changed, self._replaced)
        self.servers = Cache(clock, self._server_changed, self._replaced)
        self.pods = Cache(clock, self._pod_changed, self._replaced)
        self.claims = Cache(clock, self._plain("claim"), self._replaced)
        self.nodes = Cache(clock, self._node_changed, self._replaced)
        self.stagers = Cache(clock, self._plain("stager"), self._replaced)  # Deployments; not waited for
        self.weights_jobs = ChildCache(clock, self._child_changed, self._replaced)
        self.weights_pods = ChildCache(clock, self._child_changed, self._replaced)
        self.pods_by_uid: dict[str, Object] = {}
        self.pods_by_server: dict[str, dict[str, Object]] = defaultdict(dict)
        self.jobs_by_pod: dict[str, set[str]] = defaultdict(set)  # pod UID -> keys of jobs assigned to it
        self.waiting: dict[str, set[str]] = defaultdict(set)  # namespace -> keys of unassigned unfinished jobs
        self.node_not_ready: dict[str, float] = {}  # name -> monotonic seconds since it was seen NotReady

    def _replaced(self) -> None:
        """Nothing is decided before a full list of each kind has replaced the store."""
        caches = (self.jobs, self.servers, self.pods, self.claims, self.nodes, self.weights_jobs, self.weights_pods)
        if all(cache.synced for cache in caches):
            self.ready.set()

    def obstacle(self) -> str | None:
        """Why nothing can be decided yet (/readyz), or None."""
        return None if self.ready.is_set() else "the first full list of every kind is not in yet"

    def now(self) -> float:
        """The monotonic clock that all ages run on."""
        return self._clock()

    def _plain(self, kind: str) -> Callable[[str, Object | None, Object | None], None]:
        def changed(name: str, _old: Object | None, _new: Object | None) -> None:
            self._notify(kind, name)

        return changed

    def _child_changed(self, _name: str, old: Object | None, new: Object | None) -> None:
        for server in {server_of(obj) for obj in (old, new) if obj is not None}:
            self._notify("child", server)

    def _server_changed(self, name: str, old: Object | None, new: Object | None) -> None:
        self._notify("server", name)
        if _offer(old) != _offer(new):
            self._notify("offer", name)

    def _job_changed(self, name: str, old: Object | None, new: Object | None) -> None:
        self._unindex(name, old)
        if new is not None:
            status = new.get("status") or {}
            if is_assigned(status):
                self.jobs_by_pod[status["assignment"]["podUID"]].add(name)
            else:
                self.waiting[new["metadata"]["namespace"]].add(name)
            self._mark(self.jobs.entries[name], old, new)
        self._notify("job", name)

    def _unindex(self, name: str, old: Object | None) -> None:
        if old is None:
            return
        uid = ((old.get("status") or {}).get("assignment") or {}).get("podUID")
        for index, place in ((self.jobs_by_pod, uid), (self.waiting, old["metadata"]["namespace"])):
            if place in index:
                index[place].discard(name)
                if not index[place]:
                    del index[place]

    def _mark(self, entry: Entry, old: Object | None, new: Object) -> None:
        """Keep since when the job runs its attempt, is cancelled, is suspended: ages on this process's own clock."""
        now = self._clock()
        status = new.get("status") or {}
        facts = {
            f"running-{status.get('attempt')}": status.get("phase") in {"Running", "Finalizing"},
            "cancel": bool(new["spec"].get("cancel")) and is_assigned(status),
            "suspend": bool(new["spec"].get("suspend")),
            "staged": inputs_condition(new).get("status") == "True",
        }
        if old is not None and "suspend" in entry.since and not facts["suspend"]:
            entry.suspended_seconds += now - entry.since["suspend"]
        entry.since = {name: entry.since.get(name, now) for name, holds in facts.items() if holds}

    def age(self, entry: Entry, fact: str) -> float:
        """Seconds since the fact was first seen to hold; 0 where it does not."""
        return self._clock() - entry.since[fact] if fact in entry.since else 0.0

    def _pod_changed(self, name: str, old: Object | None, new: Object | None) -> None:
        if old is not None:
            self.pods_by_uid.pop(old["metadata"]["uid"], None)
            self.pods_by_server[server_of(old)].pop(old["metadata"]["uid"], None)
        if new is not None:
            self.pods_by_uid[new["metadata"]["uid"]] = new
            self.pods_by_server[server_of(new)][new["metadata"]["uid"]] = new
        self._notify("pod", name)

    def _node_changed(self, name: str, old: Object | None, new: Object | None) -> None:
        was_ready = name not in self.node_not_ready
        if new is None or _node_ready(new):
            self.node_not_ready.pop(name, None)
        else:
            self.node_not_ready.setdefault(name, self._clock())
        providers = load_providers()
        before, after = (node_mark(node or _PLAIN_NODE, providers) for node in (old, new))
        if was_ready == (name in self.node_not_ready) or before != after:  # a node's heartbeat says nothing
            self._notify("node", name)


_PLAIN_NODE: Object = {"metadata": {}}  # one that is not there says as little as one that says nothing


def _offer(server: Object | None) -> tuple[object, ...] | None:
    """What of a ModelServer the waiting jobs rest on."""
    if server is None:
        return None
    metadata = server["metadata"]
    return metadata["uid"], metadata.get("generation"), bool(metadata.get("deletionTimestamp"))


def _node_ready(node: Object) -> bool:
    """Whether the node may be relied on; a virtual node's conditions are ignored (decisions.md, 15)."""
    if is_virtual(node, load_providers().virtual_nodes):
        return True
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready":
            return bool(condition.get("status") == "True")
    return True
