"""Which job goes where, and who leaves: by example, and as properties of every world."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kinora.controller.scheduling.bind import Leave, assign, suits
from kinora.controller.scheduling.facts import Queue, Usage, World, level
from scheduling_worlds import any_world, held, job, pod, world


def bound(one: World) -> list[tuple[str, str]]:
    return [(bind.job, bind.pod.name) for bind in assign(one).binds]


def test_the_highest_priority_is_bound_first_then_the_oldest() -> None:
    jobs = [job("young", waited=1), job("old", waited=60), job("urgent", priority=5)]
    assert [name for name, _ in bound(world(jobs, [pod("p1"), pod("p2")]))] == ["urgent", "old"]


def test_a_job_goes_only_to_a_server_that_can_render_it() -> None:
    assert bound(world([job("one", servers="b")], [pod("p1", server="a"), pod("p2", server="b")])) == [("one", "p2")]


def test_one_that_nobody_can_render_now_holds_nobody_back() -> None:
    jobs = [job("blocked", servers="b", priority=9), job("free")]
    assert bound(world(jobs, [pod("p1")])) == [("free", "p1")]


def test_the_cheapest_idle_pod_is_used_first() -> None:
    assert bound(world([job("one")], [pod("dear", price=3), pod("cheap", price=1)])) == [("one", "cheap")]


def test_a_whole_aging_period_is_worth_one_step_of_priority() -> None:
    jobs = [job("patient", waited=2 * 3600), job("newer", priority=1)]
    assert bound(world(jobs, [pod("p1")]))[0][0] == "patient"
    assert bound(world(jobs, [pod("p1")], aging=0))[0][0] == "newer"


def test_within_a_level_the_queue_that_used_least_for_its_weight_comes_first() -> None:
    jobs = [job(f"a{n}", queue="a", waited=50) for n in range(4)] + [job(f"b{n}", queue="b") for n in range(4)]
    queues = [Queue("a", weight=1), Queue("b", weight=3)]
    names = [name[0] for name, _ in bound(world(jobs, [pod(f"p{n}") for n in range(4)], queues=queues))]
    assert Counter(names) == {"b": 3, "a": 1}


def test_what_a_queue_used_before_counts() -> None:
    jobs = [job("a0", queue="a", waited=50), job("b0", queue="b")]
    usage = {"a": Usage(gpu_seconds=10.0)}
    assert bound(world(jobs, [pod("p1")], usage=usage)) == [("b0", "p1")]


def test_a_queue_is_held_to_the_jobs_that_it_may_run_at_once() -> None:
    jobs = [job(f"j{n}", queue="small") for n in range(5)]
    queues, usage = [Queue("small", max_running=3)], {"small": Usage(running=1)}
    assert len(bound(world(jobs, [pod(f"p{n}") for n in range(5)], queues=queues, usage=usage))) == 2


def test_a_queue_is_held_to_its_seconds_of_video_a_day() -> None:
    jobs = [job(f"j{n}", queue="small", video_seconds=5) for n in range(5)]
    queues, usage = [Queue("small", video_seconds_per_day=60)], {"small": Usage(video_seconds=48.0)}
    assert len(bound(world(jobs, [pod(f"p{n}") for n in range(5)], queues=queues, usage=usage))) == 2


def test_a_nearly_idle_pod_gets_its_next_job_ahead_of_time_but_after_idle_ones() -> None:
    soon, late = pod("soon", held("r1", remaining=20)), pod("late", held("r2", remaining=31))
    one = world([job("first", waited=9), job("second"), job("third")], [soon, late, pod("idle")])
    binds = assign(one).binds
    assert [(bind.job, bind.pod.name, bind.ahead) for bind in binds] == [
        ("first", "idle", False),
        ("second", "soon", True),
    ]


def test_a_pod_holds_two_jobs_at_most() -> None:
    full = pod("full", held("r1", remaining=5), held("s1", running=False))
    assert bound(world([job("one")], [full])) == []


def test_slow_staging_looks_further_ahead() -> None:
    busy = pod("busy", held("r1", remaining=100))
    one = world([job("one")], [busy])
    assert bound(one) == []
    assert bound(replace(one, staging={"a": 60.0})) == [("one", "busy")]


def test_a_staged_job_is_taken_back_when_another_pod_is_idle() -> None:
    busy = pod("busy", held("r1", remaining=25), held("s1", running=False))
    assert assign(world([], [busy, pod("idle")])).leaves == (Leave("s1", False, "idle is idle"),)
    assert assign(world([], [busy, pod("idle", server="b")])).leaves == ()


def test_a_staged_job_stays_when_its_turn_is_near() -> None:
    busy = pod("busy", held("r1", remaining=3), held("s1", running=False))
    assert assign(world([], [busy, pod("idle")])).leaves == ()


def test_a_staged_job_gives_way_to_one_of_a_higher_level() -> None:
    low = level(0, world().now, 3600)
    busy = pod("busy", held("r1", remaining=20), held("s1", running=False, level=low))
    assert [leave.job for leave in assign(world([job("high", priority=2)], [busy])).leaves] == ["s1"]
    assert assign(world([job("same")], [busy])).leaves == ()


def test_a_running_job_is_stopped_only_where_both_queues_say_so() -> None:
    low = level(0, world().now, 3600)
    busy = [pod("p1", held("r1", queue="batch", level=low, elapsed=500)),
            pod("p2", held("r2", queue="batch", level=low, elapsed=20))]  # fmt: skip
    urgent = [job("now", queue="urgent", priority=5)]
    allowed = [Queue("urgent", preempts=True), Queue("batch", preemptible=True)]
    for queues in ([], allowed[:1], allowed[1:]):
        assert assign(world(urgent, busy, queues=queues)).leaves == ()
    leaves = assign(world(urgent, busy, queues=allowed)).leaves
    assert leaves == (Leave("r2", True, "now goes first"),)  # the one that loses least


def test_while_one_is_being_stopped_no_second_one_is() -> None:
    low = level(0, world().now, 3600)
    busy = [
        pod("p1", held("r1", queue="batch", level=low, leaving=True)),
        pod("p2", held("r2", queue="batch", level=low)),
    ]
    queues = [Queue("urgent", preempts=True), Queue("batch", preemptible=True)]
    assert assign(world([job("now", queue="urgent", priority=5)], busy, queues=queues)).leaves == ()


def test_a_job_that_was_lost_twice_goes_to_capacity_that_stays() -> None:
    spot, own = pod("spot", spot=True, price=0.1), pod("own", price=9)
    assert bound(world([job("lost", losses=2)], [spot, own])) == [("lost", "own")]
    assert bound(world([job("lost", losses=2), job("new")], [spot])) == [("new", "spot")]


def test_a_job_of_a_preset_goes_only_where_its_files_are() -> None:
    fast = job("fast", preset="Fast", priority=5)
    assert bound(world([fast, job("plain")], [pod("p1", presets="")])) == [("plain", "p1")]
    both = [pod("p1"), pod("p2", presets="Fast")]
    assert bound(world([fast, job("plain")], both)) == [("fast", "p2"), ("plain", "p1")]


def test_a_job_longer_than_spot_pods_live_goes_elsewhere() -> None:
    one = world([job("long", work=100)], [pod("spot", spot=True, pool="cheap")], spot_life={("a", "cheap"): 60.0})
    assert bound(one) == []
    assert bound(replace(one, spot_life={("a", "cheap"): 600.0})) == [("long", "spot")]


@given(any_world())
def test_nothing_is_bound_twice_or_beyond_what_a_pod_may_hold(one: World) -> None:
    outcome = assign(one)
    jobs = Counter(bind.job for bind in outcome.binds)
    pods = Counter(bind.pod.uid for bind in outcome.binds)
    assert all(count == 1 for count in [*jobs.values(), *pods.values()])
    for bind in outcome.binds:
        assert bind.pod.serves
        assert len(bind.pod.held) == (1 if bind.ahead else 0)


@given(any_world())
def test_no_better_job_is_passed_over_for_the_place_of_a_worse_one(one: World) -> None:
    outcome = assign(one)
    waiting = {job.key: (lane, job) for lane in one.lanes for job in lane.jobs}
    placed = {bind.job for bind in outcome.binds}
    running = Counter(waiting[key][1].queue for key in placed)
    for bind in outcome.binds:
        chosen = waiting[bind.job][1]
        mine = level(chosen.priority, chosen.created, one.aging_seconds)
        for key, (lane, other) in waiting.items():
            limit = one.queue(other.queue).max_running
            if key in placed or bind.pod.server not in lane.servers or not suits(one, other, bind.pod):
                continue
            if limit is not None and running[other.queue] >= limit:
                continue
            assert level(other.priority, other.created, one.aging_seconds) <= mine


@given(any_world())
def test_a_job_that_renders_is_left_alone_without_preemption(one: World) -> None:
    calm = replace(one, queues={name: replace(queue, preempts=False) for name, queue in one.queues.items()})
    assert not [leave for leave in assign(calm).leaves if leave.running]


@given(any_world())
def test_the_same_world_gives_the_same_assignment_whatever_order_it_is_told_in(one: World) -> None:
    shuffled = replace(one, lanes=one.lanes[::-1], pods=one.pods[::-1])
    assert {(bind.job, bind.pod.uid) for bind in assign(one).binds} == {
        (bind.job, bind.pod.uid) for bind in assign(shuffled).binds
    }


@given(any_world())
def test_no_place_stays_empty_that_a_waiting_job_could_have(one: World) -> None:
    outcome = assign(one)
    taken, placed = {bind.pod.uid for bind in outcome.binds}, {bind.job for bind in outcome.binds}
    running = Counter(waiting.queue for lane in one.lanes for waiting in lane.jobs if waiting.key in placed)
    for idle in one.pods:
        if not idle.serves or idle.held or idle.uid in taken:
            continue
        for lane in one.lanes:
            limit = one.queue(lane.queue).max_running
            if idle.server not in lane.servers or (limit is not None and running[lane.queue] >= limit):
                continue
            assert not [waiting for waiting in lane.jobs if waiting.key not in placed and suits(one, waiting, idle)]


# --- pods that go


def test_what_has_not_begun_on_a_pod_that_goes_is_taken_back_at_once() -> None:
    busy = pod("busy", held("r1", remaining=1), held("s1", running=False), held("s2", running=False))
    going = replace(busy, open=False, leaving="node n1 is cordoned")
    assert assign(world([], [going])).leaves == tuple(
        Leave(key, False, "busy gets no more jobs: node n1 is cordoned") for key in ("s1", "s2")
    )


def test_a_job_that_is_about_to_begin_there_is_taken_back_only_when_the_pod_goes_whatever_happens() -> None:
    first = replace(pod("first", held("s1", running=False)), open=False, leaving="node n1 is cordoned")
    assert assign(world([], [first])).leaves == ()
    assert [leave.job for leave in assign(world([], [replace(first, ending=True)])).leaves] == ["s1"]


@given(any_world(), st.sets(st.integers(0, 11)))
def test_nothing_is_bound_to_a_pod_that_goes_and_no_job_leaves_twice(one: World, going: set[int]) -> None:
    pods = tuple(replace(pod, open=False, leaving="spot notice", ending=True) if index in going else pod
                 for index, pod in enumerate(one.pods))  # fmt: skip
    outcome = assign(replace(one, pods=pods))
    assert not [bind for bind in outcome.binds if bind.pod.leaving]
    left = Counter(leave.job for leave in outcome.leaves)
    assert all(count == 1 for count in left.values())
    staged = {held.key for pod in pods if pod.leaving for held in pod.held if not held.running}
    assert staged <= left.keys()
