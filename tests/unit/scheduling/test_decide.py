"""The parts together: no pod goes that just got a job, no job goes to a pod that is leaving; pools across servers."""

from __future__ import annotations

from kinora.controller.scheduling import fleet, scale
from kinora.controller.scheduling.decide import Server, decide
from kinora.controller.scheduling.facts import Queue, Usage
from scheduling_worlds import NOW, held, job, pod, world

POLICY = scale.Policy(0, 5, 600, 300)


def member(name: str, slot: int = 0, *, pool: str = "main", busy: bool = False, idle_for: float = 0.0,
           serves: bool = True, pending_for: float | None = None) -> fleet.Member:  # fmt: skip
    return fleet.Member(f"uid-{name}", name, slot, pool, True, serves, busy, pending_for=pending_for, idle_for=idle_for)


def server(*members: fleet.Member, name: str = "a", replicas: int = 1, policy: scale.Policy | None = POLICY,
           places: tuple[fleet.Place, ...] = (fleet.Place("main"),)) -> Server:  # fmt: skip
    return Server(name, fleet.Wish(replicas, places), members, policy, cold_start=100)


def test_a_pod_that_just_got_a_job_is_not_scaled_away() -> None:
    decision = decide(world([job("one")], [pod("p1")]), (server(member("p1", idle_for=9999)),))
    assert [bind.job for bind in decision.assignment.binds] == ["one"]
    assert decision.fleets["a"].going == ()


def test_a_pod_that_leaves_gets_no_job() -> None:
    surplus = server(member("p1"), policy=None, replicas=0)
    decision = decide(world([job("one")], [pod("p1")]), (surplus,))
    assert decision.assignment.binds == ()
    assert [one.name for one in decision.fleets["a"].going] == ["p1"]


def test_a_backlog_starts_pods_and_their_absence_is_explained() -> None:
    decision = decide(world([job(f"j{n}", work=500) for n in range(9)]), (server(),))
    assert decision.scales["a"].replicas >= 1
    assert len(decision.fleets["a"].starts) == decision.scales["a"].replicas


def test_jobs_that_wait_for_their_queues_limit_start_no_pod() -> None:
    waiting = [job(f"j{n}", queue="small", work=9999) for n in range(9)]
    one = world(waiting, [pod("p1", held("r1", queue="small"))], queues=[Queue("small", max_running=1)],
                usage={"small": Usage(running=1)})  # fmt: skip
    assert decide(one, (server(member("p1", busy=True)),)).scales["a"].replicas == 1


def test_an_idle_pod_of_another_server_leaves_a_cheaper_pool_before_a_dearer_one_is_used() -> None:
    places = (fleet.Place("spot", price=1, resting_until=NOW + 100, rests=1), fleet.Place("dear", price=9))
    asking = server(places=places, name="a")
    idle = server(member("q1", pool="spot"), name="b", places=(fleet.Place("spot"),))
    one = world([job("j1", work=50)], [pod("q1", server="b", pool="spot")])
    decision = decide(one, (asking, idle))
    assert [gone.name for gone in decision.fleets["b"].going] == ["q1"]
    assert decision.fleets["a"].starts == ()
    (again,) = decision.fleets["a"].rests
    assert (again.pool, again.until) == ("spot", NOW)


def test_a_server_at_its_minimum_gives_nothing_away() -> None:
    places = (fleet.Place("spot", resting_until=NOW + 100, rests=1), fleet.Place("dear", price=9))
    own = server(
        member("q1", pool="spot"), name="b", places=(fleet.Place("spot"),), policy=scale.Policy(1, 5, 600, 300)
    )
    decision = decide(world([job("j1")], [pod("q1", server="b", pool="spot")]), (server(places=places), own))
    assert decision.fleets["b"].going == ()
    assert [start.pool for start in decision.fleets["a"].starts] == ["dear"]
