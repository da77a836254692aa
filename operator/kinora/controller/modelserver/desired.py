"""The children that a ModelServer wants beside its pods: Service, claim, account, role binding. Pure functions.

The pods are in ``pod.py``.
"""

from __future__ import annotations

from typing import Any

from kinora.api import names
from kinora.api.modelserver import ModelServerSpec
from kinora.controller.modelserver.snapshot import Object

Body = dict[str, Any]


def owner(server: Object) -> Body:
    """The owner reference by which garbage collection removes children."""
    metadata = server["metadata"]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ModelServer",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def labels(server: Object) -> dict[str, str]:
    """Labels of every child; the selector is the one that names the server."""
    return {
        names.LABEL_NAME: "kinora",
        names.LABEL_COMPONENT: names.COMPONENT_SERVER,
        names.LABEL_MANAGED_BY: "kinora",
        names.LABEL_MODEL_SERVER: server["metadata"]["name"],
    }


def selector(server: Object) -> str:
    """The label selector of the pods, as the scale subresource wants it: a string."""
    return f"{names.LABEL_MODEL_SERVER}={server['metadata']['name']}"


def weights_claim(server: Object, spec: ModelServerSpec) -> str:
    """The name of the claim with the weights."""
    return spec.weights.claim_name or f"{server['metadata']['name']}-weights"


def service(server: Object) -> Body:
    """A headless Service: DNS names of the pods, and a target for pod monitors."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(server, server["metadata"]["name"]),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_MODEL_SERVER: server["metadata"]["name"]},
            "ports": [{"name": "metrics", "port": names.AGENT_PORT, "targetPort": names.AGENT_PORT}],
        },
    }


def claim(server: Object, spec: ModelServerSpec) -> Body | None:
    """The PVC of a claimTemplate; None when the spec names an existing claim.

    It has no owner: weights outlive their ModelServer, as volumes outlive a StatefulSet, and one of the same name
    finds them again.
    """
    template = spec.weights.claim_template
    if template is None:
        return None
    metadata = child_metadata(server, weights_claim(server, spec))
    del metadata["ownerReferences"]
    body: Body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {
            "accessModes": template.access_modes,
            "resources": {"requests": {"storage": template.storage}},
        },
    }
    if template.storage_class_name is not None:
        body["spec"]["storageClassName"] = template.storage_class_name
    return body


def service_account(namespace: str, name: str = names.AGENT_SERVICE_ACCOUNT) -> Body:
    """The agents' (or the weights Jobs') account of a namespace, shared by its ModelServers, so it has no owner."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.LABEL_NAME: "kinora", names.LABEL_MANAGED_BY: "kinora"},
        },
        "automountServiceAccountToken": False,
    }


def role_binding(namespace: str, name: str = names.AGENT_SERVICE_ACCOUNT) -> Body:
    """Binds an account to the ClusterRole of its name that the chart ships, within the namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.LABEL_NAME: "kinora", names.LABEL_MANAGED_BY: "kinora"},
        },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": name,
        },
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }


def network_policy(namespace: str, gateways: str) -> Body:
    """Into the namespace's server pods: their metrics, and from gateways what engines say. Nothing of egress is said.

    `gateways`: the namespace that gateways run in; empty: any. Shared by the ModelServers, so it has no owner.
    """
    their_own = {"matchLabels": {"kubernetes.io/metadata.name": gateways}} if gateways else {}
    of_gateways = {
        "namespaceSelector": their_own,
        "podSelector": {"matchLabels": {names.LABEL_NAME: "kinora", names.LABEL_COMPONENT: names.COMPONENT_GATEWAY}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names.SERVER_POLICY,
            "namespace": namespace,
            "labels": {names.LABEL_NAME: "kinora", names.LABEL_MANAGED_BY: "kinora"},
        },
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_NAME: "kinora", names.LABEL_COMPONENT: names.COMPONENT_SERVER}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"protocol": "TCP", "port": names.AGENT_PORT}]},
                {"from": [of_gateways], "ports": [{"protocol": "TCP", "port": names.AGENT_LIVE_PORT}]},
            ],
        },
    }


def child_metadata(server: Object, name: str) -> Body:
    """Metadata of a child that goes with its ModelServer."""
    return {
        "name": name,
        "namespace": server["metadata"]["namespace"],
        "labels": labels(server),
        "ownerReferences": [owner(server)],
    }


def secured(uid: int) -> Body:
    """The security context of every container, but for its user."""
    return {
        "runAsUser": uid,
        "runAsGroup": names.SHARED_GID,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def downward(name: str, path: str) -> Body:
    """An environment variable with a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def token_sources() -> list[Body]:
    """What the default projection holds, mounted into the agent's container only."""
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
