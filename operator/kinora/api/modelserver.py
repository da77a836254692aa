"""The ModelServer resource (kinora.dev/v1alpha1): a pool of identical server pods for one catalogue model.

Every field of the design's api.md. Fields whose behaviour arrives later are validated here and refused with the
condition NotImplemented by the operator (``controller/modelserver/refuse.py``), never silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from kinora.api.base import (
    ApiModel,
    Condition,
    Finding,
    FreeForm,
    Message,
    ObjectName,
    Quantity,
    Time,
    cel,
    exactly_one,
    rule,
)
from kinora.api.s3store import Addressing, S3Store

_PRESERVE: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}
LabelMap = Annotated[dict[str, Annotated[str, StringConstraints(max_length=1024)]], Field(max_length=64)]


class VerifyLevel(StrEnum):
    """How much of a weight file is checked before a pod counts as ready: its header, its size, or its sha256."""

    HASH = "Hash"
    SIZE = "Size"
    HEADER = "Header"


class Capacity(StrEnum):
    """What kind of capacity a pool is."""

    RESERVED = "Reserved"
    ON_DEMAND = "OnDemand"
    SPOT = "Spot"


class Provider(StrEnum):
    """Whose conventions a pool's pods follow."""

    ACS = "acs"
    ACK = "ack"
    GKE = "gke"
    EKS = "eks"
    AKS = "aks"
    GENERIC = "generic"


class EnvVar(ApiModel):
    """One plain environment variable of the engine."""

    name: Annotated[str, StringConstraints(pattern="^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=253)]
    value: Annotated[str, StringConstraints(max_length=4096)] = ""


class EngineSpec(ApiModel):
    """The engine's image and extra arguments. No image: the operator's default (chart value engine.image)."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    args: list[Annotated[str, StringConstraints(max_length=1024)]] = Field(default_factory=list, max_length=64)
    env: list[EnvVar] = Field(default_factory=list, max_length=64)


class ClaimTemplate(ApiModel):
    """A PVC that the operator creates; it stays when the ModelServer is deleted."""

    storage_class_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    access_modes: list[Annotated[str, StringConstraints(max_length=32)]] = Field(
        default_factory=lambda: ["ReadWriteMany"], max_length=4
    )
    storage: Quantity


class S3Access(ApiModel):
    """How the bucket of an s3:// or oss:// source is reached."""

    endpoint: Annotated[str, StringConstraints(max_length=2048)] | None = None
    region: Annotated[str, StringConstraints(pattern="^[-a-z0-9]+$", max_length=63)] | None = None
    addressing: Addressing | None = None


class WeightSource(ApiModel):
    """Where one weight file is fetched from.

    name: the file's role, or its path on the volume. url: https, hub, s3, oss or pvc (docs/weights.md).
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$", max_length=64)] | None = None
    secret_name: ObjectName | None = None
    hub: Annotated[str, StringConstraints(max_length=2048)] | None = None
    s3: S3Access | None = None


class WeightsSpec(ApiModel):
    """The volume with the weight files: an existing claim, or one made from a template."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("claimName", "claimTemplate")))

    claim_name: ObjectName | None = None
    claim_template: ClaimTemplate | None = None
    sources: list[WeightSource] = Field(default_factory=list, max_length=32)
    verify: VerifyLevel = VerifyLevel.HEADER
    quantize: bool = False


class InputClaim(ApiModel):
    """A claim that VideoJobs may read inputs from, mounted read-only in the agent."""

    name: Annotated[str, StringConstraints(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
    claim_name: ObjectName


class Autoscaling(ApiModel):
    """How many pods the operator keeps by itself; without it spec.replicas rules (kubectl scale, HPA, KEDA)."""

    min_replicas: int = Field(0, ge=0, le=1000)
    max_replicas: int = Field(1, ge=1, le=1000)
    target_queue_seconds: int = Field(600, ge=1)
    idle_seconds: int = Field(600, ge=1)


class Pool(ApiModel):
    """One kind of GPU capacity where server pods may go."""

    name: Annotated[str, StringConstraints(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    provider: Provider = Provider.GENERIC
    gpu_model: Annotated[str, StringConstraints(max_length=63)] | None = None
    capacity: Capacity = Capacity.ON_DEMAND
    max_replicas: int | None = Field(None, ge=0, le=1000)
    price_per_hour: float | None = Field(
        None, ge=0, description="What a pod of this pool costs an hour, in the administrator's currency."
    )
    labels: LabelMap = Field(default_factory=dict)
    annotations: LabelMap = Field(default_factory=dict)
    node_selector: LabelMap = Field(default_factory=dict)
    tolerations: list[Annotated[FreeForm, Field(json_schema_extra=_PRESERVE)]] = Field(
        default_factory=list, max_length=32
    )
    resource_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    runtime_class_name: ObjectName | None = None
    resources: FreeForm | None = Field(None, json_schema_extra=_PRESERVE)


class Gpu(ApiModel):
    """GPUs a pod, and the pools to try in order. count 0: no GPU is asked for (the CPU stand-in)."""

    count: int = Field(1, ge=0, le=16)
    pools: list[Pool] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    fallback_after_seconds: int = Field(300, ge=1)


class Recycle(ApiModel):
    """When a pod's engine is restarted between jobs (arrives with hardening)."""

    after_jobs: int | None = Field(None, ge=1)
    memory_percent: int | None = Field(None, ge=10, le=100)


class Update(ApiModel):
    """How pods are replaced when their template changes: drain, then replace."""

    max_unavailable: int = Field(1, ge=1, le=1000)


class ArtifactStoreSpec(ApiModel):
    """Where outputs go: a claim mounted in the agent (read-write), or a bucket."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("claimName", "s3")))

    claim_name: ObjectName | None = None
    s3: S3Store | None = None


# Its name becomes a label's value, a Service's name and the beginning of its pods' names.
_SERVER_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _bad_name(server: Any) -> Iterator[Finding]:
    name = (server.get("metadata") or {}).get("name") or ""
    if not isinstance(name, str) or len(name) > 52 or not re.fullmatch(_SERVER_NAME, name):
        yield Finding("metadata.name", name or None, "a letter, then letters, digits and -, at most 52 in all")


NAME_RULE = rule(
    "self.metadata.name.size() <= 52 && self.metadata.name.matches('" + _SERVER_NAME + "')",
    "'metadata.name is ' + self.metadata.name + '; allowed: a letter, then letters, digits and -, at most 52 in all'",
    meaning=_bad_name,
)


class ModelServerSpec(ApiModel):
    """What pool is wanted."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=63)] = Field(
        json_schema_extra=cel(
            rule("self == oldSelf", "model is immutable; make another ModelServer, and delete this one")
        )
    )
    engine: EngineSpec = Field(default_factory=EngineSpec)
    weights: WeightsSpec
    input_claims: list[InputClaim] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    replicas: int = Field(1, ge=0, le=1000)
    autoscaling: Autoscaling | None = None
    gpu: Gpu = Field(default_factory=Gpu)
    resources: FreeForm | None = Field(None, json_schema_extra=_PRESERVE)
    shm_size: Quantity | None = None
    warmup: bool = False
    recycle: Recycle | None = None
    drain_seconds: int = Field(1800, ge=0, le=86400)
    update: Update = Field(default_factory=Update)
    allowed_node_classes: list[Annotated[str, StringConstraints(max_length=128)]] | None = Field(None, max_length=512)
    artifacts: ArtifactStoreSpec
    pod_template: FreeForm | None = Field(None, json_schema_extra=_PRESERVE)


# ---------------------------------------------------------------------------------------------------------------------
# status


class WeightFileStatus(ApiModel):
    """One weight file as the weights Job found it."""

    name: Annotated[str, StringConstraints(max_length=255)]
    state: Annotated[str, StringConstraints(max_length=32)]


class WeightsStatus(ApiModel):
    """The weights volume, as the weights Job tells of it. sourcesHash: of what was fetched and verified last."""

    bytes_done: int | None = Field(None, json_schema_extra={"format": "int64"})
    bytes_total: int | None = Field(None, json_schema_extra={"format": "int64"})
    verified_time: Time | None = None
    sources_hash: Annotated[str, StringConstraints(max_length=64)] | None = None
    files: list[WeightFileStatus] | None = Field(None, max_length=64)


class PoolStatus(ApiModel):
    """One pool as seen lately."""

    name: Annotated[str, StringConstraints(max_length=63)]
    replicas: int = 0
    backoff_until_time: Time | None = None
    refusals: int | None = Field(None, description="How often in a row it gave nothing: each doubles the rest.")
    message: Message | None = None


class ScaleDecision(ApiModel):
    """One of the last scale decisions."""

    time: Time
    from_replicas: int
    to_replicas: int
    reason: Message


class ModelServerStatus(ApiModel):
    """What is known of the pool."""

    observed_generation: int | None = None
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    replicas: int | None = None
    ready_replicas: int | None = None
    busy_replicas: int | None = None
    backlog: int | None = None
    backlog_seconds: float | None = None
    selector: Annotated[str, StringConstraints(max_length=512)] | None = None
    weights: WeightsStatus | None = None
    pools: list[PoolStatus] | None = Field(None, max_length=16)
    cold_start: dict[str, Any] | None = None
    performance: dict[str, Any] | None = None
    last_scale: list[ScaleDecision] | None = Field(None, max_length=5)


INITIAL_STATUS = {
    "conditions": [
        {"type": "Ready", "status": "Unknown", "reason": "Pending", "message": ""},
        {"type": "Reconciling", "status": "True", "reason": "Pending", "message": ""},
    ],
}
