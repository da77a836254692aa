"""Which pods stay, go and come, and in which pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.controller.scheduling.fleet import Member, Place, Start, Wish, arrange

MAIN = (Place("main"),)
TWO = (Place("spot", price=1, spot=True), Place("reserved", price=3))


def member(slot: int, *, pool: str = "main", busy: bool = False, serves: bool = True, current: bool = True,
           terminating: bool = False, lost: bool = False, overdue: bool = False, notice: str = "",
           pending_for: float | None = None, refusal: str = "", idle_for: float = 0.0) -> Member:  # fmt: skip
    overdue = overdue and terminating
    return Member(f"u{slot}", f"p{slot}", slot, pool, current, serves, busy, terminating, lost, overdue, notice,
                  ending=bool(notice), pending_for=pending_for, refusal=refusal, idle_for=idle_for)  # fmt: skip


def names(members: tuple[Member, ...]) -> list[str]:
    return sorted(one.name for one in members)


def test_missing_pods_are_started_in_free_slots() -> None:
    assert arrange([member(1)], Wish(3, MAIN), 0).starts == (Start(0, "main"), Start(2, "main"))


def test_a_busy_surplus_pod_is_cordoned_and_goes_when_it_is_idle() -> None:
    pods = [member(0, busy=True), member(1, busy=True)]
    fleet = arrange(pods, Wish(1, MAIN), 0)
    assert fleet.going == ()
    assert fleet.cordoned == {"u1"}
    assert names(arrange([pods[0], member(1)], Wish(1, MAIN), 0).going) == ["p1"]


def test_scale_down_takes_the_dearest_then_the_longest_idle() -> None:
    pods = [member(0, pool="reserved"), member(1, pool="spot", idle_for=5), member(2, pool="spot", idle_for=9)]
    assert names(arrange(pods, Wish(2, TWO), 0).going) == ["p0"]
    assert names(arrange(pods, Wish(1, TWO), 0).going) == ["p0", "p2"]


def test_a_pod_of_a_pool_that_is_gone_from_the_spec_goes_first() -> None:
    assert names(arrange([member(0, pool="old"), member(1)], Wish(1, MAIN), 0).going) == ["p0"]


def test_a_rolling_update_replaces_within_max_unavailable_and_needs_no_spare_gpu() -> None:
    pods = [member(0, current=False), member(1, current=False), member(2, current=False, busy=True)]
    fleet = arrange(pods, Wish(3, MAIN), 0)
    assert names(fleet.going) == ["p0"]
    assert fleet.starts == ()
    draining = [member(0, current=False, terminating=True), *pods[1:]]
    assert arrange(draining, Wish(3, MAIN), 0).starts == ()
    assert arrange(pods[1:], Wish(3, MAIN), 0).starts == (Start(0, "main"),)


def test_a_broken_outdated_pod_is_replaced_at_once() -> None:
    pods = [member(0, current=False, serves=False), member(1, current=False)]
    assert names(arrange(pods, Wish(2, MAIN), 0).going) == ["p0"]


def test_a_lost_pod_is_replaced_without_waiting() -> None:
    fleet = arrange([member(0, lost=True, serves=False)], Wish(1, MAIN), 0)
    assert names(fleet.going) == ["p0"]
    assert fleet.starts == (Start(0, "main"),)


def test_one_that_outlives_its_grace_does_not_hold_its_place() -> None:
    assert arrange([member(0, terminating=True)], Wish(1, MAIN), 0).starts == ()
    assert len(arrange([member(0, terminating=True, overdue=True)], Wish(1, MAIN), 0).starts) == 1


def test_a_spot_notice_lets_the_render_go_on_and_starts_a_successor() -> None:
    fleet = arrange([member(0, busy=True, notice="SpotToBeReleased")], Wish(1, MAIN), 0)
    assert fleet.going == ()
    assert fleet.cordoned == {"u0"}
    assert fleet.starts == (Start(1, "main"),)


def test_a_cordoned_node_keeps_its_idle_pod_which_gets_no_new_job() -> None:
    cordoned = replace(member(0), notice="the node is cordoned")
    fleet = arrange([cordoned], Wish(1, MAIN), 0)
    assert (fleet.going, fleet.starts, fleet.cordoned) == ((), (), {"u0"})


def test_a_pool_that_finds_no_node_rests_and_the_next_one_is_used_once_the_pod_has_gone() -> None:
    pods = [member(0, pool="spot", serves=False, pending_for=301, refusal="0/3 nodes: Insufficient nvidia.com/gpu")]
    fleet = arrange(pods, Wish(1, TWO), 1000.0)
    assert names(fleet.going) == ["p0"]
    assert fleet.starts == ()
    (rest,) = fleet.rests
    assert (rest.pool, rest.until, rest.message) == ("spot", 1300.0, "0/3 nodes: Insufficient nvidia.com/gpu")
    resting = (Place("spot", resting_until=rest.until, rests=1), TWO[1])
    assert arrange([], Wish(1, resting), 1001.0).starts == (Start(0, "reserved"),)
    assert arrange([], Wish(1, resting), 1301.0).starts == (Start(0, "spot"),)


def test_each_refusal_in_a_row_doubles_the_rest() -> None:
    pods = [member(0, pool="spot", serves=False, pending_for=400)]
    again = arrange(pods, Wish(1, (Place("spot", rests=2), TWO[1])), 0.0).rests
    assert again[0].until == 1200.0


def test_the_only_pool_is_waited_for() -> None:
    fleet = arrange([member(0, serves=False, pending_for=9999)], Wish(1, MAIN), 0)
    assert (fleet.going, fleet.rests) == ((), ())


def test_jobs_that_may_not_go_to_spot_get_a_pod_that_stays() -> None:
    assert [start.pool for start in arrange([], Wish(2, TWO, firm=1), 0).starts] == ["reserved", "spot"]
    pods = [member(0, pool="spot"), member(1, pool="spot", busy=True)]
    fleet = arrange(pods, Wish(2, TWO, firm=1), 0)
    assert names(fleet.going) == ["p0"]
    assert arrange(pods[1:], Wish(2, TWO, firm=1), 0).starts == (Start(0, "reserved"),)


def test_when_every_pool_is_full_it_says_so() -> None:
    fleet = arrange([member(0)], Wish(3, (Place("main", limit=1),)), 0)
    assert fleet.starts == ()
    assert "maxReplicas of 1" in fleet.blocked


def test_a_full_pool_is_passed_over_for_the_next() -> None:
    places = (Place("own", limit=1), Place("cloud"))
    assert [start.pool for start in arrange([], Wish(3, places), 0).starts] == ["own", "cloud", "cloud"]


any_member = st.builds(
    member, st.integers(0, 9), pool=st.sampled_from(["spot", "reserved", "gone"]), busy=st.booleans(),
    serves=st.booleans(), current=st.booleans(), terminating=st.booleans(), lost=st.booleans(), overdue=st.booleans(),
    notice=st.sampled_from(["", "SpotToBeReleased"]), pending_for=st.none() | st.floats(0, 900),
)  # fmt: skip
fleets = st.lists(any_member, max_size=10, unique_by=lambda one: one.slot)


@given(fleets, st.integers(0, 8), st.integers(1, 3))
def test_what_renders_stays(pods: list[Member], replicas: int, unavailable: int) -> None:
    going = arrange(pods, Wish(replicas, TWO, unavailable), 0).going
    assert not [one for one in going if one.busy and not one.lost and one.pending_for is None]


@given(fleets, st.integers(0, 8))
def test_slots_stay_unique_and_no_more_pods_are_started_than_are_wanted(pods: list[Member], replicas: int) -> None:
    fleet = arrange(pods, Wish(replicas, TWO), 0)
    slots = [one.slot for one in fleet.kept] + [start.slot for start in fleet.starts]
    assert len(set(slots)) == len(slots)
    assert len(fleet.starts) <= replicas
    staying = [one for one in fleet.kept if not one.notice]
    assert len(staying) + len(fleet.starts) <= max(replicas, len(staying))


@given(fleets, st.integers(0, 8))
def test_deciding_again_after_it_was_carried_out_changes_nothing(pods: list[Member], replicas: int) -> None:
    """A restarted operator, or a second look, starts and stops nothing more."""
    pods = [one for one in pods if one.pool != "gone" and one.pending_for is None and not one.notice and one.current]
    first = arrange(pods, Wish(replicas, TWO), 0)
    started = [member(start.slot, pool=start.pool, serves=False) for start in first.starts]
    left = [one for one in pods if one not in first.going]
    second = arrange([*left, *started], Wish(replicas, TWO), 0)
    assert second.going == ()


def test_what_becomes_of_a_pod_is_not_looked_up_among_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing each pod with each other took a quarter of a second for 500, several times a second."""

    def never(_one: Member, _other: object) -> bool:
        raise AssertionError("a pod was compared with another one")

    members = [member(number, busy=True) for number in range(20)]
    monkeypatch.setattr(Member, "__eq__", never)
    fleet = arrange(members, Wish(10, MAIN), 0.0)
    assert len(fleet.kept) == 20
    assert len(fleet.cordoned) == 10
