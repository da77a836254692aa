"""What to do about one ModelServer: which children to make, which pods to let go, and its status.

A pod that renders is never deleted (invariant 5): scale-down and rolling update first stop binding to a pod
(``cordoned``), and delete it once it is idle. Pods are deleted gracefully, always.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from kinora.api import names, reasons
from kinora.api.modelserver import ModelServerSpec
from kinora.catalogue.load import Catalogue
from kinora.controller.modelserver import desired, refuse, weights
from kinora.controller.modelserver.refuse import Refusal
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot
from kinora.controller.modelserver.status import Facts, refused_status, server_status
from kinora.controller.plan import Create, Delete, Note, Plan
from kinora.controller.settings import Settings
from kinora.kube.resources import CLAIM, JOB, POD, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT

# Reasons after which the pod, not the engine, is replaced (invariant 9).
_REPLACE_POD = frozenset({reasons.CUDA_FAULT})


@dataclass(frozen=True)
class Fleet:
    """The pods of a server by what becomes of them."""

    kept: tuple[ServerPod, ...]
    going: tuple[ServerPod, ...]  # to delete now
    cordoned: frozenset[str]  # UIDs that get no new job
    missing_slots: tuple[int, ...]


def sort_pods(
    pods: tuple[ServerPod, ...], spec: ModelServerSpec, current_hash: str, now: dt.datetime | None = None
) -> Fleet:
    """Decide every pod's fate.

    One pod a slot below ``replicas``; lost and faulty pods go at once, surplus ones when idle, outdated ones when
    idle and within maxUnavailable. Without ``now`` every terminating pod holds its slot.
    """
    alive = [pod for pod in pods if not pod.terminating]
    going = [pod for pod in alive if pod.is_lost or (pod.engine_reason in _REPLACE_POD and not pod.busy)]
    rest = [pod for pod in alive if pod not in going]
    owners: dict[int, ServerPod] = {}
    surplus: list[ServerPod] = []
    for pod in sorted(rest, key=lambda pod: (not pod.busy, pod.template_hash != current_hash, pod.name)):
        if 0 <= pod.slot < spec.replicas and pod.slot not in owners:
            owners[pod.slot] = pod
        else:
            surplus.append(pod)
    outdated = _to_update(list(owners.values()), spec, current_hash)
    leaving = surplus + outdated
    going += [pod for pod in leaving if not pod.busy]
    gone = {pod.uid for pod in going}
    kept = tuple(pod for pod in rest if pod.uid not in gone)
    filled = {pod.slot for pod in kept}
    # A slot whose pod still terminates is not filled again before it is gone: no spare GPU is needed to replace it.
    # One that outlives its grace (its node is gone) would hold it for ever.
    blocked = {pod.slot for pod in pods if pod.terminating and not _is_overdue(pod, now)} | {pod.slot for pod in going}
    missing = tuple(slot for slot in range(spec.replicas) if slot not in filled | blocked)
    return Fleet(kept, tuple(going), frozenset(pod.uid for pod in leaving) | gone, missing)


def _is_overdue(pod: ServerPod, now: dt.datetime | None) -> bool:
    left = pod.overdue_in(now) if now is not None else None
    return left is not None and left <= 0


def _to_update(owners: list[ServerPod], spec: ModelServerSpec, current_hash: str) -> list[ServerPod]:
    """The outdated pods that may be unavailable now: broken ones first, then idle ones, then the lowest slots."""
    outdated = [pod for pod in owners if pod.template_hash != current_hash]
    unavailable = sum(1 for pod in owners if pod.template_hash == current_hash and not pod.serves)
    unavailable += spec.replicas - len(owners)
    broken = [pod for pod in outdated if not pod.serves]
    room = max(0, spec.update.max_unavailable - unavailable - len(broken))
    serving = sorted((pod for pod in outdated if pod.serves), key=lambda pod: (pod.busy, pod.slot))
    return broken + serving[:room]


def decide(snapshot: ServerSnapshot, catalogue: Catalogue, settings: Settings, *, children_made: bool = False) -> Plan:
    """The plan for one ModelServer. ``children_made``: this process has made the children beside the pods."""
    server = snapshot.server
    if server["metadata"].get("deletionTimestamp"):
        return Plan()
    spec = refuse.parse(server)
    if isinstance(spec, Refusal):
        return _refused(snapshot, spec)
    model = refuse.check(spec, catalogue, settings.engine_image, settings.weights_rules)
    if isinstance(model, Refusal):
        return _refused(snapshot, model)
    current_hash = desired.template_hash(spec, spec.engine.image or settings.engine_image)
    volume = weights.look(snapshot, spec, model, settings)
    fleet = _fleet(snapshot, spec, current_hash, volume)
    missing_claims = _missing_claims(snapshot, spec)
    facts = Facts(spec=spec, current_hash=current_hash, missing_claims=missing_claims, volume=volume)
    return Plan(
        create=(() if children_made else _children(snapshot, spec))
        + (() if missing_claims or not volume.ready else _pods(snapshot, spec, settings, fleet))
        + ((Create(JOB, volume.create),) if volume.create and not missing_claims else ()),
        delete=tuple(Delete(POD, server["metadata"]["namespace"], pod.name, pod.uid) for pod in fleet.going)
        + tuple(Delete(JOB, server["metadata"]["namespace"], run.name, run.uid) for run in volume.delete),
        status=server_status(snapshot, facts),
        requeue_after=min(filter(None, (_next_look(snapshot), volume.again_in)), default=None),
    )


def _fleet(snapshot: ServerSnapshot, spec: ModelServerSpec, current_hash: str, volume: weights.Volume) -> Fleet:
    """The pods sorted; while other weights are on their way, none is outdated: those that serve go on serving."""
    pods = snapshot.pods
    if not volume.ready:
        pods = tuple(replace(pod, template_hash=current_hash) for pod in pods)
    return sort_pods(pods, spec, current_hash, snapshot.now)


def _next_look(snapshot: ServerSnapshot) -> float | None:
    """When the next terminating pod gives its slot free, whether or not it ends."""
    left = [seconds for pod in snapshot.pods if (seconds := pod.overdue_in(snapshot.now)) is not None and seconds > 0]
    return min(left) + 0.5 if left else None


def cordoned(snapshot: ServerSnapshot, catalogue: Catalogue, settings: Settings) -> frozenset[str]:
    """UIDs of the pods that must not get another job (surplus, outdated and going); all, for a broken spec."""
    spec = refuse.parse(snapshot.server)
    if isinstance(spec, Refusal):
        return frozenset(pod.uid for pod in snapshot.pods)
    current_hash = desired.template_hash(spec, spec.engine.image or settings.engine_image)
    pods = snapshot.pods
    if spec.weights.sources and any(pod.template_hash != current_hash for pod in pods):
        model = refuse.check(spec, catalogue, settings.engine_image, settings.weights_rules)
        if not isinstance(model, Refusal) and not weights.look(snapshot, spec, model, settings).ready:
            pods = tuple(replace(pod, template_hash=current_hash) for pod in pods)
    return sort_pods(pods, spec, current_hash).cordoned


def _refused(snapshot: ServerSnapshot, refusal: Refusal) -> Plan:
    return Plan(status=refused_status(snapshot, refusal), notes=_refusal_notes(snapshot, refusal))


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


def _children(snapshot: ServerSnapshot, spec: ModelServerSpec) -> tuple[Create, ...]:
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
    claim = desired.claim(server, spec)
    if claim:
        wanted.append(Create(CLAIM, claim))
    return tuple(wanted)


def _pods(snapshot: ServerSnapshot, spec: ModelServerSpec, settings: Settings, fleet: Fleet) -> tuple[Create, ...]:
    taken = {pod.name for pod in snapshot.pods}
    return tuple(
        Create(POD, _fresh_pod(snapshot, spec, settings, slot=slot, taken=taken)) for slot in fleet.missing_slots
    )


def _fresh_pod(
    snapshot: ServerSnapshot, spec: ModelServerSpec, settings: Settings, *, slot: int, taken: set[str]
) -> dict[str, object]:
    """The pod of the slot's lowest incarnation whose name no existing pod has."""
    metadata = snapshot.server["metadata"]
    digest = desired.template_hash(spec, spec.engine.image or settings.engine_image)
    incarnation = 0
    while names.pod_name(metadata["name"], metadata["uid"], digest, slot, incarnation) in taken:
        incarnation += 1
    return desired.pod(snapshot.server, spec, settings, slot=slot, incarnation=incarnation)
