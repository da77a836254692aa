"""One server pod: install-supervisor, then the engine as a native sidecar, then the agent. Pure functions.

Pods are managed by the operator itself, not by a Deployment: it chooses which pod goes and drains before it replaces.
Three layers are merged: what every server pod has, what its pool asks for (``controller/pools``), spec.podTemplate.
The template hash covers what the spec says and the provider's data that it uses, and nothing of the operator's own
version, so that an operator upgrade rolls no pod.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kinora.api import names
from kinora.api.agentconfig import (
    CONFIG_VARIABLE,
    LIVE_VARIABLE,
    NAMESPACE_VARIABLE,
    NODE_NAME_VARIABLE,
    POD_NAME_VARIABLE,
    POD_UID_VARIABLE,
    WATERMARK_VARIABLE,
    AgentConfig,
)
from kinora.api.base import integral
from kinora.api.intake import bucket_store
from kinora.api.modelserver import ModelServerSpec, Pool
from kinora.controller import storevolumes
from kinora.controller.modelserver.desired import child_metadata, downward, secured, token_sources, weights_claim
from kinora.controller.modelserver.snapshot import Object
from kinora.controller.modelserver.template import merge
from kinora.controller.pools.shape import Shape, fitted, own_resources, shape_of
from kinora.controller.settings import Settings

Body = dict[str, Any]

GRACE_BEYOND_DRAIN = 60  # seconds: grace = drainSeconds + 60 (api.md)
# What of a spec shapes no pod, or only those of one pool (which are counted for themselves).
_SHAPELESS: Any = {
    "replicas": True,
    "update": True,
    "autoscaling": True,
    "gpu": {"pools": True, "fallback_after_seconds": True},
}
_SHAPELESS_OF_POOL = {"max_replicas", "price_per_hour"}


def pools_of(spec: ModelServerSpec) -> tuple[Pool, ...]:
    """The pools in their order; a spec without any has one of no provider, called default."""
    return tuple(spec.gpu.pools) or (Pool(name="default"),)


def queue_labels(server: Object) -> dict[str, str]:
    """The labels that pods take over from their ModelServer: Kueue's, and no others."""
    given = server["metadata"].get("labels") or {}
    return {name: given[name] for name in names.QUEUE_LABELS if name in given}


def template_hash(server: Object, spec: ModelServerSpec, settings: Settings, pool: Pool, entry: str = "") -> str:
    """Eight hex digits over everything that shapes a pod of this pool.

    ``entry``: the text of an administrator's entry of its model; empty: the agent has it packaged.

    Defaults stay out: a field that a later version adds must not roll the pods that do not set it. Of the other pools
    nothing is in it: one more to fall back to rolls no pod.
    """
    dump: Any = {"mode": "json", "by_alias": True, "exclude_none": True, "exclude_defaults": True}
    shaping = spec.model_dump(**dump, exclude=_SHAPELESS)
    if not shaping.get("gpu"):
        shaping.pop("gpu", None)
    parts = [
        shaping,
        spec.engine.image or settings.engine_image,
        pool.model_dump(**dump, exclude=_SHAPELESS_OF_POOL),
        shape_of(settings.providers[pool.provider], pool, gpus=spec.gpu.count).used(),
    ]
    queue = queue_labels(server)
    parts += [more for more in (queue, entry) if more]
    if not settings.stager.enabled and storevolumes.is_brokered(spec.artifacts, stagers=True):
        parts.append("keys")  # pods that were told of a stager have nobody to sign for them when stagers are taken away
    text = json.dumps(integral(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def desired_pod(
    server: Object,
    spec: ModelServerSpec,
    settings: Settings,
    *,
    pool: Pool,
    slot: int,
    incarnation: int,
    entry: str = "",
) -> Body:
    """The server pod of a slot in a pool. ``entry``: as in `template_hash`."""
    digest = template_hash(server, spec, settings, pool, entry)
    shape = shape_of(settings.providers[pool.provider], pool, gpus=spec.gpu.count)
    metadata = server["metadata"]
    name = names.pod_name(metadata["name"], metadata["uid"], digest, slot, incarnation)
    identity = child_metadata(server, name)
    body: Body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**identity, "labels": {**queue_labels(server), **shape.labels}, "annotations": shape.annotations},
        "spec": _pod_spec(server, spec, settings, pool, shape, entry),
    }
    body = merge(body, spec.pod_template or {})
    # Last, so that nothing above can take it: what the operator knows its pods by.
    body["metadata"]["labels"] |= {**identity["labels"], names.LABEL_SLOT: str(slot), names.LABEL_POOL: pool.name}
    body["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/default-container": names.CONTAINER_AGENT,
        **body["metadata"]["annotations"],
        names.ANNOTATION_TEMPLATE_HASH: digest,
    }
    for container in [*body["spec"]["initContainers"], *body["spec"]["containers"]]:
        _finish(container, shape)
    return body


def _finish(container: Body, shape: Shape) -> None:
    """What every container must have by the provider's rules and the restricted pod security standard."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container["securityContext"] = {**secure, **(container.get("securityContext") or {})}
    container["resources"] = fitted(container["name"], container.get("resources") or {}, shape)


def _pod_spec(  # noqa: PLR0917 - all that shapes a pod
    server: Object, spec: ModelServerSpec, settings: Settings, pool: Pool, shape: Shape, entry: str
) -> Body:
    """What every server pod has, and its pool's marks."""
    body: Body = {
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
        "initContainers": [_install(settings, shape), _engine(spec, settings, pool, shape)],
        "containers": [_agent(server, spec, settings, pool, shape, entry)],
        "volumes": _volumes(server, spec, settings),
        "tolerations": list(shape.tolerations),
    }
    if settings.image_pull_secrets:
        body["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if shape.node_selector:
        body["nodeSelector"] = shape.node_selector
    if shape.terms:
        terms = [{"matchExpressions": list(term)} for term in shape.terms]
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        body["affinity"] = {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}}
    if pool.runtime_class_name:
        body["runtimeClassName"] = pool.runtime_class_name
    return body


def _install(settings: Settings, shape: Shape) -> Body:
    return {
        "name": names.CONTAINER_INSTALL,
        "image": settings.agent_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["kinora", "install-supervisor", names.SUPERVISOR_PATH],
        "securityContext": secured(names.AGENT_UID),
        "volumeMounts": [{"name": "run", "mountPath": names.RUN_DIR}],
        "resources": own_resources(
            names.CONTAINER_INSTALL, shape, requests={"cpu": "10m", "memory": "64Mi"}, limits={"memory": "256Mi"}
        ),
    }


def _engine(spec: ModelServerSpec, settings: Settings, pool: Pool, shape: Shape) -> Body:
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
        "image": spec.engine.image or settings.engine_image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", names.SUPERVISOR_PATH, "--socket", names.SUPERVISOR_SOCKET, "--", *arguments],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            *({"name": variable.name, "value": variable.value} for variable in spec.engine.env),
        ],
        "securityContext": secured(names.ENGINE_UID),
        "volumeMounts": [
            {"name": "run", "mountPath": names.RUN_DIR},
            {"name": "input", "mountPath": names.INPUT_DIR},
            {"name": "output", "mountPath": names.OUTPUT_DIR},
            {"name": "temp", "mountPath": names.TEMP_DIR},
            {"name": "engine-tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "models", "mountPath": names.MODELS_DIR, "readOnly": True},
        ],
        "resources": _engine_resources(spec, pool, shape),
    }


def _engine_resources(spec: ModelServerSpec, pool: Pool, shape: Shape) -> Body:
    """The pool's resources, or the server's, and the GPUs: gpu.count of them, unless the quantity is given there."""
    resources: Body = json.loads(json.dumps(pool.resources or spec.resources or {}))
    limits, requests = dict(resources.get("limits") or {}), dict(resources.get("requests") or {})
    quantity = limits.get(shape.resource_name) or requests.get(shape.resource_name) or str(spec.gpu.count)
    if spec.gpu.count or quantity != "0":
        resources["limits"] = {**limits, shape.resource_name: quantity}
        resources["requests"] = {**requests, shape.resource_name: quantity}
    return resources


def _agent(  # noqa: PLR0917 - all that an agent is told
    server: Object, spec: ModelServerSpec, settings: Settings, pool: Pool, shape: Shape, entry: str
) -> Body:
    config = AgentConfig(
        model_server_name=server["metadata"]["name"],
        model=spec.model,
        verify=spec.weights.verify,
        drain_seconds=spec.drain_seconds,
        artifact_claim=spec.artifacts.claim_name or "",
        artifact_s3=spec.artifacts.s3,
        input_claims=[entry.name for entry in spec.input_claims],
        allowed_node_classes=spec.allowed_node_classes,
        pool=pool.name,
        model_entry=entry,
        artifact_broker=_broker(server, spec, settings),
    )
    given = {
        "model_entry": bool(entry),
        "artifact_s3": spec.artifacts.s3 is not None,
        "artifact_broker": bool(config.artifact_broker),
    }
    without = {name for name, is_given in given.items() if not is_given}
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
            downward(POD_NAME_VARIABLE, "metadata.name"),
            downward(POD_UID_VARIABLE, "metadata.uid"),
            downward(NAMESPACE_VARIABLE, "metadata.namespace"),
            downward(NODE_NAME_VARIABLE, "spec.nodeName"),
            *([{"name": WATERMARK_VARIABLE, "value": settings.watermark}] if settings.watermark else []),
            *([{"name": LIVE_VARIABLE, "value": "true"}] if settings.live else []),
            {"name": "HOME", "value": "/tmp"},  # noqa: S108
        ],
        "ports": [
            {"name": "metrics", "containerPort": names.AGENT_PORT},
            *([{"name": "live", "containerPort": names.AGENT_LIVE_PORT}] if settings.live else []),
        ],
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "securityContext": secured(names.AGENT_UID),
        "volumeMounts": [
            {"name": "run", "mountPath": names.RUN_DIR},
            {"name": "input", "mountPath": names.INPUT_DIR},
            {"name": "output", "mountPath": names.OUTPUT_DIR},
            {"name": "agent-tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "models", "mountPath": names.MODELS_DIR, "readOnly": True},
            *storevolumes.agent_mounts(spec.artifacts, stagers=settings.stager.enabled),
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
        "resources": own_resources(
            names.CONTAINER_AGENT, shape, requests={"cpu": "100m", "memory": "192Mi"}, limits={"memory": "2Gi"}
        ),
    }


def _broker(server: Object, spec: ModelServerSpec, settings: Settings) -> str:
    """The stager that signs for the agents; empty: they have keys, or need none."""
    if spec.artifacts.s3 is None or not storevolumes.is_brokered(spec.artifacts, stagers=settings.stager.enabled):
        return ""
    return names.store_service_url(bucket_store(spec.artifacts.s3).name, server["metadata"]["namespace"])


def _probe(path: str, *, period: int, failures: int) -> Body:
    return {
        "httpGet": {"path": path, "port": names.AGENT_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _volumes(server: Object, spec: ModelServerSpec, settings: Settings) -> list[Body]:
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
        *storevolumes.agent_volumes(spec.artifacts, stagers=settings.stager.enabled),
        {"name": "token", "projected": {"defaultMode": 0o440, "sources": token_sources()}},
        *(
            {
                "name": f"claim-{entry.name}",
                "persistentVolumeClaim": {"claimName": entry.claim_name, "readOnly": True},
            }
            for entry in spec.input_claims
        ),
    ]
