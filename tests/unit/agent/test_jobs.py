"""Which bound job is rendered, staged, given back, stopped."""

from typing import Any

import pytest

from kinora.agent.jobs import Choice, Hold, Key, choose, is_ours, key_of, urgency
from unit.agent.made import POD, UID, job


def key(number: int, attempt: int = 1) -> Key:
    return Key(UID.format(number), attempt)


def test_nothing_bound_is_nothing_to_do() -> None:
    assert choose([], {}, draining=False) == Choice()


def test_one_is_rendered_one_is_staged_the_rest_waits() -> None:
    jobs = [job(number, bound=f"2030-01-02T03:00:0{number}Z") for number in (3, 1, 2)]
    choice = choose(jobs, {}, draining=False)
    assert choice == Choice(engine=key(1), take_up=(key(1), key(2)))


def test_priority_goes_before_age() -> None:
    jobs = [job(1), job(2, spec={"priority": 5}, bound="2030-01-02T03:00:09Z")]
    assert choose(jobs, {}, draining=False).engine == key(2)


def test_what_renders_already_goes_first_whatever_its_priority() -> None:
    jobs = [job(1, spec={"priority": 9}), job(2, phase="Running", bound="2030-01-02T03:00:09Z")]
    assert choose(jobs, {}, draining=False).engine == key(2)


def test_who_has_the_engine_keeps_it() -> None:
    jobs = [job(1), job(2, spec={"priority": 9})]
    choice = choose(jobs, {key(1): Hold.ENGINE}, draining=False)
    assert choice == Choice(engine=key(1), take_up=(key(2),))


def test_the_engine_goes_on_while_the_last_one_is_published() -> None:
    jobs = [job(1, phase="Finalizing"), job(2), job(3)]
    choice = choose(jobs, {key(1): Hold.AFTER, key(2): Hold.WAITING}, draining=False)
    assert choice == Choice(engine=key(2), take_up=(key(3),))


def test_a_job_that_is_ours_no_more_is_stopped() -> None:
    choice = choose([job(1)], {key(1): Hold.WAITING, key(2): Hold.ENGINE}, draining=False)
    assert choice.stop == (key(2),)
    assert choice.engine == key(2)  # until it has let go


def test_another_attempt_of_the_same_job_is_another_work() -> None:
    choice = choose([job(1, attempt=2)], {key(1, 1): Hold.ENGINE}, draining=False)
    assert choice.stop == (key(1, 1),)
    assert choice.take_up == (key(1, 2),)


def test_a_cancelled_job_is_taken_up_to_be_ended_and_never_gets_the_engine() -> None:
    jobs = [job(1, spec={"cancel": True}), job(2), job(3)]
    choice = choose(jobs, {}, draining=False)
    assert choice == Choice(engine=key(2), take_up=(key(1), key(2), key(3)))


def test_draining_hands_back_what_has_not_started_and_keeps_what_renders() -> None:
    jobs = [job(1), job(2), job(3)]
    held = {key(1): Hold.ENGINE, key(2): Hold.WAITING}
    assert choose(jobs, held, draining=True) == Choice(engine=key(1), hand_back=(key(2), key(3)))


@pytest.mark.parametrize("held", [{}, {key(1): Hold.WAITING}])
def test_draining_a_new_agent_resumes_what_renders(held: dict[Key, Hold]) -> None:
    jobs = [job(1, phase="Running"), job(2)]
    choice = choose(jobs, held, draining=True)
    assert choice.engine == key(1)
    assert choice.take_up == (() if held else (key(1),))
    assert choice.hand_back == (key(2),)


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"phase": "Running"}, True),
        ({"phase": "Finalizing"}, True),
        ({"phase": "Succeeded"}, False),
        ({"phase": "Queued"}, False),
        ({"pod": "another"}, False),
        ({"released": 1}, False),
        ({"released": 1, "attempt": 2}, True),
    ],
)
def test_whose_a_job_is(changes: dict[str, Any], ours: bool) -> None:
    assert is_ours(job(1, **changes), POD) is ours


def test_a_job_without_status_is_nobodys() -> None:
    bare = {"metadata": {"uid": UID.format(1)}}
    assert not is_ours(bare, POD)
    assert key_of(bare) == key(1, 0)
    assert urgency(bare)[:2] == (1, 0)
