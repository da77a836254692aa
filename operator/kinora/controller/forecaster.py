"""Tells the first jobs of every queue where they stand and when they will start, within a small budget of writes.

The forecast is `scheduling.forecast`; written on a change of over 20 %, at most every 30 s a job and 5 writes/s in all
(api.md). What was told is held against what came: the error is a metric.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from typing import Any, Final

from kinora.api.transitions import is_assigned, parse_time, rfc3339
from kinora.controller.binder import Binder
from kinora.controller.executor import Executor, StaleError
from kinora.controller.gather import Gatherer
from kinora.controller.metrics import Metrics
from kinora.controller.scheduling.forecast import Forecast, forecast
from kinora.controller.store import Store
from kinora.kube.client import ApiError, UnreachableError
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)
Object = dict[str, Any]
FIRST: Final = 20
EVERY: Final = 30.0
WRITES_PER_SECOND: Final = 5.0
CHANGE: Final = 0.2
_SETTLE: Final = 5.0
"A job that starts sooner than this is told nothing: the bind says it all."


def worth_telling(told: Object | None, new: Forecast, now: float) -> bool:
    """Whether the forecast differs by more than CHANGE from the one in status (pure)."""
    if told is None:
        return new.start is None or new.start - now > _SETTLE
    if new.position != told.get("position"):
        moved = abs(new.position - int(told.get("position") or 0))
        if moved > CHANGE * max(int(told.get("position") or 0), 1):
            return True
    start = told.get("estimatedStartTime")
    if (start is None) != (new.start is None):
        return True
    if start is None or new.start is None:
        return False
    before = parse_time(start).timestamp()
    return abs(new.start - before) > max(CHANGE * max(before - now, new.start - now), 10.0)


class Forecaster:
    """Runs beside the workers, until cancelled."""

    def __init__(  # noqa: PLR0917 - the operator's parts
        self,
        store: Store,
        gatherer: Gatherer,
        executor: Executor,
        metrics: Metrics,
        take: Callable[[Object], None],
        binder: Binder,
    ) -> None:
        self._store = store
        self._gatherer = gatherer
        self._executor = executor
        self._metrics = metrics
        self._take = take
        self._binder = binder
        self._written: dict[str, float] = {}  # job key -> loop time of the last write

    async def run(self) -> None:
        """Every EVERY seconds over all namespaces."""
        while True:
            await asyncio.sleep(EVERY)
            for namespace in self._gatherer.waiting.namespaces():
                try:
                    await self.tell(namespace)
                except (ApiError, UnreachableError) as error:
                    log.warning("telling the queue of %s: %s", namespace, error)
                except Exception:  # what is told of a queue must not end the work on it
                    log.exception("telling the queue of %s: unexpected", namespace)

    async def tell(self, namespace: str) -> int:
        """Write the forecasts of a namespace that are worth it; how many were written."""
        now = dt.datetime.now(dt.UTC).timestamp()
        world = self._gatherer.world(namespace, (), (), now)
        self._written = {key: at for key, at in self._written.items() if key in self._store.jobs.entries}
        count = 0
        for key, new in forecast(world, FIRST).items():
            if await self._tell(key, new, now):
                count += 1
                await asyncio.sleep(1.0 / WRITES_PER_SECOND)
        return count

    async def _tell(self, key: str, new: Forecast, now: float) -> bool:
        job = self._store.jobs.get(key)
        status = (job or {}).get("status") or {}
        if job is None or is_assigned(status) or status.get("phase") != "Queued" or self._binder.is_moving(key):
            return False
        loop_now = asyncio.get_running_loop().time()
        recently = loop_now - self._written.get(key, -EVERY) < EVERY
        if recently or not worth_telling(status.get("queue"), new, now):
            return False
        start = None if new.start is None else rfc3339(dt.datetime.fromtimestamp(new.start, dt.UTC))
        patch = {"queue": {"position": new.position, "estimatedStartTime": start}}
        with self._binder.writing(key):
            try:
                written = await self._executor.patch_status(VIDEOJOB, job, patch)
            except StaleError:
                return False  # it has moved on; the next round looks again
            self._written[key] = loop_now
            if written is not None:
                self._take(written)
        return True

    def started(self, before: Object, now: float) -> None:
        """A job was bound: hold what it was told against what came."""
        told = ((before.get("status") or {}).get("queue") or {}).get("estimatedStartTime")
        if told:
            self._metrics.forecast_error_seconds.observe(abs(parse_time(told).timestamp() - now))
