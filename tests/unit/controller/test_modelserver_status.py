"""The status of a ModelServer: what each condition says, and why."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.api.modelserver import ModelServerSpec, Pool
from kinora.controller.executor import differs
from kinora.controller.modelserver.desired import template_hash
from kinora.controller.modelserver.snapshot import ServerPod
from kinora.controller.modelserver.snapshot import server_pod as facts_of
from unit.controller.builders import SETTINGS, server, server_plan, server_pod, server_snapshot

Object = dict[str, Any]


def current(obj: Object) -> str:
    return template_hash(ModelServerSpec.model_validate(obj["spec"]), SETTINGS.engine_image)


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
    from kinora.controller.modelserver.desired import pod as desired_pod

    obj = server()
    made = desired_pod(
        obj, ModelServerSpec.model_validate(obj["spec"]), SETTINGS, pool=Pool(name="default"), slot=2, incarnation=0
    )
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
