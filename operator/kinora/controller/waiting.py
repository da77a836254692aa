"""The jobs that may be bound, kept in the order of the queue: what binding, forecasts and scaling look at.

An index over the store, brought up to date job by job; nothing is decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from sortedcontainers import SortedKeyList, SortedList

from kinora.controller.scheduling.facts import Job, Lane, place


@dataclass(frozen=True, slots=True)
class Way:
    """How a job is served: by one ModelServer that it names, or by all of its namespace that have its model.

    `store`: the root of the artifact store that they must use, because a stager has put the inputs there.
    """

    server: str = ""
    model: str = ""
    preset: str = ""
    "Whose files the pod must have besides."
    classes: frozenset[str] = frozenset()
    "Node classes that the server must allow beyond what all do."
    store: str = ""


MOST_IN_TURN: Final = 500  # jobs of one group: where more wait, one that comes goes behind them, whatever it asks for
_LaneKey = tuple[str, Way]  # queue, way
_Slot = tuple[float, str]  # when it was made, and the UID: a place in the queue among those of equal priority
_GroupKey = tuple[str, str, str, str, str, int]  # namespace, queue, group, the way's server and model, priority


def _turn(job: Job) -> tuple[float, float, str]:
    return job.order, job.created, job.uid


class _Group:
    """The waiting jobs of one tenant, and the places that they have in the queue, which it may hand out as it likes.

    Nobody else's place changes: a job that goes first takes the first place of its own group, and the others move up
    into the places that are left. A job that is gone takes its place with it.
    """

    def __init__(self) -> None:
        self.members: SortedKeyList[Job, tuple[float, float, str]] = SortedKeyList(key=_turn)
        self.slots: SortedList[_Slot] = SortedList()

    def join(self, job: Job) -> Iterator[tuple[Job, _Slot]]:
        """The members whose places change by it, itself among them, with their new ones.

        Where nothing else than age was asked for, that is itself alone, in its own place.
        """
        slot = (job.created, job.uid)
        while slot in self.slots:  # one that comes back finds another in the place that was its own
            slot = (job.created, f"{slot[1]}~")
        self.members.add(job)
        self.slots.add(slot)
        first, last = sorted((self.members.index(job), self.slots.index(slot)))
        span = slice(first, last + 1)
        return zip(self.members[span], self.slots[span], strict=True)

    def leave(self, job: Job, slot: _Slot) -> None:
        """It is gone, and so is the place that it had."""
        self.members.remove(job)
        self.slots.remove(slot)


@dataclass(slots=True)
class _Entry:
    """Where a job lies. `placed`: the job as it stands in its lane, perhaps in another's place."""

    namespace: str
    lane: _LaneKey
    job: Job
    placed: Job

    @property
    def slot(self) -> _Slot:
        """The place that it has."""
        return self.placed.created, self.placed.turn or self.placed.uid

    @property
    def group(self) -> _GroupKey | None:
        """With whom it may change places."""
        queue, way = self.lane
        job = self.job
        return (self.namespace, queue, job.group, way.server, way.model, job.priority) if job.group else None


class WaitingJobs:
    """Sorted lanes by namespace, and where each job lies in them."""

    def __init__(self, aging_seconds: float) -> None:
        self._aging = aging_seconds
        self._lanes: dict[str, dict[_LaneKey, SortedKeyList[Job, tuple[int, float, str]]]] = defaultdict(dict)
        self._where: dict[str, _Entry] = {}  # by job key
        self._groups: defaultdict[_GroupKey, _Group] = defaultdict(_Group)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def put(self, namespace: str, way: Way, job: Job) -> None:
        """Take a job in, or move it."""
        known, entry = self._where.get(job.key), _Entry(namespace, (job.queue, way), job, job)
        group = entry.group
        same_group = known is not None and group is not None and known.group == group
        if group is not None and not (same_group and known is not None and known.job.order == job.order):
            job = entry.job = entry.placed = self._in_turn(group, job)
        if known is not None and (known.namespace, known.lane, known.job) == (namespace, entry.lane, job):
            return
        if known is not None and group is not None and same_group and _turn(known.job) == _turn(job):
            self._groups[group].members.remove(known.job)  # what it is has changed, its place has not
            self._groups[group].members.add(job)
            self._unlist(known)
            entry.placed = _in_place(job, known.slot)
            self._list(entry)
            return
        self.remove(job.key)
        self._list(entry)
        for member, slot in self._groups[group].join(job) if group is not None else ():
            self._move(self._where[member.key], slot)

    def _in_turn(self, group: _GroupKey, job: Job) -> Job:
        """The job with the order that it asks for, where its group is not too large for that."""
        is_large = group in self._groups and len(self._groups[group].members) >= MOST_IN_TURN
        return replace(job, order=job.created * 1000) if is_large else job

    def remove(self, key: str) -> None:
        """Forget a job."""
        known = self._where.get(key)
        if known is None:
            return
        self._unlist(known)
        if known.group is not None:
            group = self._groups[known.group]
            group.leave(known.job, known.slot)
            if not group.members:
                del self._groups[known.group]

    def _move(self, entry: _Entry, slot: _Slot) -> None:
        if entry.slot != slot:
            self._unlist(entry)
            entry.placed = _in_place(entry.job, slot)
            self._list(entry)

    def _list(self, entry: _Entry) -> None:
        lanes = self._lanes[entry.namespace]
        if entry.lane not in lanes:
            lanes[entry.lane] = SortedKeyList(key=lambda one: place(one, self._aging))
        lanes[entry.lane].add(entry.placed)
        self._where[entry.job.key] = entry

    def _unlist(self, entry: _Entry) -> None:
        del self._where[entry.job.key]
        jobs = self._lanes[entry.namespace][entry.lane]
        jobs.remove(entry.placed)
        if not jobs:
            del self._lanes[entry.namespace][entry.lane]
            if not self._lanes[entry.namespace]:
                del self._lanes[entry.namespace]

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


def _in_place(job: Job, slot: _Slot) -> Job:
    created, uid = slot
    return job if uid == job.uid else replace(job, created=created, turn=uid)
