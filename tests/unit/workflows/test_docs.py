"""docs/workflows.md says what the code does; the example is sound."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from kinora.api.videojob import BINDING_NAMES, VideoJobSpec
from kinora.api.videojob import Workflow as WorkflowSpec
from kinora.workflows import limits, parse
from kinora.workflows.allow import CURATED
from kinora.workflows.workflow import MAX_INPUTS, plan
from unit.workflows.made import UID, model

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/workflows.md").read_text(encoding="utf-8")


def test_the_list_of_classes() -> None:
    [listed] = [part for part in TEXT.split("\n\n") if part.startswith("`CLIPLoader`")]
    assert re.findall(r"`(\w+)`", listed) == sorted(CURATED)


def test_the_table_of_bindings() -> None:
    table = TEXT.partition("## Bindings")[2].partition("## Files")[0]
    names = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    }
    assert names == {name for name in BINDING_NAMES if name not in {f"references[{index}]" for index in (1, 2, 3)}}


def test_the_limits() -> None:
    for number in (parse.MAX_NODES, parse.MAX_INPUTS, parse.MAX_TEXT, limits.MAX_SAMPLERS, limits.MAX_SIDE, MAX_INPUTS):
        assert f"{number:,}" in TEXT
    assert f"one batch at most {limits.ONE_BATCH} times, all together at most {limits.ALL_BATCHES} times" in TEXT


def test_the_example_is_sound() -> None:
    config_map, job = yaml.safe_load_all((ROOT / "examples/workflow.yaml").read_text(encoding="utf-8"))
    spec = VideoJobSpec.model_validate(job["spec"])
    assert isinstance(spec.workflow, WorkflowSpec)
    assert spec.workflow.config_map_ref is not None
    assert spec.workflow.config_map_ref.name == config_map["metadata"]["name"]
    made = plan(spec, model(), config_map["data"][spec.workflow.config_map_ref.key], UID)
    assert made.resolved.outputs == ("14", "16")
    assert made.resolved.seed == 42
