"""What this operator has learnt of its ModelServers from jobs that ended: speed, staging, cold starts. Kept in memory.

The models are pure values (`scheduling.cost`); a restarted operator goes on from what status.performance says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

from kinora.catalogue.load import Catalogue
from kinora.controller.scheduling.cost import TRUST, Learnt, Sample
from kinora.controller.scheduling.facts import Rate
from kinora.controller.spot import pool_of

Object = Mapping[str, Any]
_KEEP: Final = 16
PRIOR: Final = Rate(20.0, 3e-4)
"""Of a model whose catalogue entry tells no cost: one of 14B on a large card takes about five minutes for 81 frames of
480p in 30 steps. Like every prior it is scaled by the first three jobs."""
COLD_START: Final = 240.0
"Seconds, before one was measured."


class Learning:
    """Speeds by (ModelServer key, pool); staging and cold-start seconds by ModelServer key."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._speeds: dict[tuple[str, str], Learnt] = {}
        self._staging: dict[str, deque[float]] = {}
        self._starts: dict[str, deque[float]] = {}

    def speed(self, server: Object, pool: str) -> Learnt:
        """What is known of the server's pods in that pool."""
        key = (_key(server), pool)
        if key not in self._speeds:
            prior = self._prior(server, pool)
            told = ((server.get("status") or {}).get("performance") or {}).get(pool) or {}
            self._speeds[key] = Learnt.from_status(told, prior) if isinstance(told, Mapping) else Learnt(prior)
        return self._speeds[key]

    def _prior(self, server: Object, pool: str) -> Rate:
        """The catalogue's, on the pool's card; corrected by what another pool of the server was measured to take."""
        published = self._published(server, pool)
        for (name, other), known in self._speeds.items():
            if name == _key(server) and other != pool and len(known.samples) >= TRUST:
                work = median(sample.work for sample in known.samples)
                ratio = known.rate.seconds(work) / max(self._published(server, other).seconds(work), 1e-9)
                return Rate(published.overhead * ratio, published.per_unit * ratio)
        return published

    def _published(self, server: Object, pool: str) -> Rate:
        model = self._catalogue.get(server["spec"].get("model"))
        if model is None or model.cost is None:
            return PRIOR
        speed = model.cost.speed(pool_of(server, pool).get("gpuModel"))
        return Rate(speed.overhead_seconds, speed.seconds_per_million_token_steps / 1e6)

    def use(self, catalogue: Catalogue) -> None:
        """Go by another catalogue from now on: where nothing was measured yet, estimates begin anew."""
        self._catalogue = catalogue
        self._forget_unmeasured()

    def _forget_unmeasured(self, server_key: str | None = None) -> None:
        """Drop what is a prior only; it is looked up again when it is asked for."""
        kept = {key: known for key, known in self._speeds.items() if known.samples or server_key not in {None, key[0]}}
        self._speeds = kept

    def ended(self, server: Object, job: Object) -> None:
        """Learn from a job that Succeeded."""
        status = job.get("status") or {}
        timings, pool = status.get("timings") or {}, str((status.get("assignment") or {}).get("pool") or "")
        engine = float(timings.get("loadedSeconds") or 0.0) + float(timings.get("renderedSeconds") or 0.0)
        learnt = self._speeds[_key(server), pool] = self.speed(server, pool).with_sample(Sample(work_of(job), engine))
        if len(learnt.samples) == TRUST:  # what is known of the other pools' cards can be held against it
            self._forget_unmeasured(_key(server))
        if timings.get("stagedSeconds") is not None:
            self._staging.setdefault(_key(server), deque(maxlen=_KEEP)).append(float(timings["stagedSeconds"]))

    def started(self, server_key: str, seconds: float) -> None:
        """A pod came to serve so many seconds after its creation."""
        self._starts.setdefault(server_key, deque(maxlen=_KEEP)).append(seconds)

    def staging(self, server_key: str) -> float:
        """Typical seconds of staging."""
        known = self._staging.get(server_key)
        return median(known) if known else 2.0

    def cold_start(self, server: Object) -> float:
        """Typical seconds from a pod's creation until it serves."""
        known = self._starts.get(_key(server))
        if known:
            return median(known)
        told = ((server.get("status") or {}).get("coldStart") or {}).get("seconds")
        return float(told) if isinstance(told, int | float) and told > 0 else COLD_START

    def has_started(self, server_key: str) -> bool:
        """Whether a cold start was measured by this process."""
        return server_key in self._starts

    def performance(self, server: Object) -> dict[str, Any]:
        """status.performance: by pool, only what was learnt here."""
        key = _key(server)
        return {pool: known.to_status() for (name, pool), known in sorted(self._speeds.items())
                if name == key and known.samples}  # fmt: skip


def work_of(job: Object) -> float:
    """Tokens x steps of a job, from status.resolved, else from its parameters; 0 where neither tells."""
    told = {**(job["spec"].get("parameters") or {}), **((job.get("status") or {}).get("resolved") or {})}
    try:
        frames, height, width = (int(told.get(name) or default) for name, default in _USUAL)
        tokens = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)
        return float(tokens * int(told.get("steps") or 30))
    except (TypeError, ValueError):
        return 0.0


def video_seconds_of(job: Object) -> float:
    """Seconds of video that the job asks for."""
    told = {**(job["spec"].get("parameters") or {}), **((job.get("status") or {}).get("resolved") or {})}
    try:
        return float(told.get("durationSeconds") or int(told.get("frames") or 81) / float(told.get("fps") or 16))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0


_USUAL: Final = (("frames", 81), ("height", 480), ("width", 832))


def _key(server: Object) -> str:
    return f"{server['metadata']['namespace']}/{server['metadata']['name']}"
