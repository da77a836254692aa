"""The jobs that may be bound, kept in the order of the queue: what binding, forecasts and scaling look at.

An index over the store, brought up to date job by job; nothing is decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from sortedcontainers import SortedKeyList

from kinora.controller.scheduling.facts import Job, Lane, place


@dataclass(frozen=True, slots=True)
class Way:
    """How a job is served: by one ModelServer that it names, or by all of its namespace that have its model."""

    server: str = ""
    model: str = ""
    preset: str = ""
    "Whose files the pod must have besides."
    classes: frozenset[str] = frozenset()
    "Node classes that the server must allow beyond what all do."


_LaneKey = tuple[str, Way]  # queue, way


class WaitingJobs:
    """Sorted lanes by namespace, and where each job lies in them."""

    def __init__(self, aging_seconds: float) -> None:
        self._aging = aging_seconds
        self._lanes: dict[str, dict[_LaneKey, SortedKeyList[Job, tuple[int, float, str]]]] = defaultdict(dict)
        self._where: dict[str, tuple[str, _LaneKey, Job]] = {}  # job key -> namespace, lane, job

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def put(self, namespace: str, way: Way, job: Job) -> None:
        """Take a job in, or move it."""
        lane = (job.queue, way)
        known = self._where.get(job.key)
        if known == (namespace, lane, job):
            return
        self.remove(job.key)
        lanes = self._lanes[namespace]
        if lane not in lanes:
            lanes[lane] = SortedKeyList(key=lambda one: place(one, self._aging))
        lanes[lane].add(job)
        self._where[job.key] = (namespace, lane, job)

    def remove(self, key: str) -> None:
        """Forget a job."""
        known = self._where.pop(key, None)
        if known is None:
            return
        namespace, lane, job = known
        jobs = self._lanes[namespace][lane]
        jobs.remove(job)
        if not jobs:
            del self._lanes[namespace][lane]
            if not self._lanes[namespace]:
                del self._lanes[namespace]

    def lanes(self, namespace: str, servers: Callable[[Way], frozenset[str]]) -> tuple[Lane, ...]:
        """The lanes of a namespace that anybody can serve. Valid until the next change of the index."""
        found = ((queue, servers(way), jobs) for (queue, way), jobs in self._lanes.get(namespace, {}).items())
        return tuple(Lane(queue, able, jobs) for queue, able, jobs in found if able)

    def namespaces(self) -> tuple[str, ...]:
        """Where jobs wait."""
        return tuple(self._lanes)

    def counts(self) -> dict[str, int]:
        """Waiting jobs by queue."""
        out: dict[str, int] = defaultdict(int)
        for lanes in self._lanes.values():
            for (queue, _), jobs in lanes.items():
                out[queue] += len(jobs)
        return dict(out)
