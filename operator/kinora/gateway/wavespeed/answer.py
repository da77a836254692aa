"""Job -> WaveSpeed's envelope (code, message, data). Pure; links are given by the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, Field

from kinora.api import reasons
from kinora.gateway.jobs import Job, State
from kinora.gateway.mapping import failure, iso_milliseconds
from kinora.gateway.wavespeed.request import NAMES

SYNC_TIMED_OUT: Final = 5004
#: A job's state in the API's words.
STATUS: Final[Mapping[State, Literal["created", "processing", "completed", "failed"]]] = {
    State.QUEUED: "created",
    State.RUNNING: "processing",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "failed",  # the document has these four; a client that knows no other would wait for ever
}
#: Why a prediction failed, in the API's own numbers; what is not here is 1405, a task that failed.
_CODES: Final[Mapping[str, int]] = {
    reasons.INVALID_SPEC: 1401,
    reasons.INVALID_INPUT: 1401,
    reasons.NOT_IMPLEMENTED: 1401,
    reasons.INPUT_REFUSED: 1402,
    reasons.INPUT_FETCH_FAILED: 1402,
    reasons.AGENT_ERROR: 5000,
    reasons.STORE_FAILED: 5000,
    reasons.START_DEADLINE_EXCEEDED: 5004,
    reasons.ACTIVE_DEADLINE_EXCEEDED: 5004,
}
_TASK_FAILED: Final = 1405
_CANCELLED: Final = "the prediction was cancelled"


class Urls(BaseModel):
    """Where the prediction is asked for."""

    get: str


class Timings(BaseModel):
    """Milliseconds."""

    inference: int = Field(0, description="How long it was rendered; 0 until it has ended")


class Prediction(BaseModel):
    """One prediction. `code` and `notes` are there where something is to be said."""

    id: str
    model: str
    outputs: list[str] = Field(description="Links to what was made; empty until completed")
    urls: Urls
    has_nsfw_contents: list[bool] = Field(description="false for each output: nothing is looked for")
    status: Literal["created", "processing", "completed", "failed"]
    created_at: str
    error: str
    timings: Timings
    executionTime: int = Field(0, description="timings.inference, as older clients read it")  # noqa: N815
    code: int | None = None
    notes: list[str] | None = Field(None, description="What was made of the request otherwise than it says")


class Envelope(BaseModel):
    """The answer around a prediction."""

    code: int = 200
    message: str = "success"
    data: Prediction


class Fault(BaseModel):
    """The answer to a request that cannot be served; `code` is the HTTP status."""

    code: int
    message: str


def prediction(job: Job, *, url: str, links: Sequence[str]) -> Prediction:
    """The prediction as it is. `url`: where it is asked for; `links`: one for each artifact, in their order."""
    completed = job.state is State.SUCCEEDED
    spent = inference_milliseconds(job)
    notes = [str(note) for note in job.note.get("notes") or []]
    failed = job.state in (State.FAILED, State.CANCELLED)
    return Prediction(
        id=job.id,
        model=str(job.note.get("model") or job.model),
        outputs=list(links) if completed else [],
        urls=Urls(get=url),
        has_nsfw_contents=[False] * len(links) if completed else [],
        status=STATUS[job.state],
        created_at=iso_milliseconds(job.submit_time),
        error=error_text(job) if failed else "",
        timings=Timings(inference=spent),
        executionTime=spent,
        code=_CODES.get(job.reason, _TASK_FAILED) if failed else None,
        notes=notes or None,
    )


def timed_out(job: Job, *, url: str) -> Prediction:
    """The answer to a request in sync mode that was kept open for as long as it is: the job goes on."""
    unfinished = prediction(job, url=url, links=())
    said = f"Sync mode timed out; the prediction goes on, ask for its result at {url}"
    return unfinished.model_copy(update={"status": "processing", "code": SYNC_TIMED_OUT, "error": said})


def inference_milliseconds(job: Job) -> int:
    """How long it was rendered; 0 where that is not known yet."""
    return round(float(job.timings.get("renderedSeconds") or 0) * 1000)


def error_text(job: Job) -> str:
    """Why it failed. Never `HTTP` and a number: the package would submit the job again."""
    if job.state is State.CANCELLED:
        return _CANCELLED
    return without_http(failure(job, NAMES))


def without_http(text: str) -> str:
    """The text with `HTTP 503` told as `status 503`."""
    return re.sub(r"HTTP(/\d(\.\d)?)?\s+(?=\d)", "status ", text)
