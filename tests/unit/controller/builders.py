"""Builders of the objects and facts that decisions are made on: each has the plain case as its default."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from kinora.api.modelserver import ModelServerSpec
from kinora.catalogue.load import Catalogue, load_catalogue
from kinora.controller.modelserver import decide as server_decide
from kinora.controller.modelserver import weights
from kinora.controller.modelserver.capacity import Ages, capacity
from kinora.controller.modelserver.refuse import Refusal
from kinora.controller.modelserver.snapshot import ServerPod, ServerSnapshot
from kinora.controller.plan import Plan
from kinora.controller.scheduling.fleet import Fleet, arrange
from kinora.controller.settings import Settings
from kinora.controller.videojob.check import Accepted, Verdict
from kinora.controller.videojob.snapshot import IntakeState, JobSnapshot, PodState

Object = dict[str, Any]

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
JOB_UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
VACE = "wan2.1-vace-1.3b"
SETTINGS = Settings(agent_image="kinora:1", engine_image="standin:1")


def ago(seconds: float) -> str:
    """RFC 3339 of that long before NOW."""
    return (NOW - dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def catalogue() -> Catalogue:
    return load_catalogue()


def job(status: Object | None = None, *, age: float = 10, name: str = "cat", **spec: Any) -> Object:
    """A text-to-video job made ``age`` seconds ago."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {
            "name": name,
            "namespace": "films",
            "uid": JOB_UID,
            "generation": 3,
            "resourceVersion": "7",
            "creationTimestamp": ago(age),
        },
        "spec": {"model": VACE, "task": "TextToVideo", "prompt": "a cat", **spec},
        "status": {"phase": "Pending"} if status is None else status,
    }


def assigned(phase: str = "Running", attempt: int = 1, **status: Any) -> Object:
    """The status of a job whose attempt is on pod p1."""
    assignment = {"podName": "vace-0-1a2b3c4d", "podUID": "p1", "nodeName": "n1", "boundTime": ago(5)}
    return {"phase": phase, "attempt": attempt, "assignment": assignment, **status}


def released(reason: str, phase: str = "Running", attempt: int = 1, **status: Any) -> Object:
    """The status of a job whose agent has given the attempt up."""
    gave_up = {"attempt": attempt, "reason": reason, "time": ago(1)}
    return assigned(phase, attempt, released=gave_up, **status)


def snapshot(
    status: Object | None = None,
    *,
    pod: PodState | None = None,
    verdict: Verdict | None = None,
    has_server: bool = True,
    surplus: bool = False,
    preset_lacks: str = "",
    seen: float = 10,
    running: float = 0,
    cancelled: float = 0,
    suspended: float = 0,
    age: float = 10,
    intake: IntakeState | None = None,
    **spec: Any,
) -> JobSnapshot:
    """What is known of one job; its pod is well."""
    return JobSnapshot(
        job=job(status, age=age, **spec),
        verdict=verdict or Accepted(VACE, {"model": VACE, "shift": 8.0}),
        pod=pod or PodState(exists=True, phase="Running"),
        has_server=has_server,
        surplus=surplus,
        preset_lacks=preset_lacks,
        seen_seconds=seen,
        running_seconds=running,
        cancel_seconds=cancelled,
        suspended_seconds=suspended,
        now=NOW,
        intake=intake or IntakeState(),
    )


def server(status: Object | None = None, *, name: str = "vace", **spec: Any) -> Object:
    """A ModelServer without a GPU."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {
            "name": name,
            "namespace": "films",
            "uid": "11111111-2222-3333-4444-555555555555",
            "generation": 1,
            "resourceVersion": "5",
        },
        "spec": {
            "model": VACE,
            "weights": {"claimName": "weights"},
            "artifacts": {"claimName": "videos"},
            "gpu": {"count": 0},
            "replicas": 1,
            **spec,
        },
        "status": status or {},
    }


def server_pod(slot: int = 0, uid: str = "", **facts: Any) -> ServerPod:
    """A pod of the current template (hash "new") that serves."""
    plain: dict[str, Any] = {
        "name": f"vace-{slot}-{uid or 'x'}",
        "uid": uid or f"u{slot}",
        "slot": slot,
        "template_hash": "new",
        "phase": "Running",
        "node": "n1",
        "pool": "default",
        "terminating": False,
        "engine_ready": True,
        "engine_reason": "EngineReady",
        "engine_message": "",
        "scheduled": True,
        "unscheduled_message": "",
        "waiting_message": "",
        "busy": False,
    }
    return ServerPod(**{**plain, **facts})


def server_snapshot(obj: Object, *pods: ServerPod, claims: frozenset[str] | None = None) -> ServerSnapshot:
    """What is known of one ModelServer; its claims exist."""
    there = frozenset({"weights", "videos"}) if claims is None else claims
    return ServerSnapshot(server=obj, pods=pods, claims=there, backlog=0, now=NOW)


def arranged(snapshot_: ServerSnapshot, asked: ModelServerSpec, hashes: Mapping[str, str] | None = None) -> Fleet:
    """What scheduling makes of a server's pods when spec.replicas rules."""
    facts = capacity(snapshot_, asked, hashes or {"default": "new"}, 60.0, Ages({}, {}))
    return arrange(facts.members, facts.wish, snapshot_.now.timestamp())


def server_plan(
    snapshot_: ServerSnapshot, *, settings: Settings = SETTINGS, made: bool = True, models: Catalogue | None = None
) -> Plan:
    """The plan for a server whose spec.replicas rules."""
    asked = server_decide.accepted(snapshot_, models or catalogue(), settings)
    if isinstance(asked, Refusal):
        return server_decide.refused(snapshot_, asked)
    model = (models or catalogue()).get(asked.model)
    assert model is not None
    hashes = server_decide.hashes(snapshot_, asked, settings)
    volume = weights.look(snapshot_, asked, model, settings)
    fleet = arranged(weights.current(snapshot_, volume, hashes), asked, hashes)
    outcome = server_decide.Outcome(fleet, volume=volume)
    return server_decide.decide(snapshot_, asked, settings, outcome, children_made=made)
