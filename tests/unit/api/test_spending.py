"""GPU-seconds and cost of a job: each attempt once, at its own pool's price, whoever ends it."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.api import reasons, spending, transitions
from kinora.api.reasons import Phase
from unit.controller.builders import NOW, ago, assigned, job, released

Object = dict[str, Any]


def on(price: float | None, phase: str = "Running", **status: Any) -> Object:
    """A job whose attempt is on a pod of that price."""
    told = assigned(phase, **status)
    if price is not None:
        told["assignment"]["pricePerHour"] = price
    return job(told)


def after(before: Object, patch: Object) -> Object:
    """The job as the API server has it after the merge patch."""
    status = {**before["status"], **patch}
    return {**before, "status": {name: value for name, value in status.items() if value is not None}}


def succeed(before: Object, seconds: float) -> Object:
    return after(before, transitions.ended_by_agent(before, Phase.SUCCEEDED, "Completed", "", NOW, gpu_seconds=seconds))


def spent(one: Object) -> tuple[object, object, object]:
    status = one["status"]
    return status.get("gpuSeconds"), status.get("lostGPUSeconds"), status.get("cost")


def test_one_attempt_costs_its_seconds_at_the_price_of_its_pod() -> None:
    assert spent(succeed(on(12.0), 300.0)) == (300, None, 1)


def test_a_pool_without_a_price_costs_nothing_and_says_nothing() -> None:
    assert spent(succeed(on(None), 300.5)) == (300.5, None, None)
    assert spent(succeed(on(0.0), 300.0)) == (300, None, 0), "a price of 0 is one"


def test_an_attempt_that_was_given_up_is_counted_by_what_its_agent_told() -> None:
    first = on(3.6)
    gave_up = after(first, transitions.released(first, "NodeError", NOW, {"message": "x"}, gpu_seconds=100.25))
    assert gave_up["status"]["released"]["gpuSeconds"] == 100.25
    assert spent(gave_up) == (None, None, None), "it is added when the attempt is ended, once"
    again = after(gave_up, transitions.requeued(gave_up, reasons.RETRY, "", NOW, disruption=False))
    assert spent(again) == (100.25, 100.25, 0.10025)
    second = after(again, transitions.bound(again, {"podName": "b", "podUID": "p2", "pricePerHour": 36.0}, NOW))
    assert spent(succeed(second, 10.0)) == (110.25, 100.25, 0.20025)


def test_of_a_lost_pod_what_was_seen_of_it_is_counted() -> None:
    progress = {"percent": 40, "stage": "Sample", "lastUpdateTime": ago(30)}
    lost = on(36.0, startTime=ago(130), progress=progress)
    again = after(lost, transitions.requeued(lost, reasons.DISRUPTED, "", NOW, disruption=True))
    assert spent(again) == (100, 100, 1)
    assert transitions.ended_by_operator(lost, Phase.FAILED, "X", "", NOW)["cost"] == 1


@pytest.mark.parametrize(
    "status",
    [
        assigned("Scheduled"),
        released(reasons.RELEASED_DRAIN, "Scheduled"),
        {"phase": "Queued", "gpuSeconds": 7, "lostGPUSeconds": 7, "cost": 1},
    ],
    ids=["taken back", "handed back", "was never bound again"],
)
def test_an_attempt_that_never_had_the_engine_adds_nothing(status: Object) -> None:
    one = job(status)
    for patch in (
        transitions.requeued(one, reasons.TAKEN_BACK, "", NOW, disruption=False),
        transitions.ended_by_operator(one, Phase.CANCELLED, reasons.CANCELLED, "", NOW),
    ):
        assert not {"gpuSeconds", "lostGPUSeconds", "cost"} & patch.keys()


def test_an_attempt_on_a_pool_without_a_price_adds_to_the_seconds_only() -> None:
    second = on(None, gpuSeconds=100, lostGPUSeconds=100, cost=0.5)
    assert spent(succeed(second, 60.0)) == (160, 100, 0.5)
    assert spending.seconds_of_last(succeed(second, 60.0)["status"]) == 60


def test_the_release_of_an_older_attempt_is_not_taken_for_this_one() -> None:
    one = on(36.0, attempt=2, released={"attempt": 1, "reason": "Drain", "time": ago(500), "gpuSeconds": 50})
    assert spending.known_of_present(one["status"]) == 0
