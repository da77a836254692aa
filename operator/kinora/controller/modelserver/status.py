"""The status of a ModelServer from its facts: conditions with a reason and a message, counts, pools. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinora.api import reasons
from kinora.api.modelserver import ModelServerSpec
from kinora.api.transitions import clip, rfc3339
from kinora.controller.modelserver.desired import selector
from kinora.controller.modelserver.refuse import Refusal
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot
from kinora.controller.modelserver.weights import Volume

Body = dict[str, Any]
_BAD_WEIGHTS = frozenset({reasons.WEIGHTS_MISSING, reasons.WEIGHTS_CHANGED, reasons.WEIGHTS_VERIFYING})


@dataclass(frozen=True)
class Facts:
    """What the decision found besides the snapshot."""

    spec: ModelServerSpec
    current_hash: str
    missing_claims: tuple[str, ...]
    volume: Volume


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
        Verdict("True", reasons.ALL_READY, f"{len(serving)} of {facts.spec.replicas} pods serve")
        if serving
        else _why_none(pods, facts, weights)
    )
    settled = len(serving) == facts.spec.replicas == len(snapshot.pods) and all(
        pod.template_hash == facts.current_hash for pod in snapshot.pods
    )
    reconciling = (
        Verdict("False", reasons.ALL_READY, "")
        if settled
        else Verdict("True", reasons.PROGRESSING, f"{len(serving)} of {facts.spec.replicas} pods serve")
    )
    conditions = {
        "WeightsReady": weights,
        "Available": available,
        "Ready": _ready(facts, weights, available),
        "Reconciling": reconciling,
        "Stalled": Verdict("False", reasons.PROGRESSING if not settled else reasons.ALL_READY, ""),
    }
    status = {**_status(snapshot, conditions), **(facts.volume.status or {})}
    pool = facts.spec.gpu.pools[0].name if facts.spec.gpu.pools else "default"
    unscheduled = next((pod.unscheduled_message for pod in pods if pod.unscheduled_message), None)
    told = {"message": clip(unscheduled)} if unscheduled else {}  # a null in a list is pruned: it would always differ
    status["pools"] = [{"name": pool, "replicas": len(pods), **told}]
    return status


def _ready(facts: Facts, weights: Verdict, available: Verdict) -> Verdict:
    if facts.spec.replicas == 0 and weights.status != "False" and not facts.missing_claims:
        return Verdict("True", reasons.SCALED_TO_ZERO, "spec.replicas is 0; raise it to render")
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
        return Verdict("True", reasons.WEIGHTS_PRESENT, "every weight file is present and verified")
    for condition in (snapshot.server.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "WeightsReady" and condition.get("status") == "True":
            return Verdict("True", condition.get("reason", ""), condition.get("message", ""))
    return Verdict("Unknown", reasons.WEIGHTS_UNKNOWN, "no pod has looked at the weights yet")


def _why_none(pods: list[ServerPod], facts: Facts, weights: Verdict) -> Verdict:
    """Why no pod serves: the most telling reason first."""
    if weights.status == "False":
        return weights
    if facts.spec.replicas == 0:
        return Verdict("False", reasons.SCALED_TO_ZERO, "spec.replicas is 0; raise it to render")
    for pod in pods:
        if pod.unscheduled_message:
            return Verdict("False", reasons.POD_UNSCHEDULABLE, f"{pod.name}: {pod.unscheduled_message}")
        if pod.waiting_message:
            return Verdict("False", reasons.NO_READY_PODS, f"{pod.name}: {pod.waiting_message}")
    for pod in pods:
        if pod.engine_reason:
            return Verdict("False", pod.engine_reason, f"{pod.name}: {pod.engine_message}".rstrip(": "))
    return Verdict("False", reasons.ENGINE_STARTING, f"{len(pods)} of {facts.spec.replicas} pods are starting")


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
