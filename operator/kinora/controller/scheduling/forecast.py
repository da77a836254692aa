"""Where in the queue a job stands and when it will start: the line, played forward on the pods' ends. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from kinora.controller.scheduling.bind import suits
from kinora.controller.scheduling.facts import Job, Lane, Pod, World
from kinora.controller.scheduling.order import Line


@dataclass(frozen=True, slots=True)
class Forecast:
    """``position`` counts from 1 within the job's queue. ``start``: seconds since the epoch; None: nobody can tell."""

    position: int
    start: float | None


def forecast(world: World, first: int = 20, limit: int = 2000) -> dict[str, Forecast]:
    """Job key -> forecast, for the first jobs of every queue; stops after `limit` jobs of all queues together."""
    ends = _Ends(world)
    line, positions = Line(world), defaultdict[str, int](int)
    queues = {lane.queue for lane in world.lanes if lane.jobs}
    found: dict[str, Forecast] = {}
    for count, (lane, job) in enumerate(line):
        positions[job.queue] += 1
        start, seconds = ends.take(lane, job)
        line.took(job, seconds)
        if positions[job.queue] <= first:
            found[job.key] = Forecast(positions[job.queue], start)
        if count + 1 >= limit or all(positions[queue] >= first for queue in queues):
            break
    return found


class _Ends:
    """When each pod has its next free moment, by ModelServer; jobs are put on the one that is free first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pods: dict[str, list[tuple[float, str, Pod]]] = defaultdict(list)
        for pod in world.pods:
            if pod.open:
                heapq.heappush(self._pods[pod.server], (world.now + _busy_for(world, pod), pod.name, pod))

    def take(self, lane: Lane, job: Job) -> tuple[float | None, float]:
        """(when the job starts, how long it holds the pod); (None, 0) where no pod can run it."""
        choice = self._soonest(lane, job)
        if choice is None:
            return None, 0.0
        free, name, pod = choice
        seconds = self._world.seconds(job, pod.server, pod.pool)
        heap = self._pods[pod.server]
        heap.remove(choice)
        heapq.heapify(heap)
        heapq.heappush(heap, (free + seconds, name, pod))
        return free, seconds

    def _soonest(self, lane: Lane, job: Job) -> tuple[float, str, Pod] | None:
        options: Iterable[tuple[float, str, Pod]] = (
            entry for server in lane.servers if (entry := self._first(server, job)) is not None
        )
        return min(options, key=lambda entry: entry[:2], default=None)

    def _first(self, server: str, job: Job) -> tuple[float, str, Pod] | None:
        heap = self._pods.get(server, [])
        if heap and suits(self._world, job, heap[0][2]):
            return heap[0]
        return min((entry for entry in heap if suits(self._world, job, entry[2])), default=None)


def _busy_for(world: World, pod: Pod) -> float:
    """Seconds until the pod has done what it holds, or until it serves."""
    known = [held.remaining for held in pod.held if held.remaining is not None]
    mean = max((rate.overhead for key, rate in world.rates.items() if key[0] == pod.server), default=0.0)
    return pod.ready_in + sum(known) + mean * (len(pod.held) - len(known))
