"""From a ModelServer's spec and pods to what scheduling decides on: its wish, its pools, its members. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinora.api import reasons
from kinora.api.modelserver import Capacity, ModelServerSpec, Pool
from kinora.api.transitions import parse_time
from kinora.controller.modelserver.pod import pools_of
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot
from kinora.controller.scheduling import fleet, scale
from kinora.controller.scheduling.decide import Server

# Reasons after which the pod, not the engine, is replaced (invariant 9).
_REPLACE_POD = frozenset({reasons.CUDA_FAULT})


@dataclass(frozen=True)
class Ages:
    """Seconds on the operator's own clock, by pod UID: since when a pod is idle, or has found no node."""

    idle: Mapping[str, float]
    pending: Mapping[str, float]


def capacity(
    snapshot: ServerSnapshot, spec: ModelServerSpec, hashes: Mapping[str, str], cold_start: float, ages: Ages
) -> Server:
    """The server as the decision sees it. ``hashes``: what a pod made now would carry, by pool."""
    return Server(
        name=snapshot.server["metadata"]["name"],
        wish=fleet.Wish(
            replicas=spec.replicas,
            places=tuple(_place(pool, snapshot) for pool in pools_of(spec)),
            max_unavailable=spec.update.max_unavailable,
            fallback_after=float(spec.gpu.fallback_after_seconds),
        ),
        members=tuple(member(pod, hashes, ages, snapshot) for pod in snapshot.pods),
        policy=_policy(spec),
        cold_start=cold_start,
    )


def _policy(spec: ModelServerSpec) -> scale.Policy | None:
    asked = spec.autoscaling
    if asked is None:
        return None
    return scale.Policy(asked.min_replicas, asked.max_replicas, asked.target_queue_seconds, asked.idle_seconds)


def _place(pool: Pool, snapshot: ServerSnapshot) -> fleet.Place:
    pools = (snapshot.server.get("status") or {}).get("pools") or []
    told: Mapping[str, Any] = next((one for one in pools if one.get("name") == pool.name), {})
    until, refused = told.get("backoffUntilTime"), snapshot.refusals.get(pool.name)
    return fleet.Place(
        name=pool.name,
        limit=pool.max_replicas,
        price=float(pool.price_per_hour or 0.0),
        spot=pool.capacity is Capacity.SPOT,
        resting_until=max(
            parse_time(until).timestamp() if until else 0.0, refused.until.timestamp() if refused else 0.0
        ),
        rests=int(told.get("refusals") or 0),
    )


def member(pod: ServerPod, hashes: Mapping[str, str], ages: Ages, snapshot: ServerSnapshot) -> fleet.Member:
    """One pod as the decision sees it."""
    left, broken = pod.overdue_in(snapshot.now), pod.engine_reason in _REPLACE_POD
    return fleet.Member(
        uid=pod.uid,
        name=pod.name,
        slot=pod.slot,
        pool=pod.pool,
        current=pod.template_hash == hashes.get(pod.pool),
        serves=pod.serves and not broken,
        busy=pod.busy,
        terminating=pod.terminating,
        lost=pod.is_lost,
        broken=broken,
        overdue=left is not None and left <= 0,
        notice=pod.notice,
        ending=pod.is_ending,
        pending_for=ages.pending.get(pod.uid),
        refusal=pod.refused_message,
        idle_for=ages.idle.get(pod.uid, 0.0),
    )
