"""The status of a VideoJob (kinora.dev/v1alpha1). Every field of the design's api.md.

These models only document and bound what is stored: processes read a status as the raw dict it is, so that one written
by another version can never crash them. No code that decides belongs here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from kinora.api.base import ApiModel, Condition, Message, ObjectName, Reason, Time, cel, rule
from kinora.api.reasons import Phase


class QueueStatus(ApiModel):
    """Where the job stands in its queue: of the first 20 of each queue, and seldom (see docs/scheduling.md)."""

    position: int | None = None
    estimated_start_time: Time | None = None


class Assignment(ApiModel):
    """The bind: this job, this pod, this attempt. Identity is the UID, never the name."""

    pod_name: ObjectName
    pod_uid: Annotated[str, StringConstraints(max_length=64)] = Field(alias="podUID")
    node_name: Annotated[str, StringConstraints(max_length=253)] = ""
    pool: Annotated[str, StringConstraints(max_length=63)] = ""
    prompt_id: Annotated[str, StringConstraints(max_length=36)] = Field("", alias="promptID")
    price_per_hour: float | None = Field(None, description="What the pod cost an hour when the job was bound to it.")
    bound_time: Time | None = None
    preempt_time: Time | None = Field(
        None, description="Since when the agent is asked to stop the attempt for a job that goes first."
    )


class Released(ApiModel):
    """The agent gives this attempt up; the operator takes it from here."""

    attempt: int
    reason: Reason
    time: Time
    gpu_seconds: float | None = Field(None, description="How long the attempt had held its engine.")


class Progress(ApiModel):
    """How far the render is."""

    percent: int = Field(0, ge=0, le=100)
    stage: Annotated[str, StringConstraints(max_length=32)] = ""
    step: int | None = None
    steps: int | None = None
    last_update_time: Time | None = None


class InputStatus(ApiModel):
    """What was found in one input, and what was done to it."""

    name: Annotated[str, StringConstraints(max_length=64)]
    sha256: Annotated[str, StringConstraints(max_length=64)] | None = None
    bytes: int | None = Field(None, json_schema_extra={"format": "int64"})
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    duration_seconds: float | None = None
    actions: list[Annotated[str, StringConstraints(max_length=128)]] = Field(default_factory=list, max_length=16)


class Artifact(ApiModel):
    """A finished output with its proof, and the names by which the ComfyUI dialect lists it."""

    uri: Annotated[str, StringConstraints(max_length=1024)]
    content_type: Annotated[str, StringConstraints(max_length=128)]
    bytes: int = Field(json_schema_extra={"format": "int64"})
    sha256: Annotated[str, StringConstraints(max_length=64)]
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    duration_seconds: float | None = None
    node: Annotated[str, StringConstraints(max_length=64)] = ""
    list: Annotated[str, StringConstraints(max_length=32)] = ""
    filename: Annotated[str, StringConstraints(max_length=255)] = ""
    subfolder: Annotated[str, StringConstraints(max_length=255)] = ""
    type: Annotated[str, StringConstraints(max_length=16)] = ""


class LastFailure(ApiModel):
    """Why the latest failed attempt failed."""

    reason: Reason
    message: Message
    node: Annotated[str, StringConstraints(max_length=128)] = ""
    attempt: int = 0
    exit_code: int | None = None
    time: Time | None = None


class WebhookStatus(ApiModel):
    """Delivery of the webhook: Pending, Delivered or Failed, and why it is not delivered (yet)."""

    state: Annotated[str, StringConstraints(max_length=32)]
    attempts: int = 0
    next_attempt_time: Time | None = None
    response_code: int | None = None
    reason: Annotated[str, StringConstraints(max_length=64)] | None = None
    message: Annotated[str, StringConstraints(max_length=256)] | None = None


class Timings(ApiModel):
    """Seconds of each stage of the attempt that finished; queuedSeconds counts from creation."""

    queued_seconds: float | None = None
    staged_seconds: float | None = None
    loaded_seconds: float | None = None
    rendered_seconds: float | None = None
    published_seconds: float | None = None
    total_seconds: float | None = None


_ONE_TERMINAL = rule(
    "!(oldSelf in ['Succeeded', 'Failed', 'Cancelled']) || self == oldSelf",
    "'phase is ' + oldSelf + ', which is terminal and never changes'",
)


class VideoJobStatus(ApiModel):
    """What is known. At most 8 KiB; messages at most 1,024 characters; no traceback, path or presigned URL.

    `input_store` is the root of the store where a stager has put the inputs that it fetched, each under its sha256.
    """

    observed_generation: int | None = None
    phase: Phase = Field(Phase.PENDING, json_schema_extra=cel(_ONE_TERMINAL))
    reason: Reason | None = None
    message: Message | None = None
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    submit_time: Time | None = None
    start_time: Time | None = None
    completion_time: Time | None = None
    queue: QueueStatus | None = None
    attempt: int | None = None
    failures: int | None = None
    disruptions: int | None = None
    assignment: Assignment | None = None
    released: Released | None = None
    progress: Progress | None = None
    inputs: list[InputStatus] | None = Field(None, max_length=16)
    input_store: Annotated[str, StringConstraints(max_length=300)] | None = None
    resolved: dict[str, object] | None = None
    timings: Timings | None = None
    artifacts: list[Artifact] | None = Field(None, max_length=8)
    gpu_seconds: float | None = Field(
        None, description="Seconds in which the job held an engine, in all attempts, as far as known."
    )
    lost_gpu_seconds: float | None = Field(
        None, alias="lostGPUSeconds", description="Of gpuSeconds: those of earlier attempts, which brought nothing."
    )
    cost: float | None = Field(
        None,
        description="Of gpuSeconds, each attempt at the price of its pool, in the administrator's currency. "
        "Absent where no pool had a price.",
    )
    last_failure: LastFailure | None = None
    webhook: WebhookStatus | None = None


# The schema's default: a job that nobody has looked at yet must not count as done for GitOps tools (api.md).
INITIAL_STATUS = {
    "phase": "Pending",
    "conditions": [
        {"type": "Ready", "status": "Unknown", "reason": "Pending", "message": ""},
        {"type": "Reconciling", "status": "True", "reason": "Pending", "message": ""},
        {"type": "Succeeded", "status": "Unknown", "reason": "Pending", "message": ""},
        {"type": "Finished", "status": "False", "reason": "Pending", "message": ""},
    ],
}
