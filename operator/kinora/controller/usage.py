"""Keeps the usage ledger: charged at the bind, corrected at the end, written to a ConfigMap at most once a minute.

Beside it in the same ConfigMap, written by the same patch: how long pods of spot pools lived. The ConfigMap lies
beside the operator, where users of the queues cannot reach it (decisions.md, 9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from kinora.api.reasons import Phase
from kinora.api.spending import seconds_of_last
from kinora.api.transitions import phase_of
from kinora.controller.learning import video_seconds_of
from kinora.controller.scheduling.facts import DEFAULT_QUEUE
from kinora.controller.scheduling.ledger import Ledger
from kinora.controller.scheduling.spotlife import Lives
from kinora.controller.spot import SpotWatch
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import CONFIGMAP

log = logging.getLogger(__name__)
Object = Mapping[str, Any]
WRITE_SECONDS: Final = 60.0
KEY: Final = "usage.json"
SPOT_KEY: Final = "spot.json"


class UsageKeeper:
    """The ledger of this process. ``place``: namespace/name of its ConfigMap; empty: memory only."""

    def __init__(self, client: KubeClient, ledger: Ledger, place: str, spots: SpotWatch | None = None) -> None:
        self._client = client
        self._ledger = ledger
        self._spots = spots or SpotWatch()
        self._namespace, _, self._name = place.partition("/")
        self._charged: dict[str, tuple[float, float]] = {}  # job UID -> GPU-seconds, video-seconds charged at its bind
        self._kept: dict[str, str] = {}  # what the ConfigMap holds

    def bound(self, job: Object, gpu_seconds: float, now: float) -> None:
        """Charge the estimate."""
        uid, video = job["metadata"]["uid"], video_seconds_of(job)
        if uid in self._charged:  # bound again after a loss: its video is charged once
            video = 0.0
        before = self._charged.get(uid, (0.0, 0.0))
        self._charged[uid] = (before[0] + gpu_seconds, before[1] + video)
        self._ledger.charge(_queue(job), now, gpu_seconds=gpu_seconds, video_seconds=video)

    def ended(self, job: Object, now: float) -> None:
        """Put what it really took in the place of the estimate; video counts only when it was delivered."""
        gpu, video = self._charged.pop(job["metadata"]["uid"], (None, None))
        if gpu is None or video is None:  # bound by an operator before this one: the estimate stays
            return
        status = job.get("status") or {}
        used = seconds_of_last(status)  # what lost attempts took is told by metrics, and no debt of the queue
        delivered = video if phase_of(status) is Phase.SUCCEEDED else 0.0
        self._ledger.charge(_queue(job), now, gpu_seconds=used - gpu, video_seconds=delivered - video)

    def deleted(self, uid: str) -> None:
        """A job is gone before its end: its estimate stays charged, so that nobody deletes what was used."""
        self._charged.pop(uid, None)

    async def load(self) -> None:
        """Read the ConfigMap, whose hours are added to what is in memory. A broken one is told and left alone."""
        if not self._name:
            return
        found = await self._client.find(CONFIGMAP, self._namespace, self._name)
        self._kept = dict((found or {}).get("data") or {})
        where = f"ConfigMap {self._namespace}/{self._name}"
        if self._kept.get(KEY):
            try:
                self._ledger.hours = Ledger.from_text(self._kept[KEY]).hours
            except ValueError as error:
                log.error("%s: %s; shares and limits begin anew", where, error)
        if self._kept.get(SPOT_KEY):
            try:
                self._spots.lives.ended = Lives.from_text(self._kept[SPOT_KEY]).ended
            except ValueError as error:
                log.error("%s: %s; it is learnt anew", where, error)

    async def run(self, clock: Callable[[], float]) -> None:
        """Write it once a minute, when it changed; ``clock()`` gives seconds since the epoch."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.save(clock())
            except (ApiError, UnreachableError) as error:
                log.warning("writing the usage ledger: %s; trying again", error)

    async def save(self, now: float) -> None:
        """Write it now, if it changed."""
        ledger, lives = self._ledger, self._spots.lives
        if not self._name or not (ledger.changed or lives.changed):
            return
        told: dict[str, str] = {}
        if ledger.changed:
            ledger.prune(now)
            told[KEY] = ledger.to_text()
        if lives.changed:
            lives.prune(now)
            told[SPOT_KEY] = lives.to_text()
        ledger.changed = lives.changed = False
        told = {key: text for key, text in told.items() if text != self._kept.get(key)}
        if not told:
            return
        try:
            await self._write(told)
        except (ApiError, UnreachableError):
            ledger.changed = ledger.changed or KEY in told
            lives.changed = lives.changed or SPOT_KEY in told
            raise
        self._kept |= told

    async def _write(self, told: Mapping[str, str]) -> None:
        body = {"data": dict(told)}
        try:
            await self._client.patch(CONFIGMAP, self._namespace, self._name, body)
        except ApiError as error:
            if not error.is_not_found:
                raise
            metadata = {"name": self._name, "namespace": self._namespace}
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **body}
            await self._client.create(CONFIGMAP, self._namespace, made)


def _queue(job: Object) -> str:
    return str(job["spec"].get("queue") or DEFAULT_QUEUE)
