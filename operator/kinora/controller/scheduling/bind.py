"""Queue and binding as one pure function: (waiting jobs, idle pods) -> binds.

Order: priority, then age; ties by UID, so that two operators decide alike. Fair share, pre-emption, cost and binding
ahead arrive with the issue on scheduling and change this function alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """One job that may be bound now. ``servers``: names of the ModelServers of its namespace that can render it."""

    key: str
    uid: str
    servers: frozenset[str]
    priority: int
    created: str  # RFC 3339: sorts as text
    preset: str = ""  # Fast: only pods that have its files


@dataclass(frozen=True)
class Idle:
    """One server pod that would start a job now."""

    name: str
    uid: str
    node: str
    server: str
    pool: str
    presets: frozenset[str] = frozenset()  # whose files it has, beside those that every job needs

    def renders(self, job: Waiting) -> bool:
        """Whether it has the files of the job's preset."""
        return not job.preset or job.preset in self.presets


@dataclass(frozen=True)
class Bind:
    """This job goes to this pod."""

    job: str  # key
    pod: Idle


def order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """The queue: highest priority first, then oldest."""
    return sorted(waiting, key=lambda job: (-job.priority, job.created, job.uid))


def choose(waiting: Iterable[Waiting], idle: Iterable[Idle]) -> list[Bind]:
    """Give each job in order the first idle pod that can render it; each pod gets at most one."""
    free: dict[str, list[Idle]] = {}
    for pod in sorted(idle, key=lambda pod: (pod.server, pod.name), reverse=True):
        free.setdefault(pod.server, []).append(pod)
    binds = []
    for job in order(waiting):
        if not free:
            break
        able = ((name, pod) for name in sorted(job.servers & free.keys()) for pod in reversed(free[name]))
        found = next(((name, pod) for name, pod in able if pod.renders(job)), None)
        if found is None:
            continue
        server, pod = found
        binds.append(Bind(job.key, pod))
        free[server].remove(pod)
        if not free[server]:
            del free[server]
    return binds
