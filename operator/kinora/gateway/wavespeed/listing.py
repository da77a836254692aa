"""Lists and deletions of predictions: what is asked, which jobs that is, the answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from kinora.gateway.jobs import Job
from kinora.gateway.mapping import Body
from kinora.gateway.wavespeed.answer import STATUS, Prediction


class Query(Body):
    """POST /predictions."""

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(100, ge=1, le=100)
    model: Annotated[str, StringConstraints(max_length=256)] | None = None
    status: Literal["created", "processing", "completed", "failed"] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


class Deletion(Body):
    """POST /predictions/delete."""

    ids: list[Annotated[str, StringConstraints(max_length=64)]] = Field(max_length=100)


class Page(BaseModel):
    """One page. `total`: over all pages."""

    page: int
    total: int
    items: list[Prediction]


class Listed(BaseModel):
    """The answer around a page."""

    code: int = 200
    message: str = "success"
    data: Page


class DeletedPrediction(BaseModel):
    """A prediction that was cancelled or removed."""

    id: str
    status: Literal["deleted"] = "deleted"


class Deleted(BaseModel):
    """The answer to a deletion."""

    code: int = 200
    message: str = "success"
    data: DeletedPrediction


class DeletedCount(BaseModel):
    """How many were."""

    deleted_count: int


class DeletedMany(BaseModel):
    """The answer to the deletion of several."""

    code: int = 200
    message: str = "success"
    data: DeletedCount


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs of one page, and how many there are on all."""

    jobs: list[Job]
    total: int


def select(jobs: Sequence[Job], asked: Query) -> Selection:
    """The page that is asked for, of these jobs (newest first)."""
    found = [job for job in jobs if _matches(job, asked)]
    start = (asked.page - 1) * asked.page_size
    return Selection(found[start : start + asked.page_size], len(found))


def _matches(job: Job, asked: Query) -> bool:
    if asked.model is not None and asked.model not in (job.note.get("model"), job.model):
        return False
    if asked.status is not None and STATUS[job.state] != asked.status:
        return False
    if asked.created_after is not None and job.submit_time < _aware(asked.created_after):
        return False
    return asked.created_before is None or job.submit_time <= _aware(asked.created_before)


def _aware(time: datetime) -> datetime:
    """A time without a zone is UTC."""
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
