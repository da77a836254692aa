"""What a stager consists of: Deployment, Service, account, role binding, network policy. Pure functions.

One Deployment an artifact store, since a stager writes to one; it belongs to every ModelServer that uses the store, so
that garbage collection removes it with the last of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from kinora.api import names
from kinora.api.agentconfig import NAMESPACE_VARIABLE
from kinora.api.intake import Store
from kinora.api.modelserver import ArtifactStoreSpec
from kinora.api.stagerconfig import CONFIG_VARIABLE, StagerValues
from kinora.controller import storevolumes
from kinora.controller.pools.shape import Shape, cpu_shape_of, fitted, own_resources, provider_of
from kinora.controller.settings import Settings

Object = Mapping[str, Any]
Body = dict[str, Any]

CONTAINER = "stager"
_REQUESTS, _LIMITS = {"cpu": "100m", "memory": "192Mi"}, {"memory": "2Gi"}
_API_PORTS = (443, 6443)
#: Of any namespace: the signature, not the label, is what opens a store.
_GATEWAYS = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {names.LABEL_NAME: "kinora", names.LABEL_COMPONENT: names.COMPONENT_GATEWAY}},
}
#: Of the policy's own namespace; the token, not the label, is what a URL is signed for.
_AGENTS = {"podSelector": {"matchLabels": {names.LABEL_NAME: "kinora", names.LABEL_COMPONENT: names.COMPONENT_SERVER}}}
#: Metadata services and what is local to a link: shut by the network too, whatever the fetcher would say.
_SHUT = {
    "0.0.0.0/0": ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    "::/0": ("fe80::/10", "fd00:ec2::/32", "fd20:ce::/64"),
}


def owners(servers: Iterable[Object]) -> list[Body]:
    """References to all of them; none is the controller, as several share the object."""
    return [
        {
            "apiVersion": names.API_VERSION,
            "kind": "ModelServer",
            "name": server["metadata"]["name"],
            "uid": server["metadata"]["uid"],
            "blockOwnerDeletion": False,
        }
        for server in sorted(servers, key=lambda server: str(server["metadata"]["uid"]))
    ]


def _labels() -> dict[str, str]:
    return {
        names.LABEL_NAME: "kinora",
        names.LABEL_COMPONENT: names.COMPONENT_STAGER,
        names.LABEL_MANAGED_BY: "kinora",
    }


def service_account(namespace: str) -> Body:
    """The stagers' account of a namespace, shared, so it has no owner."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": names.STAGER_SERVICE_ACCOUNT, "namespace": namespace, "labels": _labels()},
        "automountServiceAccountToken": False,
    }


def role_binding(namespace: str) -> Body:
    """Binds the stagers' account to the ClusterRole that the chart ships, within the namespace."""
    name = names.STAGER_SERVICE_ACCOUNT
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace, "labels": _labels()},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": names.STAGER_CLUSTER_ROLE,
        },
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }


def deployment(
    namespace: str, store: Store, servers: Collection[Object], settings: Settings, entries: Sequence[str] = ()
) -> Body:
    """The stager of an artifact store, which these ModelServers use. Its template hash is an annotation.

    Where they tell of one bucket differently, the first by name is followed. ``entries``: the administrator's own
    models, as text.
    """
    name = names.stager_name(store.name)
    told = min(servers, key=lambda server: str(server["metadata"]["name"]))
    artifacts = ArtifactStoreSpec.model_validate(told["spec"]["artifacts"])
    template = _template(artifacts, settings, _shape(servers, settings), entries)
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    selector = {names.LABEL_COMPONENT: names.COMPONENT_STAGER, names.LABEL_STAGER: name}
    template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), **_labels(), **selector}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**_labels(), names.LABEL_STAGER: name},
            "annotations": {names.ANNOTATION_TEMPLATE_HASH: digest, **_told_of(store)},
            "ownerReferences": owners(servers),
        },
        "spec": {
            "replicas": 1,
            "strategy": _strategy(store),
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }


def _strategy(store: Store) -> Body:
    """Two at once do no harm, but a claim that one node mounts at a time would never let the second start.

    Of a bucket the next one is there before the last one goes: agents publish by what it signs.
    """
    if store.is_claim:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def service(namespace: str, store: Store, servers: Collection[Object]) -> Body:
    """Where gateways reach an artifact store, by signed requests, and agents, with their pods' tokens."""
    name = names.stager_name(store.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**_labels(), names.LABEL_STAGER: name},
            "annotations": _told_of(store),
            "ownerReferences": owners(servers),
        },
        "spec": {
            "selector": {names.LABEL_COMPONENT: names.COMPONENT_STAGER, names.LABEL_STAGER: name},
            "ports": [{"name": "store", "port": names.STORE_PORT, "targetPort": "store", "protocol": "TCP"}],
        },
    }


def _shape(servers: Iterable[Object], settings: Settings) -> Shape:
    """What the provider asks of the pod; where the ModelServers name several, that of the first by name."""
    pools = (
        pool
        for server in sorted(servers, key=lambda server: str(server["metadata"]["name"]))
        for pool in ((server.get("spec") or {}).get("gpu") or {}).get("pools") or []
    )
    return cpu_shape_of(settings.providers[provider_of(pools)])


def _told_of(store: Store) -> dict[str, str]:
    return {names.ANNOTATION_CLAIM: store.name} if store.is_claim else {names.ANNOTATION_STORE: store.root}


def _template(artifacts: ArtifactStoreSpec, settings: Settings, shape: Shape, entries: Sequence[str]) -> Body:
    values = settings.stager
    pod: Body = {
        "serviceAccountName": names.STAGER_SERVICE_ACCOUNT,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.AGENT_UID,
            "runAsGroup": names.SHARED_GID,
            "fsGroup": names.SHARED_GID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(artifacts, settings, shape, entries)],
        "volumes": [*storevolumes.volumes(artifacts), {"name": "tmp", "emptyDir": {}}],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    selector = {**shape.node_selector, **values.node_selector}
    if selector:
        pod["nodeSelector"] = selector
    tolerations = [*shape.tolerations, *values.tolerations]
    if tolerations:
        pod["tolerations"] = tolerations
    metadata: Body = {"annotations": {**shape.annotations, "kubectl.kubernetes.io/default-container": CONTAINER}}
    if shape.labels:
        metadata["labels"] = shape.labels
    return {"metadata": metadata, "spec": pod}


def _container(artifacts: ArtifactStoreSpec, settings: Settings, shape: Shape, entries: Sequence[str]) -> Body:
    own = own_resources(CONTAINER, shape, requests=_REQUESTS, limits=_LIMITS)
    config = settings.stager.config(artifacts, dict(settings.model_aliases), list(entries))
    without = {"artifact_claim"} if artifacts.s3 is not None else {"artifact_s3"}
    told = config.model_dump(mode="json", by_alias=True, exclude=without)
    return {
        "name": CONTAINER,
        "image": settings.agent_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["kinora", "stager"],
        "env": [
            {"name": CONFIG_VARIABLE, "value": json.dumps(told)},
            {"name": NAMESPACE_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        ],
        "ports": [
            {"name": "metrics", "containerPort": names.STAGER_PORT, "protocol": "TCP"},
            {"name": "store", "containerPort": names.STORE_PORT, "protocol": "TCP"},
        ],
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": fitted(CONTAINER, settings.stager.resources or own, shape),
        "volumeMounts": [
            *storevolumes.mounts(artifacts),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }


def _probe(path: str, *, period: int, failures: int) -> Body:
    return {
        "httpGet": {"path": path, "port": names.STAGER_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def network_policy(namespace: str, servers: Collection[Object], values: StagerValues) -> Body:
    """Into a stager: its metrics; gateways, agents. Out of it: names, the API server, its bucket, what is fetched from.

    Coarse, since host names have no place in a policy; what is fetched from is the fetcher's to decide.
    """
    stores = (((server.get("spec") or {}).get("artifacts") or {}).get("s3") for server in servers)
    endpoints = {_endpoint_port(str(s3.get("endpoint") or "")) for s3 in stores if s3}
    ports = sorted({*values.allow.ports, *_API_PORTS, *_host_ports(values.allow.hosts), *endpoints})
    opened = frozenset(values.allow.networks)
    anywhere = [
        {"ipBlock": {"cidr": cidr, "except": [shut for shut in all_shut if shut not in opened]}}
        for cidr, all_shut in _SHUT.items()
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names.STAGER_SERVICE_ACCOUNT,
            "namespace": namespace,
            "labels": _labels(),
            "ownerReferences": owners(servers),
        },
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_COMPONENT: names.COMPONENT_STAGER}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"ports": [{"protocol": "TCP", "port": names.STAGER_PORT}]},
                {"from": [_GATEWAYS, _AGENTS], "ports": [{"protocol": "TCP", "port": names.STORE_PORT}]},
            ],
            "egress": [
                {"ports": [{"protocol": kind, "port": 53} for kind in ("UDP", "TCP")]},
                {"to": anywhere, "ports": [{"protocol": "TCP", "port": port} for port in ports]},
            ],
        },
    }


def _host_ports(hosts: Iterable[str]) -> set[int]:
    return {int(port) for _, colon, port in (host.partition(":") for host in hosts) if colon and port.isdigit()}


def _endpoint_port(endpoint: str) -> int:
    parts = urlsplit(endpoint)
    return parts.port or (80 if parts.scheme == "http" else 443)
