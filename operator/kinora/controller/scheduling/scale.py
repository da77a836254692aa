"""How many server pods a ModelServer should have: from its backlog, the measured cold start and idle times. Pure.

Up at once, by as many pods as start the backlog within targetQueueSeconds. Down only by pods that have been idle for
idleSeconds. Never below the pods that are busy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """ModelServer.spec.autoscaling."""

    minimum: int
    maximum: int
    target_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Member:
    """One pod as far as scaling looks. ``busy_for``: predicted seconds until it is free, or serves (0: idle now)."""

    uid: str
    busy: bool
    busy_for: float
    idle_for: float
    "Seconds since it last held a job, or since it first served; 0 for one that starts or is busy."


@dataclass(frozen=True, slots=True)
class Backlog:
    """The jobs that wait: their count, predicted seconds in all and of the longest.

    ``useful``: how many of them could be bound if there were pods enough; their queues' limits hold back the others.
    """

    jobs: int
    seconds: float
    longest: float = 0.0
    useful: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """How many pods are wanted, and why."""

    replicas: int
    reason: str


def scale(policy: Policy, members: Sequence[Member], backlog: Backlog, cold_start: float) -> Scale:
    """The replicas that are wanted now.

    ``cold_start``: seconds from a pod's creation to its first job. A new pod helps only after that; where it is longer
    than the target, the horizon is stretched to it, for no number of pods can keep the target.
    """
    busy = sum(1 for member in members if member.busy)
    floor = max(policy.minimum, busy)
    wanted, why = _needed(policy, members, backlog, cold_start)
    if wanted <= len(members):
        wanted, why = _kept(policy, members, backlog, wanted)
    bounded = max(min(wanted, policy.maximum), floor)
    if bounded < wanted:
        why = f"{why}; maxReplicas is {policy.maximum}"
    elif bounded > wanted:
        why = f"{busy} pods are busy" if bounded == busy > policy.minimum else f"minReplicas is {policy.minimum}"
    return Scale(bounded, why)


def _needed(policy: Policy, members: Sequence[Member], backlog: Backlog, cold_start: float) -> tuple[int, str]:
    """Pods that start every waiting job within the target, and why so many."""
    if not backlog.jobs:
        return sum(1 for member in members if member.busy), "no job waits"
    horizon = max(policy.target_seconds, cold_start + backlog.longest)
    # The last job has only to begin within the horizon, so that one job for each pod need not fit into it.
    work = max(backlog.seconds - backlog.longest, 0.0)
    present = sum(max(horizon - member.busy_for, 0.0) for member in members)
    told = f"{backlog.jobs} jobs of {backlog.seconds:.0f} s wait"
    if present > work and members:
        return len(members), told
    each = max(horizon - cold_start, 1.0)
    more = min(max(math.ceil((work - present) / each), 1), backlog.useful)
    return len(members) + more, f"{told}; the target is {policy.target_seconds:.0f} s, a start takes {cold_start:.0f} s"


def _kept(policy: Policy, members: Sequence[Member], backlog: Backlog, wanted: int) -> tuple[int, str]:
    """Fewer pods only by those that have been idle for long."""
    if backlog.useful:
        return len(members), f"{backlog.jobs} jobs wait"
    leaving = sum(1 for member in members if not member.busy and member.idle_for >= policy.idle_seconds)
    if not leaving:
        return len(members), "no pod has been idle for idleSeconds"
    keep = max(wanted, len(members) - leaving)
    return keep, f"{leaving} pods idle for {policy.idle_seconds:.0f} s"
