"""The life of a VideoJob: the conditions of each phase, what each write holds, and how large a status can grow."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api import transitions
from kinora.api.base import MESSAGE_LIMIT, integral
from kinora.api.reasons import ASSIGNED, TERMINAL, Phase
from kinora.catalogue.load import load_catalogue
from kinora.controller.videojob.check import Accepted, check

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=90)
Object = dict[str, Any]


def job(status: Object | None = None, **spec: Any) -> Object:
    metadata = {
        "name": "cat",
        "namespace": "films",
        "uid": "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55",
        "generation": 4,
        "creationTimestamp": "2026-05-01T11:59:00Z",
    }
    return {"metadata": metadata, "spec": spec, "status": status or {}}


def merge(stored: Object, patch: Object) -> Object:
    """The status after the merge patch, as the API server makes it."""
    out = dict(stored)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, dict) and isinstance(out.get(name), dict):
            out[name] = merge(out[name], value)
        else:
            out[name] = value
    return out


# --- conditions: the table of the design

UNFINISHED = {"Ready": "False", "Reconciling": "True", "Finished": "False", "Succeeded": "Unknown"}
TABLE = {
    Phase.PENDING: UNFINISHED,
    Phase.QUEUED: UNFINISHED,
    Phase.SCHEDULED: UNFINISHED,
    Phase.RUNNING: UNFINISHED,
    Phase.FINALIZING: UNFINISHED,
    Phase.SUCCEEDED: {"Succeeded": "True", "Finished": "True", "Ready": "True", "Reconciling": "False"},
    Phase.FAILED: {"Failed": "True", "Finished": "True", "Stalled": "True", "Ready": "False", "Reconciling": "False"},
    Phase.CANCELLED: {"Finished": "True", "Ready": "True", "Succeeded": "False", "Reconciling": "False"},
}


def conditions(phase: Phase, **previous: Any) -> dict[str, Object]:
    found = transitions.conditions(phase, "Why", "because", previous=previous, generation=4, now=LATER)
    return {condition["type"]: condition for condition in found}


@pytest.mark.parametrize("phase", list(Phase))
def test_the_conditions_of_a_phase(phase: Phase) -> None:
    found = conditions(phase)
    assert set(found) == {"Succeeded", "Failed", "Finished", "Ready", "Reconciling", "Stalled"}
    assert {name: found[name]["status"] for name in TABLE[phase]} == TABLE[phase]
    assert (found["Finished"]["status"] == "True") is (phase in TERMINAL)
    true = [name for name in ("Succeeded", "Failed", "Stalled") if found[name]["status"] == "True"]
    expected = {Phase.SUCCEEDED: ["Succeeded"], Phase.FAILED: ["Failed", "Stalled"]}
    assert true == expected.get(phase, [])
    assert {condition["reason"] for condition in found.values()} == {"Why"}
    assert {condition["observedGeneration"] for condition in found.values()} == {4}


def test_a_transition_time_is_that_of_the_last_change_of_status() -> None:
    old = "2026-05-01T12:00:00.000Z"
    known = [{"type": "Ready", "status": "False", "lastTransitionTime": old}, {"type": "Finished", "status": "False"}]
    found = conditions(Phase.FAILED, conditions=known)
    assert found["Ready"]["lastTransitionTime"] == old
    assert found["Finished"]["lastTransitionTime"] == "2026-05-01T12:01:30.000Z"
    assert found["Failed"]["lastTransitionTime"] == "2026-05-01T12:01:30.000Z"


# --- each transition


def test_queued() -> None:
    patch = transitions.queued(job(), "WaitingForServer", "busy", NOW, resolved={"shift": 5.0})
    assert (patch["phase"], patch["reason"], patch["message"]) == ("Queued", "WaitingForServer", "busy")
    assert patch["submitTime"] == "2026-05-01T11:59:00Z"
    assert patch["observedGeneration"] == 4
    assert json.dumps(patch["resolved"]) == '{"shift": 5}'
    assert "resolved" not in transitions.queued(job(), "WaitingForServer", "busy", NOW)


@pytest.mark.parametrize(("before", "attempt"), [({}, 1), ({"attempt": 3}, 4)])
def test_bound_is_the_next_attempt_and_forgets_the_last_ones_end(before: Object, attempt: int) -> None:
    patch = transitions.bound(job(before), {"podName": "vace-0", "podUID": "u"}, NOW)
    assert (patch["phase"], patch["attempt"]) == ("Scheduled", attempt)
    assert patch["assignment"] == {"podName": "vace-0", "podUID": "u", "boundTime": "2026-05-01T12:00:00.000Z"}
    assert patch["released"] is None
    assert patch["progress"] is None


@pytest.mark.parametrize(("disruption", "count"), [(True, 3), (False, None)])
def test_requeued_takes_the_assignment_away(disruption: bool, count: int | None) -> None:
    patch = transitions.requeued(job({"disruptions": 2}), "Disrupted", "gone", NOW, disruption=disruption)
    assert {name for name, value in patch.items() if value is None} == {
        "assignment",
        "released",
        "progress",
        "startTime",
    }
    assert patch.get("disruptions") == count


def test_progress_never_falls_and_never_exceeds_100() -> None:
    before = job({"progress": {"percent": 40}})
    for asked, told in ((10, 40), (41, 41), (250, 100)):
        patch = transitions.progressed(before, NOW, percent=asked, stage="Sample", step=3, steps=20)
        assert patch["progress"]["percent"] == told
        assert set(patch) == {"progress"}


def test_running_tells_what_the_inputs_changed_and_nothing_that_is_known() -> None:
    known = job()
    known["status"]["resolved"] = {"width": 480}
    assert "resolved" not in transitions.running(known, NOW, resolved={"width": 480})
    assert transitions.running(known, NOW, resolved={"width": 640})["resolved"] == {"width": 640}


def test_running_and_finalizing() -> None:
    patch = transitions.running(job(), NOW, inputs=[{"name": "image", "fps": 16.0}])
    assert (patch["phase"], patch["startTime"]) == ("Running", "2026-05-01T12:00:00.000Z")
    assert json.dumps(patch["inputs"]) == '[{"name": "image", "fps": 16}]'
    assert transitions.finalizing(job(), NOW)["phase"] == "Finalizing"


def test_success_brings_its_artifacts_and_failure_none() -> None:
    artifact = {"uri": "pvc://videos/a.mp4", "fps": 16.0}
    patch = transitions.ended_by_agent(
        job(), Phase.SUCCEEDED, "Completed", "", NOW, artifacts=[artifact], timings={"renderedSeconds": 4.0}
    )
    assert json.dumps(patch["artifacts"]) == '[{"uri": "pvc://videos/a.mp4", "fps": 16}]'
    assert patch["timings"] == {"renderedSeconds": 4}
    assert patch["completionTime"] == "2026-05-01T12:00:00.000Z"
    failed = transitions.ended_by_agent(
        job({"failures": 1, "attempt": 2}), Phase.FAILED, "GraphRefused", "no", NOW, failure={"reason": "x"}
    )
    assert "artifacts" not in failed
    assert failed["failures"] == 2
    assert failed["lastFailure"] == {
        "reason": "x",
        "message": "",
        "attempt": 2,
        "time": "2026-05-01T12:00:00.000Z",
    }


def test_a_release_keeps_the_phase_and_counts_an_error_once() -> None:
    status = {"attempt": 2, "failures": 1, "phase": "Running"}
    error = transitions.released(job(status), "NodeError", NOW, {"reason": "NodeError", "message": "no"})
    assert "phase" not in error
    assert error["failures"] == 2
    assert error["released"] == {"attempt": 2, "reason": "NodeError", "time": "2026-05-01T12:00:00.000Z"}
    drained = transitions.released(job(status), "Drain", NOW)
    assert set(drained) == {"released"}
    silent = transitions.released(job(status), "FirstSilence", NOW, {"reason": "EngineSilent"}, counts=False)
    assert "failures" not in silent
    assert silent["lastFailure"]["reason"] == "EngineSilent"


# --- reading what another version wrote


@pytest.mark.parametrize("phase", ["Rendering", "", None, 5])
def test_an_unknown_phase_reads_as_pending(phase: Any) -> None:
    assert transitions.phase_of({"phase": phase}) == Phase.PENDING
    assert not transitions.is_finished({"phase": phase})


def test_assigned_needs_a_phase_and_an_assignment() -> None:
    for phase in Phase:
        assert transitions.is_assigned({"phase": phase, "assignment": {"podUID": "u"}}) is (phase in ASSIGNED)
        assert not transitions.is_assigned({"phase": phase})


@given(st.integers(946_684_800_000_000, 7_258_118_400_000_000))
@settings(deadline=None)
def test_times_survive_being_written(microseconds: int) -> None:
    moment = dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.UTC)
    assert abs(transitions.parse_time(transitions.rfc3339(moment)) - moment) < dt.timedelta(milliseconds=1)


# --- size


@given(st.text(max_size=3000), st.integers(16, MESSAGE_LIMIT))
@settings(deadline=None)
def test_a_clipped_message_is_within_the_limit_and_a_short_one_is_untouched(text: str, limit: int) -> None:
    clipped = transitions.clip(text, limit)
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        assert clipped == text
    else:
        assert clipped.endswith("...")
        assert len(clipped.encode()) <= limit
        assert limit - len(clipped.encode()) < 4, "no more is cut than must be"
        assert text.startswith(clipped[:-3].rstrip("?")) or "?" in clipped


def test_messages_hold_at_most_1024_characters() -> None:
    patch = transitions.ended_by_operator(job(), Phase.FAILED, "InvalidSpec", "x" * 9000, NOW)
    assert len(patch["message"]) == MESSAGE_LIMIT == 1024
    assert patch["message"].endswith("...")
    released = transitions.released(job(), "NodeError", NOW, {"reason": "NodeError", "message": "y" * 9000})
    assert len(released["lastFailure"]["message"]) == MESSAGE_LIMIT


@pytest.mark.parametrize("letter", ["x", "ü", "画", "🎬"])
def test_the_worst_status_stays_under_8_kib(letter: str) -> None:
    """A job with inputs that failed, was lost and retried, with every message as long as can be, in any language."""
    words = letter * 4000
    inputs = {"video": {"claim": {"name": "clips", "path": "a.mp4"}}}
    spec = {"model": "wan2.1-vace-1.3b", "task": "VideoToVideo", "prompt": "x", "inputs": inputs}
    accepted = check(job(**spec, parameters={"frames": 81}), load_catalogue(), {})
    assert isinstance(accepted, Accepted)
    pod = "a" * 63
    found = job()
    found["metadata"]["name"] = "n" * 253
    entries = [_input("video"), *(_input(f"references[{index}]") for index in range(5))]
    intake = [
        lambda job: transitions.inputs_delayed(job, words, NOW),
        lambda job: transitions.awaiting_inputs(job, "FetchingInputs", words, NOW),
        lambda job: transitions.inputs_stored(job, "pvc://" + "c" * 63 + "/", entries, accepted.resolved, NOW),
    ]
    steps = [
        lambda job: transitions.queued(job, "WaitingForServer", words, NOW, resolved=accepted.resolved),
        lambda job: transitions.bound(
            job,
            {"podName": pod, "podUID": "u" * 36, "nodeName": "n" * 253, "pool": "p" * 63, "promptID": "i" * 36},
            NOW,
        ),
        lambda job: transitions.running(job, NOW, inputs=entries),
        lambda job: transitions.progressed(job, NOW, percent=50, stage="Sample", step=10, steps=20),
        lambda job: transitions.released(
            job,
            "NodeError",
            NOW,
            {"reason": "DisruptionLimitExceeded", "message": words, "node": "n" * 128, "exitCode": 137},
        ),
    ]
    largest = 0
    again = [lambda job: transitions.requeued(job, "Retry", words, NOW, disruption=True), *steps[1:]]
    for step in [*intake, *steps, *again]:
        found["status"] = merge(found["status"], step(found))
        largest = max(largest, _size(found["status"]))
    for phase in TERMINAL:
        end = transitions.ended_by_agent(
            found,
            phase,
            "BackoffLimitExceeded",
            "81 frames, read back from the store and proven" if phase == "Succeeded" else words,
            NOW,
            artifacts=[_artifact()],
            timings={f"{name}Seconds": 7199.123 for name in ("queued", "staged", "loaded", "rendered", "published")},
            gpu_seconds=7199.123,
            failure={"reason": "DisruptionLimitExceeded", "message": words, "node": "n" * 128},
        )
        largest = max(largest, _size(merge(found["status"], end)))
    assert 4096 < largest <= 8192, largest


def _size(status: Object) -> int:
    return len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())


def _input(name: str) -> Object:
    facts = {"sha256": "0" * 64, "bytes": 2**40, "width": 4096, "height": 4096, "frames": 99999, "fps": 59.94}
    if name.startswith("references"):  # pictures
        facts = {key: facts[key] for key in ("sha256", "bytes", "width", "height")}
        return {"name": name, **facts, "actions": ["filled in a tile of one sheet"]}
    return {"name": name, **facts, "durationSeconds": 9999.999, "actions": ["cropped to 832x480", "rotated by 90"]}


def _artifact() -> Object:
    """With the longest key that storage/keys.py makes of a long prefix, namespace, name and file name."""
    return {
        "uri": "pvc://" + "c" * 63 + "/" + "k" * 800,
        "contentType": "video/mp4",
        "bytes": 2**40,
        "sha256": "0" * 64,
        "width": 832,
        "height": 480,
        "frames": 81,
        "fps": 16,
        "durationSeconds": 5.0625,
        "node": "107",
        "list": "gifs",
        "filename": "f" * 128,
        "subfolder": "s" * 64,
        "type": "output",
    }


# --- integral floats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (5.5, "5.5"),
        (-0.0, "0"),
        (1e22, "10000000000000000000000"),
        ({"a": [1.0, {"b": 2.0}], "c": (3.0,)}, '{"a": [1, {"b": 2}], "c": [3]}'),
        (True, "true"),
        ("5.0", '"5.0"'),
        (None, "null"),
        (float("inf"), "Infinity"),
    ],
)
def test_an_integral_float_is_written_as_an_integer(value: Any, text: str) -> None:
    assert json.dumps(integral(value)) == text
