"""What the gateway has seen of the cluster: its tenants' jobs, and ModelServers. Filled by watches; decides nothing."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kinora.gateway.jobs import Job, job_of

Object = dict[str, Any]
_GONE = 8192  # deleted objects remembered, so that a late echo revives none
_BACKLOG = 1000  # changes that a slow listener may be behind before it is told to look anew


class Jobs:
    """All jobs of all tenants that are watched, as `Job`. An older state of an object never replaces a newer one."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._of_tenant: dict[tuple[str, str], dict[str, Job]] = defaultdict(dict)
        self._unfinished: dict[tuple[str, str], int] = defaultdict(int)
        self._gone: dict[str, int] = {}
        self._listeners: dict[tuple[str, str], list[asyncio.Queue[Job | None]]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, namespace: str, name: str) -> Job | None:
        """The job of that object."""
        return self._jobs.get(f"{namespace}/{name}")

    def of(self, namespace: str, tenant: str) -> list[Job]:
        """A tenant's jobs, newest first."""
        found = self._of_tenant.get((namespace, tenant), {}).values()
        return sorted(found, key=lambda job: (job.submit_time, job.id), reverse=True)

    def unfinished(self, namespace: str, tenant: str) -> int:
        """How many of a tenant's jobs have not ended."""
        return self._unfinished.get((namespace, tenant), 0)

    def apply(self, obj: Mapping[str, Any]) -> Job | None:
        """Take in one object, unless a newer state of it is known; the job as it is known now."""
        job = job_of(obj)
        if job is None or self._gone.get(job.uid, -1) >= job.version:
            return None
        known = self._jobs.get(job.key)
        if known is not None and known.uid == job.uid and known.version >= job.version:
            return known
        self._put(job, known)
        return job

    def remove(self, obj: Mapping[str, Any]) -> None:
        """Forget one object."""
        job = job_of(obj)
        known = self._jobs.get(job.key) if job is not None else None
        if job is None or known is None or known.uid != job.uid:
            return
        self._drop(known, max(job.version, known.version))

    def forget(self, job: Job) -> None:
        """Forget a job that was deleted by ourselves: whatever is still told of it is older than that."""
        known = self._jobs.get(job.key)
        if known is not None and known.uid == job.uid:
            self._drop(known, sys.maxsize)

    def replace(self, objects: Iterable[Mapping[str, Any]], scope: str | None, version: int) -> None:
        """A full list (of one namespace) as of `version`: what is not in it, and not newer, is gone."""
        listed = {job.key for job in map(self.apply, objects) if job is not None}
        for key, job in list(self._jobs.items()):
            if key not in listed and (scope is None or job.namespace == scope) and job.version <= version:
                self._drop(job, job.version)

    @asynccontextmanager
    async def changes(self, namespace: str, tenant: str) -> AsyncIterator[asyncio.Queue[Job | None]]:
        """A queue of a tenant's jobs as they change. None in it: one is gone or was missed; look at all anew."""
        queue: asyncio.Queue[Job | None] = asyncio.Queue()
        listeners = self._listeners[(namespace, tenant)]
        listeners.append(queue)
        try:
            yield queue
        finally:
            listeners.remove(queue)
            if not listeners:
                self._listeners.pop((namespace, tenant), None)

    def _put(self, job: Job, known: Job | None) -> None:
        owner = (job.namespace, job.tenant)
        if known is not None:
            self._forget(known)
        self._jobs[job.key] = job
        self._of_tenant[owner][job.key] = job
        self._unfinished[owner] += not job.state.finished
        for queue in self._listeners.get(owner, ()):
            if queue.qsize() < _BACKLOG:
                queue.put_nowait(job)
            elif queue.qsize() == _BACKLOG:
                queue.put_nowait(None)

    def _drop(self, job: Job, version: int) -> None:
        self._forget(job)
        if not job.state.finished:  # its going is a change too
            for queue in self._listeners.get((job.namespace, job.tenant), ()):
                queue.put_nowait(None)
        self._gone[job.uid] = version
        while len(self._gone) > _GONE:
            del self._gone[next(iter(self._gone))]

    def _forget(self, job: Job) -> None:
        owner = (job.namespace, job.tenant)
        del self._jobs[job.key]
        del self._of_tenant[owner][job.key]
        self._unfinished[owner] -= not job.state.finished
        if not self._of_tenant[owner]:
            del self._of_tenant[owner]
            self._unfinished.pop(owner, None)


class Servers:
    """ModelServers as they are, by namespace."""

    def __init__(self) -> None:
        self._servers: dict[str, dict[str, Object]] = defaultdict(dict)

    def of(self, namespace: str) -> list[Object]:
        """Those of a namespace, by name; those that are going are not among them."""
        found = self._servers.get(namespace, {})
        return [found[name] for name in sorted(found) if not found[name]["metadata"].get("deletionTimestamp")]

    def apply(self, obj: Object) -> None:
        """Take in one."""
        obj["metadata"].pop("managedFields", None)
        self._servers[obj["metadata"]["namespace"]][obj["metadata"]["name"]] = obj

    def remove(self, obj: Object) -> None:
        """Forget one."""
        self._servers[obj["metadata"]["namespace"]].pop(obj["metadata"]["name"], None)

    def replace(self, objects: Iterable[Object], scope: str | None) -> None:
        """A full list (of one namespace)."""
        if scope is None:
            self._servers.clear()
        else:
            self._servers.pop(scope, None)
        for obj in objects:
            self.apply(obj)
