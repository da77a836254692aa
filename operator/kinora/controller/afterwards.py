"""What follows a VideoJob's end: it is counted and learnt from once, told of, and deleted when its time is over.

Ends come by the answers of own writes, by a watch of ended jobs, and, where both missed one, by a read of a job that
left the selection of unfinished ones. Decides nothing else; writes events and deletions only.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from kinora.api.names import VIDEOJOBS, key, server_of
from kinora.api.reasons import Phase
from kinora.api.transitions import is_finished, parse_time, phase_of
from kinora.api.webhooks import keeps_job
from kinora.controller.compact import compact
from kinora.controller.ended import SEARCH_SECONDS
from kinora.controller.executor import Executor
from kinora.controller.gather import Gatherer
from kinora.controller.metrics import Metrics
from kinora.controller.settings import Settings
from kinora.controller.store import Store
from kinora.controller.usage import UsageKeeper
from kinora.controller.videojob.check import Accepted
from kinora.controller.videojob.decide import end_note
from kinora.kube.client import KubeClient
from kinora.kube.queue import WorkQueue
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)
Object = dict[str, Any]
OBSERVED_LIMIT: Final = 4096
LEFT_SECONDS: Final = 2.0
"After a job left the selection of unfinished ones, until it is read: its end may be seen before."


class Afterwards:
    """One operator's care for jobs that ended. Puts ("finished", key) and ("expire", key) on the queue."""

    def __init__(  # noqa: PLR0917 - the operator's parts, and one way back to it
        self,
        store: Store,
        gatherer: Gatherer,
        executor: Executor,
        metrics: Metrics,
        usage: UsageKeeper,
        queue: WorkQueue[tuple[str, str]],
        client: KubeClient,
        settings: Settings,
        take: Callable[[Object], None],
    ) -> None:
        """``take``: is given a job that turns out to be unfinished."""
        self._store = store
        self._gatherer = gatherer
        self._executor = executor
        self._metrics = metrics
        self._usage = usage
        self._queue = queue
        self._client = client
        self._settings = settings
        self._take = take
        self.ends: dict[str, Object] = {}  # jobs as they ended, until they are looked at
        self._left: dict[str, str] = {}  # keys of jobs that left the selection, until they are read, and their UIDs
        self.observed: dict[str, None] = {}  # UIDs of the last ended jobs that were counted

    # --- news, which must not wait ------------------------------------------------------------------------------------

    def ended(self, job: Object) -> None:
        """A job as it ended. A standby keeps none."""
        if self._queue.is_open:
            self.ends[key(job)] = compact(job)
            self._queue.add(("finished", key(job)))

    def changed(self, job: Object) -> None:
        """A job that had ended changed: its time may be over sooner."""
        if job["spec"].get("ttlSecondsAfterFinished") is not None:
            self._queue.add(("expire", key(job)))

    def left(self, job: Object) -> None:
        """A job left the selection of unfinished ones: it ended, or it was deleted."""
        self._gatherer.forget(job)
        if self._queue.is_open and job["metadata"]["uid"] not in self.observed:  # else its end is known
            self._left[key(job)] = job["metadata"]["uid"]
            self._queue.add(("finished", key(job)), LEFT_SECONDS)

    def stand_by(self) -> None:
        """What is known of ends is the next leader's to find out."""
        self.ends.clear()
        self._left.clear()

    # --- work ---------------------------------------------------------------------------------------------------------

    async def look(self, name: str) -> None:
        """A job ended; or it left the selection and was not seen to end, so that it is read now."""
        job = self.ends.pop(name, None) or await self._client.find(VIDEOJOB, *name.split("/", 1))
        left = self._left.pop(name, None)
        if left is not None and (job is None or job["metadata"]["uid"] != left):
            self._usage.deleted(left)
        if job is None:
            return
        if not is_finished(job.get("status") or {}):
            self._take(job)
            return
        if self.observe(job) and phase_of(job["status"]) != Phase.SUCCEEDED:
            await self._executor.note(job, end_note(job["status"]))  # its agent wrote the end, and records no events
        await self.expire(job)

    def observe(self, job: Object) -> bool:
        """Count it once (an end that this process wrote is told by its answer and by the watch); whether it is new."""
        uid = job["metadata"]["uid"]
        if uid in self.observed:
            return False
        self.observed[uid] = None
        if len(self.observed) > OBSERVED_LIMIT:
            del self.observed[next(iter(self.observed))]
        self._metrics.observe_finished(job, self.model_of(job))
        self._learn(job)
        self._gatherer.forget(job)
        return True

    def model_of(self, job: Object) -> str:
        """The name of the job's model, for metrics."""
        verdict = self._gatherer.verdict(job)
        told = ((job.get("status") or {}).get("resolved") or {}).get("model") or ""  # a workflow is not read again
        return verdict.model if isinstance(verdict, Accepted) else self._metrics.inventory.known(str(told))

    def _learn(self, job: Object) -> None:
        """What an ended job tells of its server's speed, and of what its queue used."""
        status = job.get("status") or {}
        assignment = status.get("assignment") or {}
        pod = self._store.pods_by_uid.get(assignment.get("podUID", ""))
        server = self._store.servers.get(server_of(pod)) if pod is not None else None
        self._usage.ended(job, time.time())
        if server is not None and phase_of(status) == Phase.SUCCEEDED:
            self._gatherer.learning.ended(server, job)

    async def look_at_expired(self, name: str) -> None:
        """Its time should be over by now."""
        job = await self._client.find(VIDEOJOB, *name.split("/", 1))
        if job is not None and is_finished(job.get("status") or {}):
            await self.expire(job)

    async def expire(self, job: Object) -> None:
        """Delete a finished job whose ttlSecondsAfterFinished is over, or look again when it will be."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        ended = (job.get("status") or {}).get("completionTime")
        if ttl is None or not ended:
            return
        left = ttl - (dt.datetime.now(dt.UTC) - parse_time(ended)).total_seconds()
        metadata = job["metadata"]
        if left > 0:
            if left <= SEARCH_SECONDS * 2:  # later ones are found again by a search
                self._queue.add(("expire", key(job)), left)
            return
        if self._settings.webhooks and keeps_job(job, dt.datetime.now(dt.UTC)):
            self._queue.add(("expire", key(job)), self._settings.resync_seconds)
            return
        if await self._client.delete(VIDEOJOB, metadata["namespace"], metadata["name"], uid=metadata["uid"]):
            log.info("deleted %s %s: its ttlSecondsAfterFinished is over", VIDEOJOBS, key(job))
