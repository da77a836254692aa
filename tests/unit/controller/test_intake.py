"""The operator's part in intake: who waits for a stager, what is said, what fails, and who is bound where."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kinora.api.intake import inputs_condition
from kinora.api.names import stager_name
from kinora.api.stagerconfig import StagerValues
from kinora.controller.gather import Gatherer
from kinora.controller.settings import Settings, stager_values
from kinora.controller.store import Store
from kinora.controller.videojob.check import Accepted, Around, Refused, Undecided, check
from kinora.controller.videojob.decide import decide
from kinora.controller.videojob.snapshot import IntakeState
from unit.controller.builders import NOW, SETTINGS, VACE, catalogue, job, server, snapshot
from unit.workflows.made import node, sound

Object = dict[str, Any]
SPEC: Object = {"task": "ImageToVideo", "inputs": {"image": {"url": "https://x.example/a"}}}
STAGED = IntakeState("kinora-stager-1a2b3c4d", stager_ready=True)
STORED: Object = {"inputStore": "pvc://videos/", "inputs": [{"name": "image", "sha256": "0a", "bytes": 1}]}


def status(ready: str, phase: str = "Pending", **more: Any) -> Object:
    condition = {
        "type": "InputsReady",
        "status": ready,
        "reason": "InputRefused",
        "message": "spec.inputs.image.url: no",
    }
    return {"phase": phase, "conditions": [condition], **more}


# --- decisions


@pytest.mark.parametrize(
    ("intake", "verdict", "reason", "words"),
    [
        (STAGED, None, "FetchingInputs", "kinora-stager-1a2b3c4d fetches and looks at spec.inputs.image.url"),
        (IntakeState("s", stager_ready=False), None, "StagerNotReady", "no pod of Deployment s is ready"),
        (IntakeState(), None, "NoModelServer", f"no ModelServer in the namespace serves {VACE}"),
        (IntakeState(), Undecided("no ModelServer 'x'"), "NoModelServer", "no ModelServer 'x'"),
    ],
)
def test_a_job_that_awaits_its_inputs_stays_pending_and_says_why_once(
    intake: IntakeState, verdict: Any, reason: str, words: str
) -> None:
    plan = decide(snapshot(intake=intake, verdict=verdict, **SPEC))
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"]) == ("Pending", reason)
    assert words in plan.status["message"]
    assert "resolved" not in plan.status
    again = snapshot({**plan.status}, intake=intake, verdict=verdict, **SPEC)
    assert decide(again).is_empty


def test_a_fetch_of_two_seconds_costs_no_write_of_the_operator() -> None:
    plan = decide(snapshot(intake=STAGED, seen=1.5, **SPEC))
    assert (plan.status, plan.requeue_after) == (None, 0.5)


def test_a_job_without_a_url_knows_no_stager() -> None:
    plan = decide(snapshot(intake=IntakeState()))
    assert plan.status is not None
    assert plan.status["phase"] == "Queued"


def test_inputs_that_are_refused_fail_the_job_with_their_reason_and_message() -> None:
    plan = decide(snapshot(status("False"), intake=STAGED, **SPEC))
    assert plan.status is not None
    told = (plan.status["phase"], plan.status["reason"], plan.status["message"])
    assert told == ("Failed", "InputRefused", "spec.inputs.image.url: no")
    assert [note.reason for note in plan.notes] == ["InputRefused"]
    assert inputs_condition({"status": plan.status})["status"] == "False", "the condition stays"


def test_cancel_and_the_start_deadline_hold_while_inputs_are_fetched() -> None:
    cancelled = decide(snapshot(intake=STAGED, cancel=True, **SPEC)).status
    late = decide(snapshot(intake=STAGED, age=99, startDeadlineSeconds=60, **SPEC)).status
    assert cancelled is not None
    assert late is not None
    assert (cancelled["phase"], late["reason"]) == ("Cancelled", "StartDeadlineExceeded")
    assert decide(snapshot(intake=STAGED, age=10, startDeadlineSeconds=60, **SPEC)).requeue_after == 50


def test_what_a_stager_resolved_is_not_resolved_again() -> None:
    known = status("True", **STORED, resolved={"width": 640})
    plan = decide(snapshot(known, **SPEC))
    assert plan.status is not None
    assert plan.status["phase"] == "Queued"
    assert "resolved" not in plan.status
    assert inputs_condition({"status": plan.status})["status"] == "True"


def test_inputs_in_a_store_that_nobody_serves_are_told_of() -> None:
    known = status("True", **STORED, resolved={"width": 640})
    plan = decide(snapshot(known, intake=IntakeState(store_served=False), **SPEC))
    assert plan.status is not None
    assert plan.status["reason"] == "NoModelServer"
    assert "pvc://videos/, which no ModelServer that serves" in plan.status["message"]


# --- facts


def gatherer(settings: Settings = SETTINGS) -> tuple[Store, Gatherer]:
    store = Store(lambda: 100.0, lambda kind, name: None)
    return store, Gatherer(store, catalogue(), settings)


def lanes(gather: Gatherer) -> list[frozenset[str]]:
    """The ModelServers that the waiting job may go to; nothing while it may not be bound."""
    gather.index("films/cat")
    return [lane.servers for lane in gather.world("films", (), (), NOW.timestamp()).lanes]


def facts(store: Store, gather: Gatherer) -> Any:
    return gather.job(store.jobs.entries["films/cat"], NOW)


def test_a_job_is_bound_only_to_servers_with_the_store_of_its_inputs() -> None:
    store, gather = gatherer()
    store.servers.apply(server(name="a", artifacts={"claimName": "other"}))
    store.servers.apply(server(name="b"))
    store.jobs.apply(job(**SPEC))
    assert lanes(gather) == [], "its inputs are not known yet"
    found = facts(store, gather).intake
    assert found.stager in {stager_name("other"), stager_name("videos")}
    assert not found.stager_ready
    staged = job(status("True", **STORED), **SPEC)
    staged["metadata"]["resourceVersion"] = "8"
    store.jobs.apply(staged)
    assert lanes(gather) == [{"b"}]
    assert facts(store, gather).intake.store_served
    store.servers.remove(store.servers.entries["films/b"].obj)
    assert lanes(gather) == []
    assert not facts(store, gather).intake.store_served


def test_the_stager_is_ready_when_its_deployment_is() -> None:
    store, gather = gatherer()
    store.servers.apply(server())
    store.jobs.apply(job(**SPEC))
    metadata = {"name": stager_name("videos"), "namespace": "films", "uid": "d", "resourceVersion": "1"}
    store.stagers.apply({"metadata": metadata, "status": {}})
    assert not facts(store, gather).intake.stager_ready
    store.stagers.apply({"metadata": {**metadata, "resourceVersion": "2"}, "status": {"availableReplicas": 1}})
    assert facts(store, gather).intake == IntakeState(stager_name("videos"), "pvc://videos/", stager_ready=True)


def test_the_two_seconds_before_the_queue_begin_when_the_inputs_are_there() -> None:
    clock = [100.0]
    store = Store(lambda: clock[0], lambda kind, name: None)
    gather = Gatherer(store, catalogue(), SETTINGS)
    store.jobs.apply(job(**SPEC))
    clock[0] = 160.0
    staged = job(status("True", **STORED), **SPEC)
    staged["metadata"]["resourceVersion"] = "8"
    store.jobs.apply(staged)
    clock[0] = 161.0
    assert facts(store, gather).seen_seconds == 1


# --- raw workflows


def raw(status: Object | None = None, *classes: str, **file: Any) -> Object:
    graph = sound(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image="a", upload="image")
    for index, name in enumerate(classes):
        graph[f"x{index}"] = node(name)
    workflow = {"inline": json.dumps(graph), "files": [{"name": "a", "source": {"url": "https://x.example/a"}, **file}]}
    made = job(status, task=None, prompt="", workflow=workflow)
    made["spec"] = {name: value for name, value in made["spec"].items() if value is not None}
    return made


def test_a_workflow_with_a_url_is_judged_at_once_and_its_store_told_once() -> None:
    made = raw()
    verdict = check(made, catalogue(), {})
    assert isinstance(verdict, Accepted)
    chosen = IntakeState("s", "pvc://videos/")
    asked = replace(snapshot(intake=chosen, verdict=verdict, seen=0), job=made)
    plan = decide(asked)
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"]) == ("Pending", "FetchingInputs")
    assert "spec.workflow.files[0].source.url" in plan.status["message"]
    assert plan.status["inputStore"] == "pvc://videos/"
    assert plan.status["resolved"]["workflowSha256"] == verdict.resolved["workflowSha256"]
    told = replace(asked, job={**made, "status": plan.status})
    assert decide(told).is_empty
    moved = decide(replace(told, intake=IntakeState("t", "pvc://other/"))).status
    assert moved is not None
    assert moved["inputStore"] == "pvc://other/", "the ModelServer with the first store is gone"


def test_a_workflow_waits_for_its_config_map_before_anything_is_fetched() -> None:
    waits = Undecided("no ConfigMap 'graphs' in the namespace yet", "WaitingForWorkflow")
    plan = decide(replace(snapshot(verdict=waits), job=raw()))
    assert plan.status is not None
    assert (plan.status["phase"], plan.status["reason"]) == ("Pending", "WaitingForWorkflow")
    assert "inputStore" not in plan.status


def test_a_refused_workflow_fails_before_anything_is_fetched() -> None:
    made = raw(None, "Glow")
    plan = decide(replace(snapshot(verdict=check(made, catalogue(), {"a": VACE})), job=made))
    assert plan.status is not None
    assert plan.status["phase"] == "Failed"


def test_a_workflow_goes_to_the_store_of_a_server_that_allows_its_classes() -> None:
    store, gather = gatherer()
    store.servers.apply(server(name="a", artifacts={"claimName": "other"}))
    store.servers.apply(server(name="b", allowedNodeClasses=["Glow"]))
    store.jobs.apply(raw(None, "Glow"))
    assert facts(store, gather).intake.store == "pvc://videos/"
    assert lanes(gather) == [], "its files are not known yet"
    staged = raw(status("True", **STORED), "Glow")
    staged["metadata"]["resourceVersion"] = "8"
    store.jobs.apply(staged)
    assert lanes(gather) == [{"b"}]


def test_without_stagers_a_url_of_a_workflow_is_refused() -> None:
    refused = check(raw(), catalogue(), Around({}, has_stagers=False))
    assert isinstance(refused, Refused)
    assert refused.message.startswith("spec.workflow.files[0].source.url is set; allowed: claim, configMap or artifact")


# --- stagers switched off


def test_without_stagers_a_url_is_refused_and_a_claim_is_not() -> None:
    refused = check(job(**SPEC), catalogue(), Around({}, has_stagers=False))
    assert isinstance(refused, Refused)
    assert refused.reason == "StagerDisabled"
    assert refused.message.startswith("spec.inputs.image.url is set; allowed: claim, configMap or artifact")
    assert "stager.enabled" in refused.message
    claim = {"task": "ImageToVideo", "inputs": {"image": {"claim": {"name": "a", "path": "b"}}}}
    assert isinstance(check(job(**claim), catalogue(), Around({}, has_stagers=False)), Accepted)
    assert isinstance(check(job(**SPEC), catalogue(), {}), Accepted)


def test_without_a_gateway_that_delivers_a_webhook_is_refused() -> None:
    text = {"task": "TextToVideo", "inputs": {}, "webhook": {"url": "https://receiver.example/hook"}}
    refused = check(job(**text), catalogue(), Around({}, has_webhooks=False))
    assert isinstance(refused, Refused)
    assert refused.reason == "WebhooksDisabled"
    assert refused.message.startswith("spec.webhook is set; allowed: unset")
    assert "gateway.webhooks.enabled" in refused.message
    assert isinstance(check(job(**text), catalogue(), Around({})), Accepted)
    _, gather = gatherer(SETTINGS)
    assert isinstance(gather.verdict(job(**text)), Refused), "the operator must be told that somebody delivers"


def test_inputs_that_are_there_already_need_no_stager() -> None:
    store, gather = gatherer(replace(SETTINGS, stager=StagerValues(enabled=False)))
    store.servers.apply(server())
    assert isinstance(gather.verdict(job(**SPEC)), Refused)
    gather.forget(job(**SPEC))
    assert isinstance(gather.verdict(job(status("True", **STORED), **SPEC)), Accepted)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "KINORA_STAGER"),
        ('{"allow": {"networks": ["10.1"]}}', "stager.allow.networks is 10.1"),
        ('{"allow": {"hosts": ["a b"]}}', "stager.allow.hosts is a b"),
        ('{"parallel": 0}', "parallel"),
    ],
)
def test_wrong_values_end_the_operator_by_name(text: str, words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        stager_values(text)
    assert words in str(caught.value)
    assert stager_values("{}") == StagerValues()
