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
    """Why a pod gets no new job; empty: nothing is said. ``final``: pod or node will go, whatever happens."""

    text: str = ""
    final: bool = False


def notice(pod: Object, node: Object | None, providers: Providers) -> Notice:
    """What is said of the pod's future; ``node`` is None where it has none, or it is not known."""
    for condition in _true(pod, providers.notices.pod_conditions):
        return Notice(_told("pod", condition), final=True)
    if node is None or is_virtual(node, providers.virtual_nodes):
        return Notice()
    name = node["metadata"]["name"]
    if node["metadata"].get("deletionTimestamp"):
        return Notice(f"node {name} is being deleted", final=True)
    for condition in _true(node, providers.notices.node_conditions):
        return Notice(_told(f"node {name}", condition), final=True)
    taints = (node.get("spec") or {}).get("taints") or []
    for taint in taints:
        for known in providers.notices.node_taints:
            if taint.get("key") == known.key and known.value in {None, taint.get("value", "")}:
                return Notice(f"node {name} has the taint {taint['key']}", final=True)
    return _for_now(name, node, taints)


def _for_now(name: str, node: Object, taints: Iterable[Object]) -> Notice:
    """What may pass: a node that is away, or cordoned."""
    for taint in taints:
        if taint.get("key") in _AWAY:
            return Notice(f"node {name} has the taint {taint['key']}")
    if (node.get("spec") or {}).get("unschedulable"):
        return Notice(f"node {name} is cordoned")
    return Notice()


def is_virtual(node: Object, known: VirtualNodes) -> bool:
    """Whether the node stands for a provider's capacity and not for one machine."""
    metadata = node["metadata"]
    labels = metadata.get("labels") or {}
    taints = (node.get("spec") or {}).get("taints") or []
    return (
        any(labels.get(key) == value for key, value in known.labels.items())
        or any(taint.get("key") in known.taint_keys for taint in taints)
        or metadata["name"].startswith(known.name_prefixes)
    )


def node_mark(node: Object, providers: Providers) -> tuple[object, ...]:
    """What of a node a notice rests on: two equal marks give the same notice (a heartbeat changes none)."""
    spec = node.get("spec") or {}
    taints = tuple((taint.get("key"), taint.get("value", "")) for taint in spec.get("taints") or [])
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
