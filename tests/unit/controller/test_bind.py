"""Who goes where: properties that hold for every queue and every set of idle pods."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.controller.scheduling.bind import Bind, Idle, Waiting, choose, order

SERVERS = ("a", "b", "c")


@st.composite
def waiting(draw: st.DrawFn) -> list[Waiting]:
    count = draw(st.integers(0, 12))
    return [
        Waiting(
            key=f"ns/job{number}",
            uid=f"{draw(st.integers(0, 99)):02d}-{number}",
            servers=draw(st.frozensets(st.sampled_from(SERVERS), max_size=3)),
            priority=draw(st.integers(-3, 3)),
            created=f"2026-05-01T12:00:0{draw(st.integers(0, 3))}Z",
            preset=draw(st.sampled_from(["", "Fast"])),
        )
        for number in range(count)
    ]


@st.composite
def idle(draw: st.DrawFn) -> list[Idle]:
    servers = draw(st.lists(st.sampled_from(SERVERS), max_size=8))
    fast = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    return [
        Idle(f"{server}-{number}", f"u{number}", "n", server, "p", frozenset({"Fast"} if fast[number] else ()))
        for number, server in enumerate(servers)
    ]


@settings(deadline=None)
@given(waiting(), idle())
def test_no_pod_and_no_job_is_bound_twice_and_only_to_a_server_that_can(jobs: list[Waiting], pods: list[Idle]) -> None:
    binds = choose(jobs, pods)
    assert len({bind.job for bind in binds}) == len(binds)
    assert len({bind.pod.uid for bind in binds}) == len(binds)
    able = {job.key: job.servers for job in jobs}
    assert all(bind.pod.server in able[bind.job] for bind in binds)
    presets = {job.key: job.preset for job in jobs}
    assert all(not presets[bind.job] or presets[bind.job] in bind.pod.presets for bind in binds)
    assert {bind.pod for bind in binds} <= set(pods)


@settings(deadline=None)
@given(waiting(), idle())
def test_a_job_is_passed_over_only_when_no_pod_that_can_render_it_is_left(
    jobs: list[Waiting], pods: list[Idle]
) -> None:
    bound = {bind.job: bind.pod for bind in choose(jobs, pods)}
    queue = order(jobs)
    for position, job in enumerate(queue):
        if job.key not in bound:
            before = {bound[other.key].uid for other in queue[:position] if other.key in bound}
            left = [pod for pod in pods if pod.server in job.servers and pod.uid not in before]
            assert not [pod for pod in left if not job.preset or job.preset in pod.presets]


@settings(deadline=None)
@given(waiting())
def test_the_queue_is_by_priority_then_age(jobs: list[Waiting]) -> None:
    queue = order(jobs)
    assert sorted(job.key for job in queue) == sorted(job.key for job in jobs)
    for first, second in itertools.pairwise(queue):
        assert (-first.priority, first.created) <= (-second.priority, second.created)


@settings(deadline=None)
@given(waiting(), idle(), st.randoms(use_true_random=False))
def test_two_operators_that_see_the_same_decide_alike(
    jobs: list[Waiting], pods: list[Idle], shuffle: random.Random
) -> None:
    binds = choose(jobs, pods)
    shuffle.shuffle(jobs)
    shuffle.shuffle(pods)
    assert choose(jobs, pods) == binds


def test_the_oldest_of_the_most_urgent_takes_the_only_pod() -> None:
    pod = Idle("a-0", "u", "n", "a", "p")
    old, urgent, late = (
        Waiting("ns/old", "1", frozenset("a"), 0, "2026-05-01T12:00:00Z"),
        Waiting("ns/urgent", "2", frozenset("a"), 5, "2026-05-01T12:00:01Z"),
        Waiting("ns/late", "3", frozenset("a"), 5, "2026-05-01T12:00:02Z"),
    )
    assert choose([old, late, urgent], [pod]) == [Bind("ns/urgent", pod)]
    assert choose([], [pod]) == choose([old], []) == []
