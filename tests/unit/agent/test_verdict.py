"""Failure, disruption, permanent, cancelled: what each piece of evidence amounts to, and what is written."""

import signal
from typing import Any

import pytest

from kinora.agent import verdict as verdicts
from kinora.agent.verdict import Kind, Verdict, of_engine_error, of_exit, of_silence, patch
from kinora.engine.base import EngineError
from kinora.engine.supervisor_client import EngineExit
from unit.agent.made import NOW, job


def ended(code: int | None = None, number: int | None = None, oom: int = 0, requested: bool = False) -> EngineExit:
    return EngineExit(1, code, number, oom, requested, 5.0)


@pytest.mark.parametrize(
    ("evidence", "container_oom", "kind", "reason", "code"),
    [
        (ended(number=signal.SIGKILL), False, Kind.DISRUPTION, "EngineKilled", None),
        (ended(number=signal.SIGTERM), False, Kind.DISRUPTION, "EngineKilled", None),
        (ended(code=143), False, Kind.DISRUPTION, "EngineKilled", None),
        (ended(code=0, requested=True), False, Kind.DISRUPTION, "EngineKilled", None),
        (ended(number=signal.SIGKILL, oom=1), False, Kind.FAILURE, "OutOfMemory", 137),
        (ended(number=signal.SIGTERM, oom=1), False, Kind.DISRUPTION, "EngineKilled", None),
        (ended(number=signal.SIGSEGV), False, Kind.FAILURE, "EngineExited", 139),
        (ended(code=1), False, Kind.FAILURE, "EngineExited", 1),
        (ended(code=0), False, Kind.FAILURE, "EngineExited", 0),
        (None, False, Kind.DISRUPTION, "EngineKilled", None),
        (None, True, Kind.FAILURE, "OutOfMemory", 137),
    ],
)
def test_how_an_engine_ended(
    evidence: EngineExit | None, container_oom: bool, kind: Kind, reason: str, code: int | None
) -> None:
    verdict = of_exit(evidence, container_oom=container_oom)
    assert (verdict.kind, verdict.reason, verdict.exit_code) == (kind, reason, code)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineError("24", "KSampler", "ValueError", "bad shape"), "NodeError"),
        (EngineError("24", "KSampler", "OutOfMemoryError", "Allocation on device", is_oom=True), "OutOfMemory"),
        (EngineError("24", "KSampler", "RuntimeError", "illegal access", is_cuda_fault=True), "CudaError"),
    ],
)
def test_errors_of_a_node_are_failures(error: EngineError, reason: str) -> None:
    verdict = of_engine_error(error)
    assert (verdict.kind, verdict.reason, verdict.node) == (Kind.FAILURE, reason, "KSampler")
    assert "node 24 (KSampler)" in verdict.message


def test_the_first_silence_is_a_disruption_and_the_second_a_failure() -> None:
    first = of_silence("no sign of life", job())
    assert first.kind is Kind.DISRUPTION
    written = patch(job(), first, NOW)
    assert written["released"]["reason"] == "FirstSilence"
    assert "failures" not in written
    second = of_silence("no sign of life", job(lastFailure=written["lastFailure"]))
    assert (second.kind, second.reason) == (Kind.FAILURE, "EngineSilent")


FAILURE = Verdict(Kind.FAILURE, "NodeError", "node 24 (KSampler): bad", node="KSampler", exit_code=3)


def test_a_failure_within_the_limit_is_released_with_its_reason() -> None:
    written = patch(job(failures=1), FAILURE, NOW)
    assert written["released"] == {"attempt": 1, "reason": "NodeError", "time": "2030-01-02T03:04:05.000Z"}
    assert written["failures"] == 2
    assert written["lastFailure"]["exitCode"] == 3
    assert "phase" not in written


def test_a_failure_beyond_the_limit_is_the_end() -> None:
    written = patch(job(failures=2), FAILURE, NOW, gpu_seconds=1.5)
    assert (written["phase"], written["reason"], written["failures"]) == ("Failed", "BackoffLimitExceeded", 3)
    assert "NodeError" in written["message"]
    assert "spec.backoffLimit 2" in written["message"]
    assert written["gpuSeconds"] == 1.5
    assert {one["type"]: one["status"] for one in written["conditions"]}["Finished"] == "True"


def test_what_is_permanent_fails_at_once_under_its_own_reason() -> None:
    refusal = verdicts.permanent("InvalidInput", "spec.inputs.video is text; allowed: one video")
    written = patch(job(), refusal.verdict, NOW)
    assert (written["phase"], written["reason"]) == ("Failed", "InvalidInput")


@pytest.mark.parametrize("verdict", [FAILURE, verdicts.HANDED_BACK, verdicts.CANCELLED, verdicts.of_deadline(5)])
def test_a_job_that_is_to_be_cancelled_ends_cancelled_whatever_happened(verdict: Verdict) -> None:
    written = patch(job(spec={"cancel": True}), verdict, NOW)
    assert (written["phase"], written["reason"]) == ("Cancelled", "Cancelled")


def test_a_hand_back_costs_nothing() -> None:
    written: dict[str, Any] = patch(job(), verdicts.HANDED_BACK, NOW)
    assert set(written) == {"released"}
    assert written["released"]["reason"] == "Drain"


def test_long_messages_are_cut() -> None:
    written = patch(job(failures=9), Verdict(Kind.FAILURE, "NodeError", "x" * 5000), NOW)
    assert len(written["message"]) == len(written["lastFailure"]["message"]) == 1024
