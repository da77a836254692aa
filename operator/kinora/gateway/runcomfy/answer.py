"""Job -> RunComfy's answers: the submit, the status, the result, the cancel. Pure; links and URLs are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, Field

from kinora.gateway.jobs import Job, State
from kinora.gateway.mapping import failure, iso_milliseconds, of_kind
from kinora.gateway.runcomfy.request import NAMES

Status = Literal["in_queue", "in_progress", "completed", "cancelled"]
_STATUS: Final[Mapping[State, Status]] = {
    State.QUEUED: "in_queue",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "cancelled",  # the API names no failed state; `error` tells the two apart
    State.CANCELLED: "cancelled",
}


class Urls(BaseModel):
    """Where a request is asked for, and what identifies it."""

    request_id: str
    status_url: str
    result_url: str
    cancel_url: str


class Submitted(Urls):
    """The answer to a submit."""

    notes: list[str] | None = Field(None, description="Keys that the model has not, and that were ignored")


class RequestStatus(Urls):
    """Where a request is. `error`: it failed, which the API has no status for."""

    status: Status
    queue_position: int | None = Field(None, description="With in_queue: how many are before it, 0 if none")
    error: str | None = None


class Output(BaseModel):
    """Links to what was made; `video` and `image` are the first of `videos` and `images`."""

    video: str | None = None
    videos: list[str] | None = None
    image: str | None = None
    images: list[str] | None = None


class Result(RequestStatus):
    """The result; before its end the status alone."""

    output: Output | None = None
    created_at: str
    finished_at: str | None = None


class Cancelled(BaseModel):
    """The answer to a cancel."""

    request_id: str
    status: Status
    outcome: Literal["cancelled", "not_cancellable"]
    message: str | None = None


def status(job: Job, urls: Urls, position: int | None = None) -> RequestStatus:
    """Where the request is. `position`: in the queue, counted from 0."""
    return RequestStatus(
        **urls.model_dump(),
        status=_STATUS[job.state],
        queue_position=position if job.state is State.QUEUED else None,
        error=failure(job, NAMES) if job.state is State.FAILED else None,
    )


def result(job: Job, urls: Urls, links: Sequence[str], position: int | None = None) -> Result:
    """The result. `links`: one for each artifact, in their order."""
    done = job.state is State.SUCCEEDED
    return Result(
        **status(job, urls, position).model_dump(),
        output=output(job, links) if done else None,
        created_at=iso_milliseconds(job.submit_time),
        finished_at=iso_milliseconds(job.completion_time) if job.completion_time and job.state.finished else None,
    )


def output(job: Job, links: Sequence[str]) -> Output:
    """The links by kind: one in the singular; all of them in the plural where there are more."""
    videos, images = ([links[one.index] for one in of_kind(job, kind)] for kind in ("video", "image"))
    return Output(
        video=videos[0] if videos else None,
        videos=videos if len(videos) > 1 else None,
        image=images[0] if images else None,
        images=images if len(images) > 1 else None,
    )


def cancelled(job: Job) -> Cancelled:
    """The answer to a cancel that was taken up, or that came when the request was cancelled already."""
    return Cancelled(request_id=job.id, status="cancelled", outcome="cancelled")


def not_cancellable(job: Job) -> Cancelled:
    """The answer to a cancel of a request that is no longer in the queue."""
    said = f"the request is {_STATUS[job.state]}; only one that is in_queue can be cancelled"
    return Cancelled(request_id=job.id, status=_STATUS[job.state], outcome="not_cancellable", message=said)
