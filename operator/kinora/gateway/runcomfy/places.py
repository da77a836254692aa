"""How many requests are before one in the queue: as the scheduler says, else among the tenant's own. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kinora.gateway.jobs import Job, State
from kinora.gateway.tenants import Tenant

_FRESH: Final = 1.0  # seconds: whoever waits asks often, and counting reads every job of the tenant
_TENANTS: Final = 1000  # counted last, that are remembered


class Places:
    """Counts the queued jobs of a tenant at most once a second. `jobs`: a tenant's; `clock`: monotonic seconds."""

    def __init__(self, jobs: Callable[[Tenant], Sequence[Job]], clock: Callable[[], float]) -> None:
        self._jobs, self._clock = jobs, clock
        self._counted: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    def before(self, tenant: Tenant, job: Job) -> int | None:
        """How many are before it; None for a job that is not in the queue."""
        if job.state is not State.QUEUED:
            return None
        if job.position is not None:  # counted from 1, of the whole queue: the scheduler tells the first ones only
            return max(job.position - 1, 0)
        owner, now = (tenant.namespace, tenant.digest), self._clock()
        since, counted = self._counted.get(owner, (now - 2 * _FRESH, {}))
        if now - since > _FRESH or job.id not in counted:
            counted = in_order(self._jobs(tenant))
            self._counted.pop(owner, None)
            self._counted[owner] = (now, counted)
            while len(self._counted) > _TENANTS:
                del self._counted[next(iter(self._counted))]
        return counted.get(job.id, 0)


def in_order(jobs: Iterable[Job]) -> dict[str, int]:
    """The queued jobs by id, and how many were submitted before each."""
    queued = sorted((job.submit_time, job.id) for job in jobs if job.state is State.QUEUED)
    return {id_: place for place, (_, id_) in enumerate(queued)}
