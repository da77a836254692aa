"""decide(VideoJob): every branch, as facts in and a phase, a reason and a time to look again out."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from kinora.controller.plan import NOTHING, Plan
from kinora.controller.videojob.check import Accepted, Refused, Undecided
from kinora.controller.videojob.decide import CANCEL_AFTER, DEADLINE_MARGIN, QUEUE_AFTER, decide
from kinora.controller.videojob.snapshot import PodState
from unit.controller.builders import NOW, VACE, ago, assigned, job, released, snapshot

GONE = PodState(exists=False)


def told(plan: Plan) -> tuple[str, str]:
    """(phase, reason) of the status that the plan writes."""
    assert plan.status is not None
    return plan.status["phase"], plan.status["reason"]


# --- what is over is left alone


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
def test_a_finished_job_is_left_alone(phase: str) -> None:
    assert decide(snapshot({"phase": phase}, cancel=True, verdict=Refused("InvalidSpec", "no"))) is NOTHING


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    seen = snapshot(cancel=True)
    seen.job["metadata"]["deletionTimestamp"] = ago(0)  # type: ignore[index]
    assert decide(seen) is NOTHING


# --- unassigned


@pytest.mark.parametrize("phase", ["Pending", "Queued"])
@pytest.mark.parametrize("reason", ["InvalidSpec", "NotImplemented"])
def test_a_wrong_job_fails_at_once_and_says_why(phase: str, reason: str) -> None:
    plan = decide(snapshot({"phase": phase}, verdict=Refused(reason, "spec.model is x; allowed: y"), seen=0))
    assert told(plan) == ("Failed", reason)
    assert plan.status is not None
    assert plan.status["message"] == "spec.model is x; allowed: y"
    assert plan.status["completionTime"] == "2026-05-01T12:00:00.000Z"
    assert [(note.kind, note.reason) for note in plan.notes] == [("Warning", reason)]


@pytest.mark.parametrize("verdict", [None, Refused("InvalidSpec", "no"), Undecided("none yet")])
def test_cancel_before_a_bind_wins_over_all_else(verdict: Any) -> None:
    plan = decide(snapshot(cancel=True, verdict=verdict, startDeadlineSeconds=1, age=100))
    assert told(plan) == ("Cancelled", "Cancelled")
    assert [note.kind for note in plan.notes] == ["Normal"]


@pytest.mark.parametrize("seen", [0.0, 0.5, 1.9])
def test_a_job_that_may_start_at_once_costs_no_write(seen: float) -> None:
    plan = decide(snapshot(seen=seen))
    assert plan.status is None
    assert plan.requeue_after == pytest.approx(QUEUE_AFTER - seen)


WAITS = [
    ({}, "WaitingForServer", "busy or not ready"),
    ({"has_server": False}, "NoModelServer", VACE),
    ({"verdict": Undecided("no ModelServer 'x' in the namespace yet")}, "NoModelServer", "'x'"),
    (
        {"verdict": Accepted(VACE, {"preset": "Fast"}), "preset_lacks": "loras/a.safetensors: not on the volume"},
        "NoPresetWeights",
        "no server pod has the files of preset Fast: loras/a.safetensors: not on the volume",
    ),
    ({"suspend": True}, "Suspended", "spec.suspend"),
    ({"suspend": True, "has_server": False}, "Suspended", "spec.suspend"),
]


@pytest.mark.parametrize(("facts", "reason", "words"), WAITS)
def test_a_job_that_waits_is_queued_with_its_reason(facts: dict[str, Any], reason: str, words: str) -> None:
    plan = decide(snapshot(seen=QUEUE_AFTER, **facts))
    assert told(plan) == ("Queued", reason)
    assert plan.status is not None
    assert words in plan.status["message"]
    assert plan.notes == (), "waiting is normal: no event"


@pytest.mark.parametrize(("facts", "reason", "words"), WAITS)
def test_a_reason_that_is_told_already_is_not_told_again(facts: dict[str, Any], reason: str, words: str) -> None:
    assert decide(snapshot({"phase": "Queued", "reason": reason}, **facts)).is_empty


@pytest.mark.parametrize("old", ["Retry", "Disrupted", "TakenBack"])
def test_a_job_that_came_back_keeps_that_reason_until_something_else_is_the_matter(old: str) -> None:
    back = {"phase": "Queued", "reason": old, "disruptions": 1}
    assert decide(snapshot(back)).is_empty
    assert told(decide(snapshot(back, has_server=False))) == ("Queued", "NoModelServer")
    assert told(decide(snapshot(back, suspend=True))) == ("Queued", "Suspended")


def test_what_was_resolved_is_written_once_and_with_integral_numbers() -> None:
    plan = decide(snapshot())
    assert plan.status is not None
    assert plan.status["resolved"] == {"model": VACE, "shift": 8}
    assert isinstance(plan.status["resolved"]["shift"], int)
    known = {"phase": "Queued", "reason": "Suspended", "resolved": {"model": VACE, "shift": 8}}
    again = decide(snapshot(known))
    assert again.status is not None
    assert "resolved" not in again.status
    undecided = decide(snapshot(verdict=Undecided("none yet")))
    assert undecided.status is not None
    assert "resolved" not in undecided.status


# --- the start deadline


@pytest.mark.parametrize("phase", ["Pending", "Queued"])
def test_a_job_that_nobody_started_in_time_fails(phase: str) -> None:
    plan = decide(snapshot({"phase": phase}, startDeadlineSeconds=60, age=60))
    assert told(plan) == ("Failed", "StartDeadlineExceeded")
    assert plan.status is not None
    assert "spec.startDeadlineSeconds (60)" in plan.status["message"]


def test_the_job_is_looked_at_when_its_start_deadline_comes() -> None:
    waiting = {"phase": "Queued", "reason": "WaitingForServer"}
    assert decide(snapshot(waiting, startDeadlineSeconds=60, age=20)).requeue_after == pytest.approx(40)
    assert decide(snapshot(startDeadlineSeconds=60, age=20)).requeue_after == pytest.approx(40)


@pytest.mark.parametrize("ran", [{"startTime": ago(5)}, {"failures": 1}, {"disruptions": 1}])
def test_the_start_deadline_ends_with_the_first_start(ran: dict[str, Any]) -> None:
    waiting = {"phase": "Queued", "reason": "WaitingForServer", **ran}
    assert decide(snapshot(waiting, startDeadlineSeconds=1, age=500)) == Plan()


def test_suspended_time_does_not_count_against_the_start_deadline() -> None:
    waiting = {"phase": "Queued", "reason": "WaitingForServer"}
    assert decide(snapshot(waiting, startDeadlineSeconds=60, age=100, suspended=50)).requeue_after == pytest.approx(10)


@pytest.mark.parametrize("age", [59.999, 60, 5000])
def test_a_suspended_job_neither_fails_by_its_start_deadline_nor_is_looked_at_for_it(age: float) -> None:
    waiting = {"phase": "Queued", "reason": "Suspended"}
    assert decide(snapshot(waiting, startDeadlineSeconds=60, age=age, suspend=True)) == Plan()


# --- assigned: the agent's, except for what follows


@pytest.mark.parametrize("phase", ["Scheduled", "Running", "Finalizing"])
def test_an_attempt_on_a_pod_that_is_well_is_the_agents(phase: str) -> None:
    plan = decide(snapshot(assigned(phase), verdict=Refused("InvalidSpec", "no"), startDeadlineSeconds=1, age=900))
    assert plan.is_empty


LOST = [
    (GONE, "the pod is gone"),
    (PodState(exists=True, phase="Failed"), "phase Failed"),
    (PodState(exists=True, phase="Succeeded"), "phase Succeeded"),
    (PodState(exists=True, phase="Running", deletion_time=NOW - dt.timedelta(seconds=31)), "30 s after its grace"),
    (PodState(exists=True, phase="Running", node_not_ready_seconds=61), "NotReady for 61 s"),
]
NOT_LOST = [
    PodState(exists=True, phase="Running"),
    PodState(exists=True, phase="Unknown"),
    PodState(exists=True, phase="Pending"),
    PodState(exists=True, phase="Running", deletion_time=NOW + dt.timedelta(seconds=1800)),
    PodState(exists=True, phase="Running", deletion_time=NOW - dt.timedelta(seconds=30)),
    PodState(exists=True, phase="Running", node_not_ready_seconds=60),
]


@pytest.mark.parametrize(("pod", "words"), LOST)
@pytest.mark.parametrize(("phase", "disruptions"), [("Scheduled", None), ("Running", 3), ("Finalizing", 3)])
def test_a_lost_pod_sends_the_job_back_and_counts_only_if_it_ran(
    pod: PodState, words: str, phase: str, disruptions: int | None
) -> None:
    plan = decide(snapshot(assigned(phase, disruptions=2), pod=pod))
    assert told(plan) == ("Queued", "Disrupted")
    status = plan.status
    assert status is not None
    assert status["assignment"] is None
    assert status["progress"] is None
    assert status["startTime"] is None
    assert status.get("disruptions") == disruptions
    assert "failures" not in status, "losing a pod is a disruption, not a failure"
    assert words in status["message"]
    assert [(note.kind, note.reason) for note in plan.notes] == [("Warning", "Disrupted")]


@pytest.mark.parametrize("pod", NOT_LOST)
def test_a_pod_that_may_still_come_back_keeps_its_job(pod: PodState) -> None:
    assert decide(snapshot(assigned(), pod=pod)).is_empty


@pytest.mark.parametrize("phase", ["Scheduled", "Running"])
@pytest.mark.parametrize(
    ("pod", "after"),
    [
        (PodState(exists=True, deletion_time=NOW + dt.timedelta(seconds=100)), 130.5),
        (PodState(exists=True, node_not_ready_seconds=20), 40.5),
        (PodState(exists=True, deletion_time=NOW + dt.timedelta(seconds=5), node_not_ready_seconds=20), 35.5),
        (PodState(exists=True, deletion_time=NOW - dt.timedelta(seconds=30)), 0.5),
    ],
)
def test_a_job_is_looked_at_when_its_pod_will_count_as_lost(phase: str, pod: PodState, after: float) -> None:
    plan = decide(snapshot(assigned(phase), pod=pod))
    assert plan.is_empty
    assert plan.requeue_after == pytest.approx(after)
    waiting_for_verdict = decide(snapshot(assigned(phase), pod=pod, cancel=True))
    assert waiting_for_verdict.requeue_after == pytest.approx(min(after, CANCEL_AFTER))


@pytest.mark.parametrize(("before", "phase"), [(5, "Queued"), (6, "Failed")])
def test_the_disruption_limit(before: int, phase: str) -> None:
    plan = decide(snapshot(assigned(disruptions=before), pod=GONE))
    assert plan.status is not None
    assert plan.status["phase"] == phase
    if phase == "Failed":
        assert plan.status["reason"] == "DisruptionLimitExceeded"
        assert "spec.disruptionLimit: 6" in plan.status["message"]


def test_an_attempt_that_never_ran_is_given_back_however_often() -> None:
    assert told(decide(snapshot(assigned("Scheduled", disruptions=6), pod=GONE))) == ("Queued", "Disrupted")


def test_a_job_that_was_cancelled_ends_with_its_pod() -> None:
    assert told(decide(snapshot(assigned(), pod=GONE, cancel=True))) == ("Cancelled", "Cancelled")


# --- released by the agent


@pytest.mark.parametrize(("failures", "phase"), [(1, "Queued"), (2, "Queued"), (3, "Failed")])
def test_a_failed_attempt_is_retried_up_to_the_backoff_limit(failures: int, phase: str) -> None:
    failure = {"reason": "NodeError", "message": "KSampler: no"}
    plan = decide(snapshot(released("NodeError", failures=failures, lastFailure=failure)))
    status = plan.status
    assert status is not None
    assert status["phase"] == phase
    assert status["reason"] == ("Retry" if phase == "Queued" else "BackoffLimitExceeded")
    assert "NodeError: KSampler: no" in status["message"]
    assert "failures" not in status, "the agent has counted it already"
    assert "disruptions" not in status
    assert plan.notes[0].kind == "Warning"


def test_a_backoff_limit_of_zero_allows_no_retry() -> None:
    plan = decide(snapshot(released("CudaError", failures=1), backoffLimit=0))
    assert told(plan) == ("Failed", "BackoffLimitExceeded")


@pytest.mark.parametrize("reason", ["Drain", "PodLost", "EngineKilled", "FirstSilence"])
def test_a_disrupted_attempt_costs_no_retry(reason: str) -> None:
    plan = decide(snapshot(released(reason, failures=2), backoffLimit=2))
    assert told(plan) == ("Queued", "Disrupted")
    assert plan.status is not None
    assert plan.status["disruptions"] == 1
    assert plan.status["released"] is None


def test_a_staged_job_handed_back_by_a_draining_pod_is_no_disruption() -> None:
    plan = decide(snapshot(released("Drain", "Scheduled")))
    assert plan.status is not None
    assert "disruptions" not in plan.status


def test_a_release_is_answered_even_when_its_pod_is_gone_by_then() -> None:
    assert told(decide(snapshot(released("NodeError", failures=1), pod=GONE))) == ("Queued", "Retry")


def test_a_release_of_another_attempt_says_nothing_about_this_one() -> None:
    status = assigned(attempt=2, released={"attempt": 1, "reason": "NodeError", "time": ago(9)})
    assert decide(snapshot(status)).is_empty


@pytest.mark.parametrize("reason", ["Drain", "NodeError"])
def test_a_release_of_a_cancelled_job_ends_it(reason: str) -> None:
    assert told(decide(snapshot(released(reason, failures=9), cancel=True))) == ("Cancelled", "Cancelled")


# --- cancel, take back, active deadline


@pytest.mark.parametrize("phase", ["Scheduled", "Running", "Finalizing"])
def test_the_agent_has_60_seconds_for_a_verdict_on_a_cancelled_job(phase: str) -> None:
    early = decide(snapshot(assigned(phase), cancel=True, cancelled=20))
    assert early.is_empty
    assert early.requeue_after == pytest.approx(40)
    late = decide(snapshot(assigned(phase), cancel=True, cancelled=CANCEL_AFTER))
    assert told(late) == ("Cancelled", "Cancelled")
    assert late.status is not None
    assert "no verdict in 60 s" in late.status["message"]


@pytest.mark.parametrize("facts", [{"suspend": True}, {"surplus": True}])
def test_a_staged_job_is_taken_back_for_nothing(facts: dict[str, Any]) -> None:
    plan = decide(snapshot(assigned("Scheduled", disruptions=1, failures=1), **facts))
    assert told(plan) == ("Queued", "TakenBack")
    assert plan.status is not None
    assert plan.status["assignment"] is None
    assert "disruptions" not in plan.status
    assert "failures" not in plan.status
    assert plan.notes == ()
    assert decide(snapshot(assigned("Running"), **facts)).is_empty, "a running job goes on"


@pytest.mark.parametrize("phase", ["Running", "Finalizing"])
def test_the_operator_is_60_seconds_behind_the_agents_active_deadline(phase: str) -> None:
    limit = 100 + DEADLINE_MARGIN
    early = decide(snapshot(assigned(phase), activeDeadlineSeconds=100, running=limit - 1))
    assert early.is_empty
    assert early.requeue_after == pytest.approx(1)
    late = decide(snapshot(assigned(phase), activeDeadlineSeconds=100, running=limit))
    assert told(late) == ("Failed", "ActiveDeadlineExceeded")


def test_a_staged_job_has_no_active_deadline() -> None:
    assert decide(snapshot(assigned("Scheduled"), activeDeadlineSeconds=1, running=9999)).is_empty


# --- a status written by another version


@pytest.mark.parametrize("status", [{}, {"phase": "Rendering"}, {"phase": "Running"}, {"phase": "Scheduled"}])
def test_a_status_that_makes_no_sense_here_is_queued_anew(status: dict[str, Any]) -> None:
    assert told(decide(snapshot(status)))[0] == "Queued"


def test_a_job_without_a_status_is_queued() -> None:
    seen = snapshot()
    seen.job.pop("status")  # type: ignore[attr-defined]
    assert told(decide(seen))[0] == "Queued"
    assert job()["status"] == {"phase": "Pending"}


def test_accepted_is_the_only_verdict_that_waits_for_a_server() -> None:
    plan = decide(snapshot(verdict=Accepted("wan9", {}), has_server=False))
    assert plan.status is not None
    assert "wan9" in plan.status["message"]
