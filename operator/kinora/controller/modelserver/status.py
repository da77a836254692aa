"""The status of a ModelServer from its facts: conditions with a reason and a message, counts, pools. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kinora.api import reasons
from kinora.api.modelserver import ModelServerSpec, Pool
from kinora.api.transitions import clip, parse_time, rfc3339
from kinora.controller.modelserver.desired import selector
from kinora.controller.modelserver.pod import pools_of
from kinora.controller.modelserver.refuse import Refusal
from kinora.controller.modelserver.snapshot import PodRefusal, ServerPod, ServerSnapshot
from kinora.controller.modelserver.weights import Volume
from kinora.controller.scheduling.fleet import Fleet, Rest
from kinora.controller.scheduling.scale import Scale

Body = dict[str, Any]
_BAD_WEIGHTS = frozenset({reasons.WEIGHTS_MISSING, reasons.WEIGHTS_CHANGED, reasons.WEIGHTS_VERIFYING})


@dataclass(frozen=True)
class Facts:
    """What the decision found besides the snapshot."""

    spec: ModelServerSpec
    hashes: Mapping[str, str]
    "What a pod made now would carry, by pool."
    missing_claims: tuple[str, ...]
    replicas: int
    "How many pods are wanted: spec.replicas, or what the autoscaler decided."
    fleet: Fleet
    volume: Volume
    scaled: Scale | None = None
    cold_start: float | None = None
    performance: Mapping[str, Any] = field(default_factory=dict)
    backlog_seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """One condition's value."""

    status: str
    reason: str
    message: str


def _conditions(
    wanted: Mapping[str, Verdict], *, previous: Mapping[str, Any], generation: int, now: dt.datetime
) -> list[Body]:
    known = {condition.get("type"): condition for condition in previous.get("conditions") or []}
    out = []
    for name, verdict in wanted.items():
        old = known.get(name, {})
        same = old.get("status") == verdict.status and old.get("lastTransitionTime")
        out.append(
            {
                "type": name,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": clip(verdict.message),
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if same else rfc3339(now),
            }
        )
    return out


def refused_status(snapshot: ServerSnapshot, refusal: Refusal) -> Body:
    """Stalled: nothing happens until the spec changes."""
    no = Verdict("False", refusal.reason, refusal.message)
    return _status(
        snapshot,
        {
            "Ready": no,
            "Available": no,
            "WeightsReady": Verdict("Unknown", refusal.reason, refusal.message),
            "Reconciling": no,
            "Stalled": Verdict("True", refusal.reason, refusal.message),
        },
    )


def server_status(snapshot: ServerSnapshot, facts: Facts) -> Body:
    """The status of a server whose spec is accepted."""
    pods = [pod for pod in snapshot.pods if not pod.terminating and not pod.is_lost]
    serving = [pod for pod in pods if pod.serves]
    weights = _weights(pods, facts, snapshot)
    available = (
        Verdict("True", reasons.ALL_READY, f"{len(serving)} of {facts.replicas} pods serve")
        if serving
        else _why_none(pods, facts, weights, snapshot.refusals)
    )
    settled = len(serving) == facts.replicas == len(snapshot.pods) and all(
        pod.template_hash == facts.hashes.get(pod.pool) for pod in snapshot.pods
    )
    reconciling = (
        Verdict("False", reasons.ALL_READY, "")
        if settled
        else Verdict("True", reasons.PROGRESSING, f"{len(serving)} of {facts.replicas} pods serve")
    )
    conditions = {
        "WeightsReady": weights,
        "Available": available,
        "Ready": _ready(facts, weights, available),
        "Reconciling": reconciling,
        "Stalled": Verdict("False", reasons.PROGRESSING if not settled else reasons.ALL_READY, ""),
    }
    if facts.scaled is not None:
        told = "spec.autoscaling decides; spec.replicas is not read"
        conditions["Autoscaling"] = Verdict("True", reasons.AUTOSCALING, told)
    status = {**_status(snapshot, conditions), **(facts.volume.status or {})}
    status["pools"] = _pools(snapshot, facts, pods)
    status["backlogSeconds"] = round(facts.backlog_seconds)
    if facts.cold_start is not None:
        status["coldStart"] = {"seconds": round(facts.cold_start, 1)}
    if facts.performance:
        status["performance"] = dict(facts.performance)
    status["lastScale"] = _last_scale(snapshot, facts) if facts.scaled is not None else None
    return status


def _pools(snapshot: ServerSnapshot, facts: Facts, pods: list[ServerPod]) -> list[Body]:
    before = {told.get("name"): told for told in (snapshot.server.get("status") or {}).get("pools") or []}
    rests = {rest.pool: rest for rest in facts.fleet.rests}
    return [
        _pool(pool, facts, before.get(pool.name) or {}, rests.get(pool.name), pods, snapshot)
        for pool in pools_of(facts.spec)
    ]


def _pool(  # noqa: PLR0917 - all that is known of a pool
    pool: Pool,
    facts: Facts,
    before: Mapping[str, Any],
    rest: Rest | None,
    pods: list[ServerPod],
    snapshot: ServerSnapshot,
) -> Body:
    """How many pods a pool has, and in the provider's own words why not more."""
    mine = [pod for pod in pods if pod.pool == pool.name]
    message = _pool_message(pool, facts, mine, snapshot)
    until, refusals = before.get("backoffUntilTime"), int(before.get("refusals") or 0)
    if rest is not None:
        until = rfc3339(dt.datetime.fromtimestamp(rest.until, dt.UTC)) if rest.rests else None
        refusals, message = rest.rests, rest.message
    elif until and parse_time(until) > snapshot.now:
        message = message or str(before.get("message") or "")
    else:
        until = None
    if any(pod.node for pod in mine) and until is None:
        refusals = 0  # it gives again
    # A null in a list is pruned by the API server, and would always differ: what is not is left out.
    extra = {"backoffUntilTime": until, "refusals": refusals, "message": clip(message) if message else None}
    return {"name": pool.name, "replicas": len(mine)} | {key: value for key, value in extra.items() if value}


def _pool_message(pool: Pool, facts: Facts, mine: list[ServerPod], snapshot: ServerSnapshot) -> str:
    refusal = snapshot.refusals.get(pool.name)
    said = refusal.message if refusal else next((pod.refused_message for pod in mine if pod.refused_message), "")
    goes = next((f"{pod.name} gets no new job: {pod.notice}" for pod in mine if pod.notice), "")
    waits = next((_gated(pod) for pod in mine if pod.gates), "")
    full = pool.max_replicas is not None and pool.max_replicas <= len(mine) < facts.replicas and facts.fleet.blocked
    limit = f"maxReplicas is {pool.max_replicas}, and {facts.replicas} pods are wanted" if full else ""
    return said or goes or waits or limit


def _gated(pod: ServerPod) -> str:
    return f"{pod.name} waits for its scheduling gates: {', '.join(pod.gates)}"


def _last_scale(snapshot: ServerSnapshot, facts: Facts) -> list[Body]:
    """The last five decisions, the newest first; a new one only when another number is wanted."""
    before = list((snapshot.server.get("status") or {}).get("lastScale") or [])
    if facts.scaled is None:
        return before
    wanted = facts.scaled.replicas
    present = int(before[0]["toReplicas"]) if before else sum(1 for pod in snapshot.pods if not pod.terminating)
    if wanted == present:
        return before
    entry = {"time": rfc3339(snapshot.now), "fromReplicas": present, "toReplicas": wanted}
    return [{**entry, "reason": clip(facts.scaled.reason)}, *before][:5]


def _ready(facts: Facts, weights: Verdict, available: Verdict) -> Verdict:
    if facts.replicas == 0 and weights.status != "False" and not facts.missing_claims:
        return Verdict("True", reasons.SCALED_TO_ZERO, "no pod is wanted")
    return available


def _weights(pods: list[ServerPod], facts: Facts, snapshot: ServerSnapshot) -> Verdict:
    if facts.missing_claims:
        return Verdict("False", reasons.CLAIM_MISSING, f"no such claim: {', '.join(facts.missing_claims)}")
    if not facts.volume.ready:
        return Verdict("False", facts.volume.reason, facts.volume.message)
    lacking = next((pod for pod in pods if pod.engine_reason in _BAD_WEIGHTS), None)
    if lacking:
        return Verdict("False", lacking.engine_reason, lacking.engine_message)
    if facts.volume.sourced or any(pod.serves for pod in pods):
        without = next((f"; preset Fast: {pod.preset_message}" for pod in pods if pod.preset_message), "")
        return Verdict("True", reasons.WEIGHTS_PRESENT, f"every weight file is present and verified{without}")
    for condition in (snapshot.server.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "WeightsReady" and condition.get("status") == "True":
            return Verdict("True", condition.get("reason", ""), condition.get("message", ""))
    return Verdict("Unknown", reasons.WEIGHTS_UNKNOWN, "no pod has looked at the weights yet")


def _why_none(pods: list[ServerPod], facts: Facts, weights: Verdict, refusals: Mapping[str, PodRefusal]) -> Verdict:
    """Why no pod serves: the most telling reason first."""
    if weights.status == "False":
        return weights
    if facts.replicas == 0:
        return Verdict("False", reasons.SCALED_TO_ZERO, "no pod is wanted")
    if refusals:
        pool, refusal = next(iter(refusals.items()))
        return Verdict("False", reasons.POD_REFUSED, f"pool {pool}: {refusal.message}")
    for pod in pods:
        if pod.unscheduled_message:
            return Verdict("False", reasons.POD_UNSCHEDULABLE, f"{pod.name}: {pod.unscheduled_message}")
        if pod.waiting_message:
            return Verdict("False", reasons.NO_READY_PODS, f"{pod.name}: {pod.waiting_message}")
        if pod.refused_message:
            return Verdict("False", reasons.POD_UNSCHEDULABLE, f"{pod.name}: {pod.refused_message}")
    for pod in pods:
        if pod.gates:
            return Verdict("False", reasons.POD_GATED, _gated(pod))
    for pod in pods:
        if pod.engine_reason:
            return Verdict("False", pod.engine_reason, f"{pod.name}: {pod.engine_message}".rstrip(": "))
    return Verdict("False", reasons.ENGINE_STARTING, f"{len(pods)} of {facts.replicas} pods are starting")


def _status(snapshot: ServerSnapshot, wanted: Mapping[str, Verdict]) -> Body:
    server = snapshot.server
    generation = int(server["metadata"].get("generation", 1))
    pods = [pod for pod in snapshot.pods if not pod.is_lost]
    return {
        "observedGeneration": generation,
        "conditions": _conditions(wanted, previous=server.get("status") or {}, generation=generation, now=snapshot.now),
        "replicas": len(pods),
        "readyReplicas": sum(1 for pod in pods if pod.serves),
        "busyReplicas": sum(1 for pod in pods if pod.busy),
        "backlog": snapshot.backlog,
        "selector": selector(server),
    }
