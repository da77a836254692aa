"""The CRDs: generated, structural, small, and with every field of the design."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinora.api import crd
from kinora.api.modelserver import ModelServerSpec
from kinora.api.videojob import VideoJobSpec
from kinora_cluster import ROOT

Object = dict[str, Any]
CRDS = {"videojobs": crd.videojob_crd(), "modelservers": crd.modelserver_crd()}
BOTH = pytest.mark.parametrize("plural", list(CRDS))


def version(plural: str) -> Object:
    found: Object = CRDS[plural]["spec"]["versions"][0]
    return found


def schema(plural: str, *path: str) -> Object:
    node: Object = version(plural)["schema"]["openAPIV3Schema"]
    for step in path:
        node = node["items"] if step == "[]" else node["properties"][step]
    return node


def nodes(node: Any) -> Iterator[Object]:
    """Every schema beneath, itself included."""
    if isinstance(node, dict):
        yield node
        for name, child in node.items():
            if name == "properties":
                for inner in child.values():
                    yield from nodes(inner)
            elif name in {"items", "additionalProperties"} and isinstance(child, dict):
                yield from nodes(child)


@BOTH
def test_the_files_are_what_the_models_say(plural: str) -> None:
    path = ROOT / f"crds/{plural}.kinora.dev.yaml"
    text = path.read_text(encoding="utf-8")
    assert text == crd.render(CRDS[plural]), "drifted; run: make generate"
    assert (ROOT / f"charts/kinora/files/crds/{path.name}").read_text(encoding="utf-8") == text
    assert len(text.encode()) < 256 * 1024
    assert yaml.safe_load(text) == CRDS[plural]


def test_main_writes_both_files(tmp_path: Path) -> None:
    crd.main(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "modelservers.kinora.dev.yaml",
        "videojobs.kinora.dev.yaml",
    ]


@BOTH
def test_the_schema_is_structural(plural: str) -> None:
    text = crd.render(CRDS[plural])
    for word in ("$ref", "$defs", "anyOf", "oneOf", "allOf", "null", "propertyNames", "title:", "const:"):
        assert word not in text, word
    for node in nodes(schema(plural)):
        assert "type" in node or node.get("x-kubernetes-preserve-unknown-fields"), node
        assert not ("properties" in node and "additionalProperties" in node)
        assert isinstance(node.get("exclusiveMinimum", False), bool)


@BOTH
def test_strings_and_lists_are_bounded(plural: str) -> None:
    """Else the API server counts a CEL rule beneath as if it ran on 3 MB, and refuses the CRD."""
    for part in ("spec", "status"):
        for node in nodes(schema(plural, part)):
            if node.get("type") == "array":
                assert "maxItems" in node, node
            if node.get("type") == "string":
                assert node.keys() & {"maxLength", "enum", "format"}, node


# --- names, columns, subresources


@pytest.mark.parametrize(
    ("plural", "kind", "short"), [("videojobs", "VideoJob", "vj"), ("modelservers", "ModelServer", "msrv")]
)
def test_names(plural: str, kind: str, short: str) -> None:
    spec = CRDS[plural]["spec"]
    assert (spec["group"], spec["scope"], version(plural)["name"]) == ("kinora.dev", "Namespaced", "v1alpha1")
    assert spec["names"] == {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["kinora"],
    }


def columns(plural: str, *, wide: bool) -> list[str]:
    found = version(plural)["additionalPrinterColumns"]
    return [column["name"] for column in found if wide or not column.get("priority")]


def test_columns_tell_phase_reason_progress_server_and_age() -> None:
    assert columns("videojobs", wide=False) == ["Phase", "Reason", "Progress", "Server", "Age"]
    assert {"Model", "Task", "Attempt", "Priority", "Message"} <= set(columns("videojobs", wide=True))
    assert {"Model", "Ready", "Reason", "Age"} <= set(columns("modelservers", wide=False))


@BOTH
def test_each_column_shows_a_field_that_exists(plural: str) -> None:
    for column in version(plural)["additionalPrinterColumns"]:
        path = column["jsonPath"].lstrip(".").split("[")[0].split(".")
        if path[0] != "metadata":
            schema(plural, *path)


def test_selectable_fields_and_subresources() -> None:
    assert version("videojobs")["selectableFields"] == [
        {"jsonPath": ".status.phase"},
        {"jsonPath": ".status.assignment.podUID"},
        {"jsonPath": ".spec.webhook.url"},
        {"jsonPath": ".status.webhook.state"},
    ]
    assert version("videojobs")["subresources"] == {"status": {}}
    assert version("modelservers")["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert schema("modelservers", "spec", "replicas")["default"] == 1, "GET /scale without it is a 500"
    assert schema("modelservers", "status", "selector")["type"] == "string"


def test_a_job_that_nobody_has_seen_does_not_count_as_done() -> None:
    default = schema("videojobs", "status")["default"]
    assert default["phase"] == "Pending"
    assert {condition["type"]: condition["status"] for condition in default["conditions"]} == {
        "Ready": "Unknown",
        "Reconciling": "True",
        "Succeeded": "Unknown",
        "Finished": "False",
    }


# --- every field of the design, by name

SOURCE = ["url", "artifact.videoJobName", "artifact.index", "upload", "claim.name", "claim.path"]
SOURCE += ["configMap.name", "configMap.key"]
INPUTS = [
    *(
        f"{name}.{field}"
        for name in ("image", "video", "firstFrame", "lastFrame", "firstClip", "lastClip")
        for field in SOURCE
    ),
    *(f"mask.source.{field}" for field in SOURCE),
    *("mask.frame", "mask.mode", "mask.expandRatio", "references.[].role"),
    *(f"references.[].source.{field}" for field in SOURCE),
]
VIDEOJOB = [
    "model", "modelServerName", "task", "prompt", "negativePrompt", "queue", "priority", "suspend", "cancel",
    "startDeadlineSeconds", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "disruptionLimit",
    "webhook.url", "webhook.secretName",
    *(f"inputs.{name}" for name in INPUTS),
    *(f"parameters.{name}" for name in (
        "width", "height", "frames", "durationSeconds", "fps", "steps", "guidance", "shift", "seed", "denoise",
        "controlStrength", "control", "expand.top", "expand.bottom", "expand.left", "expand.right", "preset")),
    *(f"output.{name}" for name in (
        "format", "width", "height", "fps", "crf", "audio", "watermark", "keyPrefix")),
    *(f"workflow.{name}" for name in (
        "configMapRef.name", "configMapRef.key", "inline", "bindings", "files.[].name", "files.[].sha256",
        *(f"files.[].source.{field}" for field in SOURCE))),
]  # fmt: skip
VIDEOJOB_STATUS = [
    "observedGeneration", "phase", "reason", "message", "conditions.[].type", "submitTime", "startTime",
    "completionTime", "queue.position", "queue.estimatedStartTime", "attempt", "failures", "disruptions",
    *(f"assignment.{name}" for name in ("podName", "podUID", "nodeName", "pool", "promptID", "boundTime",
      "pricePerHour")),
    *(f"released.{name}" for name in ("attempt", "reason", "time", "gpuSeconds")),
    *(f"progress.{name}" for name in ("percent", "stage", "step", "steps", "lastUpdateTime")),
    *(f"inputs.[].{name}" for name in (
        "name", "sha256", "bytes", "width", "height", "frames", "fps", "durationSeconds", "actions")),
    "resolved",
    *(f"timings.{name}" for name in ("queuedSeconds", "stagedSeconds", "loadedSeconds", "renderedSeconds")),
    *(f"artifacts.[].{name}" for name in (
        "uri", "contentType", "bytes", "sha256", "width", "height", "frames", "fps", "durationSeconds", "node",
        "list", "filename", "subfolder", "type")),
    "gpuSeconds", "lostGPUSeconds", "cost",
    *(f"lastFailure.{name}" for name in ("reason", "message", "node", "attempt", "exitCode", "time")),
    *(f"webhook.{name}" for name in ("state", "attempts", "nextAttemptTime", "responseCode", "reason", "message")),
]  # fmt: skip
MODELSERVER = [
    "model", "engine.image", "engine.args", "engine.env", "weights.claimName", "weights.claimTemplate",
    "weights.sources", "weights.verify", "weights.quantize", "inputClaims.[].name", "inputClaims.[].claimName",
    "replicas", "resources", "shmSize", "warmup", "recycle.afterJobs", "recycle.memoryPercent", "drainSeconds",
    "update.maxUnavailable", "allowedNodeClasses", "artifacts.claimName", "artifacts.s3", "podTemplate",
    *(f"autoscaling.{name}" for name in ("minReplicas", "maxReplicas", "targetQueueSeconds", "idleSeconds")),
    "gpu.count", "gpu.fallbackAfterSeconds",
    *(f"gpu.pools.[].{name}" for name in (
        "name", "provider", "gpuModel", "capacity", "maxReplicas", "labels", "annotations", "nodeSelector",
        "tolerations", "resourceName", "runtimeClassName", "resources")),
]  # fmt: skip
MODELSERVER_STATUS = [
    "conditions.[].type", "replicas", "readyReplicas", "busyReplicas", "backlog", "backlogSeconds", "selector",
    "weights.bytesDone", "weights.bytesTotal", "weights.verifiedTime", "weights.files", "pools.[].name",
    "pools.[].replicas", "pools.[].backoffUntilTime", "pools.[].message", "coldStart", "performance", "lastScale",
    "observedGeneration",
]  # fmt: skip


@pytest.mark.parametrize(
    ("plural", "part", "fields"),
    [
        ("videojobs", "spec", VIDEOJOB),
        ("videojobs", "status", VIDEOJOB_STATUS),
        ("modelservers", "spec", MODELSERVER),
        ("modelservers", "status", MODELSERVER_STATUS),
    ],
)
def test_every_field_of_the_design_is_there(plural: str, part: str, fields: list[str]) -> None:
    missing = []
    for field in fields:
        try:
            schema(plural, part, *field.split("."))
        except KeyError:
            missing.append(field)
    assert missing == []


@pytest.mark.parametrize(("model", "fields"), [(VideoJobSpec, VIDEOJOB), (ModelServerSpec, MODELSERVER)])
def test_no_field_beside_those_of_the_design(model: Any, fields: list[str]) -> None:
    names = {field.alias for field in model.model_fields.values()}
    assert names == {field.split(".")[0] for field in fields}


@pytest.mark.parametrize(
    ("field", "limits"),
    [
        ("prompt", {"maxLength": 5000}),
        ("parameters.seed", {"minimum": 0, "maximum": 2**53 - 1, "format": "int64"}),
        ("parameters.width", {"multipleOf": 16}),
        ("parameters.denoise", {"minimum": 0, "maximum": 1}),
        ("parameters.controlStrength", {"minimum": 0, "maximum": 2}),
        ("parameters.expand.top", {"minimum": 1, "maximum": 2}),
        ("parameters.durationSeconds", {"minimum": 0, "exclusiveMinimum": True}),
        ("output.width", {"multipleOf": 2}),
        ("output.crf", {"minimum": 0, "maximum": 51}),
        ("inputs.references", {"maxItems": 5}),
        ("workflow.inline", {"maxLength": 65536}),
        ("queue", {"default": "default"}),
        ("priority", {"default": 0, "minimum": -1000, "maximum": 1000}),
        ("suspend", {"default": False}),
        ("activeDeadlineSeconds", {"default": 7200}),
        ("backoffLimit", {"default": 2}),
        ("disruptionLimit", {"default": 6}),
    ],
)
def test_limits_and_defaults(field: str, limits: Object) -> None:
    found = schema("videojobs", "spec", *field.split("."))
    assert {name: found.get(name) for name in limits} == limits


@pytest.mark.parametrize("field", ["startDeadlineSeconds", "ttlSecondsAfterFinished", "parameters.seed", "workflow"])
def test_unset_is_unset(field: str) -> None:
    assert "default" not in schema("videojobs", "spec", *field.split("."))


def test_rules_that_look_back_are_only_those_of_cancel_and_of_a_terminal_phase() -> None:
    text = crd.render(CRDS["videojobs"])
    assert text.count("oldSelf") == text.count("!oldSelf || self") + text.count("oldSelf in [") + 2
