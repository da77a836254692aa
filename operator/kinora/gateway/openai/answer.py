"""Job -> OpenAI's video object, its lists, and what a deletion answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from kinora.gateway.errors import InvalidInput
from kinora.gateway.jobs import Job, State
from kinora.gateway.mapping import failure, of_kind, shown
from kinora.gateway.openai.request import NAMES

POLL_AFTER_MILLISECONDS: Final = 2000
_STATUS: Final = {
    State.QUEUED: "queued",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "failed",
}
_UNKNOWN: Final = "auto"  # of a size or a length that follows from an input nobody has looked at yet


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Video(BaseModel):
    """One video."""

    id: str
    object: Literal["video"] = "video"
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = Field(None, description="When the record and its links go")
    model: str
    prompt: str | None = Field(None, description="In the answer to a request that has one")
    seconds: str
    size: str
    remixed_from_video_id: str | None = None
    error: VideoError | None = None
    notes: list[str] | None = Field(None, description="What was made of the request otherwise than it says")


class VideoList(BaseModel):
    """One page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    deleted: Literal[True] = True
    object: Literal["video.deleted"] = "video.deleted"


class Model(BaseModel):
    """A name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "kinora"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


def video(job: Job, *, retention_seconds: int = 0, prompt: str | None = None) -> Video:
    """The video as it is. `retention_seconds`: how long the record is kept after its end; 0: for ever."""
    ended = int(job.completion_time.timestamp()) if job.completion_time and job.state.finished else None
    done = job.state is State.SUCCEEDED
    notes = [str(note) for note in job.note.get("notes") or []]
    return Video(
        id=job.id,
        status=_STATUS[job.state],
        progress=100 if done else max(0, min(job.percent, 99)),
        created_at=int(job.submit_time.timestamp()),
        completed_at=ended if done else None,
        expires_at=ended + retention_seconds if ended is not None and retention_seconds else None,
        model=str(job.note.get("model") or job.model),
        prompt=prompt,
        seconds=seconds_of(job),
        size=size_text(job),
        remixed_from_video_id=job.note.get("remixedFrom"),
        error=error_of(job),
        notes=notes or None,
    )


def seconds_of(job: Job) -> str:
    """The length: as delivered, else as asked for, else as resolved."""
    delivered = next((one.duration_seconds for one in of_kind(job, "video")), None)
    if delivered is not None and "seconds" not in job.note:
        return f"{delivered:g}"
    if "seconds" in job.note:
        return str(job.note["seconds"])
    frames, fps = job.resolved.get("frames"), job.resolved.get("fps")
    return f"{frames / fps:g}" if frames and fps else _UNKNOWN


def size_text(job: Job) -> str:
    """The size: as delivered, else as asked for, else as resolved."""
    found = next(((one.width, one.height) for one in of_kind(job, "video")), (None, None))
    if all(found):
        return f"{found[0]}x{found[1]}"
    if "size" in job.note:
        return str(job.note["size"])
    width, height = job.resolved.get("outputWidth"), job.resolved.get("outputHeight")
    return f"{width}x{height}" if width and height else _UNKNOWN


def error_of(job: Job) -> VideoError | None:
    """Why it failed; None where it did not."""
    if job.state is State.CANCELLED:
        return VideoError(code="cancelled", message="the video was cancelled")
    if job.state is not State.FAILED:
        return None
    return VideoError(code=snake(job.reason) or "failed", message=failure(job, NAMES))


def snake(reason: str) -> str:
    """`InputFetchFailed` -> `input_fetch_failed`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", reason).lower()


def page(jobs: Sequence[Job], *, after: str | None, limit: int, ascending: bool) -> tuple[list[Job], bool]:
    """The jobs of one page, and whether there are more. `jobs`: all of them, newest first. Raises InvalidInput."""
    ordered = list(reversed(jobs)) if ascending else list(jobs)
    if after is not None:
        places = [index for index, job in enumerate(ordered) if job.id == after]
        if not places:
            raise InvalidInput("after", f"after is {shown(after)}; allowed: the id of a video that is there")
        ordered = ordered[places[0] + 1 :]
    return ordered[:limit], len(ordered) > limit


def listed(jobs: Sequence[Job], more: bool, *, retention_seconds: int = 0) -> VideoList:
    """One page, as the API has it."""
    data = [video(job, retention_seconds=retention_seconds) for job in jobs]
    return VideoList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


def note_of(spec: dict[str, Any], notes: Sequence[str], *, fps: float | None = None, **more: Any) -> dict[str, Any]:
    """What is kept beside the job: length and size as asked for, since both are told before anything is rendered.

    `fps`: the model's own. `more`: what else is to be kept; None is left out.
    """
    parameters, output = spec.get("parameters") or {}, spec.get("output") or {}
    kept: dict[str, Any] = {"notes": list(notes)} if notes else {}
    if "durationSeconds" in parameters:
        kept["seconds"] = f"{parameters['durationSeconds']:g}"
    elif "frames" in parameters and spec.get("task") != "Extend" and (rate := parameters.get("fps") or fps):
        kept["seconds"] = f"{parameters['frames'] / rate:g}"
    if "width" in output and "height" in output:
        kept["size"] = f"{output['width']}x{output['height']}"
    return {**kept, **{name: value for name, value in more.items() if value is not None}}
