"""The status of a ModelServer: what each condition says, and why."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from kinora.api.modelserver import ModelServerSpec
from kinora.controller.executor import differs
from kinora.controller.modelserver.pod import desired_pod, pools_of, template_hash
from kinora.controller.modelserver.snapshot import PodRefusal, ServerPod
from kinora.controller.modelserver.snapshot import server_pod as facts_of
from unit.controller.builders import NOW, SETTINGS, server, server_plan, server_pod, server_snapshot

Object = dict[str, Any]


def current(obj: Object) -> str:
    spec = ModelServerSpec.model_validate(obj["spec"])
    return template_hash(obj, spec, SETTINGS, pools_of(spec)[0])


def status(obj: Object, *pods: ServerPod, claims: frozenset[str] | None = None) -> Object:
    found = server_plan(server_snapshot(obj, *pods, claims=claims)).status
    assert found is not None
    return found


def conditions(found: Object) -> dict[str, tuple[str, str]]:
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in found["conditions"]}


def pod(obj: Object, slot: int = 0, **facts: Any) -> ServerPod:
    return server_pod(slot, **{"template_hash": current(obj), **facts})


def test_what_preset_fast_lacks_is_told_and_keeps_nobody_from_being_ready() -> None:
    obj = server()
    found = status(obj, pod(obj, preset_message="loras/a.safetensors: not on the volume"))
    assert conditions(found)["WeightsReady"] == ("True", "WeightsPresent")
    assert "preset Fast: loras/a.safetensors: not on the volume" in str(found["conditions"])


def test_all_is_well() -> None:
    obj = server(replicas=2)
    found = status(obj, pod(obj, 0), pod(obj, 1, busy=True))
    assert conditions(found) == {
        "WeightsReady": ("True", "WeightsPresent"),
        "Available": ("True", "AllReady"),
        "Ready": ("True", "AllReady"),
        "Reconciling": ("False", "AllReady"),
        "Stalled": ("False", "AllReady"),
    }
    assert (found["replicas"], found["readyReplicas"], found["busyReplicas"]) == (2, 2, 1)
    assert found["selector"] == "kinora.dev/modelserver=vace"
    assert found["observedGeneration"] == 1
    assert found["pools"] == [{"name": "default", "replicas": 2}]


NONE_READY = [
    ({"engine_reason": "Starting", "engine_message": "loading"}, "Starting", "loading"),
    ({"engine_reason": "WeightsMissing", "engine_message": "vae/a.safetensors"}, "WeightsMissing", "vae/a"),
    ({"engine_reason": "NodesMissing", "engine_message": "WanVaceToVideo"}, "NodesMissing", "WanVace"),
    ({"engine_reason": "EngineDown", "engine_message": "exit 1"}, "EngineDown", "exit 1"),
    ({"engine_reason": "", "unscheduled_message": "0/3 nodes: no gpu"}, "Unschedulable", "no gpu"),
    ({"engine_reason": "", "waiting_message": "container engine: ErrImagePull"}, "NoReadyPods", "ErrImagePull"),
    ({"engine_reason": ""}, "Starting", "0 of 1 pods"),
]


def test_a_pod_that_starts_says_how_far_it_is() -> None:
    obj = server()
    found = status(obj, pod(obj, engine_ready=False, engine_reason=""))
    assert "1 of 1 pods are starting" in str(found["conditions"])


@pytest.mark.parametrize(("facts", "reason", "words"), NONE_READY[:-1])
def test_why_no_pod_serves(facts: Object, reason: str, words: str) -> None:
    obj = server()
    found = status(obj, pod(obj, engine_ready=False, **facts))
    assert conditions(found)["Ready"] == ("False", reason)
    assert conditions(found)["Reconciling"] == ("True", "Progressing")
    assert words in str(found["conditions"])


def test_one_of_two_serves() -> None:
    obj = server(replicas=2)
    found = conditions(status(obj, pod(obj, 0), pod(obj, 1, engine_ready=False, engine_reason="Starting")))
    assert found["Ready"] == ("True", "AllReady")
    assert found["Reconciling"] == ("True", "Progressing")


@pytest.mark.parametrize(
    ("spec", "claims", "words"),
    [
        ({}, {"videos"}, "spec.weights.claimName weights"),
        ({}, {"weights"}, "spec.artifacts.claimName videos"),
        ({"inputClaims": [{"name": "in", "claimName": "clips"}]}, {"weights", "videos"}, "spec.inputClaims clips"),
    ],
)
def test_a_missing_claim_is_named(spec: Object, claims: set[str], words: str) -> None:
    found = status(server(**spec), claims=frozenset(claims))
    assert conditions(found)["Ready"] == ("False", "ClaimMissing")
    assert words in str(found["conditions"])
    assert conditions(status(server(**spec, replicas=0), claims=frozenset(claims)))["Ready"][0] == "False"


def test_at_zero_it_is_ready_by_policy_unless_the_weights_were_bad() -> None:
    found = conditions(status(server(replicas=0)))
    assert found["Ready"] == ("True", "ScaledToZero")
    assert found["Available"] == ("False", "ScaledToZero")
    assert found["Reconciling"][0] == "False"


def test_weights_stay_known_while_pods_come_and_go() -> None:
    known = {"conditions": [{"type": "WeightsReady", "status": "True", "reason": "WeightsPresent", "message": "all"}]}
    obj = server(known)
    starting = pod(obj, engine_ready=False, engine_reason="Starting")
    assert conditions(status(obj, starting))["WeightsReady"] == ("True", "WeightsPresent")
    assert conditions(status(server(), starting))["WeightsReady"] == ("Unknown", "NotChecked")
    bare = {"conditions": [{"type": "WeightsReady", "status": "True"}]}
    assert conditions(status(server(bare), starting))["WeightsReady"][0] == "True", "as another version wrote it"


@pytest.mark.parametrize("unscheduled", ["", "0/3 nodes are available"])
def test_what_is_written_once_is_not_written_again(unscheduled: str) -> None:
    obj = server(replicas=2)
    pods = (pod(obj, 0), pod(obj, 1, engine_ready=False, engine_reason="", unscheduled_message=unscheduled))
    first = status(obj, *pods)
    stored = server(without_nulls(first), replicas=2)
    assert not differs(stored["status"], status(stored, *pods))


def without_nulls(value: Any) -> Any:
    """As the API server stores it."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_a_transition_time_stays_while_the_status_of_its_condition_does() -> None:
    old = "2026-01-01T00:00:00Z"
    known = {"conditions": [{"type": "Ready", "status": "False", "reason": "x", "lastTransitionTime": old}]}
    obj = server(known)
    found = {condition["type"]: condition for condition in status(obj)["conditions"]}
    assert found["Ready"]["lastTransitionTime"] == old
    assert found["Available"]["lastTransitionTime"] != old


def test_lost_pods_are_not_counted_and_terminating_ones_are_no_capacity() -> None:
    obj = server(replicas=2)
    found = status(obj, pod(obj, 0, phase="Failed"), pod(obj, 1, terminating=True))
    assert (found["replicas"], found["readyReplicas"]) == (1, 0)


def test_the_facts_of_a_pod_object() -> None:
    obj = server()
    spec = ModelServerSpec.model_validate(obj["spec"])
    made = desired_pod(obj, spec, SETTINGS, pool=pools_of(spec)[0], slot=2, incarnation=0)
    made["metadata"]["uid"] = "u"
    found = facts_of(made, busy=False)
    assert (found.slot, found.template_hash, found.phase, found.scheduled) == (2, current(obj), "Pending", True)
    assert not found.serves
    made["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "no gpu"}],
        "initContainerStatuses": [
            {"name": "engine", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
        ],
    }
    found = facts_of(made, busy=False)
    assert found.unscheduled_message == "no gpu"
    assert found.waiting_message == "container engine: ErrImagePull: not found"
    made["status"] = {"conditions": [{"type": "kinora.dev/EngineReady", "status": "True"}]}
    assert facts_of(made, busy=False).serves
    assert not facts_of(made, busy=False, node_ready=False).serves
    made["metadata"]["labels"].pop("kinora.dev/slot")
    assert facts_of(made, busy=False).slot == -1


# --- pools: what a provider refused, what waits for somebody's leave


def pool_status(found: Object) -> Object:
    [entry] = found["pools"]
    return dict(entry)


def test_a_gated_pod_waits_and_is_refused_by_nobody() -> None:
    obj = server()
    waits = pod(obj, engine_ready=False, engine_reason="", scheduled=False, gates=("kueue.x-k8s.io/admission",))
    found = status(obj, waits)
    assert conditions(found)["Ready"] == ("False", "SchedulingGated")
    assert conditions(found)["Stalled"] == ("False", "Progressing")
    assert pool_status(found)["message"] == "vace-0-x waits for its scheduling gates: kueue.x-k8s.io/admission"


def test_a_gate_beside_a_pod_that_serves_is_only_told_of_the_pool() -> None:
    obj = server(replicas=2)
    waits = pod(obj, 1, engine_ready=False, engine_reason="", gates=("example.com/quota",))
    found = status(obj, pod(obj, 0), waits)
    assert conditions(found)["Ready"] == ("True", "AllReady")
    assert "example.com/quota" in pool_status(found)["message"]


def test_the_providers_own_words_are_in_the_pools_status() -> None:
    obj = server()
    refused = pod(obj, engine_ready=False, engine_reason="", refused_message="ProviderFailed: no stock of H20")
    found = status(obj, refused)
    assert pool_status(found)["message"] == "ProviderFailed: no stock of H20"
    assert conditions(found)["Ready"] == ("False", "Unschedulable")
    assert "no stock" in str(found["conditions"])


def test_a_pod_that_the_api_server_does_not_take_is_told_in_its_words() -> None:
    obj = server()
    refusal = PodRefusal("exceeded quota: gpus", NOW + dt.timedelta(seconds=20))
    snapshot = replace(server_snapshot(obj), refusals={"default": refusal})
    plan = server_plan(snapshot)
    assert plan.status is not None
    assert pool_status(plan.status) == {"name": "default", "replicas": 0, "message": "exceeded quota: gpus"}
    assert conditions(plan.status)["Ready"] == ("False", "PodRefused")
    assert (plan.create, plan.requeue_after) == ((), pytest.approx(20.5)), "it is not asked again at once"
    later = replace(snapshot, now=NOW + dt.timedelta(seconds=21))
    assert server_plan(later).create


def test_a_pool_that_is_full_says_so_and_holds_no_more() -> None:
    obj = server(replicas=3, gpu={"count": 0, "pools": [{"name": "few", "maxReplicas": 1}]})
    plan = server_plan(server_snapshot(obj))
    assert len(plan.create) == 1
    found = status(obj, pod(obj, pool="few"))
    assert pool_status(found)["message"] == "maxReplicas is 1, and 3 pods are wanted"
    assert conditions(found)["Reconciling"] == ("True", "Progressing")


def test_a_notice_is_told_of_the_pool_while_the_pod_renders_on() -> None:
    obj = server()
    found = status(obj, pod(obj, busy=True, notice="node n1 is cordoned"))
    assert pool_status(found)["message"] == "vace-0-x gets no new job: node n1 is cordoned"


def facts(*, spec: Object | None = None, **status: Any) -> ServerPod:
    labels = {"kinora.dev/pool": "a", "kinora.dev/slot": "0"}
    body = {"metadata": {"name": "p", "uid": "u", "labels": labels}, "spec": spec or {}, "status": status}
    return facts_of(body, busy=False)


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no gpu"}
GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "blocked"}
PULL = {"name": "engine", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"conditions": [UNSCHEDULED]}, "0/3 nodes: no gpu"),
        (
            {"phase": "Pending", "reason": "ProviderFailed", "message": "quota of H20 is used up"},
            "ProviderFailed: quota of H20 is used up",
        ),
        ({"phase": "Pending", "reason": "ProviderFailed"}, "ProviderFailed"),
        ({"phase": "Pending", "initContainerStatuses": [PULL]}, "container engine: ErrImagePull: no such image"),
        ({"phase": "Running", "reason": "Anything", "message": "old"}, ""),
        ({}, ""),
    ],
)
def test_why_a_pod_does_not_start_in_the_words_of_who_refuses(status: Object, message: str) -> None:
    assert facts(**status).refused_message == message


def test_a_gated_pod_object() -> None:
    spec = {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}
    found = facts(spec=spec, phase="Pending", conditions=[GATED])
    assert found.gates == ("kueue.x-k8s.io/admission",)
    assert (found.scheduled, found.unscheduled_message, found.refused_message) == (False, "", "")
    assert (found.pool, found.notice, found.is_ending) == ("a", "", False)
    opened = facts(phase="Pending", conditions=[GATED])
    assert (opened.gates, opened.refused_message) == ((), ""), "the scheduler has not looked at it yet"
