"""Two operators as two processes: the leader is killed, stopped, cut off, frozen; the standby goes on, and alone."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from integration.replicas import LEASE_NAME, Door, History, Replica, held_by
from integration.test_operator import ready_pods
from kinora.controller.leader import EXIT_LOST
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import LEASE, MODELSERVER, POD, VIDEOJOB
from kinora_cluster import Cluster
from waiting import DEADLINE, Object, model_server, phase, video_job, wait_for, wait_for_pods

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("claims")]
FAIL_OVER = 15.0  # seconds that the design allows from the death of a leader to the next bind
HAND_OVER = 5.0  # the same for a leader that is asked to end, on whatever machine: its Lease would last for eight
Start = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def start(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Start]:
    """``replica = await start(name)``: an operator process, watching the test's namespace."""
    replicas: list[Replica] = []

    async def starter(name: str, kubeconfig: str | None = None, lease_namespace: str | None = None) -> Replica:
        replica = await Replica.start(name, tmp_path, kubeconfig or cluster.kubeconfig, namespace, lease_namespace)
        replicas.append(replica)
        return replica

    yield starter
    for replica in replicas:
        await replica.stop()


@pytest.fixture
async def door(connection: Connection) -> AsyncIterator[Door]:
    made = Door(connection)
    yield made
    await made.close()


async def pair(start: Start, kubeconfig: str | None = None) -> tuple[Replica, Replica]:
    """A leader (by that kubeconfig) and a warm standby."""
    leader = await start("leader", kubeconfig)
    await leader.ready("leading")
    standby = await start("standby")
    await standby.ready("standing by for leader")
    return leader, standby


@asynccontextmanager
async def followed(kube: KubeClient, namespace: str) -> AsyncIterator[History]:
    history = History()
    _, version = await kube.list(VIDEOJOB, namespace)
    follower = asyncio.create_task(history.follow(kube.stream(VIDEOJOB, namespace, resource_version=version)))
    try:
        yield history
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)


def assert_no_job_was_bound_twice(history: History) -> None:
    taken: dict[str, str] = {}
    for _, job in history.states:
        status = job.get("status") or {}
        if status.get("phase") == "Scheduled":
            name, pod = job["metadata"]["name"], status["assignment"]["podUID"]
            assert status["attempt"] == 1, (name, status)
            assert taken.setdefault(name, pod) == pod, f"{name} was given to two pods"
    assert len(set(taken.values())) == len(taken), "a pod was given two jobs"


async def test_a_leader_killed_while_it_binds_is_replaced_and_no_job_is_bound_twice(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    pods, jobs = 24, 32
    leader, standby = await pair(start)
    await kube.create(MODELSERVER, namespace, model_server(replicas=pods))
    await ready_pods(kube, namespace, pods)
    async with followed(kube, namespace) as history:
        is_killed = asyncio.Event()

        async def submit() -> None:
            for number in range(jobs):
                if number == pods // 2:  # the others are for the standby: however late it is seen that four are bound
                    await is_killed.wait()
                await kube.create(VIDEOJOB, namespace, video_job(f"job-{number}"))

        submitter = asyncio.create_task(submit())
        await history.reaches(lambda: len(history.in_phase("Scheduled")) >= 4, "four jobs are bound")
        killed = leader.send(signal.SIGKILL)
        is_killed.set()
        await submitter
        await history.reaches(lambda: len(history.in_phase("Scheduled")) == pods, "every pod has a job", 2 * FAIL_OVER)
        before = [moment for moment, _ in history.in_phase("Scheduled") if moment < killed + 1]
        assert len(before) < pods, "the leader had bound everything before it was killed"
        first_after = min(moment for moment, _ in history.in_phase("Scheduled") if moment > killed + 1)
        print(f"\nfail-over: {first_after - killed:.2f} s from SIGKILL to the next bind, {len(before)} bound before")
        assert first_after - killed < FAIL_OVER
        left = {f"job-{number}" for number in range(jobs)} - {name for _, name in history.in_phase("Scheduled")}
        for name in left:
            await wait_for(kube, VIDEOJOB, namespace, name, phase("Queued"))
        assert_no_job_was_bound_twice(history)
        for number in range(jobs):  # created, Queued for those that waited, Scheduled: and nothing else was written
            assert len(history.of(f"job-{number}")) <= 3, history.of(f"job-{number}")
    lease = await kube.get(LEASE, namespace, LEASE_NAME)
    assert lease["spec"]["holderIdentity"] == standby.name
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_new_leader_writes_nothing_that_is_already_true(kube: KubeClient, namespace: str, start: Start) -> None:
    leader, standby = await pair(start)
    await kube.create(MODELSERVER, namespace, model_server(replicas=2))
    await ready_pods(kube, namespace, 2)
    for number in range(5):
        await kube.create(VIDEOJOB, namespace, video_job(f"job-{number}"))
    for number in range(5):
        await wait_for(kube, VIDEOJOB, namespace, f"job-{number}", phase("Scheduled", "Queued"))

    def settled(obj: Object | None) -> bool:
        return bool(obj) and obj["status"].get("busyReplicas") == 2 and obj["status"].get("backlog") == 3

    await wait_for(kube, MODELSERVER, namespace, "vace", settled)
    assert await standby.writes() == {}, "a standby writes nothing"
    before = await versions(kube, namespace)
    leader.send(signal.SIGKILL)
    await standby.ready("leading")
    await kube.create(VIDEOJOB, namespace, video_job("marker", model="wan9"))
    await wait_for(kube, VIDEOJOB, namespace, "marker", phase("Failed"))
    await looked_at(standby, {"job": 6, "server": 1})
    after = await versions(kube, namespace)
    assert {name: version for name, version in after.items() if name != "marker"} == before
    written = {what: count for what, count in (await standby.writes()).items() if "events" not in what}
    # The children of a server beside its pods are asked for again, as after every full list: they are there (409).
    assert {what: count for what, count in written.items() if not what.endswith(" 409")} == {"patch videojobs 200": 1}


async def looked_at(replica: Replica, wanted: dict[str, int]) -> None:
    """Wait until it has decided about so many objects of each kind."""
    async with asyncio.timeout(DEADLINE):
        while True:
            done: Counter[str] = Counter()
            for labels, number in (await replica.metrics("kinora_reconciles_total")).items():
                done[dict(labels)["kind"]] += int(number)
            if all(done[kind] >= count for kind, count in wanted.items()):
                return
            await asyncio.sleep(0.05)  # its metrics are all that it shows


async def versions(kube: KubeClient, namespace: str) -> dict[str, str]:
    return {
        obj["metadata"]["name"]: obj["metadata"]["resourceVersion"]
        for resource in (VIDEOJOB, MODELSERVER, POD)
        for obj in (await kube.list(resource, namespace))[0]
    }


async def test_a_leader_that_is_asked_to_end_hands_over_long_before_its_lease_expires(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    pods, jobs = 20, 16
    leader, standby = await pair(start)
    await kube.create(MODELSERVER, namespace, model_server(replicas=pods))
    await ready_pods(kube, namespace, pods)
    async with followed(kube, namespace) as history:

        async def submit() -> None:
            for number in range(jobs):
                await kube.create(VIDEOJOB, namespace, video_job(f"job-{number}"))

        submitter = asyncio.create_task(submit())
        await history.reaches(lambda: len(history.in_phase("Scheduled")) >= 4, "four jobs are bound")
        asked = leader.send(signal.SIGTERM)
        await held_by(kube, namespace, other_than="leader", deadline=HAND_OVER)
        taken = time.monotonic()
        await kube.create(VIDEOJOB, namespace, video_job("by-the-next"))
        await submitter
        await history.reaches(lambda: len(history.in_phase("Scheduled")) == jobs + 1, "all are bound")
        bound = {name: moment - asked for moment, name in history.in_phase("Scheduled")}
        print(
            f"\nhand-over: {taken - asked:.2f} s from SIGTERM to the standby's Lease, {bound['by-the-next']:.2f} s to "
            f"its bind of a job that came then"
        )
        assert bound["by-the-next"] < HAND_OVER
        assert_no_job_was_bound_twice(history)
    assert await leader.ended() == 0, leader.told()
    assert await standby.metrics("kinora_leader") == {(): 1.0}
    assert await standby.metrics("kinora_leader_transitions_total") == {(): 1.0}


async def test_only_the_leader_tells_of_the_cluster_and_both_are_ready(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    leader, standby = await pair(start)
    await kube.create(VIDEOJOB, namespace, video_job())
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued"))
    await leader.shows("kinora_videojobs", {"phase": "Queued"}, 1.0)
    assert await standby.metrics("kinora_videojobs") == {}
    assert [await replica.metrics("kinora_leader") for replica in (leader, standby)] == [{(): 1.0}, {(): 0.0}]
    assert await leader.ask("/readyz") == (200, "ok: leading\n")
    assert await standby.ask("/readyz") == (200, "ok: standing by for leader\n")


@pytest.mark.parametrize("all_of_it", [False, True], ids=["its Lease alone", "everything"])
async def test_a_leader_that_cannot_renew_stops_writing_before_another_can_take_over(
    kube: KubeClient, namespace: str, start: Start, door: Door, tmp_path: Path, all_of_it: bool
) -> None:
    leader, standby = await pair(start, await door.open(tmp_path))
    async with followed(kube, namespace) as history:
        work = asyncio.create_task(keep_busy(kube, namespace))
        await history.reaches(lambda: bool(history.in_phase("Failed")), "the leader works")
        shut = door.shut(lambda path: all_of_it or "/leases" in path)
        taken = asyncio.create_task(held_by(kube, namespace, other_than="leader"))
        assert await leader.ended() == EXIT_LOST, leader.told()
        gone = time.monotonic()
        await taken
        next_one = time.monotonic()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        written = [moment for moment, path in door.writes if "/leases" not in path]
        if not all_of_it:
            assert max(written) > shut + 1, "it went on working while its Lease lasted"
        assert max(written) < next_one - 1.0
        assert "not renewed for" in leader.told()
        print(
            f"\nafter the cut: last write {max(written) - shut:.2f} s, process ended {gone - shut:.2f} s, "
            f"Lease taken {next_one - shut:.2f} s"
        )
    await standby.ready("leading")


async def keep_busy(kube: KubeClient, namespace: str) -> None:
    """A job that is refused, again and again: each is one write of whoever leads."""
    number = 0
    while True:
        number += 1
        await kube.create(VIDEOJOB, namespace, video_job(f"refused-{number}", model="wan9"))
        with_limit = asyncio.timeout(0.1)
        try:
            async with with_limit:
                await wait_for(kube, VIDEOJOB, namespace, f"refused-{number}", phase("Failed"), deadline=60)
        except TimeoutError:
            continue


async def test_a_leader_that_was_frozen_wakes_up_to_end_and_writes_nothing(
    kube: KubeClient, namespace: str, start: Start, door: Door, tmp_path: Path
) -> None:
    leader, standby = await pair(start, await door.open(tmp_path))
    await door.answers_a_renewal()  # so that it is frozen with nothing under way
    leader.send(signal.SIGSTOP)
    await kube.create(VIDEOJOB, namespace, video_job(model="wan9"))
    await standby.ready("leading")
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Failed"))
    before = list(door.writes)
    await kube.create(VIDEOJOB, namespace, video_job("for-both", model="wan9", suspend=True))
    leader.send(signal.SIGCONT)
    assert await leader.ended() == EXIT_LOST, leader.told()
    assert door.writes == before


async def test_a_lease_that_somebody_deletes_stays_with_its_holder(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    leader, standby = await pair(start)
    first = await kube.get(LEASE, namespace, LEASE_NAME)
    await kube.delete(LEASE, namespace, LEASE_NAME)
    lease = await wait_for(
        kube,
        LEASE,
        namespace,
        LEASE_NAME,
        lambda obj: obj is not None and obj["metadata"]["uid"] != first["metadata"]["uid"],
    )
    assert lease["spec"]["holderIdentity"] == leader.name
    await kube.create(VIDEOJOB, namespace, video_job(model="wan9"))
    await wait_for(kube, VIDEOJOB, namespace, "job", phase("Failed"))
    assert await standby.writes() == {}


async def test_a_process_that_crashed_takes_its_own_lease_again_at_once(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    """The same container, started again: its name is in the Lease, and nobody else has that name."""
    leader = await start("only")
    await leader.ready("leading")
    leader.send(signal.SIGKILL)
    await leader.ended()
    again = await start("only")
    await again.ready()
    ready = time.monotonic()
    await again.ready("leading")
    assert time.monotonic() - ready < HAND_OVER
    assert (await kube.get(LEASE, namespace, LEASE_NAME))["spec"]["leaseTransitions"] == 0


@pytest.fixture
def own_account(cluster: Cluster, tmp_path: Path) -> str:
    """A kubeconfig with the token of the operator's own ServiceAccount, and nothing else."""
    config = json.loads(cluster.run("config", "view", "--raw", "--flatten", "-o", "json"))
    token = cluster.run("create", "token", LEASE_NAME, "-n", "kinora-system").strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    path = tmp_path / "own-account.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


@pytest.mark.usefixtures("charts_lease")
async def test_the_charts_role_is_enough_to_lead_and_reaches_no_other_lease(
    cluster: Cluster, kube: KubeClient, namespace: str, start: Start, own_account: str
) -> None:
    leader = await start("own-account", own_account, lease_namespace="kinora-system")
    await leader.ready("leading")
    await kube.create(MODELSERVER, namespace, model_server())
    await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    leader.send(signal.SIGTERM)
    assert await leader.ended() == 0, leader.told()
    lease = await kube.get(LEASE, "kinora-system", LEASE_NAME)
    assert not lease["spec"].get("holderIdentity")
    account = "--as=system:serviceaccount:kinora-system:kinora-operator"
    for verb, what, where, answer in (
        ("patch", f"leases/{LEASE_NAME}", "kinora-system", "yes"),
        ("patch", "leases/another", "kinora-system", "no"),
        ("list", "leases", "kinora-system", "no"),
        ("delete", f"leases/{LEASE_NAME}", "kinora-system", "no"),
        ("get", f"leases/{LEASE_NAME}", namespace, "no"),
    ):
        found = cluster.run("auth", "can-i", verb, what, "-n", where, account, check=False).split()[0]
        assert (verb, what, where, found) == (verb, what, where, answer)
