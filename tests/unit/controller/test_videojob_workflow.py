"""Raw workflows before the queue: judged once with their text, pinned, and given only to servers that allow them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kinora.api.intake import fetched_fields, uploads_of
from kinora.api.videojob import VideoJobSpec
from kinora.controller.gather import Gatherer
from kinora.controller.queues import read_queues
from kinora.controller.store import Store
from kinora.controller.videojob.check import Accepted, Around, Refused, Undecided, check
from kinora.controller.videojob.decide import decide
from kinora.controller.videojob.snapshot import IntakeState
from kinora.workflows.workflow import text_hash
from unit.controller.builders import NOW, SETTINGS, VACE, catalogue, job, server, snapshot
from unit.workflows.made import node, sound

Object = dict[str, Any]
TEXT = json.dumps(sound())
REF = {"configMapRef": {"name": "graphs", "key": "vace.json"}}


def made(workflow: Object | None = None, status: Object | None = None, **spec: Any) -> Object:
    asked = {"task": None, "prompt": "", "parameters": {}, "workflow": workflow or {"inline": TEXT}, **spec}
    one = job(status, **asked)
    one["spec"] = {name: value for name, value in one["spec"].items() if value is not None}
    return one


def verdict(one: Object, text: str | None = None, **allowed: list[str]) -> Accepted | Refused | Undecided:
    servers = dict.fromkeys(allowed, VACE)
    lists = {name: names for name, names in allowed.items() if names}
    return check(one, catalogue(), Around(servers, lists, text, queues=read_queues("")))


def strange(*classes: str) -> str:
    graph = sound()
    for index, name in enumerate(classes):
        graph[f"x{index}"] = node(name)
    return json.dumps(graph)


def test_a_sound_workflow_is_accepted_with_its_pin_and_its_load() -> None:
    found = verdict(made())
    assert isinstance(found, Accepted)
    assert found.resolved["workflowSha256"] == text_hash(TEXT)
    assert (found.resolved["frames"], found.resolved["steps"], found.resolved["nodes"]) == (81, 20, 10)
    assert "fox" not in str(found.resolved)
    assert found.classes == frozenset()


def test_a_bad_workflow_is_refused_with_node_and_input() -> None:
    found = verdict(made({"inline": json.dumps(sound(n17={"width": 72}))}, queue="gold"))
    assert isinstance(found, Refused)
    assert found.reason == "InvalidSpec"
    assert "spec.workflow node 17 (WanVaceToVideo) width is 72" in found.message
    assert "spec.queue is gold" in found.message


def test_a_workflow_from_a_config_map_waits_for_its_text() -> None:
    waiting = verdict(made(REF))
    assert isinstance(waiting, Undecided)
    assert waiting.reason == "WaitingForWorkflow"
    assert isinstance(verdict(made(REF), TEXT), Accepted)


def test_a_config_map_that_changed_after_queueing_ends_the_job() -> None:
    pinned = {"resolved": {"workflowSha256": text_hash(TEXT)}}
    assert isinstance(verdict(made(REF, pinned), TEXT), Accepted)
    found = verdict(made(REF, pinned), TEXT + " ")
    assert isinstance(found, Refused)
    assert found.reason == "WorkflowChanged"
    assert "key vace.json of ConfigMap graphs holds another text" in found.message


def test_classes_beyond_the_list_need_a_server_that_allows_all_of_them() -> None:
    one = made({"inline": strange("Glow", "Rain")})
    assert isinstance(verdict(one, vace=[]), Refused)
    assert isinstance(verdict(one, vace=["Glow"], other=["Glow"]), Refused)
    found = verdict(one, vace=["Glow"], other=["Glow", "Rain", "Snow"])
    assert isinstance(found, Accepted)
    assert found.classes == {"Glow", "Rain"}
    split = verdict(one, vace=["Glow"], other=["Rain"])
    assert isinstance(split, Refused)
    assert "those of one ModelServer together" in split.message


def test_without_any_server_such_a_job_waits_for_one() -> None:
    found = verdict(made({"inline": strange("Glow")}))
    assert isinstance(found, Undecided)
    assert "no ModelServer in the namespace allows node classes Glow yet" in found.message
    assert isinstance(verdict(made({"inline": strange("VHS_LoadVideoPath")})), Refused)


def test_a_named_server_s_own_list_counts() -> None:
    one = made({"inline": strange("Glow")}, model=None, modelServerName="vace")
    assert isinstance(verdict(one, vace=[], other=["Glow"]), Refused)
    assert isinstance(verdict(one, vace=["Glow"]), Accepted)


# --- between the store and the check ----------------------------------------------------------------------------------


@pytest.fixture
async def store() -> Store:
    return Store(lambda: 1000.0, lambda _kind, _name: None)


@pytest.fixture
def gatherer(store: Store) -> Gatherer:
    return Gatherer(store, catalogue(), SETTINGS)


def test_the_config_map_is_read_once(gatherer: Gatherer) -> None:
    one = made(REF)
    assert gatherer.wants_workflow(one)
    assert isinstance(gatherer.verdict(one), Undecided)
    assert gatherer.take_workflow(one, {"data": {"vace.json": TEXT}})
    assert isinstance(gatherer.verdict(one), Accepted)
    assert not gatherer.wants_workflow(one)
    assert gatherer._texts == {}  # the text is not kept


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "no ConfigMap 'graphs' in the namespace yet; spec.workflow.configMapRef names it"),
        ({"data": {"other": "x"}}, "ConfigMap 'graphs' has no text under the key 'vace.json' yet"),
        ({"binaryData": {"vace.json": "e30="}}, "ConfigMap 'graphs' has no text under the key 'vace.json' yet"),
    ],
)
def test_a_config_map_that_is_not_there_is_waited_for(gatherer: Gatherer, found: Object | None, words: str) -> None:
    one = made(REF)
    assert not gatherer.take_workflow(one, found)
    waiting = gatherer.verdict(one)
    assert isinstance(waiting, Undecided)
    assert waiting.message == words
    assert gatherer.wants_workflow(one)
    plan = decide(snapshot({}, verdict=waiting))
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"], plan.status["message"]) == (
        "Queued",
        "WaitingForWorkflow",
        words,
    )
    gatherer.forget(one)
    assert gatherer._texts == {}


def test_what_needs_no_config_map_asks_for_none(gatherer: Gatherer) -> None:
    assert not gatherer.wants_workflow(made())
    assert not gatherer.wants_workflow(job())
    assert not gatherer.wants_workflow(made(REF, {"phase": "Succeeded"}))
    assert not gatherer.wants_workflow(made(REF, {"phase": "Running", "assignment": {"podUID": "p"}}))


def test_only_servers_that_allow_the_classes_are_offered_the_job(gatherer: Gatherer, store: Store) -> None:
    for name, classes in (("plain", None), ("wide", ["Glow"])):
        one = server(name=name, **({"allowedNodeClasses": classes} if classes else {}))
        one["metadata"]["uid"] = name
        store.servers.apply(one)
    servers = gatherer.servers("films")
    glow, plain = made({"inline": strange("Glow")}), made()
    glow["metadata"]["uid"] = "0b7c8a52-6f7e-4c1e-9a37-000000000001"
    assert gatherer.serving(glow, gatherer.verdict(glow), servers) == {"wide"}
    assert gatherer.serving(plain, gatherer.verdict(plain), servers) == {"plain", "wide"}


def test_the_spec_of_a_workflow_is_what_the_api_takes() -> None:
    assert VideoJobSpec.model_validate(made(REF)["spec"]).workflow is not None
    assert NOW.tzinfo is not None


# --- a graph that lies in the store: a stager's to judge

STORED = {"upload": {"key": "0123456789/" + "a" * 64, "sha256": "a" * 64}}
JUDGED = {
    "phase": "Pending",
    "inputStore": "pvc://videos/",
    "resolved": {"model": VACE, "frames": 81, "tokens": 1000, "classes": ["Glow", 7]},
    "conditions": [{"type": "InputsReady", "status": "True", "reason": "InputsStored"}],
}


def test_a_graph_in_the_store_is_the_stager_s_to_judge_and_its_word_is_taken() -> None:
    before, after = verdict(made(STORED)), verdict(made(STORED, JUDGED))
    assert before == Accepted(VACE, {})
    assert isinstance(after, Accepted)
    assert (after.resolved["frames"], after.classes) == (81, {"Glow"})


def test_what_the_operator_can_see_of_such_a_job_it_refuses_itself() -> None:
    found = verdict(made(STORED, queue="gold", output={"fps": 30}))
    assert isinstance(found, Refused)
    assert "spec.queue is gold" in found.message
    assert "spec.output.fps" in found.message
    without = check(made(STORED), catalogue(), Around({}, has_stagers=False))
    assert isinstance(without, Refused)
    assert without.message.startswith("spec.workflow.upload is set")


def test_such_a_job_waits_for_the_stager_and_goes_to_servers_that_allow_its_classes(
    gatherer: Gatherer, store: Store
) -> None:
    for name, classes in (("plain", None), ("wide", ["Glow"])):
        one = server(name=name, **({"allowedNodeClasses": classes} if classes else {}))
        one["metadata"]["uid"] = name
        store.servers.apply(one)
    servers, waiting, told = gatherer.servers("films"), made(STORED), made(STORED, JUDGED)
    assert gatherer.serving(waiting, gatherer.verdict(waiting), servers) == {"plain", "wide"}
    assert not gatherer.wants_workflow(waiting)
    assert gatherer.serving(told, gatherer.verdict(told), servers) == {"wide"}
    chosen = IntakeState("kinora-stager-x", "pvc://videos/")
    plan = decide(replace(snapshot(verdict=gatherer.verdict(waiting)), job=waiting, intake=chosen))
    assert plan.status is not None
    assert plan.status["reason"] == "FetchingInputs"
    assert not {"resolved", "inputStore"} & plan.status.keys()


def test_an_upload_that_is_a_graph_counts_as_used() -> None:
    spec = made(STORED)["spec"]
    assert list(uploads_of(spec)) == [STORED["upload"]["key"]]
    assert fetched_fields(spec) == ("spec.workflow.upload",)
