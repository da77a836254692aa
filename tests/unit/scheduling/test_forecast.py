"""Positions and starts: what a user is told."""

from __future__ import annotations

import pytest

from kinora.controller.scheduling.facts import Queue
from kinora.controller.scheduling.forecast import forecast
from scheduling_worlds import NOW, held, job, pod, world


def test_positions_count_within_the_queue_and_starts_follow_the_pods() -> None:
    jobs = [job("first", waited=30), job("second", waited=20), job("third", waited=10)]
    told = forecast(world(jobs, [pod("p1", held("r1", remaining=50))]))
    assert [told[name].position for name in ("first", "second", "third")] == [1, 2, 3]
    starts = [(told[name].start or 0) - NOW for name in ("first", "second", "third")]
    assert starts == pytest.approx([50, 150, 250])


def test_a_pod_that_starts_counts_from_when_it_will_serve() -> None:
    told = forecast(world([job("one")], [pod("p1", serves=False, ready_in=200)]))
    assert (told["one"].start or 0) - NOW == pytest.approx(200)


def test_nobody_can_tell_while_there_is_no_pod() -> None:
    assert forecast(world([job("one")]))["one"].start is None


def test_only_the_first_of_a_queue_are_told() -> None:
    jobs = [job(f"j{n}", waited=100 - n) for n in range(50)]
    told = forecast(world(jobs, [pod("p1")]), first=20)
    assert sorted(one.position for one in told.values()) == list(range(1, 21))


def test_two_queues_have_their_own_positions() -> None:
    jobs = [job("a1", queue="a"), job("b1", queue="b"), job("b2", queue="b")]
    told = forecast(world(jobs, [pod("p1")], queues=[Queue("a"), Queue("b")]))
    assert (told["a1"].position, told["b1"].position, told["b2"].position) == (1, 1, 2)


def test_the_forecast_comes_true_when_jobs_take_what_was_predicted() -> None:
    jobs = [job(f"j{n}", work=40 + n, waited=100 - n) for n in range(8)]
    told = forecast(world(jobs, [pod("p1"), pod("p2")]))
    assert [round((told[f"j{n}"].start or 0) - NOW) for n in range(8)] == [0, 0, 40, 41, 82, 84, 126, 129]
