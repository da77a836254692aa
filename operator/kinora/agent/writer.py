"""Status writes of the jobs bound to this pod: compare-and-set, and nothing for a job that is this pod's no more.

Holds what is known of those jobs (the watch and every answer feed it). What a write says is the caller's function of
the job as it stands; a stale write is decided again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kinora.agent.jobs import Key, is_ours, key_of
from kinora.agent.metrics import Metrics
from kinora.agent.settings import Identity, Times
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)

Object = dict[str, Any]
OVER_LIMIT = 256
Build = Callable[[Object], Object | None]  # None: it says so already


class Lost(Exception):  # noqa: N818 - it reads as a state
    """The attempt is this pod's no more: taken back, ended by somebody else, or deleted. Nothing may be written."""


class JobStore:
    """The newest known version of each job that was bound here. `changed` is called after each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._jobs: dict[str, Object] = {}
        self._over: dict[str, int] = {}  # UIDs of jobs that this pod is done with -> the version that said so
        self._changed = changed

    def put(self, job: Object) -> None:
        """Keep it unless a newer one is known."""
        uid = job["metadata"]["uid"]
        known = self._jobs.get(uid)
        if known is None and self._over.get(uid, -1) >= _version(job):
            return  # an event from before its end
        if known is None or _version(job) >= _version(known):
            self._jobs[uid] = job
            self._changed()

    def drop(self, uid: str) -> None:
        """It is gone."""
        if self._jobs.pop(uid, None) is not None:
            self._changed()

    def close(self, uid: str) -> None:
        """This pod is done with it: it need not be kept, and what is older than now of it is no news."""
        job = self._jobs.pop(uid, None)
        if job is not None:
            self._over[uid] = _version(job)
            if len(self._over) > OVER_LIMIT:
                del self._over[next(iter(self._over))]

    def knows(self, job: Object) -> bool:
        """Whether this version of it, or a newer one, is known."""
        uid = job["metadata"]["uid"]
        known = self._jobs.get(uid)
        newest = self._over.get(uid, -1) if known is None else _version(known)
        return newest >= _version(job)

    def get(self, uid: str) -> Object | None:
        """The job, if it is known."""
        return self._jobs.get(uid)

    def all(self) -> list[Object]:
        """Every job known."""
        return list(self._jobs.values())


def _says(found: Object | None, sent: Object) -> bool:
    """Whether the job stands as this merge patch of its status leaves it."""
    return found is not None and _holds(found["status"], sent)


def _holds(found: Any, sent: Any) -> bool:
    if not isinstance(sent, dict):
        return bool(found == sent)
    return isinstance(found, dict) and all(_holds(found.get(name), value) for name, value in sent.items())


def _version(job: Object) -> int:
    """Versions of one object on one API server grow."""
    text = str(job["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


class StatusWriter:
    """The one way to a job's status."""

    def __init__(self, client: KubeClient, identity: Identity, times: Times, store: JobStore, metrics: Metrics) -> None:
        self._client = client
        self._identity = identity
        self._times = times
        self._metrics = metrics
        self._flights: dict[str, set[asyncio.Event]] = {}  # by job UID: own writes that are not answered yet
        self.store = store

    async def write(self, key: Key, kind: str, build: Build, *, persist: bool = True) -> bool:
        """Write what `build` makes of the job. With `persist`, until the API server has taken it; else one try.

        Raises Lost. False when the one try did not get through.
        """
        delay = self._times.write_retry
        fresh, sent = False, None
        while True:
            try:
                if fresh:
                    await self._refresh(key.uid)
                if sent is not None and _says(self.store.get(key.uid), sent):
                    self._metrics.writes.labels(kind=kind).inc()  # it was taken, and its answer was lost
                    return True
                job = self._current(key)
                sent = build(job)
                if sent is not None:
                    written = await self._patch(job, sent)
                    self._metrics.api.wrote(VIDEOJOB.plural, written, asyncio.get_running_loop().time())
                    self.store.put(written)
                    self._metrics.writes.labels(kind=kind).inc()
                return True
            except UnreachableError as error:
                log.warning("status of %s (%s): %s", key.uid, kind, error)
            except ApiError as error:
                fresh = True  # whatever it was, it was decided on what may be stale
                if error.is_conflict:
                    self._metrics.conflicts.inc()
                    continue
                if error.is_not_found:
                    self.store.drop(key.uid)
                    raise Lost("the job was deleted") from None
                log.warning("status of %s (%s): %s", key.uid, kind, error)
            if not persist:
                return False
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._times.write_retry_limit)

    async def look(self, uid: str, event: Object | None = None) -> None:
        """Read a job that left the selection, and keep or drop it (DELETED in a watch may mean either).

        The `event` that told of it often overtakes the answer to the very write that caused it, which says all that a
        read would.
        """
        for flight in tuple(self._flights.get(uid, ())):
            await flight.wait()
        if self.store.get(uid) is None or (event is not None and self.store.knows(event)):
            return None
        delay = self._times.write_retry
        while True:
            try:
                return await self._refresh(uid)
            except (ApiError, UnreachableError) as error:
                log.warning("job %s left the selection and cannot be read: %s", uid, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, self._times.write_retry_limit)

    async def _refresh(self, uid: str) -> None:
        known = self.store.get(uid)
        if known is None:
            return
        found = await self._read(known)
        if found is None:
            self.store.drop(uid)
        else:
            self.store.put(found)

    def _current(self, key: Key) -> Object:
        job = self.store.get(key.uid)
        if job is None:
            raise Lost("the job was deleted")
        if not is_ours(job, self._identity.pod_uid) or key_of(job) != key:
            raise Lost("the attempt is no longer this pod's")
        return job

    async def _read(self, known: Object) -> Object | None:
        metadata = known["metadata"]
        found = await self._client.find(VIDEOJOB, metadata["namespace"], metadata["name"])
        return found if found is not None and found["metadata"]["uid"] == metadata["uid"] else None

    async def _patch(self, job: Object, status: Object) -> Object:
        metadata = job["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}, "status": status}
        with self._under_way(metadata["uid"]):
            return await self._client.patch(
                VIDEOJOB, metadata["namespace"], metadata["name"], body, subresource="status"
            )

    @contextmanager
    def _under_way(self, uid: str) -> Iterator[None]:
        flight = asyncio.Event()
        self._flights.setdefault(uid, set()).add(flight)
        try:
            yield
        finally:
            flight.set()
            self._flights[uid].discard(flight)
            if not self._flights[uid]:
                del self._flights[uid]
