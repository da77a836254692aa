"""Which of the jobs bound to this pod is rendered, which is staged, which is given back: one pure function.

An agent tolerates any number of bound jobs: one renders, the next one is staged, the others wait for the operator to
take them back (api.md). Nothing here knows how any of that is done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kinora.api import transitions
from kinora.api.reasons import Phase

Job = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Key:
    """One attempt of one job: the unit of the agent's work."""

    uid: str
    attempt: int


class Hold(StrEnum):
    """How far an attempt that the agent has taken up is."""

    WAITING = "Waiting"  # staging, or staged: it has not got the engine
    ENGINE = "Engine"  # it has the engine
    AFTER = "After"  # the engine is free again: publication, the last write, tidying up


@dataclass(frozen=True)
class Choice:
    """What to do now. `stop` are attempts that are this pod's no more."""

    engine: Key | None = None
    take_up: tuple[Key, ...] = ()
    hand_back: tuple[Key, ...] = ()
    stop: tuple[Key, ...] = ()


def key_of(job: Job) -> Key:
    """The attempt that a job's status speaks of."""
    return Key(job["metadata"]["uid"], int((job.get("status") or {}).get("attempt") or 0))


def is_ours(job: Job, pod_uid: str) -> bool:
    """Whether the job is bound to this pod, unfinished, not given back, and not deleted beneath us."""
    status = job.get("status") or {}
    assignment = status.get("assignment") or {}
    released = status.get("released") or {}
    return (
        transitions.is_assigned(status)
        and assignment.get("podUID") == pod_uid
        and released.get("attempt") != int(status.get("attempt") or 0)
    )


def urgency(job: Job) -> tuple[int, int, str, str]:
    """The order of work: what renders already (after a restart of the agent), then priority, then the older bind."""
    status = job.get("status") or {}
    started = transitions.phase_of(status) in (Phase.RUNNING, Phase.FINALIZING)
    bound = (status.get("assignment") or {}).get("boundTime") or ""
    priority = int((job.get("spec") or {}).get("priority") or 0)
    return (0 if started else 1, -priority, bound, job["metadata"]["uid"])


def choose(jobs: Collection[Job], held: Mapping[Key, Hold], *, draining: bool) -> Choice:
    """Decide, given the jobs that are ours and the attempts taken up so far."""
    ordered = sorted(jobs, key=urgency)
    ours = {key_of(job): job for job in ordered}
    stop = tuple(key for key in held if key not in ours)
    has_engine = next((key for key, hold in held.items() if hold is Hold.ENGINE), None)
    cancelled = tuple(key for key, job in ours.items() if key not in held and _is_cancelled(job))
    waiting = [key for key, job in ours.items() if held.get(key, Hold.WAITING) is Hold.WAITING and key not in cancelled]
    if draining:
        started = [key for key in waiting if _has_started(ours[key])]
        first = has_engine or next(iter(started), None)
        wanted = [key for key in started[:1] if key not in held]
        return Choice(first, (*cancelled, *wanted), tuple(key for key in waiting if key not in started), stop)
    first = has_engine or next(iter(waiting), None)
    following = next((key for key in waiting if key != first), None)
    wanted = [key for key in (first, following) if key is not None and key not in held]
    return Choice(first, (*cancelled, *wanted), (), stop)


def _is_cancelled(job: Job) -> bool:
    return bool((job.get("spec") or {}).get("cancel"))


def _has_started(job: Job) -> bool:
    return transitions.phase_of(job.get("status") or {}) in (Phase.RUNNING, Phase.FINALIZING)
