"""Which waiting job goes to which pod, and which bound job leaves its place again. One pure function: `assign`.

Idle pods come first. A busy pod gets a second job ahead of time only when it is nearly done (decisions.md, 10); such a
job waits in the agent and is taken back when a pod that can run it is idle, or when one of a higher level waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from kinora.controller.scheduling.facts import Held, Job, Lane, Pod, World, level
from kinora.controller.scheduling.order import Line

AHEAD_SECONDS: Final = 30.0
WORTH_SECONDS: Final = 5.0
"A staged job is moved only where it gains more than this: taking back costs two writes and its staging."
LOSSES_ON_SPOT: Final = 2


@dataclass(frozen=True, slots=True)
class Bind:
    """This job goes to this pod. ``ahead``: behind the one that runs there."""

    job: str  # key
    pod: Pod
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """This bound job leaves its pod. ``running``: its agent has to stop it (pre-emption); else it is taken back."""

    job: str  # key
    running: bool
    why: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """The outcome for one namespace."""

    binds: tuple[Bind, ...] = ()
    leaves: tuple[Leave, ...] = ()


def assign(world: World) -> Assignment:
    """Fill idle pods, then nearly idle ones, in the order of the line; then see who should leave."""
    free = _Free(world)
    leaves = list(_off_leaving(world))
    if not free.pods and not any(_staged(pod) for pod in world.pods) and not _preemption(world):
        return Assignment(leaves=tuple(leaves))
    binds, behind = _fill(world, free)
    leaves += _to_idle(world, free)
    leaves += _to_higher(world, behind, {leave.job for leave in leaves})
    return Assignment(tuple(binds), tuple(leaves))


def suits(world: World, job: Job, pod: Pod) -> bool:
    """Whether the pod has what the job needs, and may have it (decisions.md, 13). The lane tells which servers can."""
    return pod.renders(job) and (not pod.spot or not is_firm(world, job, pod.server, pod.pool))


def is_firm(world: World, job: Job, server: str, pool: str) -> bool:
    """Whether the job may not go to that spot pool: it was lost twice, or takes longer than pods live there."""
    if job.losses >= LOSSES_ON_SPOT:
        return True
    life = world.spot_life.get((server, pool))
    return life is not None and world.seconds(job, server, pool) > life


class _Free:
    """The places that are left: idle pods, cheapest first, then nearly idle ones, soonest first."""

    def __init__(self, world: World) -> None:
        self.pods: dict[str, list[Pod]] = defaultdict(list)
        idle = [pod for pod in world.pods if pod.serves and pod.open and not pod.held]
        ahead = [pod for pod in world.pods if pod.serves and pod.open and _nearly_done(world, pod)]
        for pod in sorted(idle, key=lambda pod: (pod.price, pod.name)):
            self.pods[pod.server].append(pod)
        for pod in sorted(ahead, key=lambda pod: (pod.held[0].remaining or 0.0, pod.name)):
            self.pods[pod.server].append(pod)

    def find(self, world: World, lane: Lane, job: Job) -> Pod | None:
        """The best place for the job: an idle pod before a busy one, the cheapest first."""
        first = (next((pod for pod in self._of(name) if suits(world, job, pod)), None) for name in lane.servers)
        found = [pod for pod in first if pod is not None]
        return min(found, key=lambda pod: (bool(pod.held), pod.price, pod.name), default=None)

    def take(self, pod: Pod) -> None:
        """The place is gone."""
        self.pods[pod.server].remove(pod)
        if not self.pods[pod.server]:
            del self.pods[pod.server]

    def any(self, servers: Iterable[str], job: Job) -> bool:
        """Whether one of these servers has a place left where jobs of this one's preset can be rendered."""
        return any(pod.renders(job) for name in servers for pod in self._of(name))

    def idle(self) -> list[Pod]:
        """The idle pods that nobody took."""
        return [pod for pods in self.pods.values() for pod in pods if not pod.held]

    def _of(self, server: str) -> list[Pod]:
        return self.pods.get(server, [])


def _nearly_done(world: World, pod: Pod) -> bool:
    if len(pod.held) != 1 or not pod.held[0].running or pod.held[0].leaving:
        return False
    remaining = pod.held[0].remaining
    return remaining is not None and remaining < max(AHEAD_SECONDS, 2 * world.staging.get(pod.server, 0.0))


def _fill(world: World, free: _Free) -> tuple[list[Bind], list[tuple[Lane, Job]]]:
    """The binds, and of each lane the first job that found no place."""
    line, binds, behind = Line(world), [], []
    for lane, job in line:
        pod = free.find(world, lane, job)
        if pod is not None:
            free.take(pod)
            binds.append(Bind(job.key, pod, ahead=bool(pod.held)))
            line.took(job, world.seconds(job, pod.server, pod.pool))
        elif not free.any(lane.servers, job):
            behind.append((lane, job))
            line.drop(lane)
    return binds, behind


def _staged(pod: Pod) -> Held | None:
    """The job that waits behind the running one, if it may still be moved."""
    if len(pod.held) < 2 or not pod.held[0].running:
        return None
    last = pod.held[-1]
    return None if last.running or last.leaving else last


def _off_leaving(world: World) -> Iterator[Leave]:
    """Jobs that have not begun on a pod that goes (spot notice, drain): at once, for every minute there is lost.

    The one that comes next there begins any moment; it is left alone unless the pod goes whatever happens.
    """
    for pod in world.pods:
        if not pod.leaving:
            continue
        for place, one in enumerate(pod.held):
            if not (one.running or one.leaving) and (place or pod.ending):
                yield Leave(one.key, running=False, why=f"{pod.name} gets no more jobs: {pod.leaving}")


def _to_idle(world: World, free: _Free) -> Iterator[Leave]:
    """Staged jobs whose pod is long busy while another one that can run them has nothing to do."""
    idle = free.idle()
    for pod in sorted(world.pods, key=lambda pod: -(pod.held[0].remaining or 0.0) if pod.held else 0.0):
        staged = _staged(pod)
        remaining = pod.held[0].remaining if pod.held else None
        if pod.leaving or staged is None or (remaining is not None and remaining <= WORTH_SECONDS):
            continue
        other = next(
            (one for one in idle if one.server == pod.server and one.spot <= pod.spot and one.presets >= pod.presets),
            None,
        )
        if other is not None:
            idle.remove(other)
            yield Leave(staged.key, running=False, why=f"{other.name} is idle")


def _preemption(world: World) -> bool:
    return any(queue.preempts for queue in world.queues.values())


def _to_higher(world: World, behind: list[tuple[Lane, Job]], leaving: set[str]) -> Iterator[Leave]:
    """Staged jobs of a lower level, then running ones where both queues allow it, for jobs that found no place."""
    for lane, job in behind:
        mine = level(job.priority, job.created, world.aging_seconds)
        pods = [
            pod
            for pod in world.pods
            if pod.serves and pod.open and pod.held and pod.server in lane.servers and suits(world, job, pod)
        ]
        victim = _lowest(_staged(pod) for pod in pods)
        if victim is None or victim.level >= mine or victim.key in leaving:
            victim = _preempted(world, job, pods, leaving)
        if victim is not None and victim.level < mine and victim.key not in leaving:
            leaving.add(victim.key)
            yield Leave(victim.key, victim.running, f"{job.key} goes first")


def _preempted(world: World, job: Job, pods: list[Pod], leaving: set[str]) -> Held | None:
    """The running job that loses least: lowest level, then least rendered; None while one is on its way out."""
    if not world.queue(job.queue).preempts:
        return None
    if any(held.running and (held.leaving or held.key in leaving) for pod in pods for held in pod.held):
        return None
    running = (held for pod in pods for held in pod.held if held.running)
    return _lowest(held for held in running if world.queue(held.queue).preemptible)


def _lowest(candidates: Iterable[Held | None]) -> Held | None:
    found = [held for held in candidates if held is not None]
    return min(found, key=lambda held: (held.level, held.elapsed, held.uid), default=None)
