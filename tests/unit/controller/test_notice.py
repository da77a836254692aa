"""What is said of a pod's future, in every provider's words, and what is not a notice."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.controller.modelserver.notice import Notice, node_mark, notice
from kinora.controller.pools.load import load_providers

Object = dict[str, Any]
PROVIDERS = load_providers()


def pod(*conditions: Object) -> Object:
    return {"metadata": {"name": "p"}, "spec": {}, "status": {"conditions": list(conditions)}}


def node(*taints: str, name: str = "n1", labels: Object | None = None, **change: Any) -> Object:
    parts = [dict(zip(("key", "value"), taint.split("="), strict=False)) for taint in taints]
    spec = {"taints": [{**part, "effect": "NoSchedule"} for part in parts]}
    status = {"conditions": change.pop("conditions", [])}
    metadata = {"name": name, "labels": labels or {}, **change.pop("metadata", {})}
    return {"metadata": metadata, "spec": {**spec, **change}, "status": status}


def true(kind: str, message: str = "", reason: str = "") -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def of(pod: Object, node: Object | None) -> Notice:
    return notice(pod, node, PROVIDERS)


def test_nothing_is_said_of_a_pod_on_a_plain_node() -> None:
    assert of(pod(true("Ready")), node("nvidia.com/gpu=present")) == Notice()
    assert of(pod(), None) == Notice()


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (true("DisruptionTarget", "preempting", "PreemptionByScheduler"), "PreemptionByScheduler: preempting"),
        (true("DisruptionTarget", reason="EvictionByEvictionAPI"), "EvictionByEvictionAPI"),
        (true("ContainerInstanceExpired"), "pod condition ContainerInstanceExpired"),
    ],
)
def test_a_pod_that_is_called_back(condition: Object, words: str) -> None:
    told = of(pod(condition), node())
    assert words in told.text
    assert told.final
    assert of(pod({**condition, "status": "False"}), node()) == Notice()


@pytest.mark.parametrize(
    "taint",
    [
        "ToBeDeletedByClusterAutoscaler",
        "aws-node-termination-handler/spot-itn",
        "aws-node-termination-handler/rebalance-recommendation",
        "karpenter.sh/disrupted",
        "cloud.google.com/impending-node-termination",
        "cloudprovider.azure.microsoft.com/draining=spot-eviction",
        "node.kubernetes.io/out-of-service=nodeshutdown",
        "node.cloudprovider.kubernetes.io/shutdown",
    ],
)
def test_a_node_that_will_be_gone(taint: str) -> None:
    told = of(pod(), node(taint))
    assert told == Notice(f"node n1 has the taint {taint.partition('=')[0]}", final=True)


@pytest.mark.parametrize(
    "taint",
    [
        "DeletionCandidateOfClusterAutoscaler",
        "cloudprovider.azure.microsoft.com/draining=upgrade",
        "kubernetes.azure.com/scalesetpriority=spot",
        "cloud.google.com/gke-spot=true",
    ],
)
def test_a_mark_of_capacity_is_no_notice(taint: str) -> None:
    assert of(pod(), node(taint)) == Notice()


@pytest.mark.parametrize(
    ("condition", "is_notice"),
    [
        (true("InstanceExpired", "preemptible instance", "InstanceToBeTerminated"), True),
        (true("PreemptionScheduled", "Preempt Scheduled: Sat, 01 Aug 2026 05:41:02 GMT"), True),
        (true("VMEventScheduled", "Redeploy Scheduled: soon"), True),
        (true("VMEventScheduled", "Freeze Scheduled: soon"), False),
        (true("MemoryPressure"), False),
    ],
)
def test_conditions_of_nodes(condition: Object, is_notice: bool) -> None:
    told = of(pod(), node(conditions=[condition]))
    assert (bool(told.text), told.final) == (is_notice, False), "another pod would land there again"
    assert of(pod(), node(conditions=[condition], unschedulable=True)).final is is_notice
    assert of(pod(), node(conditions=[{**condition, "status": "Unknown"}])) == Notice()


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (node(unschedulable=True), "cordoned"),
        (node("node.kubernetes.io/unreachable"), "unreachable"),
        (node("node.kubernetes.io/not-ready"), "not-ready"),
    ],
)
def test_what_may_pass_is_not_final(there: Object, words: str) -> None:
    told = of(pod(), there)
    assert words in told.text
    assert not told.final


def test_a_node_that_is_ready_again_is_not_away_though_its_taint_lingers() -> None:
    assert of(pod(), node("node.kubernetes.io/not-ready", conditions=[true("Ready")])) == Notice()
    unknown = {"type": "Ready", "status": "Unknown"}
    assert of(pod(), node("node.kubernetes.io/unreachable", conditions=[unknown])).text


def test_a_node_that_is_deleted() -> None:
    gone = {"deletionTimestamp": "2026-05-01T12:00:00Z"}
    assert of(pod(), node(metadata=gone)) == Notice("node n1 is being deleted")
    assert of(pod(), node("karpenter.sh/disrupted", metadata=gone)).final


@pytest.mark.parametrize(
    ("toleration", "final"),
    [
        ({"operator": "Exists"}, False),
        ({"key": "karpenter.sh/disrupted", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "karpenter.sh/disrupted", "operator": "Equal", "value": ""}, False),
        ({"key": "karpenter.sh/disrupted", "operator": "Exists", "effect": "NoExecute"}, True),
        ({"key": "karpenter.sh/disrupted", "value": "other"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
    ],
)
def test_a_pod_that_would_be_scheduled_there_again_is_not_replaced(toleration: Object, final: bool) -> None:
    mine = pod()
    mine["spec"] = {"tolerations": [toleration]}
    told = of(mine, node("karpenter.sh/disrupted"))
    assert told.text
    assert told.final is final


@pytest.mark.parametrize(
    "virtual",
    [
        {"labels": {"type": "virtual-kubelet"}},
        {"taints": ["virtual-kubelet.io/provider=alibabacloud"]},
        {"name": "virtual-kubelet-cn-hangzhou-k"},
    ],
)
def test_what_a_virtual_node_says_is_not_about_one_pod(virtual: Object) -> None:
    taints = [*virtual.pop("taints", []), "node.kubernetes.io/unreachable", "ToBeDeletedByClusterAutoscaler"]
    there = node(*taints, unschedulable=True, **virtual)
    assert of(pod(), there) == Notice()
    assert of(pod(true("ContainerInstanceExpired")), there).final, "its own condition is"


def test_a_heartbeat_changes_no_mark_and_every_notice_does() -> None:
    plain = node(conditions=[true("Ready", "kubelet is posting ready status")])
    beat = node(conditions=[{**true("Ready"), "lastHeartbeatTime": "2026-05-01T12:00:00Z"}])
    assert node_mark(plain, PROVIDERS) == node_mark(beat, PROVIDERS)
    for told in (
        node(unschedulable=True),
        node("ToBeDeletedByClusterAutoscaler"),
        node(conditions=[true("InstanceExpired")]),
        node(metadata={"deletionTimestamp": "2026-05-01T12:00:00Z"}),
    ):
        assert node_mark(told, PROVIDERS) != node_mark(plain, PROVIDERS)
