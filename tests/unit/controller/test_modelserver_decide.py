"""decide(ModelServer): which pods are made, which go, and never one that renders."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kinora.api.modelserver import ModelServerSpec
from kinora.controller.modelserver.pod import pools_of, template_hash
from kinora.controller.modelserver.snapshot import ServerPod
from kinora.controller.plan import Plan
from kinora.controller.settings import Settings
from kinora.kube.resources import POD
from unit.controller.builders import NOW, SETTINGS, arranged, server, server_plan, server_pod, server_snapshot

DOWN: dict[str, Any] = {"engine_ready": False, "engine_reason": "EngineDown"}
OLD: dict[str, Any] = {"template_hash": "old"}


def spec(replicas: int = 3, max_unavailable: int = 1) -> ModelServerSpec:
    return ModelServerSpec.model_validate(server(replicas=replicas, update={"maxUnavailable": max_unavailable})["spec"])


def fate(*pods: ServerPod, replicas: int = 3, max_unavailable: int = 1) -> tuple[list[str], set[str], tuple[int, ...]]:
    """(UIDs to delete, UIDs that get no new job, slots to fill)."""
    fleet = arranged(server_snapshot(server(), *pods), spec(replicas, max_unavailable))
    return sorted(pod.uid for pod in fleet.going), set(fleet.cordoned), tuple(start.slot for start in fleet.starts)


def pods(count: int, **facts: Any) -> list[ServerPod]:
    return [server_pod(slot, **facts) for slot in range(count)]


def test_scale_up_fills_the_lowest_free_slots() -> None:
    assert fate() == ([], set(), (0, 1, 2))
    assert fate(server_pod(1)) == ([], set(), (0, 2))
    assert fate(*pods(3)) == ([], set(), ())


def test_scale_down_lets_idle_pods_go_and_busy_ones_finish() -> None:
    two = [server_pod(0), server_pod(1), server_pod(2, busy=True)]
    assert fate(*two, replicas=1) == (["u0", "u1"], {"u0", "u1"}, ()), "the busy one is the one that stays"
    assert fate(*pods(3, busy=True), replicas=0) == ([], {"u0", "u1", "u2"}, ())
    assert fate(*pods(3), replicas=0) == (["u0", "u1", "u2"], {"u0", "u1", "u2"}, ())


def test_of_two_pods_in_one_slot_the_busy_one_stays() -> None:
    twins = [server_pod(0, "idle"), server_pod(0, "busy", busy=True)]
    assert fate(*twins, replicas=1) == (["idle"], {"idle"}, ())


def test_a_pod_without_a_slot_goes() -> None:
    assert fate(server_pod(-1, "strange"), server_pod(0), replicas=1)[0] == ["strange"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize("busy", [True, False])
def test_a_pod_that_ended_goes_and_is_replaced_at_once(phase: str, busy: bool) -> None:
    dead = server_pod(0, phase=phase, busy=busy)
    assert fate(dead, replicas=1) == (["u0"], {"u0"}, (0,))


def test_a_pod_with_a_broken_gpu_is_replaced_once_it_holds_no_job() -> None:
    broken = {"engine_ready": False, "engine_reason": "CudaFault"}
    assert fate(server_pod(0, **broken), replicas=1)[0] == ["u0"]
    assert fate(server_pod(0, **broken, busy=True), replicas=1)[0] == []


@pytest.mark.parametrize("reason", ["EngineDown", "WeightsMissing", "Starting", "NodesMissing", "MemoryHigh"])
def test_a_pod_whose_engine_is_not_ready_stays(reason: str) -> None:
    assert fate(server_pod(0, engine_ready=False, engine_reason=reason), replicas=1) == ([], set(), ())


def test_a_terminating_pod_holds_its_slot_until_30_seconds_beyond_its_grace() -> None:
    going = server_pod(0, terminating=True, deletion_time=NOW + dt.timedelta(seconds=600))
    assert fate(going, replicas=1) == ([], set(), ())
    stuck = server_pod(0, terminating=True, deletion_time=NOW - dt.timedelta(seconds=31))
    assert fate(stuck, replicas=1) == ([], set(), (0,)), "its node is gone: it will never end"


def test_a_noticed_pod_gets_no_job_and_its_render_goes_on() -> None:
    said = {"notice": "node n1 is cordoned"}
    assert fate(server_pod(0, **said), replicas=1) == ([], {"u0"}, ()), "it may pass: the pod stays"
    assert fate(server_pod(0, **said, busy=True), replicas=1) == ([], {"u0"}, ())


def test_a_pod_whose_capacity_will_be_gone_is_replaced_once_it_is_idle() -> None:
    said = {"notice": "node n1 has the taint x", "is_ending": True}
    assert fate(server_pod(0, **said), replicas=1) == (["u0"], {"u0"}, (1,)), "its successor does not wait"
    assert fate(server_pod(0, **said, busy=True), replicas=1) == ([], {"u0"}, (1,))


def test_a_gated_pod_is_neither_deleted_nor_replaced() -> None:
    waits = {"gates": ("kueue.x-k8s.io/admission",), "engine_ready": False, "engine_reason": "", "phase": "Pending"}
    assert fate(server_pod(0, **waits), server_pod(1), replicas=2) == ([], set(), ())


# --- rolling update


@pytest.mark.parametrize(("room", "gone"), [(1, ["u0"]), (2, ["u0", "u1"]), (9, ["u0", "u1", "u2"])])
def test_an_update_takes_no_more_pods_than_may_be_unavailable(room: int, gone: list[str]) -> None:
    assert fate(*pods(3, **OLD), max_unavailable=room)[0] == gone


def test_an_update_waits_while_a_new_pod_starts_or_a_slot_is_empty() -> None:
    assert fate(server_pod(0, **DOWN), *pods(3, **OLD)[1:])[0] == []
    assert fate(*pods(3, **OLD)[1:]) == ([], set(), (0,))
    assert fate(server_pod(0), *pods(3, **OLD)[1:])[0] == ["u1"]


def test_an_update_begins_with_pods_that_do_not_serve_and_they_count() -> None:
    mixed = [server_pod(0, **OLD), server_pod(1, **OLD), server_pod(2, **OLD, **DOWN)]
    assert fate(*mixed)[0] == ["u2"], "one is unavailable already: no other goes beside it"
    assert fate(*mixed, max_unavailable=2)[0] == ["u0", "u2"]
    assert fate(*pods(3, **OLD, **DOWN))[0] == ["u0", "u1", "u2"], "what serves nobody is replaced at once"


def test_an_update_prefers_idle_pods_and_lets_a_busy_one_finish() -> None:
    assert fate(server_pod(0, **OLD, busy=True), server_pod(1, **OLD), replicas=2)[0] == ["u1"]
    gone, cordoned, _ = fate(*pods(3, **OLD, busy=True))
    assert (gone, cordoned) == ([], {"u0"}), "it renders on, and gets no next job"


FACTS = st.fixed_dictionaries(
    {
        "busy": st.booleans(),
        "engine_ready": st.booleans(),
        "template_hash": st.sampled_from(["new", "old"]),
        "terminating": st.booleans(),
        "phase": st.sampled_from(["Running", "Running", "Pending", "Failed"]),
        "slot": st.integers(-1, 4),
        "engine_reason": st.sampled_from(["", "CudaFault", "EngineDown"]),
        "notice": st.sampled_from(["", "cordoned"]),
        "is_ending": st.booleans(),
    }
)


_FAULT = {"busy": False, "engine_ready": True, "template_hash": "old", "terminating": False, "phase": "Running"}
_FAULT |= {"slot": 0, "engine_reason": "CudaFault", "notice": "", "is_ending": False}


@settings(deadline=None)
@given(st.lists(FACTS, max_size=6), st.integers(0, 4), st.integers(1, 3))
@example([_FAULT, _FAULT], 3, 1)  # pods with a fault go for it, whatever they said of themselves before
def test_whatever_the_fleet(facts: list[dict[str, Any]], replicas: int, max_unavailable: int) -> None:
    fleet = [server_pod(uid=f"p{number}", **fact) for number, fact in enumerate(facts)]
    found = arranged(server_snapshot(server(), *fleet), spec(replicas, max_unavailable))
    assert not [pod for pod in found.going if pod.busy and not pod.lost], "a render is never stopped"
    assert not [pod for pod in found.going if pod.terminating], "deleting twice says nothing new"
    assert {pod.uid for pod in found.going} <= found.cordoned
    slots = [start.slot for start in found.starts]
    assert len(slots) == len(set(slots)) <= replicas
    assert not {pod.slot for pod in fleet if not pod.is_lost} & set(slots)
    kept = [pod for pod in fleet if not pod.terminating and not pod.is_lost][:replicas]
    updated = [pod for pod in found.going if pod.serves and not pod.current and not pod.ending]
    surplus = max(0, sum(1 for pod in fleet if not pod.terminating and not pod.is_lost) - replicas)
    assert len(updated) <= max_unavailable + surplus + len(kept) * (replicas == 0)


# --- the whole plan


def plan(
    obj: dict[str, Any],
    *fleet: ServerPod,
    claims: frozenset[str] | None = None,
    made: bool = True,
    settings: Settings = SETTINGS,
) -> Plan:
    return server_plan(server_snapshot(obj, *fleet, claims=claims), made=made, settings=settings)


def kinds(found: Plan) -> list[str]:
    return [create.resource.kind for create in found.create]


def test_a_new_server_gets_its_children_and_pods() -> None:
    found = plan(server(replicas=2), made=False)
    assert kinds(found) == ["ServiceAccount", "RoleBinding", "Service", "Pod", "Pod"]
    slots = [create.body["metadata"]["labels"]["kinora.dev/slot"] for create in found.create if create.resource == POD]
    assert slots == ["0", "1"]
    template = {"claimTemplate": {"storage": "10Gi"}}
    assert "PersistentVolumeClaim" in kinds(plan(server(weights=template), made=False))
    assert kinds(plan(server(), made=True)) == ["Pod"]


def test_listening_brings_a_network_policy_that_holds_nothing_up() -> None:
    live = dataclasses.replace(SETTINGS, live=True, live_policy=True, namespace="kinora-system")
    found = plan(server(), made=False, settings=live)
    [policy] = [create for create in found.create if create.resource.kind == "NetworkPolicy"]
    assert policy.optional
    spec = policy.body["spec"]
    metrics, told = spec["ingress"]
    assert (spec["policyTypes"], metrics) == (["Ingress"], {"ports": [{"protocol": "TCP", "port": 8780}]})
    assert told["ports"] == [{"protocol": "TCP", "port": 8784}]
    [gateways] = told["from"]
    assert gateways["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kinora-system"}}
    assert gateways["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    [pod] = [create.body for create in found.create if create.resource == POD]
    wanted = spec["podSelector"]["matchLabels"]
    assert wanted.items() <= pod["metadata"]["labels"].items(), "it is about server pods"
    agent = next(one for one in pod["spec"]["containers"] if one["name"] == "agent")
    assert {"name": "KINORA_LIVE", "value": "true"} in agent["env"]
    assert {"name": "live", "containerPort": 8784} in agent["ports"]
    before = plan(server(), made=False).create[-1].body
    assert pod["metadata"]["name"] == before["metadata"]["name"], "it rolls no pod"


def test_a_pods_name_is_a_function_of_its_slot_and_a_taken_name_is_passed_over() -> None:
    first = plan(server()).create[0].body["metadata"]["name"]
    assert plan(server()).create[0].body["metadata"]["name"] == first
    stuck = server_pod(0, name=first, terminating=True, deletion_time=NOW - dt.timedelta(seconds=90))
    assert plan(server(), stuck).create[0].body["metadata"]["name"] != first


def test_no_pod_is_made_while_a_claim_is_missing_and_existing_ones_stay() -> None:
    found = plan(server(replicas=2), server_pod(0, template_hash=HASH), claims=frozenset({"videos"}))
    assert (found.create, found.delete) == ((), ())


PLAIN = ModelServerSpec.model_validate(server()["spec"])
HASH = template_hash(server(), PLAIN, SETTINGS, pools_of(PLAIN)[0])


def test_a_deletion_names_the_uid_so_that_no_namesake_is_hit() -> None:
    found = plan(server(replicas=0), server_pod(0, "x9"))
    assert [(delete.name, delete.uid) for delete in found.delete] == [("vace-0-x9", "x9")]


def test_it_is_looked_at_again_when_a_terminating_pod_gives_its_slot_free() -> None:
    going = server_pod(0, terminating=True, deletion_time=NOW + dt.timedelta(seconds=10))
    assert plan(server(), going).requeue_after == pytest.approx(40.5)
    assert plan(server(), server_pod(0)).requeue_after is None


# --- refusals


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"model": "wan9"}, "UnknownModel", ["wan9", "wan2.1-vace-1.3b"]),
        ({"replicas": "many"}, "InvalidSpec", ["spec.replicas", "many"]),
        ({"warmup": True}, "NotImplemented", ["spec.warmup"]),
        ({"recycle": {"afterJobs": 5}}, "NotImplemented", ["spec.recycle"]),
        ({"artifacts": {"s3": {"bucket": "F"}}}, "InvalidSpec", ["spec.artifacts.s3.bucket is F"]),
        ({"artifacts": {"s3": {"bucket": "films", "endpoint": "x:1"}}}, "InvalidSpec", ["s3.endpoint is x:1; allowed"]),
        ({"weights": {"claimName": "w", "quantize": True}}, "InvalidSpec", ["spec.weights.quantize"]),
        (
            {"weights": {"claimName": "w", "sources": [{"name": "a", "url": "https://x"}]}},
            "InvalidSpec",
            ["spec.weights.sources[0].name is a", "diffusion", "textEncoder"],
        ),
        (
            {"weights": {"claimName": "w", "sources": [{"name": "vae", "url": "http://x/y"}]}},
            "InvalidSpec",
            ["spec.weights.sources[0].url is http://x/y", "https://", "weights.allowHTTP"],
        ),
        (
            {"gpu": {"pools": [{"name": "a", "gpuModel": "T4"}]}},
            "InvalidSpec",
            ["spec.gpu.pools[0].gpuModel is T4", "pool a", "L20", "16 GiB", "8.9"],
        ),
        ({"gpu": {"count": 1, "pools": [{"name": "a", "provider": "acs"}]}}, "InvalidSpec", ["gpuModel", "H20"]),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "NotAllowed", ["spec.podTemplate.spec.hostNetwork", "true"]),
        ({"gpu": {"pools": [{"name": "a", "labels": {"kinora.dev/slot": "9"}}]}}, "NotAllowed", ["kinora.dev/slot"]),
        ({"engine": {"args": ["--listen", "0.0.0.0"]}}, "NotAllowed", ["--listen"]),
        ({"engine": {"args": ["--port=80"]}}, "NotAllowed", ["--port=80"]),
    ],
)
def test_a_refused_server_does_nothing_and_says_why(change: dict[str, Any], reason: str, words: list[str]) -> None:
    found = plan(server(**change), server_pod(0), made=False)
    assert (found.create, found.delete) == ((), ())
    assert found.status is not None
    conditions = {condition["type"]: condition for condition in found.status["conditions"]}
    assert {name: condition["status"] for name, condition in conditions.items()} == {
        "Ready": "False",
        "Available": "False",
        "WeightsReady": "Unknown",
        "Reconciling": "False",
        "Stalled": "True",
    }
    assert {condition["reason"] for condition in conditions.values()} == {reason}
    for word in words:
        assert word in conditions["Stalled"]["message"]
    assert [note.reason for note in found.notes] == [reason]
    told = server({"conditions": list(conditions.values())}, **change)
    assert plan(told).notes == (), "one event, when the refusal is new"


def test_an_image_must_come_from_somewhere() -> None:
    from kinora.controller.settings import Settings

    bare = Settings(agent_image="kinora:1")
    found = server_plan(server_snapshot(server()), settings=bare)
    assert "spec.engine.image" in str(found.status)
    named = server_plan(server_snapshot(server(engine={"image": "comfyui:1"})), settings=bare)
    assert named.create
