"""Keeps the usage ledger: charged at the bind, corrected at the end, written to a ConfigMap at most once a minute.

The ConfigMap lies beside the operator, where users of the queues cannot reach it (decisions.md, 9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from kinora.api.reasons import Phase
from kinora.api.transitions import phase_of
from kinora.controller.learning import video_seconds_of
from kinora.controller.scheduling.facts import DEFAULT_QUEUE
from kinora.controller.scheduling.ledger import Ledger
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import CONFIGMAP

log = logging.getLogger(__name__)
Object = Mapping[str, Any]
WRITE_SECONDS: Final = 60.0
KEY: Final = "usage.json"


class UsageKeeper:
    """The ledger of this process. ``place``: namespace/name of its ConfigMap; empty: memory only."""

    def __init__(self, client: KubeClient, ledger: Ledger, place: str) -> None:
        self._client = client
        self._ledger = ledger
        self._namespace, _, self._name = place.partition("/")
        self._charged: dict[str, tuple[float, float]] = {}  # job UID -> GPU-seconds, video-seconds charged at its bind
        self._kept: str | None = None

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
        used = float(status.get("gpuSeconds") or 0.0)
        delivered = video if phase_of(status) is Phase.SUCCEEDED else 0.0
        self._ledger.charge(_queue(job), now, gpu_seconds=used - gpu, video_seconds=delivered - video)

    async def load(self) -> None:
        """Read the ConfigMap, whose hours are added to what is in memory. A broken one is told and left alone."""
        if not self._name:
            return
        found = await self._client.find(CONFIGMAP, self._namespace, self._name)
        text = ((found or {}).get("data") or {}).get(KEY)
        if text:
            try:
                self._ledger.hours = Ledger.from_text(text).hours
            except ValueError as error:
                log.error("ConfigMap %s/%s: %s; shares and limits begin anew", self._namespace, self._name, error)
        self._kept = text

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
        if not self._name or not self._ledger.changed:
            return
        self._ledger.prune(now)
        text = self._ledger.to_text()
        self._ledger.changed = False
        if text == self._kept:
            return
        try:
            await self._write(text)
        except (ApiError, UnreachableError):
            self._ledger.changed = True
            raise
        self._kept = text

    async def _write(self, text: str) -> None:
        body = {"data": {KEY: text}}
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
