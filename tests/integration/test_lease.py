"""Lease holders on a real API server: taking, giving back, losing. Their rules: tests/unit/kube/test_election.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from kinora.kube.client import KubeClient, WriteRefusedError
from kinora.kube.lease import LeaseHolder, LeaseLostError
from kinora.kube.resources import LEASE
from waiting import DEADLINE, Object, wait_for

pytestmark = pytest.mark.integration
NAME = "one-writer"
Make = Callable[..., LeaseHolder]


class Running:
    """Holders with their tasks; ended with the test."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._kube, self._namespace = kube, namespace

    def start(self, identity: str, on_lost: Callable[[str], None] | None = None) -> LeaseHolder:
        lease = LeaseHolder(self._kube, self._namespace, NAME, identity, on_lost=on_lost)
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
            done, pending = await asyncio.wait(waiting, timeout=2.0, return_when=asyncio.FIRST_COMPLETED)
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
        await asyncio.wait_for(running.tasks["a"], 2.0)
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
