"""What is said of a pod's future by its conditions and its node: spot notices, drains, nodes that are away. Pure.

The providers' words are data (``controller/pools/providers``). A virtual node's conditions and taints say nothing: one
such node stands for a whole zone (decisions.md, 15). Nothing is read of events: what they tell is in a condition, a
taint or the pod's deletion as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kinora.controller.pools.load import Providers
from kinora.controller.pools.model import Sign, VirtualNodes

Object = Mapping[str, Any]
_AWAY = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")


@dataclass(frozen=True)
class Notice:
    """Why a pod gets no new job; empty: nothing is said.

    ``final``: its capacity goes, whatever happens, and the next pod would not land there again. Without that an idle
    pod is not replaced: a node that only says so would take, and lose, one pod after the other.
    """

    text: str = ""
    final: bool = False


def notice(pod: Object, node: Object | None, providers: Providers) -> Notice:
    """What is said of the pod's future; ``node`` is None where it has none, or it is not known."""
    for condition in _true(pod, providers.notices.pod_conditions):
        return Notice(_told("pod", condition), final=True)
    if node is None or is_virtual(node, providers.virtual_nodes):
        return Notice()
    said = _said(node, providers)
    if said:
        return Notice(said, final=_takes_no_more(node, pod))
    return _for_now(node)


def _said(node: Object, providers: Providers) -> str:
    """Why the node will be gone."""
    name = node["metadata"]["name"]
    if node["metadata"].get("deletionTimestamp"):
        return f"node {name} is being deleted"
    for condition in _true(node, providers.notices.node_conditions):
        return _told(f"node {name}", condition)
    for taint in _taints(node):
        for known in providers.notices.node_taints:
            if taint.get("key") == known.key and known.value in {None, taint.get("value", "")}:
                return f"node {name} has the taint {taint['key']}"
    return ""


def _taints(node: Object) -> list[Object]:
    return (node.get("spec") or {}).get("taints") or []


def _takes_no_more(node: Object, pod: Object) -> bool:
    """Whether a pod like this one would not be scheduled there now."""
    spec = node.get("spec") or {}
    closed = [taint for taint in _taints(node) if taint.get("effect") in {"NoSchedule", "NoExecute"}]
    if spec.get("unschedulable"):
        closed = [*closed, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    tolerations = (pod.get("spec") or {}).get("tolerations") or []
    return any(not any(_tolerates(one, taint) for one in tolerations) for taint in closed)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint.get("key")}
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")


def _for_now(node: Object) -> Notice:
    """What may pass: a node that is away, or cordoned. Its condition leads: the taints follow it, both ways."""
    name = node["metadata"]["name"]
    conditions = (node.get("status") or {}).get("conditions") or []
    is_ready = any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)
    for taint in _taints(node):
        if taint.get("key") in _AWAY and not is_ready:
            return Notice(f"node {name} has the taint {taint['key']}")
    if (node.get("spec") or {}).get("unschedulable"):
        return Notice(f"node {name} is cordoned")
    return Notice()


def is_virtual(node: Object, known: VirtualNodes) -> bool:
    """Whether the node stands for a provider's capacity and not for one machine."""
    metadata = node["metadata"]
    labels = metadata.get("labels") or {}
    return (
        any(labels.get(key) == value for key, value in known.labels.items())
        or any(taint.get("key") in known.taint_keys for taint in _taints(node))
        or metadata["name"].startswith(known.name_prefixes)
    )


def node_mark(node: Object, providers: Providers) -> tuple[object, ...]:
    """What of a node a notice rests on: two equal marks give the same notice (a heartbeat changes none)."""
    spec = node.get("spec") or {}
    taints = tuple((taint.get("key"), taint.get("value", ""), taint.get("effect")) for taint in _taints(node))
    signs = tuple(
        (condition["type"], condition.get("message", ""))
        for condition in _true(node, providers.notices.node_conditions)
    )
    return bool(spec.get("unschedulable")), bool(node["metadata"].get("deletionTimestamp")), taints, signs


def _true(holder: Object, signs: Iterable[Sign]) -> Iterable[Object]:
    """The conditions of an object that are True and one of these signs."""
    known = {sign.type: sign for sign in signs}
    for condition in (holder.get("status") or {}).get("conditions") or []:
        sign = known.get(condition.get("type", ""))
        if sign is None or condition.get("status") != "True":
            continue
        message = str(condition.get("message", ""))
        if not sign.messages or any(word in message for word in sign.messages):
            yield condition


def _told(whose: str, condition: Object) -> str:
    parts = [condition.get("reason", ""), condition.get("message", "")]
    said = ": ".join(part for part in parts if part)
    return f"{whose} condition {condition['type']}" + (f": {said}" if said else "")
