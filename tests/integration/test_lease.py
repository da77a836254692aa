"""Lease holders on a real API server: taking, giving back, losing. Their rules: tests/unit/kube/test_election.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from kinora.kube.client import KubeClient, WriteRefusedError
from kinora.kube.election import Terms
from kinora.kube.lease import LeaseHolder, LeaseLostError, Listeners
from kinora.kube.resources import LEASE
from waiting import DEADLINE, Object, wait_for

pytestmark = pytest.mark.integration
NAME = "one-writer"
AT_ONCE = 5.0  # seconds, on whatever machine: a Lease that was not given back is left alone for eight
Make = Callable[..., LeaseHolder]


class Running:
    """Holders with their tasks; ended with the test."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._kube, self._namespace = kube, namespace

    def start(self, identity: str, on_lost: Callable[[str], None] = lambda why: None) -> LeaseHolder:
        lease = LeaseHolder(self._kube, self._namespace, NAME, identity, tell=Listeners(lost=on_lost))
        self.tasks[identity] = asyncio.create_task(lease.run())
        return lease

    async def end(self, identity: str) -> None:
        self.tasks[identity].cancel()
        await asyncio.gather(self.tasks[identity], return_exceptions=True)


@pytest.fixture
async def running(kube: KubeClient, namespace: str) -> AsyncIterator[Running]:
    made = Running(kube, namespace)
    yield made
    for identity in made.tasks:
        await made.end(identity)


async def held(lease: LeaseHolder) -> None:
    await asyncio.wait_for(lease.held.wait(), DEADLINE)


async def test_of_many_one_holds_and_when_it_gives_back_another_has_it_at_once(
    kube: KubeClient, namespace: str, running: Running
) -> None:
    leases = {name: running.start(name) for name in ("a", "b", "c", "d")}
    await asyncio.wait(
        [asyncio.create_task(lease.held.wait()) for lease in leases.values()],
        timeout=DEADLINE,
        return_when=asyncio.FIRST_COMPLETED,
    )
    for _ in range(4):  # from hand to hand until each had it
        holding = [name for name, lease in leases.items() if lease.is_held]
        assert len(holding) == 1
        first = leases.pop(holding[0])
        first.check()
        for other in leases.values():
            with pytest.raises(WriteRefusedError, match=f"is not held by {other.identity}"):
                other.check()
        await running.end(first.identity)
        started = time.monotonic()
        assert await first.release()
        assert not first.is_held
        if leases:
            waiting = [asyncio.create_task(lease.held.wait()) for lease in leases.values()]
            done, pending = await asyncio.wait(waiting, timeout=AT_ONCE, return_when=asyncio.FIRST_COMPLETED)
            assert done, "nobody took it"
            print(f"\nfrom release to held: {time.monotonic() - started:.3f} s")
            for task in pending:
                task.cancel()
    lease = await kube.get(LEASE, namespace, NAME)
    assert not lease["spec"].get("holderIdentity")
    assert lease["spec"]["leaseTransitions"] == 3


async def test_what_people_wrote_on_the_lease_stays(kube: KubeClient, namespace: str, running: Running) -> None:
    await kube.create(LEASE, namespace, {"metadata": {"name": NAME, "labels": {"team": "video"}}, "spec": {}})
    await held(running.start("a"))
    lease = await kube.get(LEASE, namespace, NAME)
    assert lease["metadata"]["labels"] == {"team": "video"}
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["spec"]["leaseDurationSeconds"] == 8
    assert lease["spec"]["renewTime"] == lease["spec"]["acquireTime"]


async def test_it_is_renewed(kube: KubeClient, namespace: str, running: Running) -> None:
    await held(running.start("a"))
    first = await kube.get(LEASE, namespace, NAME)

    def renewed(lease: Object | None) -> bool:
        return bool(lease) and lease["spec"]["renewTime"] != first["spec"]["renewTime"]

    lease = await wait_for(kube, LEASE, namespace, NAME, renewed)
    for unchanged in ("holderIdentity", "acquireTime", "leaseTransitions"):
        assert lease["spec"][unchanged] == first["spec"][unchanged]


async def test_a_lease_that_is_taken_away_ends_its_holder_at_once(
    kube: KubeClient, namespace: str, running: Running
) -> None:
    told: list[str] = []
    lease = running.start("a", told.append)
    await held(lease)
    await kube.patch(LEASE, namespace, NAME, {"spec": {"holderIdentity": "thief"}})
    with pytest.raises(LeaseLostError, match="taken by thief"):
        await asyncio.wait_for(running.tasks["a"], AT_ONCE)
    assert told == ["taken by thief"]
    assert not lease.is_held
    assert await lease.release() is False
    assert (await kube.get(LEASE, namespace, NAME))["spec"]["holderIdentity"] == "thief", "it gave back what is not its"


async def test_who_never_held_gives_nothing_back(kube: KubeClient, namespace: str, running: Running) -> None:
    await held(running.start("a"))
    other = running.start("b")
    await wait_for(kube, LEASE, namespace, NAME, lambda _: other.holder == "a")
    await running.end("b")
    assert await other.release() is False
    assert (await kube.get(LEASE, namespace, NAME))["spec"]["holderIdentity"] == "a"


# --- work under a Lease


async def test_work_is_done_by_one_at_a_time_and_the_next_when_it_is_given_back(
    kube: KubeClient, namespace: str
) -> None:
    order: list[str] = []
    begun = {name: asyncio.Event() for name in ("one", "two")}
    end = {name: asyncio.Event() for name in ("one", "two")}
    waits = asyncio.Event()

    async def take(name: str) -> str:
        async def work() -> str:
            order.append(name)
            begun[name].set()
            await end[name].wait()
            order.append(f"-{name}")
            return name

        tell = Listeners(waiting=lambda holder: waits.set() if holder == "one" else None)
        return await LeaseHolder(kube, namespace, NAME, name, tell=tell).hold(work)

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        first = group.create_task(take("one"))
        await begun["one"].wait()
        group.create_task(take("two"))
        await waits.wait()
        assert order == ["one"]
        end["one"].set()
        await begun["two"].wait()
        end["two"].set()
    assert order == ["one", "-one", "two", "-two"]
    assert first.result() == "one"
    assert not (await kube.get(LEASE, namespace, NAME))["spec"].get("holderIdentity")


async def test_a_dead_holders_lease_is_taken_when_it_was_not_renewed_for_its_time(
    kube: KubeClient, namespace: str
) -> None:
    body = {"metadata": {"name": NAME}, "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 1}}
    await kube.create(LEASE, namespace, body)
    began = time.monotonic()

    async def work() -> Object:
        return await kube.get(LEASE, namespace, NAME)

    terms = Terms(duration=3.0, renew=2.4, retry=0.2)
    found = await asyncio.wait_for(LeaseHolder(kube, namespace, NAME, "next", terms=terms).hold(work), DEADLINE)
    assert time.monotonic() - began >= 3
    assert (found["spec"]["holderIdentity"], found["spec"]["leaseTransitions"]) == ("next", 1)


async def test_work_ends_before_its_lost_lease_is_told_of(kube: KubeClient, namespace: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    held = asyncio.create_task(LeaseHolder(kube, namespace, NAME, "one").hold(work))
    await asyncio.wait_for(begun.wait(), DEADLINE)
    await kube.patch(LEASE, namespace, NAME, {"spec": {"holderIdentity": "thief"}})
    with pytest.raises(LeaseLostError, match="taken by thief"):
        await asyncio.wait_for(held, DEADLINE)
    assert ended.is_set()
    assert (await kube.get(LEASE, namespace, NAME))["spec"]["holderIdentity"] == "thief"


async def test_what_the_work_raises_is_raised_and_the_lease_is_given_back(kube: KubeClient, namespace: str) -> None:
    async def work() -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await asyncio.wait_for(LeaseHolder(kube, namespace, NAME, "one").hold(work), DEADLINE)
    assert not (await kube.get(LEASE, namespace, NAME))["spec"].get("holderIdentity")


async def test_who_holds_much_lets_another_go_first(kube: KubeClient, namespace: str, running: Running) -> None:
    """The polite one sees it free, waits, and finds it taken."""
    await held(running.start("a"))
    asked = asyncio.Event()

    def courtesy() -> float:
        asked.set()
        return 2 * DEADLINE

    polite = LeaseHolder(kube, namespace, NAME, "polite", courtesy=courtesy)
    running.tasks["polite"] = asyncio.create_task(polite.run())
    await wait_for(kube, LEASE, namespace, NAME, lambda _: polite.holder == "a")
    await kube.patch(LEASE, namespace, NAME, {"spec": {"holderIdentity": ""}})
    await asyncio.wait_for(asked.wait(), DEADLINE)
    await held(running.start("modest"))
    assert not polite.is_held


async def test_what_keeps_a_lease_from_being_taken_is_told(kube: KubeClient) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    lease = LeaseHolder(kube, "no-such-namespace", NAME, "a", tell=Listeners(trouble=told.put_nowait))
    task = asyncio.create_task(lease.run())
    try:
        assert "no-such-namespace" in await asyncio.wait_for(told.get(), DEADLINE)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("turns", range(5))
async def test_a_holder_ends_when_it_is_told_to_whatever_it_hears_in_that_moment(
    kube: KubeClient, namespace: str, turns: int
) -> None:
    """News and the end come within a few turns of the loop."""
    lease = LeaseHolder(kube, namespace, NAME, "a")
    task = asyncio.create_task(lease.run())
    await held(lease)
    lease._news.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=DEADLINE)
    assert task.done()


async def test_a_second_word_to_end_cuts_the_work_short_and_the_lease_is_not_renewed_any_more(
    kube: KubeClient, namespace: str
) -> None:
    begun, landing = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            landing.set()
            await asyncio.Event().wait()  # what it has under way does not end

    lease = LeaseHolder(kube, namespace, NAME, "one")
    task = asyncio.create_task(lease.hold(work))
    await asyncio.wait_for(begun.wait(), DEADLINE)
    others = asyncio.all_tasks()
    task.cancel()
    await asyncio.wait_for(landing.wait(), DEADLINE)
    task.cancel()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), DEADLINE)
    assert not [one for one in others if one.get_coro().__name__ == "run" and not one.done()]  # type: ignore[union-attr]
