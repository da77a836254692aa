"""What is said of a task: each documented field, in each status; lists, their filters and pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kinora.gateway.dashscope.answer import Query, Whole, listed, stamp, submitted, task, unknown
from kinora.gateway.dashscope.models import ListedTask, SubmitOutput, TaskOutput, Usage
from kinora.gateway.dashscope.words import DONE, OFF, TIMEOUT, WORDS
from kinora.gateway.errors import InvalidInput
from kinora.gateway.jobs import Job, State, job_of

ID = "8a1c2f6e-2f5e-4a1c-9d0e-3b1a3f6f2c11"
URL = "https://kinora.example.com/files/abc"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STATUSES = ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED"]


def _job(phase: str = "Pending", *, note: dict[str, Any] | None = None, **status: Any) -> Job:
    import json

    made = job_of(
        {
            "metadata": {
                "name": f"gw-0123456789-{ID}",
                "namespace": "films",
                "uid": "u",
                "resourceVersion": "7",
                "creationTimestamp": "2026-03-01T08:00:00Z",
                "labels": {"kinora.dev/tenant": "0123456789", "kinora.dev/dialect": "dashscope"},
                "annotations": {"kinora.dev/gateway": json.dumps({"note": note or {}, "model": "wan2.1-vace-plus"})},
            },
            "spec": {"model": "wan2.1-vace-plus", "task": "VideoToVideo"},
            "status": {"phase": phase, **status},
        }
    )
    assert made is not None
    return made


def _artifact(**more: Any) -> dict[str, Any]:
    video = {"uri": "pvc://a/b", "contentType": "video/mp4", "bytes": 9, "sha256": "0" * 64}
    return {**video, "frames": 152, "fps": 30, "durationSeconds": 5.0667, **more}


def _succeeded(note: dict[str, Any] | None = None, **artifact: Any) -> Job:
    return _job(
        "Succeeded",
        note=note,
        startTime="2026-03-01T08:00:05.250000Z",
        completionTime="2026-03-01T08:03:00Z",
        artifacts=[_artifact(**artifact)],
    )


def test_a_submit_is_answered_with_id_and_status() -> None:
    assert submitted(_job()) == {"output": {"task_id": ID, "task_status": "PENDING"}}
    SubmitOutput.model_validate(submitted(_job())["output"])


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        ("Pending", "PENDING"),
        ("Queued", "PENDING"),
        ("Scheduled", "PENDING"),
        ("Running", "RUNNING"),
        ("Finalizing", "RUNNING"),
        ("Succeeded", "SUCCEEDED"),
        ("Failed", "FAILED"),
        ("Cancelled", "CANCELED"),
    ],
)
def test_every_phase_has_its_word(phase: str, status: str) -> None:
    assert task(_job(phase))["output"]["task_status"] == status


def test_a_task_that_waits_has_a_submit_time_alone() -> None:
    assert task(_job()) == {
        "output": {"task_id": ID, "task_status": "PENDING", "submit_time": "2026-03-01 16:00:00.000"}
    }


def test_a_task_that_runs_has_a_scheduled_time() -> None:
    found = task(_job("Running", startTime="2026-03-01T08:00:05.25Z"))
    assert found["output"]["scheduled_time"] == "2026-03-01 16:00:05.250"
    assert "usage" not in found


def test_a_success_has_every_documented_field_and_no_code() -> None:
    found = task(_succeeded({"extend": DONE, "prompt": "a fox"}), video_url=URL, whole=Whole("a red fox runs", None))
    assert found == {
        "output": {
            "task_id": ID,
            "task_status": "SUCCEEDED",
            "submit_time": "2026-03-01 16:00:00.000",
            "scheduled_time": "2026-03-01 16:00:05.250",
            "end_time": "2026-03-01 16:03:00.000",
            "video_url": URL,
            "orig_prompt": "a fox",
            "actual_prompt": "a red fox runs",
            "prompt_extend": WORDS[DONE],
        },
        "usage": {"video_duration": 5, "video_ratio": "standard", "video_count": 1},
    }
    assert TaskOutput.model_validate(found["output"]).model_dump(exclude_none=True) == found["output"]
    assert Usage.model_validate(found["usage"]).model_dump(exclude_none=True) == found["usage"]


@pytest.mark.parametrize("how", [OFF, TIMEOUT])
def test_a_prompt_that_was_not_rewritten_is_the_actual_one_and_it_is_said(how: str) -> None:
    output = task(_succeeded({"extend": how}), video_url=URL, whole=Whole("a fox", None))["output"]
    assert output["orig_prompt"] == output["actual_prompt"] == "a fox"
    assert output["prompt_extend"] == WORDS[how]


def test_where_no_rewriting_was_asked_for_there_is_no_actual_prompt() -> None:
    output = task(_succeeded({}), video_url=URL, whole=Whole("a fox", None))["output"]
    assert output["orig_prompt"] == "a fox"
    assert {"actual_prompt", "prompt_extend"}.isdisjoint(output)


def test_prompts_are_left_out_where_they_cannot_be_read() -> None:
    output = task(_succeeded({"extend": OFF}), video_url=URL)["output"]
    assert {"orig_prompt", "actual_prompt"}.isdisjoint(output)
    assert output["video_url"] == URL


def test_usage_of_an_edit_is_in_its_own_shape_and_bills_what_was_delivered() -> None:
    found = task(_succeeded({"sr": 1080}, durationSeconds=7.0333), whole=Whole("x", 7.0))
    assert found["usage"] == {
        "duration": 7.03,
        "output_video_duration": 7.03,
        "input_video_duration": 7.0,
        "video_count": 1,
        "SR": 1080,
    }


def test_the_length_of_an_output_without_one_follows_from_its_frames() -> None:
    found = task(_succeeded({}, durationSeconds=None, frames=90, fps=30))
    assert found["usage"]["video_duration"] == 3


def test_a_failure_is_told_in_the_output_and_costs_nothing() -> None:
    found = task(_job("Failed", reason="InvalidInput", message="the video has no frames"))
    assert found["output"]["code"] == "InvalidParameter"
    assert found["output"]["message"] == "the video has no frames"
    assert set(found) == {"output"}


def test_a_cancelled_task_has_no_usage_and_no_code() -> None:
    found = task(_job("Cancelled", reason="Cancelled", message="cancelled", completionTime="2026-03-01T08:01:00Z"))
    assert set(found) == {"output"}
    assert found["output"]["end_time"] == "2026-03-01 16:01:00.000"
    assert "code" not in found["output"]


def test_a_task_that_is_not_there_is_unknown() -> None:
    assert unknown("x" * 500) == {"output": {"task_id": "x" * 64, "task_status": "UNKNOWN"}}


def test_a_job_of_another_dialect_is_told_without_its_note() -> None:
    job = replace(_succeeded({"sr": 720, "extend": OFF}), dialect="wavespeed")
    found = task(job, whole=Whole("a fox", None))
    assert found["usage"]["video_ratio"] == "standard"
    assert "actual_prompt" not in found["output"]


def test_what_the_object_holds_besides() -> None:
    inputs = [{"name": "references[0]"}, {"name": "video", "durationSeconds": 4.96}]
    assert Whole.of({"spec": {"prompt": "a"}, "status": {"inputs": inputs}}) == Whole("a", 4.96)
    assert Whole.of({"spec": {}}) == Whole("", None)


def test_times_are_those_of_the_service() -> None:
    assert stamp(datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)) == "2026-03-02 07:59:59.999"


# --- lists ------------------------------------------------------------------------------------------------------------


def _jobs() -> list[Job]:
    """Twelve, newest first, an hour apart, the first an hour ago."""
    states = [State.QUEUED, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED]
    return [
        replace(
            _job(),
            id=f"00000000-0000-4000-8000-{index:012d}",
            submit_time=NOW - timedelta(hours=1 + index),
            state=states[index % 5],
            model="wan2.1-vace-plus" if index % 2 else "wan2.7-videoedit",
        )
        for index in range(12)
    ]


def _ids(**query: Any) -> list[int]:
    found = listed(_jobs(), Query(**query), "ann", NOW)
    assert [one["task_id"] for one in found["tasks"]] == [one["task_id"] for one in found["data"]]
    return [int(one["task_id"][-12:]) for one in found["data"]]


def test_a_list_has_pages() -> None:
    first = listed(_jobs(), Query(), "ann", NOW)
    assert {name: first[name] for name in ("total", "total_page", "page_no", "page_size")} == {
        "total": 12,
        "total_page": 2,
        "page_no": 1,
        "page_size": 10,
    }
    assert _ids() == list(range(10))
    assert _ids(page_no=2) == [10, 11]
    assert _ids(page_no=3) == []
    assert _ids(page_no=3, page_size=5) == [10, 11]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "RUNNING"}, [1, 6, 11]),
        ({"status": "CANCELED"}, [4, 9]),
        ({"status": "UNKNOWN"}, []),
        ({"model_name": "wan2.7-videoedit"}, [0, 2, 4, 6, 8, 10]),
        ({"task_id": "00000000-0000-4000-8000-000000000003"}, [3]),
        ({"start_time": "20260301170000"}, [0, 1, 2]),
        ({"end_time": "20260301110000"}, [8, 9, 10, 11]),
        ({"start_time": "20260301150000", "end_time": "20260301170000"}, [2, 3, 4]),
        ({"api_key_id": "ann", "status": "FAILED"}, [3, 8]),
        ({"api_key_id": "bob"}, []),
    ],
)
def test_a_list_is_of_what_fits(query: dict[str, Any], found: list[int]) -> None:
    assert _ids(**query) == found


def test_without_times_a_list_is_of_the_last_day() -> None:
    old = replace(_job(), submit_time=NOW - timedelta(hours=25))
    assert listed([old], Query(), "ann", NOW)["total"] == 0
    assert listed([old], Query(start_time="20260228000000"), "ann", NOW)["total"] == 1


def test_a_task_of_a_clock_that_is_ahead_is_listed() -> None:
    new = replace(_job(), submit_time=NOW + timedelta(seconds=3))
    assert listed([new], Query(), "ann", NOW)["total"] == 1


@pytest.mark.parametrize(
    "query",
    [
        {"start_time": "yesterday"},
        {"end_time": "2026-03-01 00:00"},
        {"start_time": "20261301000000"},
        {"start_time": "20260302000000", "end_time": "20260301000000"},
        {"status": "DONE"},
    ],
)
def test_a_list_of_nonsense_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="allowed: "):
        listed([], Query(**query), "ann", NOW)


def test_an_entry_has_every_documented_field() -> None:
    job = _succeeded({"request": "r-1"})
    [entry] = listed([job], Query(), "ann", job.submit_time)["data"]
    assert entry == {
        "task_id": ID,
        "status": "SUCCEEDED",
        "model_name": "wan2.1-vace-plus",
        "api_key_id": "ann",
        "caller_uid": "ann",
        "caller_parent_id": "ann",
        "region": "",
        "request_id": "r-1",
        "user_api_unique_key": "apikey:v1:aigc:video-generation:video-synthesis:wan2.1-vace-plus",
        "gmt_create": 1772352000000,
        "start_time": 1772352005250,
        "end_time": 1772352180000,
    }
    ListedTask.model_validate(entry)


def test_a_failed_task_in_a_list_is_data() -> None:
    job = _job("Failed", reason="NodeError", message="no")
    [entry] = listed([job], Query(), "ann", job.submit_time)["tasks"]
    assert (entry["task_status"], entry["code"], entry["model_name"]) == ("FAILED", "InternalError", "wan2.1-vace-plus")


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (
            {"function": "video_edit"},
            "input.video_url is short; input.ref_images_url[1] is a file; input.mask_frame_id is 9",
        ),
        ({"sr": 720}, "the video of input.media is short; reference_image of input.media[1] is a file; "),
        ({}, "spec.inputs.video is short; "),
    ],
)
def test_a_failure_speaks_of_the_request_s_fields(note: dict[str, Any], said: str) -> None:
    message = "spec.inputs.video is short; spec.inputs.references[1] is a file; spec.inputs.mask.frame is 9"
    found = task(_job("Failed", note=note, reason="InvalidInput", message=message))
    assert found["output"]["message"].startswith(said)
