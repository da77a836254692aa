"""The stager as a whole: follows the Pending jobs and the ModelServers of its namespace, takes in what is its own.

Level-triggered: a key says only where to look; each look decides anew on the job as it is known. What is in hand for a
job stops when the job is cancelled, deleted, or has left Pending. Wiring of the real parts is main.py's.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from kinora.api import names, reasons, transitions
from kinora.api.intake import store_offer
from kinora.api.reasons import Phase
from kinora.catalogue.load import Catalogue
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.queue import WorkQueue
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from kinora.kube.watch import Reflector
from kinora.recipes.faults import InvalidSpec
from kinora.stager.decide import Concluded, Found, Work, conclude, decide, judged
from kinora.stager.intake import Intake
from kinora.stager.metrics import Metrics
from kinora.stager.settings import Settings
from kinora.stager.verdict import Delayed, Refusal, Rejected, Retry, of_errors, pause, retried
from kinora.storage.staged import StagedInputs
from kinora.storage.store import StoreError
from kinora.workflows.resolved import ResolvedWorkflow

log = logging.getLogger(__name__)

Object = dict[str, Any]
SELECTION: Final = f"status.phase={Phase.PENDING}"


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Parts:
    """What a stager is put together from."""

    settings: Settings
    client: KubeClient
    store: StagedInputs
    intake: Intake
    catalogue: Catalogue
    metrics: Metrics
    now: Callable[[], dt.datetime] = utc_now


@dataclass(frozen=True)
class Brought:
    """What was found of the inputs, and what went wrong; `graph`: what was decided of one that lies in the store."""

    found: dict[str, Found] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    graph: ResolvedWorkflow | None = None


@dataclass
class _Trouble:
    """How often a job's intake failed in this process, and when it is tried again (the loop's clock)."""

    failures: int = 0
    due: float = 0.0


@dataclass
class _Hand:
    """A job that is being taken in."""

    uid: str
    task: asyncio.Task[Brought]
    stopped: bool = field(default=False)

    def stop(self) -> None:
        """Nobody wants its inputs any more."""
        self.stopped = True
        self.task.cancel()


@dataclass(frozen=True)
class Later:
    """The intake failed for a reason that may pass."""

    message: str
    retry: Retry


class Stager:
    """Run it until it is cancelled; nothing is lost then but what was being fetched."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue: WorkQueue[str] = WorkQueue()
        self._jobs: dict[str, Object] = {}
        self._servers: dict[str, Object] = {}
        self._hands: dict[str, _Hand] = {}
        self._troubles: dict[str, _Trouble] = {}
        namespace = parts.settings.namespace
        self._watches = (
            Reflector(
                parts.client, VIDEOJOB, self._jobs_replaced, self._job_happened,
                namespace=namespace, field_selector=SELECTION,
            ),
            Reflector(
                parts.client, MODELSERVER, self._servers_replaced, self._server_happened, namespace=namespace,
            ),
        )  # fmt: skip

    def obstacle(self) -> str | None:
        """Why the stager is not ready (/readyz), or None."""
        synced = all(watch.synced.is_set() for watch in self._watches)
        return None if synced else "the first list of jobs and ModelServers is not in yet"

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())
            for watch in self._watches:
                await watch.synced.wait()
            await self._sweep()
            for _ in range(self._parts.settings.config.parallel):
                group.create_task(self._worker())

    async def _sweep(self) -> None:
        try:
            count = await self._parts.store.sweep({job["metadata"]["uid"] for job in self._jobs.values()})
        except StoreError as error:
            log.warning("tidying up the store: %s", error)
        else:
            if count:
                log.info("removed %d drafts that an earlier stager had left", count)

    # --- what the watches tell ----------------------------------------------------------------------------------------

    def _jobs_replaced(self, jobs: list[Object]) -> None:
        listed = {names.key(job) for job in jobs}
        for key in [key for key in self._jobs if key not in listed]:
            self._gone(key)
        for job in jobs:
            self._take(job)

    def _job_happened(self, kind: str, job: Object) -> None:
        self._parts.metrics.api.shown(VIDEOJOB.plural, job, asyncio.get_running_loop().time())
        if kind == "DELETED":  # it was deleted, or has left Pending: in both cases it is nobody's here any more
            self._gone(names.key(job), job["metadata"]["uid"])
        else:
            self._take(job)

    def _take(self, job: Object) -> None:
        key = names.key(job)
        known = self._jobs.get(key)
        if known is not None and known["metadata"]["uid"] == job["metadata"]["uid"] and _version(known) > _version(job):
            return
        self._jobs[key] = job
        hand = self._hands.get(key)
        if hand is not None and (hand.uid != job["metadata"]["uid"] or not self._is_wanted(job)):
            hand.stop()
        self._queue.add(key)

    def _gone(self, key: str, uid: str | None = None) -> None:
        known = self._jobs.get(key)
        if known is None or (uid is not None and known["metadata"]["uid"] != uid):
            return
        del self._jobs[key]
        self._troubles.pop(known["metadata"]["uid"], None)
        if key in self._hands:
            self._hands[key].stop()

    @staticmethod
    def _is_wanted(job: Object) -> bool:
        pending = transitions.phase_of(job.get("status") or {}) is Phase.PENDING
        return pending and not job["spec"].get("cancel") and not job["metadata"].get("deletionTimestamp")

    def _servers_replaced(self, servers: list[Object]) -> None:
        self._servers = {names.key(server): server for server in servers}
        self._look_at_all()

    def _server_happened(self, kind: str, server: Object) -> None:
        key = names.key(server)
        before = self._servers.get(key)
        if kind == "DELETED":
            self._servers.pop(key, None)
        else:
            self._servers[key] = server
        if kind == "DELETED" or before is None or store_offer(before) != store_offer(server):
            self._look_at_all()

    def _look_at_all(self) -> None:
        for key in self._jobs:
            self._queue.add(key)

    # --- the work -----------------------------------------------------------------------------------------------------

    async def _worker(self) -> None:
        while True:
            key = await self._queue.get()
            failed = False
            try:
                await self._look(key)
            except (ApiError, UnreachableError) as error:
                failed = True
                log.warning("job %s: %s; trying again", key, error)
            except Exception:  # one job's surprise must not stop the work on all others
                failed = True
                log.exception("job %s: unexpected", key)
            finally:
                self._queue.done(key, failed=failed)

    async def _look(self, key: str) -> None:
        job, parts = self._jobs.get(key), self._parts
        if job is None:
            return
        work = decide(job, self._servers.values(), parts.catalogue, parts.settings.config.store)
        if work is None:
            return
        trouble = self._troubles.get(job["metadata"]["uid"])
        wait = trouble.due - asyncio.get_running_loop().time() if trouble is not None else 0.0
        if wait > 0:  # an event came before its time
            self._queue.add(key, wait)
            return
        brought = await self._bring(key, job["metadata"]["uid"], work)
        if brought is not None:
            await self._tell(key, job, self._judge(job, work, brought))

    async def _bring(self, key: str, uid: str, work: Work) -> Brought | None:
        """What was found of the inputs, and what went wrong; None when nobody wants them any more."""
        parts = self._parts
        task = asyncio.create_task(self._taken(uid, work))
        hand = self._hands[key] = _Hand(uid, task)
        parts.metrics.busy.inc()
        try:
            return await task
        except asyncio.CancelledError:
            if not hand.stopped:  # the stager itself stops
                raise
        finally:
            del self._hands[key]
            parts.metrics.busy.dec()
        parts.metrics.jobs.labels("Cancelled").inc()
        log.info("job %s: nobody waits for its inputs any more", key)
        await parts.store.forget(uid)
        return None

    async def _taken(self, uid: str, work: Work) -> Brought:
        """A graph in the store is judged before anything is fetched for it."""
        graph = None
        if work.graph is not None:
            try:
                text = await self._parts.intake.graph(work.graph)
                graph = await asyncio.to_thread(judged, work, uid, text)
                await self._parts.intake.keep_graph(text)
            except InvalidSpec as invalid:
                return Brought(errors=[Rejected(reasons.INVALID_SPEC, str(invalid))])
            except (Rejected, Delayed) as error:
                return Brought(errors=[error])
        found, errors = await self._parts.intake.bring(uid, work.inputs)
        return Brought(found, errors, graph)

    def _judge(self, job: Object, work: Work, brought: Brought) -> Concluded | Refusal | Later:
        errors = brought.errors
        outcome = of_errors(errors) if errors else conclude(work, brought.found, brought.graph)
        if not isinstance(outcome, str):
            return outcome
        current = self._jobs.get(names.key(job), job)
        give_up = self._parts.settings.config.limits.give_up_seconds
        verdict = retried(current, outcome, self._parts.now(), give_up)
        return verdict if isinstance(verdict, Refusal) else Later(outcome, verdict)

    async def _tell(self, key: str, job: Object, outcome: Concluded | Refusal | Later) -> None:
        """Write what came of it on the job as it now is."""
        uid, now = job["metadata"]["uid"], self._parts.now()
        known = self._known(key, uid)
        if known is None:  # it went after the last of its inputs had come
            await self._parts.store.forget(uid)
            return
        job = known
        if isinstance(outcome, Later):
            await self._try_later(key, job, outcome)
            return
        if isinstance(outcome, Refusal):
            log.info("job %s: %s: %s", key, outcome.reason, outcome.message)
            patch = transitions.inputs_refused(job, outcome.reason, outcome.message, now)
        else:
            patch = transitions.inputs_stored(job, self._parts.store.root, outcome.inputs, outcome.resolved, now)
        if await self._write(key, job, patch):
            self._parts.metrics.jobs.labels("Refused" if isinstance(outcome, Refusal) else "Ready").inc()
            self._troubles.pop(uid, None)
            await self._parts.store.forget(uid)

    async def _try_later(self, key: str, job: Object, later: Later) -> None:
        times, trouble = self._parts.settings.times, self._troubles.setdefault(job["metadata"]["uid"], _Trouble())
        trouble.failures += 1
        wait = pause(trouble.failures, times.retry_first, times.retry_limit)
        trouble.due = asyncio.get_running_loop().time() + wait
        log.info("job %s: %s; trying again in %.1f s", key, later.message, wait)
        self._parts.metrics.jobs.labels("Delayed").inc()
        self._queue.add(key, wait)
        if later.retry.told is not None:
            await self._write(key, job, later.retry.told)

    async def _write(self, key: str, job: Object, status: Object) -> bool:
        """One compare-and-set; whether the API server took it. A stale one has the job read, and looked at again."""
        metadata = job["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}, "status": status}
        try:
            answer = await self._parts.client.patch(
                VIDEOJOB, metadata["namespace"], metadata["name"], body, subresource="status"
            )
        except ApiError as error:
            if not error.is_conflict and not error.is_not_found:
                raise
            self._parts.metrics.conflicts.inc()
            await self._read_again(key, metadata)
            return False
        self._parts.metrics.api.wrote(VIDEOJOB.plural, answer, asyncio.get_running_loop().time())
        self._renew(key, answer)  # without the detour over the watch, which would stop what is in hand
        return True

    async def _read_again(self, key: str, metadata: Object) -> None:
        found = await self._parts.client.find(VIDEOJOB, metadata["namespace"], metadata["name"])
        gone = found is None or found["metadata"]["uid"] != metadata["uid"]
        if found is None or gone or transitions.phase_of(found.get("status") or {}) is not Phase.PENDING:
            self._gone(key, metadata["uid"])
            await self._parts.store.forget(metadata["uid"])
            return
        self._renew(key, found)
        self._queue.add(key, 0.01)

    def _known(self, key: str, uid: str) -> Object | None:
        """The job as it is known, if it is here still."""
        known = self._jobs.get(key)
        return known if known is not None and known["metadata"]["uid"] == uid else None

    def _renew(self, key: str, job: Object) -> None:
        """An answer about a job. The watch may have been faster, and have told of its end: no event would follow."""
        known = self._known(key, job["metadata"]["uid"])
        if known is not None and _version(known) < _version(job):
            self._jobs[key] = job


def _version(obj: Object) -> int:
    text = str(obj["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
