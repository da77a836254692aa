"""What a scheduling decision rests on, as frozen values: jobs, pods, queues, usage, the moment. No Kubernetes, no I/O.

Seconds throughout; moments are seconds since the epoch. Gathered from the store by `gather`, made up by the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

DEFAULT_QUEUE: Final = "default"
AGING_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Job:
    """One VideoJob that waits.

    Attributes:
        created: when it was made.
        work: tokens x steps, the unit of its cost.
        video_seconds: what its queue's daily limit is charged.
        losses: attempts that were lost; after two it goes to capacity that is not taken away.
        preset: whose files a pod must have besides; empty: none. The same for all jobs of a lane.
        group: of the jobs that may change places with each other, those of one tenant; empty: it keeps its own.
        order: what goes first in its group.
        turn: the UID whose place it has instead of its own; empty: its own.
    """

    key: str
    uid: str
    queue: str
    priority: int
    created: float
    work: float = 0.0
    video_seconds: float = 0.0
    losses: int = 0
    preset: str = ""
    group: str = ""
    order: float = 0.0
    turn: str = ""


def level(priority: int, created: float, aging_seconds: float) -> int:
    """What the queue is ordered by first: priority, and one more for every whole aging period since the creation.

    Periods lie on the clock, not on each job's own creation: then the order of two jobs never changes while they wait,
    the queue can be kept sorted, and a restarted operator orders alike. It differs by less than one from
    priority + waited / agingSeconds (decisions.md, 11). Only differences of levels mean something.
    """
    return priority if aging_seconds <= 0 else priority - math.floor(created / aging_seconds)


def place(job: Job, aging_seconds: float) -> tuple[int, float, str]:
    """The key by which the jobs of one queue are sorted: level, age, UID."""
    return -level(job.priority, job.created, aging_seconds), job.created, job.turn or job.uid


@dataclass(frozen=True, slots=True)
class Lane:
    """The waiting jobs of one queue that the same ModelServers of the namespace can render, sorted by `place`."""

    queue: str
    servers: frozenset[str]
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Held:
    """A job that is bound to a pod. ``running``: its engine has started; else it is staged and may be taken back."""

    key: str
    uid: str
    queue: str
    level: int
    running: bool
    remaining: float | None = None
    "Predicted seconds until it ends; None: not known."
    elapsed: float = 0.0
    leaving: bool = False
    "Released, being taken back, cancelled or pre-empted: it needs no further decision."


@dataclass(frozen=True, slots=True)
class Pod:
    """One server pod.

    ``serves``: a job bound now would start. ``open``: it may get jobs (neither cordoned nor reserved by a bind on its
    way). ``spot``: its capacity may be taken away.
    """

    name: str
    uid: str
    node: str
    server: str
    pool: str
    serves: bool
    open: bool = True
    spot: bool = False
    price: float = 0.0
    held: tuple[Held, ...] = ()
    ready_in: float = 0.0
    "Predicted seconds until it serves, for one that starts; for forecasts and scaling."
    presets: frozenset[str] = frozenset()
    "Whose files it has, beside those that every job needs."
    leaving: str = ""
    "Why it will go, or is not to be used for now: what is staged there is taken back. Then it is not open either."
    ending: bool = False
    "It goes whatever happens: a job that has not begun there is taken back too."

    def renders(self, job: Job) -> bool:
        """Whether it has the files of the job's preset."""
        return not job.preset or job.preset in self.presets


@dataclass(frozen=True, slots=True)
class Queue:
    """A declared queue (chart value ``queues``): how much of the GPUs it may have (decisions.md, 9).

    Attributes:
        weight: its share, relative to the other queues.
        max_priority: the highest priority that its jobs may ask for.
        max_running: jobs bound at once; None: no limit.
        video_seconds_per_day: seconds of delivered video in 24 hours; None: no limit.
        preempts: its jobs may stop running jobs of lower level in queues that are preemptible.
        preemptible: its running jobs may be stopped so.
        namespaces: where it may be named; empty: everywhere.
    """

    name: str
    weight: float = 1.0
    max_priority: int = 1000
    max_running: int | None = None
    video_seconds_per_day: float | None = None
    preempts: bool = False
    preemptible: bool = False
    namespaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a queue has used lately, over all namespaces: GPU-seconds (decayed), videos of 24 hours, jobs bound now."""

    gpu_seconds: float = 0.0
    video_seconds: float = 0.0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """How long a job takes on one ModelServer and pool: seconds = overhead + per_unit x work."""

    overhead: float
    per_unit: float

    def seconds(self, work: float) -> float:
        """Predicted seconds of a job of that work."""
        return self.overhead + self.per_unit * work


@dataclass(frozen=True, slots=True)
class World:
    """Everything that binding rests on: one namespace's jobs and pods, every queue's usage."""

    now: float
    lanes: tuple[Lane, ...]
    pods: tuple[Pod, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    rates: Mapping[tuple[str, str], Rate] = field(default_factory=dict)
    "By (ModelServer, pool)."
    staging: Mapping[str, float] = field(default_factory=dict)
    "By ModelServer: how long staging takes there."
    spot_life: Mapping[tuple[str, str], float] = field(default_factory=dict)
    "By (ModelServer, pool), of spot pools: how long pods live there; a longer job does not go there."
    aging_seconds: float = AGING_SECONDS

    def queue(self, name: str) -> Queue:
        """The declared queue; one that is not declared any more keeps its jobs going with the defaults."""
        return self.queues.get(name) or Queue(name)

    def seconds(self, job: Job, server: str, pool: str) -> float:
        """Predicted seconds of the job there."""
        rate = self.rates.get((server, pool))
        return rate.seconds(job.work) if rate else 0.0
