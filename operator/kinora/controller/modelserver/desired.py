"""The children that a ModelServer wants: pods, headless Service, claim, account, role binding. Pure functions.

Pods are managed by the operator itself, not by a Deployment: it chooses which pod goes and drains before it replaces.
The template hash covers what the spec says and nothing of the operator's own version, so that an operator upgrade
rolls no pod.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kinora.api import names
from kinora.api.agentconfig import (
    CONFIG_VARIABLE,
    NAMESPACE_VARIABLE,
    NODE_NAME_VARIABLE,
    POD_NAME_VARIABLE,
    POD_UID_VARIABLE,
    WATERMARK_VARIABLE,
    AgentConfig,
)
from kinora.api.base import integral
from kinora.api.modelserver import ModelServerSpec, Pool
from kinora.controller.modelserver.snapshot import Object
from kinora.controller.settings import Settings

Body = dict[str, Any]

GRACE_BEYOND_DRAIN = 60  # seconds: grace = drainSeconds + 60 (api.md)
LABEL_POOL = f"{names.GROUP}/pool"
_DEFAULT_RESOURCE = "nvidia.com/gpu"


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


def template_hash(spec: ModelServerSpec, engine_image: str, entry: str = "") -> str:
    """Eight hex digits over everything in the spec, and in an administrator's entry of its model, that shapes a pod.

    Defaults stay out: a field that a later version adds must not roll the pods that do not set it.
    """
    shaping = spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        exclude_defaults=True,
        exclude={"replicas", "update", "autoscaling"},
    )
    text = json.dumps(
        [integral(shaping), engine_image, *([entry] if entry else [])], sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def service(server: Object) -> Body:
    """A headless Service: DNS names of the pods, and a target for pod monitors."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(server, server["metadata"]["name"]),
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
    metadata = _metadata(server, weights_claim(server, spec))
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


def service_account(namespace: str) -> Body:
    """The agents' account of a namespace, shared by its ModelServers, so it has no owner."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": names.AGENT_SERVICE_ACCOUNT,
            "namespace": namespace,
            "labels": {names.LABEL_NAME: "kinora", names.LABEL_MANAGED_BY: "kinora"},
        },
        "automountServiceAccountToken": False,
    }


def role_binding(namespace: str) -> Body:
    """Binds the agents' account to the ClusterRole that the chart ships, within the namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": names.AGENT_SERVICE_ACCOUNT,
            "namespace": namespace,
            "labels": {names.LABEL_NAME: "kinora", names.LABEL_MANAGED_BY: "kinora"},
        },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": names.AGENT_CLUSTER_ROLE,
        },
        "subjects": [{"kind": "ServiceAccount", "name": names.AGENT_SERVICE_ACCOUNT, "namespace": namespace}],
    }


def _metadata(server: Object, name: str) -> Body:
    return {
        "name": name,
        "namespace": server["metadata"]["namespace"],
        "labels": labels(server),
        "ownerReferences": [owner(server)],
    }


def pod(
    server: Object,
    spec: ModelServerSpec,
    settings: Settings,
    *,
    pool: Pool,
    slot: int,
    incarnation: int,
    entry: str = "",
) -> Body:
    """One server pod of a pool: install-supervisor, then the engine as a native sidecar, then the agent.

    ``entry``: the text of an administrator's entry of its model; empty: the agent has it packaged.
    """
    engine_image = spec.engine.image or settings.engine_image
    digest = template_hash(spec, engine_image, entry)
    metadata = server["metadata"]
    body = _metadata(server, names.pod_name(metadata["name"], metadata["uid"], digest, slot, incarnation))
    body["labels"] = {**pool.labels, **body["labels"], names.LABEL_SLOT: str(slot), LABEL_POOL: pool.name}
    body["annotations"] = {
        **pool.annotations,
        names.ANNOTATION_TEMPLATE_HASH: digest,
        "kubectl.kubernetes.io/default-container": names.CONTAINER_AGENT,
    }
    pod_spec: Body = {
        "serviceAccountName": names.AGENT_SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": spec.drain_seconds + GRACE_BEYOND_DRAIN,
        "readinessGates": [{"conditionType": names.CONDITION_ENGINE_READY}],
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": names.SHARED_GID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_install(settings), _engine(spec, settings, engine_image, pool)],
        "containers": [_agent(server, spec, settings, pool, entry)],
        "volumes": _volumes(server, spec),
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            *pool.tolerations,
        ],
    }
    if settings.image_pull_secrets:
        pod_spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if pool.node_selector:
        pod_spec["nodeSelector"] = pool.node_selector
    if pool.runtime_class_name:
        pod_spec["runtimeClassName"] = pool.runtime_class_name
    return {"apiVersion": "v1", "kind": "Pod", "metadata": body, "spec": pod_spec}


def _secured(uid: int) -> Body:
    return {
        "runAsUser": uid,
        "runAsGroup": names.SHARED_GID,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _install(settings: Settings) -> Body:
    return {
        "name": names.CONTAINER_INSTALL,
        "image": settings.agent_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["kinora", "install-supervisor", names.SUPERVISOR_PATH],
        "securityContext": _secured(names.AGENT_UID),
        "volumeMounts": [{"name": "run", "mountPath": names.RUN_DIR}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    }


def _engine(spec: ModelServerSpec, settings: Settings, image: str, pool: Pool) -> Body:
    arguments = [
        "--listen",
        "127.0.0.1",
        "--port",
        str(names.ENGINE_PORT),
        "--input-directory",
        names.INPUT_DIR,
        "--output-directory",
        names.OUTPUT_DIR,
        "--temp-directory",
        names.TEMP_DIR,
        *spec.engine.args,
    ]
    return {
        "name": names.CONTAINER_ENGINE,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", names.SUPERVISOR_PATH, "--socket", names.SUPERVISOR_SOCKET, "--", *arguments],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            *({"name": variable.name, "value": variable.value} for variable in spec.engine.env),
        ],
        "securityContext": _secured(names.ENGINE_UID),
        "volumeMounts": [
            {"name": "run", "mountPath": names.RUN_DIR},
            {"name": "input", "mountPath": names.INPUT_DIR},
            {"name": "output", "mountPath": names.OUTPUT_DIR},
            {"name": "temp", "mountPath": names.TEMP_DIR},
            {"name": "engine-tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "models", "mountPath": names.MODELS_DIR, "readOnly": True},
        ],
        "resources": _engine_resources(spec, pool),
    }


def _engine_resources(spec: ModelServerSpec, pool: Pool) -> Body:
    resources: Body = json.loads(json.dumps(pool.resources or spec.resources or {}))
    if spec.gpu.count:
        name = pool.resource_name or _DEFAULT_RESOURCE
        resources.setdefault("limits", {})[name] = str(spec.gpu.count)
        resources.setdefault("requests", {})[name] = str(spec.gpu.count)
    return resources


def _agent(server: Object, spec: ModelServerSpec, settings: Settings, pool: Pool, entry: str) -> Body:
    config = AgentConfig(
        model_server_name=server["metadata"]["name"],
        model=spec.model,
        model_entry=entry,
        verify=spec.weights.verify,
        drain_seconds=spec.drain_seconds,
        artifact_claim=spec.artifacts.claim_name or "",
        input_claims=[entry.name for entry in spec.input_claims],
        allowed_node_classes=spec.allowed_node_classes,
        pool=pool.name,
    )
    without = None if entry else {"model_entry"}
    return {
        "name": names.CONTAINER_AGENT,
        "image": settings.agent_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["kinora", "agent"],
        "env": [
            {
                "name": CONFIG_VARIABLE,
                "value": json.dumps(config.model_dump(mode="json", by_alias=True, exclude=without)),
            },
            _downward(POD_NAME_VARIABLE, "metadata.name"),
            _downward(POD_UID_VARIABLE, "metadata.uid"),
            _downward(NAMESPACE_VARIABLE, "metadata.namespace"),
            _downward(NODE_NAME_VARIABLE, "spec.nodeName"),
            {"name": "HOME", "value": "/tmp"},  # noqa: S108
            *([{"name": WATERMARK_VARIABLE, "value": settings.watermark}] if settings.watermark else []),
        ],
        "ports": [{"name": "metrics", "containerPort": names.AGENT_PORT}],
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "securityContext": _secured(names.AGENT_UID),
        "volumeMounts": [
            {"name": "run", "mountPath": names.RUN_DIR},
            {"name": "input", "mountPath": names.INPUT_DIR},
            {"name": "output", "mountPath": names.OUTPUT_DIR},
            {"name": "agent-tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "models", "mountPath": names.MODELS_DIR, "readOnly": True},
            {"name": "artifacts", "mountPath": names.ARTIFACTS_DIR},
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
            *(
                {
                    "name": f"claim-{entry.name}",
                    "mountPath": f"{names.INPUT_CLAIMS_DIR}/{entry.name}",
                    "readOnly": True,
                }
                for entry in spec.input_claims
            ),
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "2Gi"}},
    }


def _downward(name: str, path: str) -> Body:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, *, period: int, failures: int) -> Body:
    return {
        "httpGet": {"path": path, "port": names.AGENT_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _volumes(server: Object, spec: ModelServerSpec) -> list[Body]:
    shm: Body = {"medium": "Memory"}
    if spec.shm_size:
        shm["sizeLimit"] = spec.shm_size
    return [
        *({"name": name, "emptyDir": {}} for name in ("run", "input", "output", "temp", "engine-tmp", "agent-tmp")),
        {"name": "shm", "emptyDir": shm},
        {
            "name": "models",
            "persistentVolumeClaim": {"claimName": weights_claim(server, spec), "readOnly": True},
        },
        {"name": "artifacts", "persistentVolumeClaim": {"claimName": spec.artifacts.claim_name}},
        {"name": "token", "projected": {"defaultMode": 0o440, "sources": _token_sources()}},
        *(
            {
                "name": f"claim-{entry.name}",
                "persistentVolumeClaim": {"claimName": entry.claim_name, "readOnly": True},
            }
            for entry in spec.input_claims
        ),
    ]


def _token_sources() -> list[Body]:
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
