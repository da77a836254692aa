"""A Job -> what DashScope says of a task: status, times, prompts, usage, lists. Pure.

Times are those of the service, `YYYY-MM-DD HH:mm:ss.SSS` in China Standard Time, which has no zone in it; lists have
milliseconds since 1970. Usage is of a success alone: seconds of delivered video, inputs and failures cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from kinora.gateway.dashscope.errors import failure
from kinora.gateway.dashscope.spec import fields_of, retold
from kinora.gateway.dashscope.words import WORDS
from kinora.gateway.errors import InvalidInput
from kinora.gateway.jobs import Artifact, Job, State

NAME: Final = "dashscope"
ZONE: Final = timezone(timedelta(hours=8), "CST")
DAY: Final = timedelta(hours=24)
STATUSES: Final = {
    State.QUEUED: "PENDING",
    State.RUNNING: "RUNNING",
    State.SUCCEEDED: "SUCCEEDED",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELED",
}
UNKNOWN: Final = "UNKNOWN"
_STAMP: Final = "%Y%m%d%H%M%S"

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """What the VideoJob itself holds and no cache does. `seconds`: of the source video, where there is one."""

    prompt: str
    seconds: float | None

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Whole:
        """From the object."""
        inputs = (job.get("status") or {}).get("inputs") or []
        lengths = [one.get("durationSeconds") for one in inputs if one.get("name") == "video"]
        seconds = lengths[0] if lengths and isinstance(lengths[0], (int, float)) else None
        return cls(str((job.get("spec") or {}).get("prompt") or ""), seconds)


def submitted(job: Job) -> Answer:
    """The answer to a submit."""
    return {"output": {"task_id": job.id, "task_status": STATUSES[job.state]}}


def unknown(id_: str) -> Answer:
    """The answer about a task that this caller has not: HTTP 200, as the service has it."""
    return {"output": {"task_id": id_[:64], "task_status": UNKNOWN}}


def task(job: Job, *, video_url: str | None = None, whole: Whole | None = None) -> Answer:
    """The answer about a task. `whole`: of a finished one, None where it could not be read."""
    output: Answer = {"task_id": job.id, "task_status": STATUSES[job.state], **_times(job)}
    note = job.note if job.dialect == NAME else {}
    if job.state is State.FAILED:
        message = retold(job.message, fields_of(note)) if note else job.message
        output["code"], output["message"] = failure(job.reason, message)
    if job.state is not State.SUCCEEDED:
        return {"output": output}
    if video_url is not None:
        output["video_url"] = video_url
    if whole is not None:
        output["orig_prompt"] = str(note.get("prompt") or whole.prompt)
        if "extend" in note:
            output["actual_prompt"] = whole.prompt
    if "extend" in note:
        output["prompt_extend"] = WORDS.get(str(note["extend"]), str(note["extend"]))
    return {"output": output, "usage": usage(job, whole)}


def video_of(job: Job) -> Artifact | None:
    """The output that is the task's video."""
    return next((one for one in job.artifacts if one.content_type.startswith("video/")), None)


def usage(job: Job, whole: Whole | None) -> Answer:
    """What a success cost, in the shape of its model's document."""
    video = video_of(job)
    seconds = _seconds(video)
    tier = job.note.get("sr") if job.dialect == NAME else None
    if tier is None:
        rounded = max(1, math.floor(seconds + 0.5)) if video is not None else 0
        return {"video_duration": rounded, "video_ratio": "standard", "video_count": int(video is not None)}
    told: Answer = {"duration": seconds, "output_video_duration": seconds, "video_count": 1, "SR": tier}
    if whole is not None and whole.seconds is not None:
        told["input_video_duration"] = round(whole.seconds, 2)
    return told


def _seconds(video: Artifact | None) -> float:
    if video is None:
        return 0.0
    if video.duration_seconds is not None:
        return round(video.duration_seconds, 2)
    return round(video.frames / video.fps, 2) if video.frames and video.fps else 0.0


def _times(job: Job) -> Answer:
    known = {"submit_time": job.submit_time, "scheduled_time": job.start_time, "end_time": job.completion_time}
    return {name: stamp(time) for name, time in known.items() if time is not None}


def stamp(time: datetime) -> str:
    """`2025-05-15 16:14:44.723`."""
    local = time.astimezone(ZONE)
    return local.strftime("%Y-%m-%d %H:%M:%S.") + f"{local.microsecond // 1000:03d}"


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a list; texts as they came. Empty: not asked."""

    task_id: str = ""
    start_time: str = ""
    end_time: str = ""
    model_name: str = ""
    status: str = ""
    api_key_id: str = ""
    page_no: int = 1
    page_size: int = 10


def listed(jobs: Iterable[Job], query: Query, tenant: str, now: datetime) -> Answer:
    """One page of the tasks that fit, newest first. InvalidInput for a time or a status that is none.

    `data` is the list of the service's document, `tasks` the same tasks as the 2.x client reads them.
    """
    since, until = _window(query, now)
    if query.status and query.status not in (*STATUSES.values(), UNKNOWN):
        allowed = ", ".join((*STATUSES.values(), UNKNOWN))
        raise InvalidInput("status", f"status is {query.status[:80]!r}; allowed: {allowed}")
    found = [
        job
        for job in jobs
        if since <= job.submit_time <= until
        and query.task_id in ("", job.id)
        and query.model_name in ("", job.model)
        and query.status in ("", STATUSES[job.state])
        and query.api_key_id in ("", tenant)
    ]
    first = (query.page_no - 1) * query.page_size
    page = found[first : first + query.page_size]
    return {
        "total": len(found),
        "total_page": -(-len(found) // query.page_size),
        "page_no": query.page_no,
        "page_size": query.page_size,
        "data": [_entry(job, tenant) for job in page],
        "tasks": [{**task(job)["output"], "model_name": job.model} for job in page],
    }


def _entry(job: Job, tenant: str) -> Answer:
    times = {"gmt_create": job.submit_time, "start_time": job.start_time, "end_time": job.completion_time}
    note = job.note if job.dialect == NAME else {}
    return {
        "task_id": job.id,
        "status": STATUSES[job.state],
        "model_name": job.model,
        "api_key_id": tenant,
        "caller_uid": tenant,
        "caller_parent_id": tenant,
        "region": "",
        "request_id": str(note.get("request") or ""),
        "user_api_unique_key": f"apikey:v1:aigc:video-generation:video-synthesis:{job.model}",
        **{name: int(time.timestamp() * 1000) for name, time in times.items() if time is not None},
    }


def _window(query: Query, now: datetime) -> tuple[datetime, datetime]:
    """The 24 hours before now, after `start_time`, or before `end_time`; both: between them.

    Up to now is up to the last one: tasks have their times from the API server, whose clock may be ahead.
    """
    since, until = _time("start_time", query.start_time), _time("end_time", query.end_time)
    if since is None:
        since = (until or now) - DAY
        until = until or datetime.max.replace(tzinfo=ZONE)
    elif until is None:
        until = since + DAY
    if since > until:
        raise InvalidInput("start_time", f"start_time is {query.start_time}; allowed: a time before end_time")
    return since, until


def _time(field: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        if len(text) != 14:
            raise ValueError
        return datetime.strptime(text, _STAMP).replace(tzinfo=ZONE)
    except (ValueError, OverflowError):
        allowed = "YYYYMMDDhhmmss, 20230420193058 for example"
        raise InvalidInput(field, f"{field} is {text[:80]!r}; allowed: {allowed}") from None
