"""A sound graph, and jobs around graphs: what the tests of this folder spoil on purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.recipes.faults import InvalidSpec
from kinora.workflows.workflow import PlannedWorkflow, plan

MODEL = "wan2.1-vace-1.3b"
UID = "6f2b4c1e-0000-4000-8000-000000000001"
Graph = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node."""
    return {"class_type": class_type, "inputs": inputs}


def sound(**changes: Mapping[str, Any]) -> Graph:
    """Text to video with VACE. `changes`: node id (without its `n`) -> inputs that are put over the node's own."""
    graph = {
        "11": node("UNETLoader", unet_name="wan21_vace_1_3_b.safetensors", weight_dtype="fp8_e4m3fn"),
        "13": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn.safetensors", type="wan"),
        "14": node("VAELoader", vae_name="wan21_vace_vae.safetensors"),
        "15": node("CLIPTextEncode", text="a fox", clip=["13", 0]),
        "16": node("CLIPTextEncode", text="blurry", clip=["13", 0]),
        "17": node(
            "WanVaceToVideo", positive=["15", 0], negative=["16", 0], vae=["14", 0], width=832, height=480, length=81,
            batch_size=1, strength=1.0,
        ),
        "24": node(
            "KSampler", model=["11", 0], seed=7, steps=20, cfg=4.0, sampler_name="uni_pc", scheduler="simple",
            denoise=1.0, positive=["17", 0], negative=["17", 1], latent_image=["17", 2],
        ),
        "30": node("TrimVideoLatent", samples=["24", 0], trim_amount=["17", 3]),
        "31": node("VAEDecode", samples=["30", 0], vae=["14", 0]),
        "32": node(
            "VHS_VideoCombine", images=["31", 0], frame_rate=16.0, loop_count=0, filename_prefix="video/out",
            format="video/h264-mp4", pix_fmt="yuv420p", crf=19, pingpong=False, save_output=True,
        ),
    }  # fmt: skip
    for name, inputs in changes.items():
        graph[name.removeprefix("n")]["inputs"].update(inputs)
    return graph


def model(name: str = MODEL) -> Model:
    """A model of the catalogue."""
    found = load_catalogue().get(name)
    assert found is not None
    return found


def spec(graph: Graph | str, *, files: Mapping[str, str] | None = None, **more: Any) -> VideoJobSpec:
    """A job with the graph inline. `files`: name in the graph -> path on a claim."""
    text = graph if isinstance(graph, str) else json.dumps(graph)
    declared = [
        {"name": name, "source": {"claim": {"name": "media", "path": path}}} for name, path in (files or {}).items()
    ]
    workflow = {"inline": text, "bindings": more.pop("bindings", {}), "files": declared}
    return VideoJobSpec.model_construct(**VideoJobSpec.model_validate({
        "model": MODEL, "workflow": {**workflow, "inline": "{}"}, **more,
    }).__dict__ | {"workflow": _workflow(workflow)})  # fmt: skip


def _workflow(workflow: Mapping[str, Any]) -> Any:
    """The text may be longer than the API takes: a ConfigMap's may be."""
    from kinora.api.videojob import Workflow

    short = Workflow.model_validate({**workflow, "inline": "{}"})
    return short.model_copy(update={"inline": workflow["inline"]})


def planned(graph: Graph | str, *, classes: tuple[str, ...] = (), **more: Any) -> PlannedWorkflow:
    """The plan of the job."""
    job = spec(graph, **more)
    assert job.workflow is not None
    assert job.workflow.inline is not None
    return plan(job, model(), job.workflow.inline, UID, classes)


def faults(graph: Graph | str, **more: Any) -> list[str]:
    """What is wrong with the job, in words; empty when nothing is."""
    try:
        planned(graph, **more)
    except InvalidSpec as invalid:
        return [str(fault) for fault in invalid.faults]
    return []
