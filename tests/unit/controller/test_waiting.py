"""The queue as an index: always sorted, each job once, wherever it moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kinora.controller.scheduling.facts import Job, place
from kinora.controller.waiting import MOST_IN_TURN, WaitingJobs, Way

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


# --- a tenant's own order


def own(number: int, order: float | None = None, tenant: str = "a", **more: Any) -> Job:
    made = job(number)
    return replace(made, group=tenant, order=made.created * 1000 if order is None else order, **more)


def filled() -> WaitingJobs:
    """Two tenants take turns: a, b, a, b, a; the odd ones are b's."""
    waiting = WaitingJobs(3600)
    for number in range(5):
        waiting.put("films", A, own(number, tenant="ab"[number % 2]))
    return waiting


def test_what_goes_first_has_the_first_place_of_its_own_tenant_and_no_other_s() -> None:
    waiting = filled()
    waiting.put("films", A, own(7, -1))
    assert keys(waiting) == [["films/7", "films/1", "films/0", "films/3", "films/2", "films/4"]]
    waiting.put("films", A, own(8, -2))
    assert keys(waiting)[0][:3] == ["films/8", "films/1", "films/7"]
    waiting.put("films", A, own(9, tenant="b"))
    assert keys(waiting)[0][-1] == "films/9"
    assert [one.created for one in lined_up(waiting)] == sorted(
        job(number).created for number in (0, 1, 2, 3, 4, 7, 8, 9)
    )


def test_a_job_that_is_bound_takes_its_place_with_it_so_that_nobody_is_overtaken_twice() -> None:
    waiting = filled()
    for number in (7, 8, 9):  # each goes first, and is bound: b's are not held up by more than a's own places
        waiting.put("films", A, own(number, -number))
        assert keys(waiting)[0][0] == ("films/7" if number == 7 else "films/1")
        waiting.remove(f"films/{number}")
    assert keys(waiting)[0] == ["films/1", "films/3", "films/0", "films/2", "films/4"]


def test_a_change_of_a_job_keeps_its_place_and_another_priority_or_server_does_not() -> None:
    waiting = filled()
    waiting.put("films", A, own(7, -1))
    waiting.put("films", A, own(7, -1, losses=1))
    assert keys(waiting)[0][0] == "films/7"
    waiting.put("films", A, own(7, -1, priority=-1))
    assert keys(waiting)[0][-1] == "films/7"
    waiting.put("films", B, own(7, -1))
    assert keys(waiting) == [["films/1", "films/0", "films/3", "films/2", "films/4"], ["films/7"]]


def test_where_many_wait_what_comes_goes_behind_them_whatever_it_asks_for() -> None:
    waiting = WaitingJobs(3600)
    for number in range(MOST_IN_TURN):
        waiting.put("films", A, own(number))
    waiting.put("films", A, own(MOST_IN_TURN, -1))
    assert lined_up(waiting)[-1].key == f"films/{MOST_IN_TURN}"
    waiting.remove("films/0")
    waiting.remove("films/1")
    waiting.put("films", A, own(MOST_IN_TURN + 1, -1))
    assert lined_up(waiting)[0].key == f"films/{MOST_IN_TURN + 1}"
    waiting.put("films", A, own(MOST_IN_TURN + 1, -1, losses=1))
    waiting.put("films", A, own(MOST_IN_TURN, -1, losses=1))
    assert (lined_up(waiting)[0].key, lined_up(waiting)[-1].key) == (
        f"films/{MOST_IN_TURN + 1}", f"films/{MOST_IN_TURN}",
    )  # fmt: skip


def test_places_are_changed_between_lanes_of_one_server_too() -> None:
    waiting, stored = WaitingJobs(3600), Way(server="b", store="pvc://videos/")
    waiting.put("films", B, own(0))
    waiting.put("films", stored, own(1, -1))
    lanes = waiting.lanes("films", lambda _: frozenset({"b"}))
    assert sorted((one.key, one.created, one.turn) for lane in lanes for one in lane.jobs) == [
        ("films/0", job(1).created, "uid-1"),
        ("films/1", job(0).created, "uid-0"),
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.none() | st.integers(-3, 3), st.sampled_from(["a", "b", ""]), st.booleans()),
        max_size=40,
    )
)
def test_whatever_is_asked_for_the_places_of_the_others_stay(
    moves: list[tuple[int, int | None, str, bool]],
) -> None:
    waiting, there = WaitingJobs(3600), dict[str, Job]()
    for number, order, tenant, gone in moves:
        one, before = own(number, order, tenant), {other.key: other.created for other in lined_up(waiting)}
        if gone:
            waiting.remove(one.key)
            there.pop(one.key, None)
        else:
            waiting.put("films", A, one)
            there[one.key] = one
        placed = lined_up(waiting)
        assert {other.key for other in placed} == there.keys()
        assert placed == sorted(placed, key=lambda other: place(other, 3600))
        others = [other for other in placed if other.group != one.group and other.key in before]
        assert all(other.created == before[other.key] for other in others)
        for group in "ab":
            mine = [there[other.key] for other in placed if other.group == group]
            assert mine == sorted(mine, key=lambda other: (other.order, other.created, other.uid))


def lined_up(waiting: WaitingJobs) -> list[Job]:
    """The jobs of the one lane that there is, as they stand in it."""
    return [one for lane in waiting.lanes("films", lambda _: frozenset({"a"})) for one in lane.jobs]
