"""The shapes of the answers, for the OpenAPI document: as answer.py makes them, which is what is sent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED", "UNKNOWN"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")

    request_id: str


class ErrorAnswer(_Answer):
    """A refused request."""

    code: str
    message: str


class SubmitOutput(BaseModel):
    """A task that was made."""

    task_id: str
    task_status: Status


class SubmitAnswer(_Answer):
    """The answer to a submit."""

    output: SubmitOutput


class TaskOutput(SubmitOutput):
    """A task. What is not known yet, or not of this status, is left out."""

    submit_time: str | None = Field(None, description="YYYY-MM-DD HH:mm:ss.SSS, UTC+8")
    scheduled_time: str | None = Field(None, description="when it began")
    end_time: str | None = None
    video_url: str | None = Field(None, description="of a success; for 24 hours")
    orig_prompt: str | None = None
    actual_prompt: str | None = Field(None, description="where prompt_extend was asked for: what was rendered")
    prompt_extend: str | None = Field(None, description="how it went with prompt_extend")
    code: str | None = Field(None, description="of a failure")
    message: str | None = Field(None, description="of a failure")


class Usage(BaseModel):
    """Of a success alone, in seconds of delivered video: the first three of wan2.1-vace-plus, the rest of
    wan2.7-videoedit."""

    video_count: int
    video_duration: int | None = None
    video_ratio: str | None = None
    duration: float | None = None
    input_video_duration: float | None = None
    output_video_duration: float | None = None
    SR: int | None = None


class TaskAnswer(_Answer):
    """The answer about a task."""

    output: TaskOutput
    usage: Usage | None = None


class ListedTask(BaseModel):
    """A task in a list. Times are milliseconds since 1970."""

    task_id: str
    status: Status
    model_name: str
    api_key_id: str
    caller_uid: str
    caller_parent_id: str
    region: str
    request_id: str
    user_api_unique_key: str
    gmt_create: int
    start_time: int | None = None
    end_time: int | None = None


class ListAnswer(_Answer):
    """A page of tasks, twice: `data` as the service's document has it, `tasks` as the 2.x client reads it."""

    total: int
    total_page: int
    page_no: int
    page_size: int
    data: list[ListedTask]
    tasks: list[dict[str, Any]]


class CancelAnswer(_Answer):
    """The task will be cancelled."""


class Policy(BaseModel):
    """What a file is posted with, as to OSS: a form to `upload_host`, its `key` in `upload_dir`."""

    policy: str
    signature: str
    upload_dir: str
    upload_host: str
    expire_in_seconds: int
    max_file_size_mb: int
    capacity_limit_mb: int
    oss_access_key_id: str
    x_oss_object_acl: str
    x_oss_forbid_overwrite: str


class PolicyAnswer(_Answer):
    """The answer to action=getPolicy."""

    data: Policy


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without references: a body that is read by hand has no place among the components."""
    schema = model.model_json_schema()
    known = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inlined(known[value["$ref"].rpartition("/")[2]])
        return {name: inlined(one) for name, one in value.items()}

    result: dict[str, Any] = inlined(schema)
    return result
