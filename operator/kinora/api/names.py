"""Names that processes agree on: API group, labels, paths inside a server pod, deterministic names of children.

Everything here is a pure function of identities (UIDs, attempts, slots); nothing is random, so that creating a child
twice is a conflict and not a second child (design, section 7).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any, Final

GROUP: Final = "kinora.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
VIDEOJOBS: Final = "videojobs"
MODELSERVERS: Final = "modelservers"

LABEL_TENANT: Final = f"{GROUP}/tenant"  # of the gateway: whose job it is
LABEL_DIALECT: Final = f"{GROUP}/dialect"
ANNOTATION_ORDER: Final = f"{GROUP}/order"  # a number: what goes first among a tenant's own jobs that wait
LABEL_MODEL_SERVER: Final = f"{GROUP}/modelserver"
LABEL_SLOT: Final = f"{GROUP}/slot"
LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_CATALOGUE: Final = f"{GROUP}/catalogue"  # "true" on ConfigMaps of the operator's namespace that hold models
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
COMPONENT_SERVER: Final = "server"
COMPONENT_STAGER: Final = "stager"
COMPONENT_GATEWAY: Final = "gateway"
LABEL_STAGER: Final = f"{GROUP}/stager"
ANNOTATION_CLAIM: Final = f"{GROUP}/artifact-claim"
ANNOTATION_STORE: Final = f"{GROUP}/artifact-store"
ANNOTATION_POLICY_HASH: Final = f"{GROUP}/network-policy-hash"
COMPONENT_WEIGHTS: Final = "weights"
ANNOTATION_SOURCES_HASH: Final = f"{GROUP}/sources-hash"
ANNOTATION_TEMPLATE_HASH: Final = f"{GROUP}/template-hash"
# Labels of a ModelServer that its pods carry too, and no others: what Kueue reads of a plain pod.
QUEUE_LABELS: Final = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
CONDITION_ENGINE_READY: Final = f"{GROUP}/EngineReady"
CONDITION_WEIGHTS_READY: Final = f"{GROUP}/WeightsReady"
CONDITION_FAST_READY: Final = f"{GROUP}/FastReady"  # whether jobs of preset Fast can be rendered too

AGENT_SERVICE_ACCOUNT: Final = "kinora-agent"
AGENT_CLUSTER_ROLE: Final = "kinora-agent"
STAGER_SERVICE_ACCOUNT: Final = "kinora-stager"
STAGER_CLUSTER_ROLE: Final = "kinora-stager"
# Of a namespace: the key that gateways sign their requests to its stagers with.
STORE_SECRET: Final = "kinora-store"  # noqa: S105 - a name
STORE_SECRET_TYPE: Final = f"{GROUP}/store-key"
SIGNING_SECRET_TYPE: Final = f"{GROUP}/link-key"  # of the key that gateways sign their links with
# Of a namespace: the key that gateways show its agents that they may listen to a render.
LIVE_SECRET: Final = "kinora-live"  # noqa: S105 - a name
LIVE_SECRET_TYPE: Final = f"{GROUP}/live-key"
SERVER_POLICY: Final = "kinora-server"  # the NetworkPolicy of a namespace's server pods
WEIGHTS_SERVICE_ACCOUNT: Final = "kinora-weights"
WEIGHTS_CLUSTER_ROLE: Final = "kinora-weights"

CONTAINER_ENGINE: Final = "engine"
CONTAINER_AGENT: Final = "agent"
CONTAINER_INSTALL: Final = "install-supervisor"

# UIDs inside a server pod: the engine and the agent differ, so that neither can signal or read the other's process;
# the shared group lets the agent delete what the engine wrote (api.md, "Inside the pod").
ENGINE_UID: Final = 10001
AGENT_UID: Final = 10002
SHARED_GID: Final = 10000

RUN_DIR: Final = "/kinora/run"
SUPERVISOR_PATH: Final = f"{RUN_DIR}/supervisor.py"
SUPERVISOR_SOCKET: Final = f"{RUN_DIR}/supervisor.sock"
INPUT_DIR: Final = "/kinora/input"
OUTPUT_DIR: Final = "/kinora/output"
TEMP_DIR: Final = "/kinora/temp"
MODELS_DIR: Final = "/models"
ARTIFACTS_DIR: Final = "/kinora/artifacts"
STORE_SECRET_DIR: Final = "/kinora/store/secret"  # of agents and stagers with an S3 store: a file a key  # noqa: S105
# Of the token that an agent shows to a broker: no API server and no gateway takes it.
STORE_AUDIENCE: Final = f"{GROUP}/store"
STORE_TOKEN_DIR: Final = "/kinora/store/token"  # of agents: the token that a broker knows them by  # noqa: S105
STORE_TOKEN_FILE: Final = "token"  # noqa: S105
STORE_CA_DIR: Final = "/kinora/store/ca"  # the ConfigMap with the certificates that its endpoint is trusted by
INPUT_CLAIMS_DIR: Final = "/kinora/claims"
SECRETS_DIR: Final = "/kinora/secrets"  # of a weights Job: a folder a Secret, a file a key
SOURCE_CLAIMS_DIR: Final = "/kinora/sources"  # of a weights Job: the claims of pvc:// sources
ENGINE_PORT: Final = 8188
AGENT_PORT: Final = 8780
STAGER_PORT: Final = 8782
STORE_PORT: Final = 8783  # of a stager: the store service
AGENT_LIVE_PORT: Final = 8784  # of an agent: what its engine says of a prompt, for gateways alone

#: What the gateway calls its VideoJobs: gw-<tenant's digest>-<id>. Their artifacts are known by it when they are gone.
GATEWAY_JOB: Final = re.compile(r"gw-[0-9a-f]{10}-(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def key(obj: dict[str, Any]) -> str:
    """The one spelling of an object's key: ``namespace/name``."""
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def server_of(obj: dict[str, Any]) -> str:
    """The key of the ModelServer that a server pod, a weights Job or its pod belongs to, by its label."""
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata.get('labels', {}).get(LABEL_MODEL_SERVER, '')}"


def prompt_id(job_uid: str, attempt: int) -> str:
    """UUIDv5(job UID, attempt): dispatching the same attempt twice is the same prompt (invariant 2)."""
    return str(uuid.uuid5(uuid.UUID(job_uid), str(attempt)))


def pod_name(model_server: str, uid: str, template_hash: str, slot: int, incarnation: int) -> str:
    """``<modelserver>-<slot>-<8 hex>``; the hex digits are of (uid, template hash, slot, incarnation) (api.md)."""
    digest = hashlib.sha256(f"{uid}/{template_hash}/{slot}/{incarnation}".encode()).hexdigest()[:8]
    suffix = f"-{slot}-{digest}"
    return model_server[: 63 - len(suffix)].rstrip("-.") + suffix


def is_gateway_job(name: str) -> bool:
    """Whether the gateway gave a VideoJob this name."""
    return GATEWAY_JOB.fullmatch(name) is not None


def stager_name(store_name: str) -> str:
    """``kinora-stager-<8 hex>``: one stager an artifact store (its `Store.name`), in the store's namespace."""
    return f"kinora-stager-{hashlib.sha256(store_name.encode()).hexdigest()[:8]}"


def store_service_url(store_name: str, namespace: str) -> str:
    """Where the store service of an artifact store (its `Store.name`) is reached within the cluster."""
    return f"http://{stager_name(store_name)}.{namespace}.svc:{STORE_PORT}"


def weights_job_name(model_server: str, uid: str, sources_hash: str) -> str:
    """``<modelserver>-weights-<8 hex>``; the hex digits are of (uid, hash of what is to be fetched)."""
    suffix = f"-weights-{hashlib.sha256(f'{uid}/{sources_hash}'.encode()).hexdigest()[:8]}"
    return model_server[: 63 - len(suffix)].rstrip("-.") + suffix


def weights_lease_name(claim: str) -> str:
    """The Lease that the writer of a volume holds."""
    name = f"{WEIGHTS_SERVICE_ACCOUNT}-{claim}"
    return name if len(name) <= 253 else f"{WEIGHTS_SERVICE_ACCOUNT}-{hashlib.sha256(claim.encode()).hexdigest()[:16]}"


def job_folder(job_uid: str, attempt: int) -> str:
    """The name of a job's folder beneath the engine's input and output folders."""
    return f"{job_uid}-{attempt}"
