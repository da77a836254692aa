"""The operator's loop: events fill the store, changes put keys on the queue, workers decide and execute.

Level-triggered: a key says only where to look; the snapshot is gathered anew each time, so that a missed or doubled
event changes nothing. Keys: ("job", ns/name), ("server", ns/name), ("bind", namespace), ("finished", ns/name),
("expire", ns/name).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import Any

from kinora.api.names import VIDEOJOBS, key, prompt_id
from kinora.api.reasons import DISRUPTED, RETRY, Phase
from kinora.api.transitions import bound, is_finished, parse_time, phase_of
from kinora.catalogue.load import Catalogue
from kinora.controller.executor import Executor, StaleError
from kinora.controller.gather import Gatherer, server_of
from kinora.controller.metrics import Metrics
from kinora.controller.modelserver import decide as server_decide
from kinora.controller.queue import WorkQueue
from kinora.controller.scheduling.bind import Bind, choose
from kinora.controller.settings import Settings
from kinora.controller.store import Store
from kinora.controller.videojob import decide as job_decide
from kinora.controller.videojob.check import Accepted
from kinora.controller.videojob.decide import end_note
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import MODELSERVER, POD, VIDEOJOB

log = logging.getLogger(__name__)
Object = dict[str, Any]
Key = tuple[str, str]

OBSERVED_LIMIT = 4096
SERVER_DELAY = 0.2  # seconds: many pods and jobs change together; a ModelServer is looked at once for all of them
HELD_SECONDS = 30.0


class Operator:
    """One operator process's brain. ``deliver`` takes events in; ``work`` runs until cancelled."""

    def __init__(self, client: KubeClient, catalogue: Catalogue, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self.store = Store(loop.time, self._changed)
        self.metrics = Metrics(self.store, frozenset(catalogue.names))
        self._client = client
        self._settings = settings
        self._catalogue = catalogue
        self._gatherer = Gatherer(self.store, catalogue, settings)
        self._executor = Executor(client, settings)
        # A pod that is idle must not wait until ten thousand new jobs have been looked at one by one.
        self._queue: WorkQueue[Key] = WorkQueue(urgent=lambda item: item[0] == "bind")
        self._reserved: set[str] = set()  # UIDs of pods with a bind on its way
        # Servers whose children beside pods were made by this process: UID and generation at that time.
        self._children: dict[str, tuple[str, int]] = {}
        self._held: dict[str, float] = {}  # keys of jobs whose bind was refused, and until when they are passed over
        self._observed: dict[str, None] = {}  # UIDs of the last finished jobs that were counted

    # --- events in ------------------------------------------------------------------------------------------------

    def deliver(self, kind: str, event_type: str, obj: Object) -> None:
        """One watch event of a job, server, pod, claim or node."""
        cache = {
            "job": self.store.jobs,
            "server": self.store.servers,
            "pod": self.store.pods,
            "claim": self.store.claims,
            "node": self.store.nodes,
        }[kind]
        if event_type == "DELETED":
            cache.remove(obj)
            if kind == "job":
                self._gatherer.forget(obj)
                self._queue.add(("finished", key(obj)))
        elif kind == "job":
            self._take_job(obj)
        else:
            cache.apply(obj)

    def _take_job(self, job: Object) -> None:
        if is_finished(job.get("status") or {}):
            self.store.jobs.remove(job)
            self._queue.add(("finished", key(job)))
        else:
            self.store.jobs.apply(job)

    def _changed(self, kind: str, name: str) -> None:
        """The store changed: put on the queue whatever may decide differently now."""
        namespace = name.partition("/")[0]
        if kind == "job":
            self._queue.add(("job", name))
            self._queue.add(("bind", namespace))
            self._servers_of(namespace)
        elif kind == "server":
            self._queue.add(("server", name))
            self._queue.add(("bind", namespace))
        elif kind == "offer":
            self._jobs_of(namespace)
        elif kind == "pod":
            self._pod_changed(name, namespace)
        elif kind == "claim":
            self._servers_of(namespace)
        elif kind == "node":
            self._node_changed(name)

    def _pod_changed(self, name: str, namespace: str) -> None:
        pod = self.store.pods.get(name)
        if pod is None:
            self._servers_of(namespace)
            self._jobs_of(namespace, assigned=True)
            return
        self._queue.add(("server", server_of(pod)), SERVER_DELAY)
        self._queue.add(("bind", namespace))
        for job in self.store.jobs_by_pod.get(pod["metadata"]["uid"], ()):
            self._queue.add(("job", job))

    def _node_changed(self, name: str) -> None:
        """A node's readiness changed: its pods get no new job, or get them again; its jobs' time runs, or stops."""
        for uid, pod in self.store.pods_by_uid.items():
            if pod["spec"].get("nodeName") == name:
                self._queue.add(("server", server_of(pod)), SERVER_DELAY)
                self._queue.add(("bind", pod["metadata"]["namespace"]))
                for job in self.store.jobs_by_pod.get(uid, ()):
                    self._queue.add(("job", job))

    def _servers_of(self, namespace: str) -> None:
        for name in self.store.servers.entries:
            if name.startswith(f"{namespace}/"):
                self._queue.add(("server", name), SERVER_DELAY)

    def _jobs_of(self, namespace: str, *, assigned: bool = False) -> None:
        """The jobs of a namespace that wait; with ``assigned`` those whose pod is not in the store any more."""
        if not assigned:
            for name in self.store.waiting.get(namespace, ()):
                self._queue.add(("job", name))
            return
        for uid, jobs in self.store.jobs_by_pod.items():
            if uid not in self.store.pods_by_uid:
                for name in jobs:
                    self._queue.add(("job", name))

    def look_at_everything(self) -> None:
        """After a full list: every object once, and the children that somebody may have deleted."""
        self._children.clear()
        for name in self.store.jobs.entries:
            self._queue.add(("job", name))
        for name in self.store.servers.entries:
            self._queue.add(("server", name))
        for name in self.store.waiting:
            self._queue.add(("bind", name))

    # --- workers --------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Decide and execute until cancelled; starts nothing before the store is synced."""
        await self.store.ready.wait()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            item = await self._queue.get()
            failed = False
            try:
                await self._handle(*item)
                self.metrics.reconciles.labels(item[0], "Done").inc()
            except StaleError:
                self.metrics.reconciles.labels(item[0], "Stale").inc()
                await self._refresh(item)
            except (ApiError, UnreachableError) as error:
                failed = True
                self.metrics.reconciles.labels(item[0], "Failed").inc()
                log.warning("%s %s: %s; trying again", *item, error)
            except Exception:  # one object's surprise must not stop the work on all others
                failed = True
                self.metrics.reconciles.labels(item[0], "Crashed").inc()
                log.exception("%s %s: unexpected", *item)
            finally:
                self._queue.done(item, failed=failed)

    async def _handle(self, kind: str, name: str) -> None:
        if kind == "job":
            await self._reconcile_job(name)
        elif kind == "server":
            await self._reconcile_server(name)
        elif kind == "bind":
            await self._bind(name)
        elif kind == "finished":
            await self._finished(name)
        else:
            job = await self._client.find(VIDEOJOB, *name.split("/", 1))
            if job is not None and is_finished(job.get("status") or {}):
                await self.expire(job)

    async def _refresh(self, item: Key) -> None:
        """A stale write: read the object as it is now and look again."""
        kind, name = item
        resource = MODELSERVER if kind == "server" else VIDEOJOB
        namespace, _, short = name.partition("/")
        try:
            obj = await self._client.find(resource, namespace, short)
        except (ApiError, UnreachableError) as error:
            log.warning("reading %s again: %s", name, error)
        else:
            if obj is not None:
                self.deliver("server" if kind == "server" else "job", "MODIFIED", obj)
        self._queue.add(item, 0.01)

    async def _reconcile_job(self, name: str) -> None:
        entry = self.store.jobs.entries.get(name)
        if entry is None:
            return
        snapshot = self._gatherer.job(entry, dt.datetime.now(dt.UTC))
        plan = job_decide.decide(snapshot)
        written = await self._executor.run(VIDEOJOB, entry.obj, plan)
        if written is not None:
            self._count_attempt(written)
            if is_finished(written["status"]):
                self._observe_finished(written)
            self._take_job(written)
        if plan.requeue_after is not None:
            self._queue.add(("job", name), plan.requeue_after)

    def _count_attempt(self, job: Object) -> None:
        reason = (job.get("status") or {}).get("reason")
        if reason == RETRY:
            self.metrics.attempts.labels("Failed").inc()
        elif reason == DISRUPTED:
            self.metrics.attempts.labels("Disrupted").inc()

    async def _reconcile_server(self, name: str) -> None:
        server = self.store.servers.get(name)
        if server is None:
            self._children.pop(name, None)
            return
        snapshot = self._gatherer.server(server, dt.datetime.now(dt.UTC))
        mark = (server["metadata"]["uid"], server["metadata"].get("generation", 1))
        made = self._children.get(name) == mark
        plan = server_decide.decide(snapshot, self._catalogue, self._settings, children_made=made)
        written = await self._executor.run(MODELSERVER, server, plan)
        if any(create.resource != POD for create in plan.create):  # a refused spec has made none
            self._children[name] = mark
        if written is not None:
            self.store.servers.apply(written)
        if plan.requeue_after is not None:
            self._queue.add(("server", name), plan.requeue_after)

    # --- binding --------------------------------------------------------------------------------------------------

    async def _bind(self, namespace: str) -> None:
        """Give idle pods of a namespace their jobs; all binds of a pass are written side by side."""
        if not self.store.waiting.get(namespace):
            return
        idle = self._gatherer.idle(namespace, frozenset(self._reserved), dt.datetime.now(dt.UTC))
        if not idle:
            return
        now = asyncio.get_running_loop().time()
        self._held = {name: until for name, until in self._held.items() if until > now}
        binds = choose(self._gatherer.waiting(namespace, self._held), idle)
        self._reserved.update(bind.pod.uid for bind in binds)
        try:
            results = await asyncio.gather(*(self._write_bind(bind) for bind in binds), return_exceptions=True)
        finally:
            self._reserved.difference_update(bind.pod.uid for bind in binds)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _write_bind(self, bind: Bind) -> None:
        job = self.store.jobs.get(bind.job)
        if job is None:
            return
        verdict = self._gatherer.verdict(job)
        attempt = int((job.get("status") or {}).get("attempt") or 0) + 1
        assignment = {
            "podName": bind.pod.name,
            "podUID": bind.pod.uid,
            "nodeName": bind.pod.node,
            "pool": bind.pod.pool,
            "promptID": prompt_id(job["metadata"]["uid"], attempt),
        }
        resolved = verdict.resolved if isinstance(verdict, Accepted) else None
        status = bound(job, assignment, dt.datetime.now(dt.UTC), resolved=resolved)
        try:
            written = await self._executor.patch_status(VIDEOJOB, job, status)
        except StaleError:
            await self._refresh(("job", bind.job))
            self._queue.add(("bind", job["metadata"]["namespace"]), 0.02)
            return
        except ApiError as error:
            if not 400 <= error.status < 500:
                raise
            # This job's bind is refused, not the API server's strength: others must not wait behind it.
            log.warning("binding %s: %s; trying it again in %.0f s", bind.job, error, HELD_SECONDS)
            loop, again = asyncio.get_running_loop(), ("bind", job["metadata"]["namespace"])
            self._held[bind.job] = loop.time() + HELD_SECONDS
            self._queue.add(again)
            loop.call_later(HELD_SECONDS + 0.1, self._queue.add, again)
            return
        if written is not None:
            self._take_job(written)

    # --- after the end --------------------------------------------------------------------------------------------

    async def _finished(self, name: str) -> None:
        """A job left the selection of unfinished ones: it ended, or it was deleted."""
        namespace, _, short = name.partition("/")
        job = await self._client.find(VIDEOJOB, namespace, short)
        if job is None:
            return
        if not is_finished(job.get("status") or {}):
            self._take_job(job)
            return
        if self._observe_finished(job) and phase_of(job["status"]) != Phase.SUCCEEDED:
            await self._executor.note(job, end_note(job["status"]))  # its agent wrote the end, and records no events
        await self.expire(job)

    def _observe_finished(self, job: Object) -> bool:
        """Count it once (an end that this process wrote is told by its answer and by the watch); whether it is new."""
        uid = job["metadata"]["uid"]
        if uid in self._observed:
            return False
        self._observed[uid] = None
        if len(self._observed) > OBSERVED_LIMIT:
            del self._observed[next(iter(self._observed))]
        verdict = self._gatherer.verdict(job)
        model = verdict.model if isinstance(verdict, Accepted) else ""
        self.metrics.observe_finished(job, model)
        self._gatherer.forget(job)
        return True

    async def expire(self, job: Object) -> None:
        """Delete a finished job whose ttlSecondsAfterFinished is over, or look again when it will be."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        ended = (job.get("status") or {}).get("completionTime")
        if ttl is None or not ended:
            return
        left = ttl - (dt.datetime.now(dt.UTC) - parse_time(ended)).total_seconds()
        metadata = job["metadata"]
        if left > 0:
            if left <= self._settings.resync_seconds * 2:  # later ones are found again by a resync
                self._queue.add(("expire", key(job)), left)
            return
        if await self._client.delete(VIDEOJOB, metadata["namespace"], metadata["name"], uid=metadata["uid"]):
            log.info("deleted %s %s: its ttlSecondsAfterFinished is over", VIDEOJOBS, key(job))
