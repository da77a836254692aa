"""Every fault of a spec's shape at once, with field, value and what is allowed; and CEL's rules in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinora.api import crd
from kinora.api.base import ApiModel, Rule, rules_of
from kinora.api.findings import _fields, _nested, findings
from kinora.api.modelserver import NAME_RULE, ModelServerSpec
from kinora.api.videojob import VideoJobSpec

ROOT = Path(__file__).parents[3]
JOB: dict[str, Any] = {"model": "wan2.1-vace-1.3b", "task": "TextToVideo", "prompt": "a lighthouse"}
SERVER: dict[str, Any] = {
    "model": "wan2.1-vace-1.3b",
    "weights": {"claimName": "models"},
    "artifacts": {"claimName": "videos"},
}
CLAIM = {"claim": {"name": "clips", "path": "a.mp4"}}


def told(model: Any, /, **changed: Any) -> list[str]:
    spec = {**(SERVER if model is ModelServerSpec else JOB), **changed}
    spec = {name: value for name, value in spec.items() if value is not None}
    return [f"{found.field} is {found.value}; allowed: {found.allowed}" for found in findings(model, spec, "spec")]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_sound(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        model = {"VideoJob": VideoJobSpec, "ModelServer": ModelServerSpec}.get(document["kind"])
        if model is None:
            assert document["kind"] == "ConfigMap"  # of a raw workflow
        else:
            assert findings(model, document["spec"], "spec") == ()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"parameters": {"frames": 80}}, "spec.parameters.frames is 80; allowed: 4n+1, the nearest are 77 and 81"),
        ({"parameters": {"frames": "81"}}, "spec.parameters.frames is '81' (text); allowed: a whole number"),
        ({"parameters": {"frames": 2000}}, "spec.parameters.frames is 2000; allowed: 1 to 1025"),
        ({"parameters": {"frames": 1.5}}, "spec.parameters.frames is 1.5; allowed: a whole number"),
        (
            {"parameters": {"frames": 81, "durationSeconds": 5}},
            "spec.parameters.durationSeconds is 5; allowed: unset where frames is set",
        ),
        ({"parameters": {"durationSeconds": 0}}, "spec.parameters.durationSeconds is 0; allowed: above 0, at most 60"),
        (
            {"parameters": {"width": 100}},
            "spec.parameters.width is 100; allowed: multiples of 16: 96 or 112 are nearest",
        ),
        ({"parameters": {"seed": 2**53}}, f"spec.parameters.seed is {2**53}; allowed: 0 to {2**53 - 1}"),
        ({"parameters": {"seed": -1}}, f"spec.parameters.seed is -1; allowed: 0 to {2**53 - 1}"),
        ({"parameters": {"fps": "fast"}}, "spec.parameters.fps is fast; allowed: a number"),
        ({"parameters": []}, "spec.parameters is a list of 0; allowed: a mapping of fields"),
        ({"output": {"watermark": "yes"}}, "spec.output.watermark is yes; allowed: true or false"),
        ({"output": {"format": "GIF"}}, "spec.output.format is GIF; allowed: MP4"),
        ({"prompt": "x" * 5001}, f"spec.prompt is {'x' * 5001}; allowed: text of 0 to 5000 characters"),
        ({"prompt": 7}, "spec.prompt is 7; allowed: text"),
        ({"priority": 1001}, "spec.priority is 1001; allowed: -1000 to 1000"),
        ({"backoffLimit": -1}, "spec.backoffLimit is -1; allowed: 0 to 100"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds is 0; allowed: at least 1"),
        ({"model": None}, "spec is without all of them; allowed: exactly one of model, modelServerName"),
        ({"modelServerName": "a"}, "spec is model, modelServerName; allowed: exactly one of model, modelServerName"),
        ({"task": None}, "spec is without all of them; allowed: exactly one of task, workflow"),
        ({"task": "ImageToVideo"}, "spec.inputs.image is None; allowed: one: task ImageToVideo needs it"),
        (
            {"task": "ReferenceToVideo", "inputs": {"references": []}},
            "spec.inputs.references is None; allowed: one: task ReferenceToVideo needs it",
        ),
        (
            {"task": "Inpaint", "inputs": {"video": CLAIM}},
            "spec.inputs.mask is None; allowed: one: task Inpaint needs it",
        ),
        (
            {"task": "Extend"},
            "spec.inputs is without all of them; allowed: at least one of firstClip, lastClip, firstFrame, lastFrame"
            " for task Extend",
        ),
        (
            {"inputs": {"references": [{"source": {**CLAIM, "url": "https://x"}}]}},
            "spec.inputs.references[0].source is url, claim; allowed: exactly one of url, artifact, upload, claim",
        ),
        ({"inputs": {"references": [{}]}}, "spec.inputs.references[0].source is None; allowed: a mapping of fields"),
        (
            {"inputs": {"references": [{"source": CLAIM}] * 6}},
            "spec.inputs.references is a list of 6; allowed: at most 5 entries",
        ),
        (
            {"workflow": {}, "task": None},
            "spec.workflow is without all of them; allowed: exactly one of configMapRef, inline",
        ),
        (
            {"inputs": {"image": {"configMap": {"name": "Photos", "key": "a"}}}},
            "spec.inputs.image.configMap.name is Photos; allowed: text that matches",
        ),
    ],
)
def test_video_job(changed: dict[str, Any], expected: str) -> None:
    found = told(VideoJobSpec, **changed)
    assert any(line.startswith(expected) for line in found), found


def test_an_enumeration_lists_itself() -> None:
    (line,) = told(VideoJobSpec, task="Fly")
    assert line.startswith("spec.task is Fly; allowed: TextToVideo, ImageToVideo,")
    assert line.endswith("FirstLastFrame, Edit")


@pytest.mark.parametrize(
    ("changed", "field", "meant"),
    [
        ({"steps": 5}, "spec.steps", ""),
        ({"model_server_name": "a"}, "spec.model_server_name", "modelServerName"),
        ({"parameters": {"frame": 81}}, "spec.parameters.frame", "frames"),
        ({"parameters": {"control_strength": 1}}, "spec.parameters.control_strength", "controlStrength"),
        ({"inputs": {"image": {"configmap": {}}}}, "spec.inputs.image.configmap", "configMap"),
        ({"inputs": {"references": [{"source": CLAIM, "rol": "Object"}]}}, "spec.inputs.references[0].rol", "role"),
    ],
)
def test_unknown_fields_are_named(changed: dict[str, Any], field: str, meant: str) -> None:
    found = [item for item in findings(VideoJobSpec, {**JOB, **changed}, "spec") if item.field == field]
    assert found[0].value == "no field of this resource"
    assert f"did you mean {meant}?" in found[0].allowed if meant else "did you mean" not in found[0].allowed
    quiet = findings(VideoJobSpec, {**JOB, **changed}, "spec", unknown=False)
    assert all(item.field != field for item in quiet)


def test_all_at_once() -> None:
    found = told(VideoJobSpec, task="Fly", priority=5000, parameters={"frames": 80, "width": 7, "stepz": 3})
    for field in ("task", "priority", "parameters.frames", "parameters.width", "parameters.stepz"):
        assert any(line.startswith(f"spec.{field} is") for line in found), (field, found)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"weights": None}, "spec.weights is None; allowed: a mapping of fields"),
        ({"weights": {}}, "spec.weights is without all of them; allowed: exactly one of claimName, claimTemplate"),
        (
            {"artifacts": {"claimName": "a", "s3": {"bucket": "abc"}}},
            "spec.artifacts is claimName, s3; allowed: exactly one",
        ),
        ({"gpu": {"count": 17}}, "spec.gpu.count is 17; allowed: 0 to 16"),
        ({"gpu": {"pools": [{"name": "A B"}]}}, "spec.gpu.pools[0].name is A B; allowed: text that matches"),
        ({"gpu": {"pools": [{"name": "a", "labels": {"x": 1}}]}}, "spec.gpu.pools[0].labels.x is 1; allowed: text"),
        ({"replicas": "2"}, "spec.replicas is '2' (text); allowed: a whole number"),
    ],
)
def test_model_server(changed: dict[str, Any], expected: str) -> None:
    found = told(ModelServerSpec, **changed)
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize("name", ["vace", "a", "a" * 52])
def test_sound_names(name: str) -> None:
    assert NAME_RULE.meaning is not None
    assert list(NAME_RULE.meaning({"metadata": {"name": name}})) == []


@pytest.mark.parametrize("name", ["", "1a", "A", "a.b", "a-", "a" * 53, "a\n"])
def test_bad_names(name: str) -> None:
    assert NAME_RULE.meaning is not None
    (found,) = NAME_RULE.meaning({"metadata": {"name": name}})
    assert found.field == "metadata.name"


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (rule["rule"] for rule in node.get("x-kubernetes-validations", ()))
        for inner in node.values():
            yield from _texts(inner)


def _held(model: type[ApiModel]) -> Iterator[Rule]:
    yield from rules_of(model.model_config.get("json_schema_extra"))
    for info in _fields(model).values():
        yield from rules_of(info.json_schema_extra)
        nested = _nested(info.annotation)
        if nested is not None:
            yield from _held(nested)


@pytest.mark.parametrize("model", [VideoJobSpec, ModelServerSpec])
def test_every_rule_of_the_crd_has_a_meaning_here(model: type[ApiModel]) -> None:
    """All but those about an update, which no file can break."""
    held = list(_held(model))
    assert {rule["rule"] for rule in held} == set(_texts(crd.schema_of(model)))
    for rule in held:
        assert (rule.meaning is None) == ("oldSelf" in rule["rule"])


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_no_mapping_at_all(value: object) -> None:
    (found,) = findings(VideoJobSpec, value, "spec")
    assert found.allowed == "a mapping of fields"
