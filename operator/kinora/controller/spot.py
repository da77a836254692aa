"""Watches the pods of spot pools come and go, so that it is known how long they live. Reads facts; decides nothing.

Goes by every state of a pod that comes: between two looks at its ModelServer one may be placed and lost, or deleted.

What counts as lost: a final notice (eviction, spot notice, a node that goes), a pod that ended by itself, one that
vanished without having been deleted, or was deleted by force (so go pods whose node is gone). A pod that the operator
or a user deleted is only known to have lived so long.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kinora.api.modelserver import Capacity
from kinora.controller.modelserver.snapshot import ServerPod
from kinora.controller.scheduling.bind import LOSSES_ON_SPOT
from kinora.controller.scheduling.spotlife import Life, Lives

Object = Mapping[str, Any]
_FRESH = 30.0  # seconds that a computed life is good for: ages of living pods change it slowly


@dataclass
class _Alive:
    pool: str
    since: float
    lost_at: float | None = None
    deleted: bool = False


class SpotWatch:
    """Learns from every state of a pod that it is told of (``note``), and from who is missing (``see``)."""

    def __init__(self, lives: Lives | None = None) -> None:
        self.lives = lives or Lives()
        self._alive: dict[str, dict[str, _Alive]] = {}  # ModelServer's key -> pod UID -> what is known of it
        self._known: dict[tuple[str, str], tuple[float, float | None]] = {}  # (server, pool) -> computed when, life

    def see(self, server: str, spot: Collection[str], pods: Iterable[ServerPod], now: dt.datetime) -> None:
        """The pods of a server as they are now; ``spot``: the names of its spot pools."""
        present = {pod.uid for pod in pods if self.note(server, spot, pod, now)}
        alive = self._alive.get(server, {})
        for uid in [uid for uid in alive if uid not in present]:
            self._ended(server, alive.pop(uid), now.timestamp())
        if not alive:
            self._alive.pop(server, None)

    def note(self, server: str, spot: Collection[str], pod: ServerPod, now: dt.datetime) -> bool:
        """One pod as it is now; whether it has a node in a spot pool."""
        if pod.pool not in spot or pod.placed is None:
            return False
        alive = self._alive.setdefault(server, {})
        known = alive.setdefault(pod.uid, _Alive(pod.pool, pod.placed.timestamp()))
        if known.lost_at is None and (pod.is_ending or (pod.is_lost and not pod.terminating)):
            known.lost_at = now.timestamp()
        known.deleted = known.deleted or (pod.terminating and not pod.by_force)
        return True

    def forget(self, server: str) -> None:
        """The server is gone, and its pods with it: nothing was taken away."""
        self._alive.pop(server, None)

    def only_spot(
        self,
        servers: Mapping[str, Object],
        *,
        lost: int,
        seconds: Callable[[Object, str], float],
        now: float,
    ) -> str:
        """Why a job may not go to the pools of these servers, which are all of spot capacity; empty: it may.

        ``lost``: how many of its attempts were; ``seconds(server, pool)``: how long it would take (decisions.md, 13).
        """
        why = ""
        for key, server in sorted(servers.items()):
            for pool in pool_names(server):
                life = self.life(key, pool, now)
                if not is_spot(pool_of(server, pool)):
                    return ""
                if lost >= LOSSES_ON_SPOT:
                    why = f"it was lost {lost} times, and every pool is of spot capacity"
                elif life is not None and seconds(server, pool) > life:
                    takes = seconds(server, pool)
                    why = f"it takes about {takes:.0f} s, and pods of spot pool {pool} live for {life:.0f} s"
                else:
                    return ""
        return why

    def _ended(self, server: str, pod: _Alive, now: float) -> None:
        lost = pod.lost_at is not None or not pod.deleted
        end = now if pod.lost_at is None else pod.lost_at
        self.lives.add(f"{server}/{pod.pool}", Life(max(end - pod.since, 0.0), lost, now))
        self._known.pop((server, pod.pool), None)

    def life(self, server: str, pool: str, now: float) -> float | None:
        """How long the pods of a spot pool live, in seconds; None: nothing can be said."""
        computed = self._known.get((server, pool))
        if computed is None or now - computed[0] > _FRESH:
            ages = (now - pod.since for pod in self._alive.get(server, {}).values() if pod.pool == pool)
            computed = self._known[server, pool] = (now, self.lives.median(f"{server}/{pool}", ages, now))
        return computed[1]


def pool_names(server: Object) -> list[str]:
    """The pools where the server's pods may go, also before one is there."""
    pools = (server["spec"].get("gpu") or {}).get("pools") or []
    return [str(pool.get("name")) for pool in pools] or ["default"]


def pool_of(server: Object, name: str) -> Object:
    """The pool of that name as the ModelServer's spec has it; empty: it has none (any more)."""
    pools = (server["spec"].get("gpu") or {}).get("pools") or []
    return next((pool for pool in pools if pool.get("name") == name), {})


def is_spot(pool: Object) -> bool:
    """Whether the pool, as a spec has it, is of capacity that may be taken away."""
    return bool(pool.get("capacity") == Capacity.SPOT)


def spot_pools(server: Object) -> frozenset[str]:
    """The names of the server's spot pools."""
    return frozenset(name for name in pool_names(server) if is_spot(pool_of(server, name)))
