"""The queue as an index: always sorted, each job once, wherever it moves."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kinora.controller.scheduling.facts import Job, place
from kinora.controller.waiting import WaitingJobs, Way

A, B = Way(model="a"), Way(server="b")


def job(number: int, priority: int = 0, queue: str = "default") -> Job:
    return Job(f"films/{number}", f"uid-{number}", queue, priority, 1_800_000_000.0 + number)


def keys(waiting: WaitingJobs, namespace: str = "films") -> list[list[str]]:
    return [[one.key for one in lane.jobs] for lane in waiting.lanes(namespace, lambda _: frozenset({"a"}))]


def test_a_job_moves_when_its_priority_does_and_goes_when_it_is_removed() -> None:
    waiting = WaitingJobs(3600)
    for number in range(3):
        waiting.put("films", A, job(number))
    waiting.put("films", A, job(2, priority=5))
    assert keys(waiting) == [["films/2", "films/0", "films/1"]]
    waiting.remove("films/0")
    waiting.remove("films/0")
    assert keys(waiting) == [["films/2", "films/1"]]
    assert len(waiting) == 2


def test_lanes_that_nobody_serves_are_not_shown() -> None:
    waiting = WaitingJobs(3600)
    waiting.put("films", A, job(1))
    waiting.put("films", B, job(2))
    served = waiting.lanes("films", lambda way: frozenset({"b"}) if way == B else frozenset())
    assert [[one.key for one in lane.jobs] for lane in served] == [["films/2"]]
    assert waiting.lanes("elsewhere", lambda _: frozenset({"a"})) == ()
    assert waiting.counts() == {"default": 2}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-2, 2), st.sampled_from([A, B, None])), max_size=40))
def test_whatever_happens_every_lane_is_sorted_and_every_job_is_in_one(
    moves: list[tuple[int, int, Way | None]],
) -> None:
    waiting = WaitingJobs(3600)
    expected: dict[str, tuple[Way, int]] = {}
    for number, priority, way in moves:
        if way is None:
            waiting.remove(f"films/{number}")
            expected.pop(f"films/{number}", None)
        else:
            waiting.put("films", way, replace(job(number), priority=priority))
            expected[f"films/{number}"] = (way, priority)
    lanes = waiting.lanes("films", lambda way: frozenset({str(way)}))
    found = {one.key: one.priority for lane in lanes for one in lane.jobs}
    assert found == {key: priority for key, (_, priority) in expected.items()}
    assert sum(len(lane.jobs) for lane in lanes) == len(expected) == len(waiting)
    for lane in lanes:
        assert list(lane.jobs) == sorted(lane.jobs, key=lambda one: place(one, 3600))
