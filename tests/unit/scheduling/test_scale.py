"""How many pods are wanted: never fewer than are busy, up for a backlog, down after idleness."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kinora.controller.scheduling.scale import Backlog, Member, Policy, scale

POLICY = Policy(minimum=0, maximum=10, target_seconds=600, idle_seconds=300)
NOTHING = Backlog(0, 0.0)


def busy(seconds: float = 100.0) -> Member:
    return Member("b", busy=True, busy_for=seconds, idle_for=0.0)


def idle(seconds: float) -> Member:
    return Member("i", busy=False, busy_for=0.0, idle_for=seconds)


def waiting(jobs: int, each: float = 100.0) -> Backlog:
    return Backlog(jobs, jobs * each, each, jobs)


def test_one_waiting_job_brings_the_first_pod() -> None:
    assert scale(POLICY, [], waiting(1), cold_start=240).replicas == 1


def test_a_backlog_brings_as_many_pods_as_start_it_in_time() -> None:
    # 60 jobs of 100 s: 5,900 s before the last one starts; a new pod works 360 of the 600 s.
    assert scale(Policy(0, 100, 600, 300), [], waiting(60), cold_start=240).replicas == 17


def test_what_is_there_is_counted_first() -> None:
    assert scale(POLICY, [busy(100), busy(100)], waiting(10), cold_start=240).replicas == 2


def test_there_are_never_more_new_pods_than_jobs() -> None:
    assert scale(POLICY, [], waiting(2, each=5000), cold_start=240).replicas <= 2


def test_a_cold_start_longer_than_the_target_stretches_it() -> None:
    wanted = scale(Policy(0, 100, 60, 300), [], waiting(20), cold_start=600).replicas
    assert 1 <= wanted <= 20


def test_jobs_that_their_queue_holds_back_bring_no_pods() -> None:
    assert scale(POLICY, [busy()], Backlog(50, 5000, 100, useful=0), cold_start=240).replicas == 1


def test_pods_go_only_after_they_have_been_idle() -> None:
    assert scale(POLICY, [busy(), idle(299)], NOTHING, 240).replicas == 2
    assert scale(POLICY, [busy(), idle(300)], NOTHING, 240).replicas == 1
    assert scale(POLICY, [idle(300)], NOTHING, 240).replicas == 0
    assert scale(Policy(1, 10, 600, 300), [idle(300)], NOTHING, 240).replicas == 1


def test_the_reason_tells_the_limit_that_decided() -> None:
    assert "maxReplicas is 3" in scale(Policy(0, 3, 600, 300), [], waiting(100), 240).reason
    assert "minReplicas is 2" in scale(Policy(2, 3, 600, 300), [], NOTHING, 240).reason
    assert "100 jobs" in scale(POLICY, [], waiting(100), 240).reason


members = st.lists(st.builds(Member, st.just("m"), st.booleans(), st.floats(0, 2000), st.floats(0, 1000)), max_size=20)


@given(members, st.integers(0, 200), st.floats(1, 900), st.floats(0, 1200), st.integers(0, 5), st.integers(1, 30))
def test_never_below_the_busy_ones_and_within_the_bounds(
    pods: list[Member], jobs: int, each: float, cold: float, low: int, high: int
) -> None:
    policy = Policy(low, max(low, high), 600, 300)
    wanted = scale(policy, pods, waiting(jobs, each), cold).replicas
    held = sum(1 for pod in pods if pod.busy)
    assert wanted >= max(held, low)
    assert wanted <= max(policy.maximum, held)


@given(members, st.integers(1, 200), st.floats(1, 900), st.floats(0, 1200))
def test_a_longer_queue_never_wants_fewer_pods(pods: list[Member], jobs: int, each: float, cold: float) -> None:
    assert (
        scale(POLICY, pods, waiting(jobs, each), cold).replicas
        <= scale(POLICY, pods, waiting(jobs + 5, each), cold).replicas
    )


@given(members, st.floats(0, 1200))
def test_without_a_backlog_nothing_is_added(pods: list[Member], cold: float) -> None:
    assert scale(POLICY, pods, NOTHING, cold).replicas <= max(len(pods), POLICY.minimum)
