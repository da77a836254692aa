"""The store: no old state wins, nothing deleted comes back, and the indexes follow."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.controller.store import Store

Object = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def store(clock: Clock, told: list[tuple[str, str]]) -> Store:
    return Store(clock, lambda kind, name: told.append((kind, name)))


def job(version: int, uid: str = "j", phase: str = "Queued", pod: str = "", name: str = "a", **spec: Any) -> Object:
    status: Object = {"phase": phase}
    if pod:
        status |= {"assignment": {"podUID": pod, "podName": pod}, "attempt": 1}
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec, "status": status}


def pod(version: int, uid: str = "p", server: str = "vace") -> Object:
    labels = {"kinora.dev/modelserver": server}
    metadata = {"namespace": "ns", "name": f"pod-{uid}", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "spec": {}}


def server(version: int, generation: int = 1, status: str = "") -> Object:
    metadata = {"namespace": "ns", "name": "vace", "uid": "s", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "generation": generation}, "spec": {}, "status": {"x": status}}


def node(version: int, ready: str = "True", **labels: str) -> Object:
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": "n", "uid": "n", "resourceVersion": str(version), "labels": labels}, "status": status}


def test_managed_fields_are_not_kept_and_what_was_given_stays_as_it_is(store: Store) -> None:
    given = job(1)
    given["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    store.jobs.apply(given)
    kept = store.jobs.get("ns/a")
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["uid"] == "j"
    assert given["metadata"]["managedFields"] == [{"manager": "kubectl"}]


def test_an_older_or_equal_version_never_wins(store: Store, told: list[tuple[str, str]]) -> None:
    store.jobs.apply(job(5, phase="Scheduled", pod="p"))
    told.clear()
    for version in (5, 4):
        store.jobs.apply(job(version))
    assert store.jobs.get("ns/a") == job(5, phase="Scheduled", pod="p")
    assert told == [], "an echo is no change"
    store.jobs.apply(job(10, phase="Running", pod="p"))
    assert store.jobs.get("ns/a") == job(10, phase="Running", pod="p"), "versions are numbers, not text"


def test_a_late_echo_does_not_bring_a_deleted_object_back(store: Store) -> None:
    store.jobs.apply(job(5))
    store.jobs.remove(job(8))
    store.jobs.apply(job(7))
    assert store.jobs.get("ns/a") is None
    store.jobs.apply(job(9, uid="another"))
    assert store.jobs.get("ns/a") is not None, "a new object of that name is another object"


@pytest.mark.parametrize("told_by", ["watch", "list"])
def test_the_late_answer_of_an_own_write_does_not_bring_back_what_has_ended(store: Store, told_by: str) -> None:
    """The write was 10, the end 12: the watch of what ends, or a list, may be quicker than the write's answer."""
    store.jobs.apply(job(9))
    if told_by == "watch":
        store.jobs.remove(job(12, phase="Succeeded"))
    else:
        store.jobs.replace([], listed_version=12)
    store.jobs.apply(job(10, phase="Scheduled", pod="p"))
    assert store.jobs.entries == {}
    assert store.jobs_by_pod == {}


def test_an_end_that_is_told_before_the_job_itself_is_remembered(store: Store) -> None:
    store.jobs.remove(job(12, phase="Succeeded"))
    store.jobs.apply(job(9))
    assert store.jobs.entries == {}


def test_a_removal_told_late_does_not_take_the_new_object_of_that_name(store: Store) -> None:
    store.pods.apply(pod(9, uid="new") | {})
    old = pod(8, uid="old")
    old["metadata"]["name"] = "pod-new"
    store.pods.remove(old)
    assert store.pods.get("ns/pod-new") is not None


def test_a_full_list_prunes_what_vanished_unseen(store: Store, told: list[tuple[str, str]]) -> None:
    store.jobs.apply(job(5, name="gone", uid="g"))
    store.jobs.apply(job(5, name="stays", uid="s"))
    store.jobs.apply(job(50, name="newer", uid="n"))
    told.clear()
    store.jobs.replace([job(5, name="stays", uid="s")], listed_version=20)
    assert sorted(store.jobs.entries) == ["ns/newer", "ns/stays"]
    assert told == [("job", "ns/gone")]


def test_a_list_of_one_namespace_prunes_that_namespace_alone(store: Store) -> None:
    other = job(5, uid="o")
    other["metadata"]["namespace"] = "ns2"
    store.jobs.apply(other)
    store.jobs.apply(job(5))
    store.jobs.replace([], scope="ns")
    assert list(store.jobs.entries) == ["ns2/a"]


def test_nothing_is_ready_before_a_full_list_of_every_kind(store: Store) -> None:
    caches = [store.jobs, store.servers, store.pods, store.claims, store.nodes, store.weights_jobs, store.weights_pods]
    for cache in caches:
        assert not store.ready.is_set()
        cache.replace([])
    assert store.ready.is_set()


def test_indexes_follow_a_jobs_way(store: Store) -> None:
    store.jobs.apply(job(1))
    assert dict(store.waiting) == {"ns": {"ns/a"}}
    store.jobs.apply(job(2, phase="Scheduled", pod="p1"))
    assert (dict(store.waiting), dict(store.jobs_by_pod)) == ({}, {"p1": {"ns/a"}})
    store.jobs.apply(job(3, phase="Queued"))
    store.jobs.apply(job(4, phase="Scheduled", pod="p2"))
    assert (dict(store.waiting), dict(store.jobs_by_pod)) == ({}, {"p2": {"ns/a"}})
    store.jobs.remove(job(5))
    assert (dict(store.waiting), dict(store.jobs_by_pod)) == ({}, {})


def test_pods_are_found_by_uid_and_by_server(store: Store) -> None:
    store.pods.apply(pod(1))
    assert set(store.pods_by_uid) == {"p"}
    assert set(store.pods_by_server["ns/vace"]) == {"p"}
    store.pods.remove(pod(2))
    assert store.pods_by_uid == {}
    assert store.pods_by_server["ns/vace"] == {}


def test_ages_run_on_this_processes_clock_since_the_change_was_seen(store: Store, clock: Clock) -> None:
    store.jobs.apply(job(1, phase="Scheduled", pod="p"))
    clock.now += 5
    store.jobs.apply(job(2, phase="Running", pod="p", cancel=True))
    clock.now += 7
    store.jobs.apply(job(3, phase="Finalizing", pod="p", cancel=True))
    entry = store.jobs.entries["ns/a"]
    assert store.age(entry, "running-1") == 7
    assert store.age(entry, "cancel") == 7
    assert store.age(entry, "suspend") == 0
    assert store.now() - entry.seen == 12


def test_suspended_time_adds_up(store: Store, clock: Clock) -> None:
    steps = ((10, True), (100, False), (5, True), (1, False))
    for version, (seconds, suspend) in enumerate(steps, start=1):
        store.jobs.apply(job(version, suspend=suspend))
        clock.now += seconds
    entry = store.jobs.entries["ns/a"]
    assert entry.suspended_seconds == 15
    assert store.age(entry, "suspend") == 0


def test_a_nodes_readiness_is_told_when_it_changes_and_not_at_each_heartbeat(
    store: Store, clock: Clock, told: list[tuple[str, str]]
) -> None:
    store.nodes.apply(node(1))
    store.nodes.apply(node(2))
    assert told == []
    store.nodes.apply(node(3, "Unknown"))
    clock.now += 30
    store.nodes.apply(node(4, "False"))
    assert told == [("node", "n")]
    assert store.now() - store.node_not_ready["n"] == 30
    store.nodes.apply(node(5))
    assert told == [("node", "n")] * 2
    assert store.node_not_ready == {}
    store.nodes.apply(node(6, "False"))
    store.nodes.remove(node(7))
    assert store.node_not_ready == {}


def test_a_virtual_nodes_conditions_are_ignored(store: Store) -> None:
    store.nodes.apply(node(1, "False", type="virtual-kubelet"))
    assert store.node_not_ready == {}


def test_a_servers_status_says_nothing_new_to_the_jobs_that_wait(store: Store, told: list[tuple[str, str]]) -> None:
    store.servers.apply(server(1))
    store.servers.apply(server(2, status="busy"))
    store.servers.apply(server(3, generation=2))
    store.servers.remove(server(4, generation=2))
    assert [kind for kind, _ in told].count("server") == 4
    assert [kind for kind, _ in told].count("offer") == 3, "made, changed and deleted"


def test_a_node_that_says_that_it_goes_is_told_once(store: Store, told: list[tuple[str, str]]) -> None:
    store.nodes.apply(node(1))
    assert told == []
    tainted = {**node(2), "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}
    store.nodes.apply(tainted)
    assert told == [("node", "n")]
    store.nodes.apply({**tainted, "metadata": node(3)["metadata"]})
    assert told == [("node", "n")]
    store.nodes.apply(node(4))
    assert told == [("node", "n")] * 2


@pytest.mark.parametrize("name", ["virtual-kubelet-cn-beijing-h", "vk"])
def test_a_virtual_node_without_its_label_is_known_by_its_name_or_taint(store: Store, name: str) -> None:
    there = node(1, "False")
    there["metadata"]["name"] = name
    there["spec"] = {"taints": [{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}] if name == "vk" else []}
    store.nodes.apply(there)
    assert store.node_not_ready == {}
