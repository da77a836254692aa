"""What to do about one ModelServer: which children to make, which pods to let go, and its status.

A pod that renders is never deleted (invariant 5). Which pods stay, go and come is scheduling's decision (`fleet`); here
it becomes objects to create and delete. Pods are deleted gracefully, always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kinora.api import names
from kinora.api.modelserver import ModelServerSpec
from kinora.catalogue.load import Catalogue
from kinora.controller.modelserver import desired, refuse
from kinora.controller.modelserver.pod import desired_pod, pools_of, template_hash
from kinora.controller.modelserver.refuse import Refusal
from kinora.controller.modelserver.snapshot import ServerSnapshot
from kinora.controller.modelserver.status import Facts, refused_status, server_status
from kinora.controller.modelserver.weights import Volume
from kinora.controller.plan import Create, Delete, Note, Plan
from kinora.controller.scheduling.fleet import Fleet, Start
from kinora.controller.scheduling.scale import Scale
from kinora.controller.settings import Settings
from kinora.kube.resources import CLAIM, JOB, NETWORK_POLICY, POD, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT


@dataclass(frozen=True)
class Outcome:
    """What scheduling decided for this server. ``scaled``: None where spec.replicas rules."""

    fleet: Fleet
    scaled: Scale | None = None
    cold_start: float | None = None
    "Measured seconds; None: not measured yet."
    performance: Mapping[str, Any] = field(default_factory=dict)
    backlog_seconds: float = 0.0
    look_again: float | None = None
    volume: Volume = field(default_factory=lambda: Volume(True, sourced=False))


def hashes(snapshot: ServerSnapshot, spec: ModelServerSpec, settings: Settings) -> dict[str, str]:
    """The hash that a pod made now would carry, by pool."""
    return {pool.name: template_hash(snapshot.server, spec, settings, pool, snapshot.entry) for pool in pools_of(spec)}


def accepted(snapshot: ServerSnapshot, catalogue: Catalogue, settings: Settings) -> ModelServerSpec | Refusal:
    """The spec, if pods may be made from it."""
    spec = refuse.parse(snapshot.server)
    if isinstance(spec, Refusal):
        return spec
    model = refuse.check(spec, catalogue, settings)
    return model if isinstance(model, Refusal) else spec


def refused(snapshot: ServerSnapshot, refusal: Refusal) -> Plan:
    """Nothing happens until the spec changes."""
    return Plan(status=refused_status(snapshot, refusal), notes=_refusal_notes(snapshot, refusal))


def decide(
    snapshot: ServerSnapshot,
    spec: ModelServerSpec,
    settings: Settings,
    outcome: Outcome,
    *,
    children_made: bool = False,
) -> Plan:
    """The plan for one ModelServer. ``children_made``: this process has made the children beside the pods."""
    server, fleet = snapshot.server, outcome.fleet
    missing_claims = _missing_claims(snapshot, spec)
    replicas = spec.replicas if outcome.scaled is None else outcome.scaled.replicas
    facts = Facts(
        spec=spec,
        hashes=hashes(snapshot, spec, settings),
        missing_claims=missing_claims,
        replicas=replicas,
        fleet=fleet,
        scaled=outcome.scaled,
        cold_start=outcome.cold_start,
        performance=outcome.performance,
        backlog_seconds=outcome.backlog_seconds,
        volume=outcome.volume,
    )
    volume = outcome.volume
    status = server_status(snapshot, facts)
    return Plan(
        create=(() if children_made else _children(snapshot, spec, settings))
        + (() if missing_claims or not volume.ready else _pods(snapshot, spec, settings, fleet.starts))
        + ((Create(JOB, volume.create),) if volume.create and not missing_claims else ()),
        delete=tuple(Delete(POD, server["metadata"]["namespace"], pod.name, pod.uid) for pod in fleet.going)
        + tuple(Delete(JOB, server["metadata"]["namespace"], run.name, run.uid) for run in volume.delete),
        status=status,
        notes=tuple(_notes(snapshot, status, fleet)),
        requeue_after=_soonest(_next_look(snapshot), outcome.look_again, volume.again_in),
    )


def _notes(snapshot: ServerSnapshot, status: desired.Body, fleet: Fleet) -> Iterator[Note]:
    """Events of what is not the normal story: another scale, a pool that refused."""
    before = (snapshot.server.get("status") or {}).get("lastScale") or []
    now = status.get("lastScale") or []
    if now and now != before:
        last = now[0]
        yield Note("Normal", "Scaled", f"{last['fromReplicas']} -> {last['toReplicas']}: {last['reason']}", "Scale")
    for rest in fleet.rests:
        if rest.rests:
            yield Note("Warning", "PoolRefused", f"pool {rest.pool}: {rest.message}", "Fallback")


def _soonest(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)


def _next_look(snapshot: ServerSnapshot) -> float | None:
    """When the next terminating pod gives its slot free, whether or not it ends, or a refused pod is tried again."""
    left = [seconds for pod in snapshot.pods if (seconds := pod.overdue_in(snapshot.now)) is not None and seconds > 0]
    tries = [(refusal.until - snapshot.now).total_seconds() for refusal in snapshot.refusals.values()]
    left += [seconds for seconds in tries if seconds > 0]
    return min(left) + 0.5 if left else None


def _refusal_notes(snapshot: ServerSnapshot, refusal: Refusal) -> tuple[Note, ...]:
    """One event when the refusal is new."""
    for condition in (snapshot.server.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Stalled" and condition.get("message") == refusal.message:
            return ()
    return (Note("Warning", refusal.reason, refusal.message, "Validate"),)


def _missing_claims(snapshot: ServerSnapshot, spec: ModelServerSpec) -> tuple[str, ...]:
    wanted = {
        f"spec.weights.claimName {spec.weights.claim_name}": spec.weights.claim_name,
        f"spec.artifacts.claimName {spec.artifacts.claim_name}": spec.artifacts.claim_name,
        **{f"spec.inputClaims {entry.claim_name}": entry.claim_name for entry in spec.input_claims},
        **{
            f"spec.weights.sources {source.url}": urlsplit(source.url).netloc
            for source in spec.weights.sources
            if source.url.startswith("pvc://")
        },
    }
    return tuple(label for label, name in wanted.items() if name and name not in snapshot.claims)


def _children(snapshot: ServerSnapshot, spec: ModelServerSpec, settings: Settings) -> tuple[Create, ...]:
    server = snapshot.server
    metadata = server["metadata"]
    wanted = [
        Create(SERVICE_ACCOUNT, desired.service_account(metadata["namespace"])),
        Create(ROLE_BINDING, desired.role_binding(metadata["namespace"])),
        Create(SERVICE, desired.service(server)),
    ]
    if spec.weights.sources:
        account = names.WEIGHTS_SERVICE_ACCOUNT
        wanted.append(Create(SERVICE_ACCOUNT, desired.service_account(metadata["namespace"], account)))
        wanted.append(Create(ROLE_BINDING, desired.role_binding(metadata["namespace"], account)))
    if settings.live and settings.live_policy:
        policy = desired.network_policy(metadata["namespace"], settings.namespace)
        wanted.append(Create(NETWORK_POLICY, policy, optional=True))
    claim = desired.claim(server, spec)
    if claim:
        wanted.append(Create(CLAIM, claim))
    return tuple(wanted)


def _pods(
    snapshot: ServerSnapshot, spec: ModelServerSpec, settings: Settings, starts: tuple[Start, ...]
) -> tuple[Create, ...]:
    taken = {pod.name for pod in snapshot.pods}
    return tuple(Create(POD, _fresh_pod(snapshot, spec, settings, start=start, taken=taken)) for start in starts)


def _fresh_pod(
    snapshot: ServerSnapshot, spec: ModelServerSpec, settings: Settings, *, start: Start, taken: set[str]
) -> dict[str, object]:
    """The pod of the slot's lowest incarnation whose name no existing pod has."""
    metadata = snapshot.server["metadata"]
    pool = next(pool for pool in pools_of(spec) if pool.name == start.pool)
    digest = template_hash(snapshot.server, spec, settings, pool, snapshot.entry)
    incarnation = 0
    while names.pod_name(metadata["name"], metadata["uid"], digest, start.slot, incarnation) in taken:
        incarnation += 1
    return desired_pod(
        snapshot.server, spec, settings, pool=pool, slot=start.slot, incarnation=incarnation, entry=snapshot.entry
    )
