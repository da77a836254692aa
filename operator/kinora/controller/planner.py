"""The plan for one ModelServer: its namespace's jobs and pods go through the decision function, its own part is kept.

All ModelServers of a namespace are decided together, because one may have to make room for another (decisions.md, 14);
each one's reconcile carries out its own part. The clocks of idle and pending pods run here.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kinora.api.modelserver import ModelServerSpec
from kinora.api.names import LIVE_SECRET, LIVE_SECRET_TYPE
from kinora.controller.binder import Binder
from kinora.controller.gather import Gatherer
from kinora.controller.models import Models
from kinora.controller.modelserver import decide as server_decide
from kinora.controller.modelserver import weights
from kinora.controller.modelserver.capacity import Ages, capacity
from kinora.controller.modelserver.refuse import Refusal
from kinora.controller.modelserver.snapshot import PodRefusal, ServerPod, ServerSnapshot
from kinora.controller.plan import Create, Plan
from kinora.controller.scheduling import decide as scheduling
from kinora.controller.scheduling.decide import Server
from kinora.controller.settings import Settings
from kinora.controller.spot import spot_pools
from kinora.controller.store import Store
from kinora.kube.resources import SECRET
from kinora.kube.secret_keys import KEY_BYTES, secret_body

Object = dict[str, Any]
LOOK_AGAIN: Final = 15.0
"Seconds between looks at a server that may have to scale though nothing happens: pods grow idle, or stay pending."


class Planner:
    """Plans one ModelServer after another."""

    def __init__(
        self,
        store: Store,
        gatherer: Gatherer,
        binder: Binder,
        models: Models,
        settings: Settings,
    ) -> None:
        self._store = store
        self._gatherer = gatherer
        self._binder = binder
        self._models = models
        self._settings = settings
        self._idle: dict[str, float] = {}  # pod UID -> since when (loop time) it serves and holds nothing
        self._pending: dict[str, float] = {}  # pod UID -> since when it has found no node

    def plan(self, server: Object, refusals: Mapping[str, PodRefusal], *, made: bool) -> Plan:
        """What to do about the server now.

        ``refusals``: by pool, why no pod was taken there lately. ``made``: its children beside the pods were made by
        this process.
        """
        name = f"{server['metadata']['namespace']}/{server['metadata']['name']}"
        if server["metadata"].get("deletionTimestamp"):
            self._binder.cordoned[name] = frozenset(self._store.pods_by_server.get(name, ()))
            return Plan()
        now = dt.datetime.now(dt.UTC)
        snapshot = replace(self._snapshot(server, now), refusals=refusals)
        self._gatherer.spots.see(name, spot_pools(server), snapshot.pods, now)
        spec = server_decide.accepted(snapshot, self._models.catalogue, self._settings)
        if isinstance(spec, Refusal):
            self._binder.cordoned[name] = frozenset(pod.uid for pod in snapshot.pods)
            return server_decide.refused(snapshot, spec)
        outcome = self._decide(server, snapshot, spec)
        self._binder.cordoned[name] = outcome.fleet.cordoned
        plan = server_decide.decide(snapshot, spec, self._settings, outcome, children_made=made)
        return plan if made or not self._settings.live else replace(plan, create=(*plan.create, _live_key(server)))

    def _snapshot(self, server: Object, now: dt.datetime) -> ServerSnapshot:
        return self._gatherer.server(server, now, self._binder.reserved)

    def _decide(self, server: Object, snapshot: ServerSnapshot, spec: ModelServerSpec) -> server_decide.Outcome:
        namespace, name = server["metadata"]["namespace"], server["metadata"]["name"]
        world = self._gatherer.world(namespace, self._binder.reserved, (), snapshot.now.timestamp())
        mine = self._capacity(snapshot, spec)
        decision = scheduling.decide(world, (mine, *self._others(namespace, name, snapshot.now)))
        learning, key = self._gatherer.learning, f"{namespace}/{name}"
        measured = learning.cold_start(server) if learning.has_started(key) else None
        fleet, scaled = decision.fleets[name], decision.scales.get(name)
        waits = bool(fleet.blocked or fleet.starts or any(one.pending_for is not None for one in mine.members))
        return server_decide.Outcome(
            fleet=fleet,
            scaled=scaled,
            cold_start=measured,
            performance=learning.performance(server),
            backlog_seconds=scheduling.backlog(world, name).seconds,
            look_again=_look_again(spec) if scaled is not None or waits else None,
            volume=self._volume(snapshot, spec),
        )

    def _others(self, namespace: str, name: str, now: dt.datetime) -> list[Server]:
        """The other ModelServers of the namespace, for what they could give."""
        out = []
        for other in self._gatherer.servers(namespace):
            server = self._store.servers.get(f"{namespace}/{other}")
            if other == name or server is None or server["metadata"].get("deletionTimestamp"):
                continue
            snapshot = self._snapshot(server, now)
            spec = server_decide.accepted(snapshot, self._models.catalogue, self._settings)
            if not isinstance(spec, Refusal):
                out.append(self._capacity(snapshot, spec))
        return out

    def _volume(self, snapshot: ServerSnapshot, spec: ModelServerSpec) -> weights.Volume:
        model = self._models.catalogue.get(spec.model)
        if model is None:
            raise LookupError(spec.model)  # refused before
        return weights.look(snapshot, spec, model, self._settings)

    def _capacity(self, snapshot: ServerSnapshot, spec: ModelServerSpec) -> Server:
        ages = Ages(
            idle={pod.uid: self._since(self._idle, pod.uid, pod.serves and not pod.busy) for pod in snapshot.pods},
            pending={pod.uid: since for pod in snapshot.pods if (since := self._pending_for(pod)) is not None},
        )
        self._forget()
        hashes = server_decide.hashes(snapshot, spec, self._settings)
        snapshot = weights.current(snapshot, self._volume(snapshot, spec), hashes)
        return capacity(snapshot, spec, hashes, self._gatherer.learning.cold_start(dict(snapshot.server)), ages)

    def _pending_for(self, pod: ServerPod) -> float | None:
        waits = not (pod.node or pod.gates or pod.terminating or pod.is_lost)  # a gate is somebody's leave to wait for
        seconds = self._since(self._pending, pod.uid, waits)
        return seconds if waits else None

    @staticmethod
    def _since(clock: dict[str, float], uid: str, holds: bool) -> float:
        now = asyncio.get_running_loop().time()
        if not holds:
            clock.pop(uid, None)
            return 0.0
        return now - clock.setdefault(uid, now)

    def forget(self, server: str) -> None:
        """The ModelServer is gone."""
        self._gatherer.spots.forget(server)

    def _forget(self) -> None:
        """Pods that are gone need no clocks."""
        known = self._store.pods_by_uid
        if len(self._idle) + len(self._pending) > 2 * len(known) + 64:
            for clock in (self._idle, self._pending):
                for uid in [uid for uid in clock if uid not in known]:
                    del clock[uid]


def _look_again(spec: ModelServerSpec) -> float:
    """Where pods may go after less idle time than LOOK_AGAIN, they are looked at when that is over."""
    return min(LOOK_AGAIN, spec.autoscaling.idle_seconds + 0.1) if spec.autoscaling else LOOK_AGAIN


def _live_key(server: Object) -> Create:
    """The namespace's key for listeners. It is random, and the first that is made stays: others are conflicts."""
    key = secrets.token_bytes(KEY_BYTES)
    body = secret_body(server["metadata"]["namespace"], key, name=LIVE_SECRET, kind=LIVE_SECRET_TYPE)
    return Create(SECRET, body, optional=True)
