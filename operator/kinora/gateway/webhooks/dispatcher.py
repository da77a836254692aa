"""Delivers the webhooks of the shards that this replica holds: looks when one is due, sends, writes what came of it.

Level-triggered. The job is read before each attempt, and decided upon as it is then; what came of an attempt that was
made is written before anything else is done with that job, so that only the end of the process can have it sent twice.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinora.api import names
from kinora.api.transitions import parse_time
from kinora.api.webhooks import EVENT_BLOCKED, WebhookState, WebhookValues
from kinora.gateway.webhooks import decide as rules
from kinora.gateway.webhooks.backlog import Backlog, Entry
from kinora.gateway.webhooks.decide import Answered, Deliver, Done, Outcome, Unsigned, Verdict, decide, judge
from kinora.gateway.webhooks.lanes import Lanes
from kinora.gateway.webhooks.metrics import Metrics
from kinora.gateway.webhooks.payload import payload
from kinora.gateway.webhooks.secrets import Secrets
from kinora.gateway.webhooks.send import Sender
from kinora.gateway.webhooks.sign import headers
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.events import event_body, record
from kinora.kube.queue import WorkQueue
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)

Object = dict[str, Any]
_CONFLICTS = 8  # stale writes in a row before the job is left for a moment


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Parts:
    """What a dispatcher is put together from. `holds`: whether this replica delivers a shard at this moment."""

    client: KubeClient
    values: WebhookValues
    secrets: Secrets
    sender: Sender
    metrics: Metrics
    instance: str
    holds: Callable[[int], bool]
    now: Callable[[], dt.datetime] = utc_now


class Dispatcher:
    """Run it until it is cancelled. What is under way then is left to `landed`."""

    def __init__(self, parts: Parts) -> None:
        self.backlog = Backlog(parts.values.shards)
        self._parts = parts
        self._queue: WorkQueue[str] = WorkQueue()
        self._lanes = Lanes(parts.values.parallel, parts.values.per_host)
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._shard_of: dict[str, int] = {}  # of what is under way
        self._unwritten: dict[str, Outcome] = {}  # by uid: attempts that were made and are not in any status yet

    # --- what the watches tell ----------------------------------------------------------------------------------------

    def replaced(self, jobs: list[Object], scope: str | None, version: int) -> None:
        """A full list of undelivered jobs (of one namespace)."""
        for key in self.backlog.replace(jobs, scope, version):
            self._consider(key)

    def happened(self, kind: str, job: Object) -> None:
        """One event of the watch; DELETED: settled, or the job is gone."""
        if kind == "DELETED":
            self.backlog.remove(job)
            return
        key = self.backlog.apply(job)
        if key is not None:
            self._consider(key)

    # --- what the Leases tell -----------------------------------------------------------------------------------------

    def take(self, shard: int) -> None:
        """This replica delivers that shard from now on."""
        for key in list(self.backlog.of(shard)):
            self._consider(key)

    async def landed(self, shard: int | None = None) -> None:
        """Until what is under way (of one shard) has ended. Nothing new of it begins: `holds` says no by then."""
        while tasks := [
            task for key, task in self._attempts.items() if shard is None or self._shard_of.get(key) == shard
        ]:
            await asyncio.wait(tasks)

    # --- the work -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            key = await self._queue.get()
            entry = self.backlog.get(key)
            if entry is None or not self._parts.holds(entry.shard):
                self._queue.done(key)
                continue
            self._lanes.add(key, entry.place)
            self._fill()

    def _consider(self, key: str) -> None:
        """Have a key looked at when it is due; who takes its shard over later asks again."""
        entry = self.backlog.get(key)
        if entry is None or not self._parts.holds(entry.shard):
            return
        now = self._parts.now()
        until = rules.not_before(entry.due, now)
        self._queue.add(key, 0.0 if until is None else (until - now).total_seconds())

    def _fill(self) -> None:
        while (key := self._lanes.next()) is not None:
            entry = self.backlog.get(key)
            if entry is not None:
                self._shard_of[key] = entry.shard
            self._attempts[key] = asyncio.create_task(self._attempt(key, entry))

    async def _attempt(self, key: str, entry: Entry | None) -> None:
        failed, answered = False, None
        try:
            if entry is not None and self._parts.holds(entry.shard):
                answered = await self._look(key, entry)
        except (ApiError, UnreachableError) as error:
            failed = True
            log.warning("webhook of %s: %s; trying again", key, error)
        except Exception:  # one job's surprise must not stop the work on all others
            failed = True
            log.exception("webhook of %s: unexpected", key)
        finally:
            self._attempts.pop(key, None)
            self._shard_of.pop(key, None)
            self._lanes.back(key, answered=answered)
            self._queue.done(key, failed=failed)
            self._fill()

    async def _look(self, key: str, entry: Entry) -> bool | None:
        """Deliver one, if it still is to be delivered; whether its host answered (None: it was not asked)."""
        job = await self._parts.client.find(VIDEOJOB, entry.namespace, entry.name)
        if job is None or job["metadata"]["uid"] != entry.uid:
            self._forget(key, entry.uid)
            return None
        answered = None
        outcome = self._unwritten.get(entry.uid)
        if outcome is None:
            decision = decide(job, self._parts.now())
            if not isinstance(decision, Deliver):
                self._known(key, job)
                return None
            outcome = await self._send(job)
            if not isinstance(outcome, Unsigned):
                self._unwritten[entry.uid] = outcome
                answered = isinstance(outcome, Answered)
        await self._tell(key, job, outcome)
        return answered

    async def _send(self, job: Object) -> Outcome:
        webhook, metadata = job["spec"]["webhook"], job["metadata"]
        keys = await self._parts.secrets.keys(metadata["namespace"], webhook.get("secretName"))
        if isinstance(keys, Unsigned):
            return keys
        body = payload(job)
        signed = headers(rules.webhook_id(job), int(self._parts.now().timestamp()), body, keys)
        started = time.monotonic()
        outcome = await self._parts.sender.send(webhook["url"], body, signed)
        self._parts.metrics.answer_seconds.observe(time.monotonic() - started)
        return outcome

    async def _tell(self, key: str, job: Object, outcome: Outcome) -> None:
        """Write what came of it on the job as it is now, unless another replica has settled it meanwhile."""
        metadata = job["metadata"]
        for _ in range(_CONFLICTS):
            if isinstance(decide(job, self._parts.now()), Done):
                self._known(key, job)
                return
            verdict = judge(job, outcome, self._parts.now())
            if not verdict.status:
                self._again(key, verdict)
                return
            written = await self._write(job, verdict)
            if written is not None:
                self._written(key, written, outcome, verdict)
                if verdict.event:
                    await self._event(written, verdict.event)
                return
            found = await self._parts.client.find(VIDEOJOB, metadata["namespace"], metadata["name"])
            if found is None or found["metadata"]["uid"] != metadata["uid"]:
                self._forget(key, metadata["uid"])
                return
            job = found
        raise UnreachableError(f"{_CONFLICTS} stale writes of its status in a row")

    async def _write(self, job: Object, verdict: Verdict) -> Object | None:
        """One compare-and-set; None: it was stale, or the job is gone."""
        metadata = job["metadata"]
        body = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]},
            "status": {"webhook": verdict.status},
        }
        try:
            return await self._parts.client.patch(
                VIDEOJOB, metadata["namespace"], metadata["name"], body, subresource="status"
            )
        except ApiError as error:
            if error.is_conflict or error.is_not_found:
                return None
            raise

    def _written(self, key: str, job: Object, outcome: Outcome, verdict: Verdict) -> None:
        state, metrics = verdict.status["state"], self._parts.metrics
        if state == WebhookState.DELIVERED:
            metrics.deliveries.labels("Delivered").inc()
            ended = (job.get("status") or {}).get("completionTime")
            if ended:
                metrics.delay_seconds.observe((self._parts.now() - parse_time(ended)).total_seconds())
        elif state == WebhookState.FAILED:
            metrics.deliveries.labels("GivenUp").inc()
            log.warning("webhook of %s: given up: %s", key, verdict.status["message"])
        else:
            metrics.deliveries.labels("Blocked" if isinstance(outcome, Unsigned) else "Retried").inc()
            log.info("webhook of %s: %s; trying again at %s", key, verdict.status["message"], verdict.again)
        self._known(key, job)
        self._again(key, verdict)

    def _known(self, key: str, job: Object) -> None:
        """Take in a job as it is, without the detour over the watch."""
        self._unwritten.pop(job["metadata"]["uid"], None)
        decision = decide(job, self._parts.now())
        if isinstance(decision, Done):
            self.backlog.remove(job)
            return
        self.backlog.apply(job)
        if isinstance(decision, rules.Wait):
            self._queue.add(key, (decision.until - self._parts.now()).total_seconds())

    def _again(self, key: str, verdict: Verdict) -> None:
        if verdict.again is not None:
            self._queue.add(key, (verdict.again - self._parts.now()).total_seconds())

    def _forget(self, key: str, uid: str) -> None:
        self._unwritten.pop(uid, None)
        self.backlog.forget(key, uid)

    async def _event(self, job: Object, reason: str) -> None:
        told = job["status"]["webhook"]
        verb = "waits" if reason == EVENT_BLOCKED else "is given up"
        body = event_body(
            {"apiVersion": names.API_VERSION, "kind": VIDEOJOB.kind, **job},
            kind="Warning",
            reason=reason,
            note=f"the webhook {verb} after {told['attempts']} attempts: {told.get('message', '')}",
            action="DeliverWebhook",
            reporter="kinora.dev/gateway",
            instance=self._parts.instance,
            now=self._parts.now(),
        )
        await record(self._parts.client, body)
