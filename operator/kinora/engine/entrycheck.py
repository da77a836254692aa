"""Whether the graphs of a catalogue entry would be accepted: each task and preset once, against the node contract.

Pydantic holds an entry to its shape; that `sampler: fastest` is no sampler only the nodes know.
"""

from collections.abc import Iterator
from typing import Any

from kinora.api.videojob import Preset, Task, VideoJobSpec
from kinora.catalogue.model import Model
from kinora.engine.contract import PromptRefusal, check_graph
from kinora.recipes.build import build, graph_inputs
from kinora.recipes.faults import InvalidSpec
from kinora.recipes.graph import StagedInput
from kinora.recipes.resolve import prompts_of, resolve

_FILE = {"claim": {"name": "a", "path": "a"}}
_INPUTS: dict[Task, dict[str, Any]] = {
    Task.TEXT_TO_VIDEO: {},
    Task.IMAGE_TO_VIDEO: {"image": _FILE},
    Task.REFERENCE_TO_VIDEO: {"references": [{"source": _FILE}]},
    Task.VIDEO_TO_VIDEO: {"video": _FILE},
    Task.INPAINT: {"video": _FILE, "mask": {"source": _FILE}},
    Task.OUTPAINT: {"video": _FILE},
    Task.EXTEND: {"firstFrame": _FILE},
    Task.FIRST_LAST_FRAME: {"firstFrame": _FILE, "lastFrame": _FILE},
    Task.EDIT: {"video": _FILE},
}


def entry_fault(model: Model) -> str:
    """The first reason why an engine would refuse a job of this model; empty when there is none."""
    return next(_faults(model), "")


def _faults(model: Model) -> Iterator[str]:
    for task in model.tasks:
        for preset in (Preset.QUALITY, *model.presets):
            found = _fault(model, task, preset)
            if found:
                yield f"{model.name}: task {task}, preset {preset}: {found}"


def _fault(model: Model, task: Task, preset: Preset) -> str:
    parameters: dict[str, Any] = {"preset": preset}
    if task is Task.OUTPAINT:
        parameters["expand"] = {"left": 1.5}
    spec = VideoJobSpec.model_validate(
        {"model": model.name, "task": task, "prompt": "a", "inputs": _INPUTS[task], "parameters": parameters}
    )
    try:
        resolved = resolve(spec, model, "uid")
        staged = {name: StagedInput(name, kind) for name, kind in graph_inputs(model, resolved).items()}
        graph = build(model, resolved, prompts_of(spec, model), staged, "a/a")
    except (InvalidSpec, ValueError) as error:
        return str(error)
    stray = sorted({node["class_type"] for node in graph.values()} - set(model.node_classes))
    if stray:
        return (
            f"required_node_classes and optional_node_classes: {', '.join(stray)} is not there, and the recipe uses it"
        )
    refusal = check_graph(graph, {})
    return "" if refusal is None else _told(refusal)


def _told(refusal: PromptRefusal) -> str:
    """Which input of which node, and what is allowed there."""
    for found in refusal.node_errors.values():
        for error in found["errors"]:
            return f"{error['details'] or error['message']} (an input of node {found['class_type']})"
    return refusal.message
