"""Carries out what scheduling decides for a namespace: binds jobs, takes staged ones back, stops pre-empted ones.

The decision itself is `scheduling.bind.assign`. All writes of a pass go out side by side, each a compare-and-set.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from kinora.api import reasons
from kinora.api.base import integral
from kinora.api.intake import is_resolved_by_stager
from kinora.api.names import prompt_id
from kinora.api.reasons import Phase
from kinora.api.transitions import bound, is_assigned, phase_of, preempted, requeued
from kinora.controller.executor import Executor, StaleError
from kinora.controller.gather import Gatherer
from kinora.controller.metrics import Metrics
from kinora.controller.scheduling.bind import Bind, Leave, assign
from kinora.controller.scheduling.facts import World
from kinora.controller.spot import pool_of
from kinora.controller.store import Entry, Store
from kinora.controller.videojob.check import Accepted
from kinora.kube.client import ApiError
from kinora.kube.metrics import exemplar
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)
Object = dict[str, Any]
Move = TypeVar("Move", Bind, Leave)
HELD_SECONDS: Final = 30.0
SIDE_BY_SIDE: Final = 64
"Writes of one pass that are under way: more would only wait in the API server, and others behind them."


class Binder:
    """Binds the jobs of one namespace after another.

    ``again(namespace, delay)`` asks for another pass; ``bound_to(job as it waited, bind)`` is told of each bind.
    """

    def __init__(  # noqa: PLR0917 - the operator's parts, and three ways back to it
        self,
        store: Store,
        gatherer: Gatherer,
        executor: Executor,
        metrics: Metrics,
        take: Callable[[Object], None],
        refresh: Callable[[str], Awaitable[None]],
        again: Callable[[str, float], None],
        bound_to: Callable[[Object, Bind], None],
    ) -> None:
        self._store = store
        self._gatherer = gatherer
        self._executor = executor
        self._metrics = metrics
        self._take = take
        self._refresh = refresh
        self._again = again
        self._bound = bound_to
        self.cordoned: dict[str, frozenset[str]] = {}  # ModelServer key -> UIDs of pods that get no new job
        self._idle: dict[str, dict[str, float]] = {}  # namespace -> UID of an idle pod -> since when (loop time)
        self._reserved: set[str] = set()  # UIDs of pods with a bind on its way
        self._moving: set[str] = set()  # keys of jobs whose status is being written here
        self._written: dict[str, list[asyncio.Event]] = {}  # by job key: writes of its status by other decisions
        self._turn = asyncio.Semaphore(SIDE_BY_SIDE)
        self._held: dict[str, float] = {}  # keys of jobs whose bind was refused, and until when they are passed over

    @property
    def reserved(self) -> frozenset[str]:
        """UIDs of pods with a bind on its way: as good as busy."""
        return frozenset(self._reserved)

    def is_moving(self, job: str) -> bool:
        """Whether a write of this job is on its way here: any other would only lose against it."""
        return job in self._moving

    @contextmanager
    def writing(self, job: str) -> Iterator[None]:
        """For as long as another decision writes the job: a bind waits for its answer, rather than lose against it.

        Two may: what is told of the queue, and a change that comes meanwhile.
        """
        ended = asyncio.Event()
        self._written.setdefault(job, []).append(ended)
        try:
            yield
        finally:
            self._written[job].remove(ended)
            if not self._written[job]:
                del self._written[job]
            ended.set()

    def index(self, job: str) -> None:
        """Bring the queue up to date with one job."""
        now = asyncio.get_running_loop().time()
        self._held = {name: until for name, until in self._held.items() if until > now}
        self._gatherer.index(job, self._held.keys())

    async def run(self, namespace: str) -> None:
        """One pass over a namespace. Raises what the API server refuses or what keeps it from answering."""
        prefix = f"{namespace}/"
        cordoned = frozenset[str]().union(*(uids for key, uids in self.cordoned.items() if key.startswith(prefix)))
        world = self._gatherer.world(namespace, self._reserved, cordoned, dt.datetime.now(dt.UTC).timestamp())
        self._note_idle(namespace, world)
        outcome = assign(world)
        if not outcome.binds and not outcome.leaves:
            return
        jobs = {bind.job for bind in outcome.binds} | {leave.job for leave in outcome.leaves}
        self._reserved.update(bind.pod.uid for bind in outcome.binds)
        self._moving |= jobs  # also those that wait for their turn
        try:
            results = await asyncio.gather(
                *(self._in_turn(bind.job, self._bind, bind) for bind in outcome.binds),
                *(self._in_turn(leave.job, self._leave, leave) for leave in outcome.leaves),
                return_exceptions=True,
            )
        finally:
            self._reserved.difference_update(bind.pod.uid for bind in outcome.binds)
            self._moving -= jobs
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _note_idle(self, namespace: str, world: World) -> None:
        """Since when each pod could take a job."""
        before, now = self._idle.get(namespace, {}), self._store.now()
        free = (pod.uid for pod in world.pods if pod.serves and pod.open and not pod.held)
        self._idle[namespace] = {uid: before.get(uid, now) for uid in free}

    def _bound_after(self, entry: Entry, bind: Bind) -> None:
        """Time a job that found its pod idle; of one that waited for a pod, the wait says nothing of the operator."""
        came = max(entry.seen, entry.since.get("staged", entry.seen))
        idle = self._idle.get(entry.obj["metadata"]["namespace"], {}).get(bind.pod.uid)
        if idle is not None and idle < came and not bind.ahead:
            seconds = self._store.now() - came
            self._metrics.dispatch_seconds.observe(seconds, exemplar(entry.obj["metadata"]["uid"]))

    async def _in_turn(self, job: str, work: Callable[[Move], Awaitable[None]], what: Move) -> None:
        async with self._turn:
            while writes := self._written.get(job):
                await writes[0].wait()
            await work(what)

    async def _bind(self, bind: Bind) -> None:
        entry = self._store.jobs.entries.get(bind.job)
        job = entry.obj if entry is not None else None
        if entry is None or job is None or is_assigned(job.get("status") or {}):
            return
        verdict = self._gatherer.verdict(job)
        if not isinstance(verdict, Accepted):  # the job's own decision will say so in its status
            self.index(bind.job)
            self._again(job["metadata"]["namespace"], 0.0)
            return
        attempt = int((job.get("status") or {}).get("attempt") or 0) + 1
        assignment = {
            "podName": bind.pod.name,
            "podUID": bind.pod.uid,
            "nodeName": bind.pod.node,
            "pool": bind.pod.pool,
            "promptID": prompt_id(job["metadata"]["uid"], attempt),
        }
        server = self._store.servers.get(f"{job['metadata']['namespace']}/{bind.pod.server}")
        price = pool_of(server, bind.pod.pool).get("pricePerHour") if server is not None else None
        if price is not None:
            assignment["pricePerHour"] = integral(float(price))
        resolved = None if is_resolved_by_stager(job) else verdict.resolved
        status = bound(job, assignment, dt.datetime.now(dt.UTC), resolved=resolved)
        if await self._write(bind.job, job, status):
            self._bound_after(entry, bind)
            self._bound(job, bind)
            self._metrics.binds.labels("true" if bind.ahead else "false").inc()

    async def _leave(self, leave: Leave) -> None:
        """Take a staged job back; tell the agent of a running one to stop it."""
        job = self._store.jobs.get(leave.job)
        status = (job or {}).get("status") or {}
        if job is None or not is_assigned(status) or status.get("released"):
            return
        now = dt.datetime.now(dt.UTC)
        if leave.running:
            patch = preempted(job, now)
        elif phase_of(status) == Phase.SCHEDULED:
            patch = requeued(job, reasons.TAKEN_BACK, leave.why, now, disruption=False)
        else:
            return
        if await self._write(leave.job, job, patch):
            self._metrics.moves.labels("Preempted" if leave.running else "TakenBack").inc()

    async def _write(self, name: str, job: Object, status: Object) -> bool:
        """One compare-and-set; whether it went through. A refused one holds this job back, not the others."""
        namespace = job["metadata"]["namespace"]
        try:
            written = await self._executor.patch_status(VIDEOJOB, job, status)
        except StaleError:
            await self._refresh(name)
            self._again(namespace, 0.02)
            return False
        except ApiError as error:
            if not 400 <= error.status < 500:
                raise
            log.warning("binding %s: %s; trying it again in %.0f s", name, error, HELD_SECONDS)
            self._held[name] = asyncio.get_running_loop().time() + HELD_SECONDS
            self.index(name)
            asyncio.get_running_loop().call_later(HELD_SECONDS + 0.1, self._unhold, name, namespace)
            return False
        finally:
            self._moving.discard(name)  # what comes next of it may be written by whom it concerns
        if written is None:  # it is gone, and the watch has not said so yet: it must hold no pod
            self._store.jobs.remove(job)
            self._again(namespace, 0.0)
            return False
        self._take(written)
        return True

    def _unhold(self, name: str, namespace: str) -> None:
        self.index(name)
        self._again(namespace, 0.0)
