"""Turns and shares: nobody waits for a dead host but who wants that host."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.webhooks.lanes import Lanes, Place

DEAD, GOOD = Place("films", "dead.example"), Place("films", "good.example")


def test_a_dead_host_holds_its_share_and_no_more() -> None:
    lanes = Lanes(total=8, per_host=2)
    for number in range(1000):
        lanes.add(f"dead-{number}", DEAD)
    lanes.add("good", GOOD)
    assert [lanes.next() for _ in range(4)] == ["dead-0", "good", "dead-1", None]


def test_a_host_that_does_not_answer_gets_one_at_a_time_until_it_does() -> None:
    lanes = Lanes(total=8, per_host=3)
    for number in range(9):
        lanes.add(str(number), DEAD)
    assert [lanes.next() for _ in range(4)] == ["0", "1", "2", None]
    for key in "012":
        lanes.back(key, answered=False)
    assert [lanes.next(), lanes.next()] == ["3", None]
    lanes.back("3")
    assert [lanes.next(), lanes.next()] == ["4", None], "it was not asked, and nothing is known"
    lanes.back("4", answered=True)
    assert [lanes.next() for _ in range(4)] == ["5", "6", "7", None]


def test_namespaces_take_turns_whatever_the_number_of_their_hosts() -> None:
    lanes = Lanes(total=4, per_host=1)
    for number in range(1000):
        lanes.add(f"flood-{number}", Place("flood", f"{number}.dead.example"))
    lanes.add("a", Place("films", "one.example"))
    lanes.add("b", Place("films", "two.example"))
    assert [lanes.next() for _ in range(5)] == ["flood-0", "a", "flood-1", "b", None]


def test_no_more_are_out_than_there_are_places() -> None:
    lanes = Lanes(total=2, per_host=9)
    for number in range(5):
        lanes.add(str(number), GOOD)
    assert [lanes.next() for _ in range(3)] == ["0", "1", None]
    lanes.back("0")
    assert (lanes.next(), lanes.out) == ("2", 2)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab"), st.sampled_from("xyz")),
        st.tuples(st.just("next"), st.just(""), st.just("")),
        st.tuples(st.just("back"), st.sampled_from(["yes", "no", ""]), st.just("")),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 4), st.integers(1, 3))
def test_nothing_is_lost_or_sent_twice_and_the_limits_hold(
    steps: list[tuple[str, str, str]], total: int, per_host: int
) -> None:
    lanes, waiting, out = Lanes(total, per_host), dict[str, Place](), dict[str, Place]()
    for number, (what, first, second) in enumerate(steps):
        if what == "add":
            waiting[str(number)] = Place(first, second)
            lanes.add(str(number), waiting[str(number)])
        elif what == "back" and out:
            key = next(iter(out))
            del out[key]
            lanes.back(key, answered={"yes": True, "no": False, "": None}[first])
        elif what == "next":
            key = lanes.next() or ""
            if key:
                out[key] = waiting.pop(key)
            else:
                free = {place.host for place in waiting.values()} - {place.host for place in out.values()}
                assert len(out) >= total or not free, "a host with nothing out is never held back"
    assert lanes.out == len(out) <= total
    assert all(count <= per_host for count in Counter(place.host for place in out.values()).values())
    for key in list(out):
        lanes.back(key, answered=True)
    rest = []
    while (found := lanes.next()) is not None:
        rest.append(found)
        lanes.back(found, answered=True)
    assert sorted(rest) == sorted(waiting)
