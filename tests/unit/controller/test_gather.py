"""What the store says becomes snapshots: who may be bound, who waits for whom, who is surplus."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.controller.gather import Gatherer, has_news_of_presets
from kinora.controller.scheduling.facts import Pod
from kinora.controller.scheduling.spotlife import Life
from kinora.controller.store import Store
from kinora.controller.videojob.check import Accepted, Refused, Undecided
from unit.controller.builders import NOW, SETTINGS, ago, assigned, catalogue, job, server

Object = dict[str, Any]
I2V = "wan2.1-i2v-14b-480p"
NODE_DOWN = {
    "metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1"},
    "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
}


@pytest.fixture
async def store() -> Store:
    return Store(lambda: 1000.0, lambda _kind, _name: None)


@pytest.fixture
def gatherer(store: Store) -> Gatherer:
    return Gatherer(store, catalogue(), SETTINGS)


def put(store: Store, name: str, status: Object | None = None, **spec: Any) -> Object:
    made = job(status, name=name, **spec)
    made["metadata"]["uid"] = f"0b7c8a52-6f7e-4c1e-9a37-{abs(hash(name)) % 10**12:012d}"
    store.jobs.apply(made)
    return made


def ready_pod(gatherer: Gatherer, store: Store, slot: int = 0, uid: str = "p1", **change: Any) -> Object:
    from kinora.api.modelserver import ModelServerSpec
    from kinora.controller.modelserver.pod import desired_pod, pools_of

    owner = server(replicas=2)
    spec = ModelServerSpec.model_validate(owner["spec"])
    made = desired_pod(owner, spec, SETTINGS, pool=pools_of(spec)[0], slot=slot, incarnation=0)
    made["metadata"] |= {"uid": uid, "resourceVersion": "3", **change}
    made["spec"]["nodeName"] = "n1"
    made["status"] = {"phase": "Running", "conditions": [{"type": "kinora.dev/EngineReady", "status": "True"}]}
    store.pods.apply(made)
    return made


def idle_uids(gatherer: Gatherer, *reserved: str, cordoned: frozenset[str] = frozenset()) -> list[str]:
    pods = gatherer.world("films", reserved, cordoned, NOW.timestamp()).pods
    return [pod.uid for pod in pods if pod.serves and pod.open and not pod.held]


def waiting_keys(gatherer: Gatherer, store: Store) -> list[str]:
    for name in store.jobs.entries:
        gatherer.index(name)
    lanes = gatherer.world("films", (), (), NOW.timestamp()).lanes
    return [job.key for lane in lanes for job in lane.jobs]


def test_a_ready_pod_is_idle_until_it_holds_a_job_or_a_bind_is_on_its_way(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(server(replicas=2))
    ready_pod(gatherer, store)
    assert idle_uids(gatherer) == ["p1"]
    assert idle_uids(gatherer, "p1") == []
    put(store, "a", assigned("Scheduled"))
    assert idle_uids(gatherer) == []


def test_a_pod_of_a_node_that_is_not_ready_gets_no_job(gatherer: Gatherer, store: Store) -> None:
    """Its condition still says ready: nobody is there to change it. A lost job must not go back to it."""
    store.servers.apply(server(replicas=2))
    ready_pod(gatherer, store)
    store.nodes.apply(NODE_DOWN)
    assert idle_uids(gatherer) == []
    snapshot = gatherer.server(server(replicas=2), NOW)
    assert [pod.serves for pod in snapshot.pods] == [False]


@pytest.mark.parametrize(
    "change", [{"deletionTimestamp": "2026-05-01T12:00:00Z"}, {"ownerReferences": [{"uid": "another server"}]}]
)
def test_a_pod_that_goes_or_is_not_the_servers_gets_no_job(
    gatherer: Gatherer, store: Store, change: dict[str, Any]
) -> None:
    store.servers.apply(server(replicas=2))
    ready_pod(gatherer, store, **change)
    assert idle_uids(gatherer) == []


def test_cordoned_pods_get_no_job(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(server(replicas=1))
    ready_pod(gatherer, store)
    assert idle_uids(gatherer, cordoned=frozenset({"p1"})) == []


def test_what_a_pod_holds_is_told_in_the_order_in_which_it_takes_it(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(server(replicas=2))
    ready_pod(gatherer, store)
    put(store, "staged", assigned("Scheduled"), priority=5)
    put(store, "runs", assigned("Running", progress={"percent": 50}))
    (pod,) = gatherer.world("films", (), (), NOW.timestamp()).pods
    assert [(held.key, held.running) for held in pod.held] == [("films/runs", True), ("films/staged", False)]
    assert pod.held[0].remaining is not None
    assert pod.held[1].remaining is None


FAST = {"type": "kinora.dev/FastReady", "status": "True"}
NOT_FAST = {"type": "kinora.dev/FastReady", "status": "False", "message": "loras/a.safetensors: not on the volume"}


def says(store: Store, pod: Object, condition: Object) -> Object:
    told = {**pod, "status": {**pod["status"], "conditions": [*pod["status"]["conditions"][:1], condition]}}
    told["metadata"] = {**pod["metadata"], "resourceVersion": str(int(pod["metadata"]["resourceVersion"]) + 1)}
    store.pods.apply(told)
    return told


def test_a_job_of_preset_fast_waits_for_a_pod_with_its_files_and_is_told_which_lack(
    gatherer: Gatherer, store: Store
) -> None:
    store.servers.apply(server(replicas=2))
    put(store, "fast", parameters={"preset": "Fast"})
    entry = store.jobs.entries["films/fast"]
    assert waiting_keys(gatherer, store) == ["films/fast"]
    assert gatherer.job(entry, NOW).preset_lacks == "", "no pod serves: that is what it waits for"
    pod = says(store, ready_pod(gatherer, store), NOT_FAST)
    assert gatherer.job(entry, NOW).preset_lacks == "loras/a.safetensors: not on the volume"
    assert [one.presets for one in gatherer.world("films", (), (), NOW.timestamp()).pods] == [frozenset()]
    news: dict[str, str] = {}
    assert has_news_of_presets(pod, news)
    assert not has_news_of_presets(pod, news)
    able = says(store, pod, FAST)
    assert has_news_of_presets(able, news)
    assert gatherer.job(entry, NOW).preset_lacks == ""
    assert [one.presets for one in gatherer.world("films", (), (), NOW.timestamp()).pods] == [frozenset({"Fast"})]


def test_who_waits(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(server())
    for name, spec in {
        "plain": {},
        "named": {"model": None, "modelServerName": "vace"},
        "suspended": {"suspend": True},
        "cancelled": {"cancel": True},
        "elsewhere": {"model": None, "modelServerName": "other"},
        "wrong": {"model": "wan9"},
    }.items():
        put(store, name, **spec)
    put(store, "bound", assigned("Scheduled"))
    assert sorted(waiting_keys(gatherer, store)) == ["films/named", "films/plain"]
    assert gatherer.server(server(), NOW).backlog == 2


def test_a_verdict_is_remembered_and_follows_the_spec_and_the_named_server(gatherer: Gatherer, store: Store) -> None:
    named = put(store, "named", model=None, modelServerName="vace")
    assert isinstance(gatherer.verdict(named), Undecided)
    store.servers.apply(server())
    first = gatherer.verdict(named)
    assert isinstance(first, Accepted)
    assert gatherer.verdict(named) is first
    other = server(model=I2V)
    other["metadata"]["resourceVersion"] = "6"
    store.servers.apply(other)
    assert isinstance(gatherer.verdict(named), Refused), "the server of that name serves another model now"


def test_a_pod_keeps_what_runs_and_one_staged_job(gatherer: Gatherer, store: Store) -> None:
    put(store, "runs", assigned("Running"), priority=-5)
    put(store, "low", assigned("Scheduled"), priority=0)
    put(store, "high", assigned("Scheduled"), priority=9)
    entries = store.jobs.entries
    surplus = {name: gatherer.job(entry, NOW).surplus for name, entry in entries.items()}
    assert surplus == {"films/runs": False, "films/high": False, "films/low": True}


def test_the_pod_of_an_assignment_is_known_by_its_uid(gatherer: Gatherer, store: Store) -> None:
    put(store, "a", assigned())
    entry = store.jobs.entries["films/a"]
    ready_pod(gatherer, store, uid="another")
    assert gatherer.job(entry, NOW).pod.lost(NOW) == "the pod is gone"
    ready_pod(gatherer, store, slot=1, uid="p1")
    assert gatherer.job(entry, NOW).pod.lost(NOW) == ""
    store.nodes.apply(NODE_DOWN)
    assert gatherer.job(entry, NOW).pod.node_not_ready_seconds == 0


@pytest.mark.parametrize(
    "said",
    [
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}]}},
        {"status": {"conditions": [{"type": "InstanceExpired", "status": "True"}]}},
    ],
)
def test_a_pod_whose_node_says_that_it_goes_gets_no_job(gatherer: Gatherer, store: Store, said: Object) -> None:
    store.servers.apply(server(replicas=2))
    ready_pod(gatherer, store)
    plain = {"metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1"}}
    store.nodes.apply(plain)
    assert idle_uids(gatherer) == ["p1"]
    store.nodes.apply({**plain, "metadata": {**plain["metadata"], "resourceVersion": "2"}, **said})
    assert idle_uids(gatherer) == []
    [pod] = gatherer.server(server(replicas=2), NOW).pods
    assert pod.notice
    assert pod.serves, "it is well, and what it renders goes on"


# --- pools: prices, spot capacity, pods that go


def pooled(*pools: Object, **spec: Any) -> Object:
    return server(gpu={"count": 0, "pools": list(pools)}, replicas=2, **spec)


def the_pod(gatherer: Gatherer, cordoned: frozenset[str] = frozenset()) -> Pod:
    (found,) = gatherer.world("films", (), cordoned, NOW.timestamp()).pods
    return found


def test_a_pod_is_of_its_pools_capacity_and_price(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(pooled({"name": "default", "capacity": "Spot", "pricePerHour": 1.5}))
    ready_pod(gatherer, store)
    assert (the_pod(gatherer).spot, the_pod(gatherer).price, the_pod(gatherer).leaving) == (True, 1.5, "")


def test_a_pod_that_goes_says_why_and_whether_that_is_final(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(server(replicas=2))
    pod = ready_pod(gatherer, store)
    assert the_pod(gatherer, frozenset({"p1"})).leaving == "it is about to go"
    evicted = {"type": "DisruptionTarget", "status": "True", "reason": "Evicted", "message": ""}
    status = {**pod["status"], "conditions": [*pod["status"]["conditions"], evicted]}
    store.pods.apply({**pod, "metadata": {**pod["metadata"], "resourceVersion": "4"}, "status": status})
    found = the_pod(gatherer)
    assert (found.open, found.ending) == (False, True)
    assert "Evicted" in found.leaving


def test_how_long_spot_pods_live_is_told_of_spot_pools_only(gatherer: Gatherer, store: Store) -> None:
    store.servers.apply(pooled({"name": "cheap", "capacity": "Spot"}, {"name": "own"}))
    for name in ("cheap", "own"):
        for seconds in (10.0, 20.0, 30.0):
            gatherer.spots.lives.add(f"films/vace/{name}", Life(seconds, lost=True, at=NOW.timestamp()))
    assert gatherer.world("films", (), (), NOW.timestamp()).spot_life == {("vace", "cheap"): 20.0}
    put(store, "long")
    assert gatherer.job(store.jobs.entries["films/long"], NOW).only_spot == "", "there is another pool"
    cheap = pooled({"name": "cheap", "capacity": "Spot"})
    store.servers.apply({**cheap, "metadata": {**cheap["metadata"], "resourceVersion": "6"}})
    assert "pods of spot pool cheap live for 20 s" in gatherer.job(store.jobs.entries["films/long"], NOW).only_spot


def test_a_pod_that_starts_does_no_work_before_it_serves(gatherer: Gatherer, store: Store) -> None:
    """Counted as free at once, one starting pod was enough for every job that came while it started."""
    store.servers.apply(server({"coldStart": {"seconds": 100}}))
    made = ready_pod(gatherer, store, creationTimestamp=ago(30))
    assert gatherer.world("films", (), (), NOW.timestamp()).pods[0].ready_in == 0
    starting = {**made, "metadata": {**made["metadata"], "resourceVersion": "4"}, "status": {"phase": "Pending"}}
    store.pods.apply(starting)
    assert gatherer.world("films", (), (), NOW.timestamp()).pods[0].ready_in == 70
    assert gatherer.world("films", (), (), NOW.timestamp() + 500).pods[0].ready_in == 0, "later than usual"
