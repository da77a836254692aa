"""What failures amount to, and what is told of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from kinora.api import transitions
from kinora.api.intake import inputs_condition
from kinora.recipes.faults import Fault
from kinora.stager.verdict import Delayed, Refusal, Rejected, Retry, of_errors, of_url, pause, retried
from unit.controller.builders import NOW, job

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("spec.inputs.image.url: host", "InputRefused"),
        ("spec.inputs.image.url: port", "InputRefused"),
        ("spec.inputs.image.url: scheme", "InputRefused"),
        ("spec.inputs.image.url (redirected): host", "InputRefused"),
        ("spec.inputs.image.url", "InvalidInput"),
        ("spec.inputs.image.url (redirected)", "InvalidInput"),
    ],
)
def test_the_reason_tells_policy_from_file(field: str, reason: str) -> None:
    rejected = of_url(Fault(field, "x", "y"))
    assert (rejected.reason, str(rejected)) == (reason, f"{field} is x; allowed: y")


def test_one_refused_input_refuses_the_job_with_every_refusal() -> None:
    outcome = of_errors([Delayed("later"), Rejected("InputRefused", "a"), Rejected("InvalidInput", "b")])
    assert outcome == Refusal("InputRefused", "a; b")
    assert of_errors([Delayed("a"), Delayed("b")]) == "a; b"
    with pytest.raises(ZeroDivisionError):
        of_errors([Delayed("a"), ZeroDivisionError()])


def after(made: Object, retry: Retry | Refusal) -> Object:
    assert isinstance(retry, Retry)
    assert retry.told is not None
    return {**made, "status": {**made["status"], **retry.told}}


def later(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


def test_a_failure_is_told_once_and_again_when_it_changes() -> None:
    made = after(job(), retried(job(), "503", NOW, 60))
    assert inputs_condition(made)["status"] == "Unknown"
    assert retried(made, "503", later(10), 60) == Retry(None)
    changed = after(made, retried(made, "cut", later(20), 60))
    assert inputs_condition(changed)["message"] == "cut"
    assert inputs_condition(changed)["lastTransitionTime"] == inputs_condition(made)["lastTransitionTime"]


def test_it_is_given_up_after_its_time_whoever_began() -> None:
    made = after(job(), retried(job(), "503", NOW, 60))
    assert isinstance(retried(made, "503", later(59), 60), Retry)
    assert retried(made, "cut", later(61), 60) == Refusal("InputFetchFailed", "cut (tried for 61 s, allowed are 60)")
    assert retried(job(), "503", NOW, 0) == Refusal("InputFetchFailed", "503 (not tried again)")


def test_a_long_message_is_told_once_too() -> None:
    words = "x" * 5000
    made = after(job(), retried(job(), words, NOW, 60))
    assert len(inputs_condition(made)["message"]) <= 1024
    assert retried(made, words, later(1), 60) == Retry(None)


def test_pauses_grow_to_their_limit() -> None:
    assert [pause(count, 1, 60) for count in (1, 2, 3, 6, 7, 8, 1000)] == [1, 2, 4, 32, 60, 60, 60]


def test_the_other_conditions_stay_as_they_are() -> None:
    before = {"phase": "Pending", "conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "Mine", "x": 1}]}
    made = job(before)
    patch = transitions.inputs_refused(made, "InvalidInput", "no", NOW)
    assert patch["conditions"][1:] == before["conditions"]
    assert set(patch) == {"conditions", "observedGeneration"}
