"""What the gateway knows of a VideoJob, read from the object. Pure. No prompt and no graph is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from kinora.api.names import LABEL_DIALECT, LABEL_TENANT
from kinora.api.reasons import Phase
from kinora.api.transitions import parse_time, phase_of
from kinora.gateway.names import ANNOTATION_NOTE, id_of

_RESOLVED = ("seed", "width", "height", "outputWidth", "outputHeight", "frames", "fps", "steps", "deliveredFrames")


class State(StrEnum):
    """Where a job is, in the words that all dialects have one for."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether it stays so."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


_STATES = {
    Phase.PENDING: State.QUEUED,
    Phase.QUEUED: State.QUEUED,
    Phase.SCHEDULED: State.QUEUED,
    Phase.RUNNING: State.RUNNING,
    Phase.FINALIZING: State.RUNNING,
    Phase.SUCCEEDED: State.SUCCEEDED,
    Phase.FAILED: State.FAILED,
    Phase.CANCELLED: State.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """One finished output, as status.artifacts has it (api.md). `index`: its place there."""

    index: int
    uri: str
    content_type: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    frames: int | None
    fps: float | None
    duration_seconds: float | None
    node: str
    list: str
    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True, slots=True)
class Job:
    """One VideoJob. `id` is the only name that a dialect shows; `note` is what its dialect wrote at submit."""

    id: str
    namespace: str
    name: str
    uid: str
    tenant: str
    dialect: str
    note: Mapping[str, Any]
    request: str
    model: str
    model_server: str
    task: str | None
    state: State
    phase: str
    reason: str
    message: str
    submit_time: datetime
    start_time: datetime | None
    completion_time: datetime | None
    percent: int
    stage: str | None
    step: int | None
    steps: int | None
    attempt: int
    pod: str | None
    position: int | None
    estimated_start: datetime | None
    artifacts: tuple[Artifact, ...]
    timings: Mapping[str, float]
    gpu_seconds: float | None
    cancel_asked: bool
    failed_node: str | None = None
    pod_uid: str | None = None
    resolved: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


def job_of(obj: Mapping[str, Any]) -> Job | None:
    """The job of a VideoJob; None for one that the gateway did not make (its name, or its labels, say so)."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    labels = metadata.get("labels") or {}
    id_ = id_of(metadata["name"])
    if id_ is None or not metadata["name"].startswith(f"gw-{labels.get(LABEL_TENANT)}-"):
        return None
    kept = _note(metadata)
    phase = phase_of(status)
    progress, queue = status.get("progress") or {}, status.get("queue") or {}
    assignment = status.get("assignment") or {}
    resolved = status.get("resolved") or {}
    return Job(
        id=id_,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        tenant=str(labels[LABEL_TENANT]),
        dialect=str(labels.get(LABEL_DIALECT, "")),
        note=kept.get("note") or {},
        request=str(kept.get("request", "")),
        model=str(kept.get("model") or spec.get("model") or ""),
        model_server=str(spec.get("modelServerName") or ""),
        task=spec.get("task"),
        state=_STATES[phase],
        phase=str(phase),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        submit_time=parse_time(metadata["creationTimestamp"]),
        start_time=_time(status.get("startTime")),
        completion_time=_time(status.get("completionTime")),
        percent=int(progress.get("percent") or 0),
        stage=progress.get("stage") or None,
        step=progress.get("step"),
        steps=progress.get("steps"),
        attempt=int(status.get("attempt") or 0),
        pod=assignment.get("podName"),
        pod_uid=assignment.get("podUID"),
        position=queue.get("position"),
        estimated_start=_time(queue.get("estimatedStartTime")),
        artifacts=tuple(_artifact(index, entry) for index, entry in enumerate(status.get("artifacts") or [])),
        timings={name: value for name, value in (status.get("timings") or {}).items() if value is not None},
        gpu_seconds=status.get("gpuSeconds"),
        cancel_asked=bool(spec.get("cancel")),
        failed_node=(status.get("lastFailure") or {}).get("node") or None,
        resolved={name: resolved[name] for name in _RESOLVED if name in resolved},
        version=_version(metadata),
    )


def _note(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the gateway wrote beside the spec; anybody who may edit the object may have spoilt it."""
    try:
        found = json.loads((metadata.get("annotations") or {}).get(ANNOTATION_NOTE) or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("note") or {}, dict):
        return {}
    return found


def _version(metadata: Mapping[str, Any]) -> int:
    text = str(metadata.get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def _time(text: str | None) -> datetime | None:
    return parse_time(text).astimezone(UTC) if text else None


def _artifact(index: int, entry: Mapping[str, Any]) -> Artifact:
    return Artifact(
        index=index,
        uri=str(entry.get("uri", "")),
        content_type=str(entry.get("contentType") or "application/octet-stream"),
        bytes=int(entry.get("bytes") or 0),
        sha256=str(entry.get("sha256") or ""),
        width=entry.get("width"),
        height=entry.get("height"),
        frames=entry.get("frames"),
        fps=entry.get("fps"),
        duration_seconds=entry.get("durationSeconds"),
        node=str(entry.get("node") or ""),
        list=str(entry.get("list") or ""),
        filename=str(entry.get("filename") or ""),
        subfolder=str(entry.get("subfolder") or ""),
        type=str(entry.get("type") or ""),
    )
