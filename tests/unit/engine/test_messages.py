"""ComfyUI's JSON in Kinora's words: outcomes, outputs, errors and events."""

from typing import Any

import pytest

from kinora.engine.base import (
    EngineError,
    ExecutionError,
    Failed,
    Interrupted,
    NodeStarted,
    OutputFile,
    Progress,
    Succeeded,
)
from kinora.engine.messages import MESSAGE_LIMIT, engine_error, event_of, outcome_of, output_files, sanitised


def _entry(status: str, messages: list[Any], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "outputs": outputs or {},
        "status": {"status_str": status, "completed": status == "success", "messages": messages},
    }


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"node_id": "24", "node_type": "KSampler", "exception_type": kind, "exception_message": message}


def test_an_error_that_sits_in_the_history_is_no_success() -> None:
    entry = _entry("error", [["execution_start", {}], ["execution_error", _error("ValueError", "bad\n")]])
    assert outcome_of(entry) == Failed(EngineError("24", "KSampler", "ValueError", "bad"))


def test_an_interrupt_that_sits_in_the_history_is_no_failure() -> None:
    assert outcome_of(_entry("error", [["execution_interrupted", {"node_id": "24"}]])) == Interrupted()


def test_an_end_without_a_reason_is_a_failure() -> None:
    outcome = outcome_of({"outputs": {}, "status": None})
    assert isinstance(outcome, Failed)
    assert "no reason" in outcome.error.message


def test_results_are_found_in_every_list_and_previews_in_none() -> None:
    outputs = {
        "9": {"images": [{"filename": "p.png", "subfolder": "", "type": "temp"}]},
        "32": {"gifs": [{"filename": "a.mp4", "subfolder": "job", "type": "output", "format": "video/h264-mp4"}]},
        "34": {"images": [{"filename": "b_00001_.mp4", "subfolder": "job", "type": "output"}], "animated": [True]},
        "35": {"some_day": [{"filename": "c.webm"}], "text": ["hello"]},
    }
    assert list(output_files(outputs)) == [
        OutputFile("32", "gifs", "a.mp4", "job", "output", "video/h264-mp4"),
        OutputFile("34", "images", "b_00001_.mp4", "job", "output"),
        OutputFile("35", "some_day", "c.webm", "", "output"),
    ]
    assert outcome_of(_entry("success", [], outputs)) == Succeeded(tuple(output_files(outputs)))


@pytest.mark.parametrize(
    ("kind", "message", "oom", "fault"),
    [
        ("torch.OutOfMemoryError", "Allocation on device 0 would exceed allowed memory.", True, False),
        ("RuntimeError", "CUDA out of memory. Tried to allocate 2.00 GiB", True, False),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", False, True),
        ("torch.AcceleratorError", "CUDA error: device-side assert triggered", False, True),
        ("RuntimeError", "shape '[9, 8]' is invalid for input of size 40320", False, False),
    ],
)
def test_faults_are_told_apart(kind: str, message: str, oom: bool, fault: bool) -> None:
    error = engine_error(_error(kind, message))
    assert (error.is_oom, error.is_cuda_fault) == (oom, fault)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open /comfyui/models/vae/x.safetensors: no\n", "cannot open <path> no"),
        ("see https://example.org/a?key=1 now", "see <url> now"),
        ("bad\nTraceback (most recent call last):\n  File x", "bad"),
        ("ratio 16/9 and a 4n+1 length", "ratio 16/9 and a 4n+1 length"),
        ("wan2.1/umt5.safetensors is no UMT5", "wan2.1/umt5.safetensors is no UMT5"),
    ],
)
def test_messages_hold_no_path_url_or_traceback(text: str, shown: str) -> None:
    assert sanitised(text).replace("<path>:", "<path>") == shown


def test_messages_are_short() -> None:
    assert len(sanitised("x" * 9000)) == MESSAGE_LIMIT


def test_events() -> None:
    def event(kind: str, **data: Any) -> Any:
        return event_of({"type": kind, "data": {"prompt_id": "p", **data}})

    assert event("executing", node="24") == NodeStarted("p", "24")
    assert event("executing", node=None) is None
    assert event("progress", node="24", value=3, max=20) == Progress("p", "24", 3, 20)
    assert event("execution_error", **_error("E", "m")) == ExecutionError("p", EngineError("24", "KSampler", "E", "m"))
    assert event("of_a_later_version", node="24") is None
    assert event_of({"type": "status", "data": {"status": {}}}) is None
    assert event_of({"type": "crystools.monitor"}) is None
