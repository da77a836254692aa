"""How often a tenant may submit: token buckets. Pure but for the clock, which is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kinora.gateway.tenants import Tenant

_MOST = 10_000  # tenants remembered; the one that asked longest ago is forgotten, with a full bucket


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """One bucket a tenant."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, tenant: Tenant) -> float:
        """Take one token: 0.0, or, where there is none, the seconds until there is one."""
        limits, now = tenant.limits, self._clock()
        rate = limits.submits_per_minute / 60
        bucket = self._buckets.pop(tenant.name, None) or _Bucket(float(limits.burst), now)
        bucket.tokens = min(float(limits.burst), bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        self._buckets[tenant.name] = bucket
        while len(self._buckets) > _MOST:
            del self._buckets[next(iter(self._buckets))]
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / rate
