"""The small pure parts: settings, the token's claim, the second look at a graph, the manifest, proof."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kinora.agent.condition import engine_termination
from kinora.agent.graphcheck import graph_faults
from kinora.agent.main import model_for
from kinora.agent.manifest import NAME, Manifest, read_manifest, write_manifest
from kinora.agent.publish import proof_faults
from kinora.agent.settings import SettingsError, settings_from
from kinora.agent.staging import Staged
from kinora.agent.token import token_fault
from kinora.api.agentconfig import AgentConfig
from kinora.api.videojob import Task, VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.media.info import Proof
from kinora.recipes.build import build, graph_inputs
from kinora.recipes.graph import Prompts, StagedInput
from kinora.recipes.needs import NEEDS
from kinora.recipes.resolve import resolve
from unit.agent.made import POD, UID

ENVIRONMENT = {
    "KINORA_AGENT_CONFIG": json.dumps({"modelServerName": "vace", "model": "m", "artifactClaim": "a"}),
    "KINORA_POD_NAME": "vace-0",
    "KINORA_POD_UID": POD,
    "KINORA_NAMESPACE": "ns",
}


def test_the_environment_of_a_server_pod() -> None:
    settings = settings_from(ENVIRONMENT)
    assert settings.identity.client_id == f"kinora-{POD}"
    assert settings.config.drain_seconds == 1800
    assert str(settings.paths.input) == "/kinora/input"


@pytest.mark.parametrize("missing", sorted(ENVIRONMENT))
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        settings_from({**ENVIRONMENT, missing: ""})


def test_a_config_that_is_not_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="KINORA_AGENT_CONFIG"):
        settings_from({**ENVIRONMENT, "KINORA_AGENT_CONFIG": "{}"})


def config(**change: str) -> AgentConfig:
    return AgentConfig.model_validate({"modelServerName": "vace", "artifactClaim": "a", **change})


def test_the_model_is_the_packaged_one_or_the_administrator_s_entry() -> None:
    packaged = model_for(config(model="wan2.1-vace-1.3b"))
    assert packaged == load_catalogue().get("wan2.1-vace-1.3b")
    entry = json.dumps({"extends": "wan2.1-vace-1.3b", "name": "tune", "defaults": {"steps": 9}})
    own = model_for(config(model="tune", modelEntry=entry))
    assert (own.name, own.defaults.steps, own.weights) == ("tune", 9, packaged.weights)


@pytest.mark.parametrize(
    ("entry", "said"), [("", "'tune' is not in the catalogue"), ("{}", "KINORA_AGENT_CONFIG: name")]
)
def test_a_model_that_cannot_be_had_ends_the_agent(entry: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        model_for(config(model="tune", modelEntry=entry))


def token(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (token({"kubernetes.io": {"pod": {"uid": POD, "name": "vace-0"}}}), None),
        (token({"kubernetes.io": {"pod": {"uid": "other", "name": "b"}}}), "another pod"),
        (token({"kubernetes.io": {"namespace": "ns"}}), "not bound to a pod"),
        (token({"sub": "x"}), "not bound to a pod"),
        (token([]), "no JWT"),
        ("opaque", "no JWT"),
        ("a.b.c", "no JWT"),
        ("", "no JWT"),
    ],
)
def test_the_token_must_name_this_pod(text: str, said: str | None) -> None:
    fault = token_fault(text, POD)
    assert (fault is None) if said is None else (fault is not None and said in fault)


@pytest.mark.parametrize("model_name", load_catalogue().names)
def test_every_recipe_passes_the_second_look(model_name: str) -> None:
    model = load_catalogue().get(model_name)
    assert model is not None
    source = {"claim": {"name": "c", "path": "f"}}
    for task in model.tasks:
        given: dict[str, Any] = {}
        for need in NEEDS[Task(task)]:
            if need.field == "references":
                given["references"] = [{"source": source}] if model.limits.references else []
            else:
                given[need.field] = {"source": source} if need.field == "mask" else source
        parameters = {"expand": {"top": 1.5}} if task == "Outpaint" else {}
        spec = VideoJobSpec.model_validate(
            {"model": model_name, "task": task, "prompt": "p", "inputs": given, "parameters": parameters}
        )
        resolved = resolve(spec, model, UID.format(1))
        wanted = graph_inputs(model, resolved)
        staged = {name: StagedInput(f"job-1/{index}.x", kind) for index, (name, kind) in enumerate(wanted.items())}
        graph = build(model, resolved, Prompts("p", "n"), staged, "job-1/out")
        assert graph_faults(graph, model.node_classes, "job-1") == []
        assert graph_faults(graph, model.node_classes[:1], "job-1")
        assert graph_faults(graph, model.node_classes, "job-2")


@pytest.mark.parametrize("file", ["other/a.png", "job-1/../other/a.png", "/etc/passwd", "", "a.png"])
def test_files_of_others_are_not_read(file: str) -> None:
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": file}}}
    assert "not of this job" in graph_faults(graph, {"LoadImage"}, "job-1")[0]


def test_the_manifest_survives_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    spec = VideoJobSpec.model_validate({"model": "m", "task": "TextToVideo", "prompt": "p"})
    resolved = resolve(spec, model, UID.format(1))
    manifest = Manifest(Staged({"image": StagedInput("f/image.png", "Image")}, ({"name": "image"},), resolved), 1.5)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    for damage in ('{"format": 3}', "[]", "", '{"format": 1, "files": {"a": 3}, "facts": [], "seconds": 1}'):
        (tmp_path / NAME).write_text(damage)
        assert read_manifest(tmp_path) is None


def test_a_video_is_held_to_what_was_asked() -> None:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    spec = VideoJobSpec.model_validate(
        {
            "model": model.name,
            "task": "TextToVideo",
            "prompt": "p",
            "parameters": {"width": 128, "height": 64, "frames": 9, "fps": 16},
        }
    )
    resolved = resolve(spec, model, UID.format(1))
    good = Proof(9, 16.0, 128, 64, 0.5625, "h264", "0" * 64, 1000)
    assert proof_faults(good, resolved) == []
    bad = Proof(5, 24.0, 64, 64, 0.3, "h264", "0" * 64, 1000)
    assert proof_faults(bad, resolved) == ["5 frames instead of 9", "64x64 instead of 128x64", "24 fps instead of 16"]


def test_how_the_kubelet_says_that_the_engine_ended() -> None:
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    pod = {"status": {"initContainerStatuses": [{"name": "engine", "state": {"running": {}}, "lastState": killed}]}}
    assert engine_termination(pod) == killed["terminated"]
    assert engine_termination({"status": {}}) is None
    assert engine_termination({"status": {"containerStatuses": [{"name": "agent", "lastState": killed}]}}) is None
