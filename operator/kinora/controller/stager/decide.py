"""Which stagers run in a namespace, and what has to be written for it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kinora.api import names
from kinora.api.intake import Store, artifact_store
from kinora.controller.plan import Create, Delete, Plan
from kinora.controller.settings import Settings
from kinora.controller.stager import desired
from kinora.kube.resources import DEPLOYMENT, NETWORK_POLICY, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT

Object = Mapping[str, Any]


def decide(
    namespace: str,
    servers: Iterable[Object],
    deployments: Sequence[Object],
    settings: Settings,
    *,
    entries: Mapping[str, str] | None = None,
    children_made: bool = False,
) -> Plan:
    """The plan for one namespace. ``children_made``: this process has made what is beside the Deployments.

    ``entries``: the administrator's own models, as text, by name. A stager is told of those that its ModelServers
    serve, so that another's does not start it anew.
    """
    using = _by_store(servers) if settings.stager.enabled else {}
    wanted = {
        names.stager_name(store.name): desired.deployment(
            namespace, store, those, settings, _served(those, entries or {})
        )
        for store, those in using.items()
    }
    policy = _policy(namespace, using, settings)
    for body in wanted.values():
        body["metadata"]["annotations"][names.ANNOTATION_POLICY_HASH] = _digest(policy)
    known = {entry["metadata"]["name"]: entry for entry in deployments}
    changed = {name for name, body in wanted.items() if name not in known or _differs(known[name], body)}
    apply = [Create(DEPLOYMENT, body) for name, body in wanted.items() if name in changed]
    services = {
        names.stager_name(store.name): desired.service(namespace, store, those) for store, those in using.items()
    }
    apply += [Create(SERVICE, body) for name, body in services.items() if name in changed]
    create = []
    if wanted and not children_made:
        create += [Create(SERVICE_ACCOUNT, desired.service_account(namespace))]
        create += [Create(ROLE_BINDING, desired.role_binding(namespace))]
        create += [Create(NETWORK_POLICY, policy)] if policy and not apply else []
        create += [Create(SERVICE, body) for name, body in services.items() if name not in changed]
    if apply and policy:  # the Deployments carry its hash: it is written when they are, and only created otherwise
        apply.insert(0, Create(NETWORK_POLICY, policy))
    delete = []
    for name, entry in known.items():
        if name not in wanted and not entry["metadata"].get("deletionTimestamp"):
            delete += [Delete(DEPLOYMENT, namespace, name, entry["metadata"]["uid"])]
            delete += [Delete(SERVICE, namespace, name, None)]
    return Plan(create=tuple(create), apply=tuple(apply), delete=tuple(delete))


def _policy(namespace: str, using: Mapping[Store, list[Object]], settings: Settings) -> dict[str, Any] | None:
    """The network policy of all stagers of the namespace; None where none is wanted."""
    if not using or not settings.stager.network_policy:
        return None
    everybody = {server["metadata"]["uid"]: server for those in using.values() for server in those}
    return desired.network_policy(namespace, list(everybody.values()), settings.stager)


def _digest(policy: Mapping[str, Any] | None) -> str:
    """Eight hex digits over what the policy says; empty: there is none."""
    if policy is None:
        return ""
    return hashlib.sha256(json.dumps(policy["spec"], sort_keys=True).encode()).hexdigest()[:8]


def _by_store(servers: Iterable[Object]) -> dict[Store, list[Object]]:
    """The ModelServers that use each artifact store; those that are going do not count."""
    found: dict[Store, list[Object]] = {}
    for server in servers:
        store = artifact_store(server)
        if store is not None and not server["metadata"].get("deletionTimestamp"):
            found.setdefault(store, []).append(server)
    return found


def _served(servers: Iterable[Object], entries: Mapping[str, str]) -> list[str]:
    models = {str((server.get("spec") or {}).get("model")) for server in servers}
    return [entries[name] for name in sorted(models & entries.keys())]


def _differs(known: Object, wanted: Object) -> bool:
    """Another template, network policy, or owners. What else somebody changed is theirs until the template changes."""
    have, want = known["metadata"], wanted["metadata"]
    marks = (names.ANNOTATION_TEMPLATE_HASH, names.ANNOTATION_POLICY_HASH)
    told = have.get("annotations") or {}
    uids = {entry.get("uid") for entry in have.get("ownerReferences") or []}
    return bool(
        any(told.get(mark) != want["annotations"][mark] for mark in marks)
        or uids != {entry["uid"] for entry in want["ownerReferences"]}
    )


def is_available(deployment: Object | None) -> bool:
    """Whether a pod of the stager is ready."""
    return bool(((deployment or {}).get("status") or {}).get("availableReplicas"))
