"""The order in which waiting jobs are served: level, then the queue that has used least for its weight, then age. Pure.

`Line` hands out one job after another. Sharing is progressive: each job that is taken counts at once for its queue, so
that a burst of one queue does not fill every pod before another queue's job is looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from kinora.controller.scheduling.facts import Job, Lane, Usage, World, place

_Entry = tuple[int, float, float, str, int, int]  # level (negated), share, created, uid, lane, position


class Line:
    """Iterates over the jobs of all lanes in order; `took` and `drop` change what comes next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._given: dict[str, float] = {}  # GPU-seconds given in this pass, by queue
        self._running: dict[str, int] = {}
        self._videos: dict[str, float] = {}
        self._closed: set[int] = set()
        self._heap: list[_Entry] = []
        for index in range(len(world.lanes)):
            self._push(index, 0)

    def __iter__(self) -> Iterator[tuple[Lane, Job]]:
        """The next job of the line, until every lane is empty or closed. Its queue is within its limits."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            index, position = entry[4], entry[5]
            if index in self._closed:
                continue
            lane = self._world.lanes[index]
            if entry[1] != self.share(lane.queue):  # its queue was served since: it goes behind
                self._push(index, position)
                continue
            job = lane.jobs[position]
            if not self._within_limits(job):
                self._close(lambda other, queue=job.queue: other.queue == queue)  # type: ignore[misc]
                continue
            self._push(index, position + 1)
            yield lane, job

    def share(self, queue: str) -> float:
        """GPU-seconds used lately and given in this pass, for the queue's weight."""
        used = self._usage(queue).gpu_seconds + self._given.get(queue, 0.0)
        return used / self._world.queue(queue).weight

    def took(self, job: Job, seconds: float) -> None:
        """The job has its place: its queue is charged."""
        self._given[job.queue] = self._given.get(job.queue, 0.0) + max(seconds, 1e-3)
        self._running[job.queue] = self._running.get(job.queue, 0) + 1
        self._videos[job.queue] = self._videos.get(job.queue, 0.0) + job.video_seconds

    def drop(self, lane: Lane) -> None:
        """Nothing is left for this lane."""
        self._close(lambda other: other is lane)

    def _close(self, matches: Callable[[Lane], bool]) -> None:
        self._closed.update(index for index, lane in enumerate(self._world.lanes) if matches(lane))

    def _push(self, index: int, position: int) -> None:
        lane = self._world.lanes[index]
        if position < len(lane.jobs):
            job = lane.jobs[position]
            negated, created, uid = place(job, self._world.aging_seconds)
            heapq.heappush(self._heap, (negated, self.share(lane.queue), created, uid, index, position))

    def _usage(self, queue: str) -> Usage:
        return self._world.usage.get(queue) or Usage()

    def _within_limits(self, job: Job) -> bool:
        """Whether one more job of its queue may be bound; the first that may not holds back those behind it."""
        queue, usage = self._world.queue(job.queue), self._usage(job.queue)
        if queue.max_running is not None and usage.running + self._running.get(job.queue, 0) >= queue.max_running:
            return False
        if queue.video_seconds_per_day is None:
            return True
        charged = usage.video_seconds + self._videos.get(job.queue, 0.0)
        return charged + job.video_seconds <= queue.video_seconds_per_day
