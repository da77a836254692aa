"""The parts of a ComfyUI graph in API format, and its hash. The pieces that several recipes share.

A graph maps node ids to `{"class_type": ..., "inputs": {...}}`; an input is a value or a link
`[node id, output index]`.
Node ids keep the numbers of the documents' graphs, so that the two can be laid side by side.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kinora.api.base import integral
from kinora.catalogue.model import Windows
from kinora.catalogue.options import EngineOptions
from kinora.recipes.resolved import Resolved

Node = dict[str, Any]
Graph = dict[str, Node]
Link = list[Any]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the model is told to show, and to avoid."""

    prompt: str
    negative: str


@dataclass(frozen=True, slots=True)
class StagedInput:
    """An input where the engine finds it: `file` is relative to its input folder, forward slashes."""

    file: str
    kind: str


@dataclass(frozen=True, slots=True)
class Order:
    """All that a recipe is made from."""

    resolved: Resolved
    prompts: Prompts
    staged: Mapping[str, StagedInput]
    filename_prefix: str
    files: Mapping[str, str]
    "Weight file names by role, as a loader node takes them; those of the job's preset among them, of others none."
    strengths: Mapping[str, float] = field(default_factory=dict)
    "Of LoRAs, by role."
    windows: Windows | None = None
    "For what is longer than one render."
    options: EngineOptions | None = None


def node(class_type: str, **inputs: object) -> Node:
    """One node; integral floats become integers, so that equal graphs have equal text."""
    return {"class_type": class_type, "inputs": integral(inputs)}


def link(node_id: str, output: int = 0) -> Link:
    """A link to an output of another node."""
    return [node_id, output]


def cover(image: Link, resolved: Resolved) -> Node:
    """Scale to fill the frame and cut the overhang: node 22 of the first document (crop, centre).

    Lanczos on the CPU instead of that document's nearest-exact: one picture costs nothing, and jagged edges in the
    first frame stay in every frame. (The node has no lanczos on the GPU.)
    """
    return node(
        "ImageResizeKJv2",
        image=image,
        width=resolved.width,
        height=resolved.height,
        upscale_method="lanczos",
        keep_proportion="crop",
        pad_color="0, 0, 0",
        crop_position="center",
        divisible_by=2,
        device="cpu",
    )


def load_image(staged: StagedInput) -> Node:
    """The staged picture as IMAGE."""
    return node("LoadImage", image=staged.file)


def deliver(frames: Link, order: Order, *, crop_id: str, combine_id: str) -> Graph:
    """Cut to the delivered size where rounding up to 16 added something, and write the MP4 as both documents do.

    Where more is made of the frames (finishing.py) they are handed over without loss instead, all of them whole.
    """
    resolved, graph = order.resolved, Graph()
    if resolved.finished:
        return {combine_id: _combine(frames, order, **_LOSSLESS)}
    if (resolved.output_width, resolved.output_height) != (resolved.width, resolved.height):
        graph[crop_id] = node(
            "ImageCrop",
            image=frames,
            width=resolved.output_width,
            height=resolved.output_height,
            x=(resolved.width - resolved.output_width) // 2,
            y=(resolved.height - resolved.output_height) // 2,
        )
        frames = link(crop_id)
    graph[combine_id] = _combine(frames, order, format="video/h264-mp4", pix_fmt="yuv420p", crf=resolved.crf)
    return graph


#: Every choice of the node's FFV1 format is named: a default may change. Eight bits of RGB are what the frames hold.
_LOSSLESS = {
    "format": "video/ffv1-mkv",
    "level": "3",
    "coder": "1",
    "context": "1",
    "gop_size": 1,
    "slices": "4",
    "slicecrc": "1",
    "pix_fmt": "bgra",
}


def _combine(frames: Link, order: Order, **encoding: object) -> Node:
    return node(
        "VHS_VideoCombine",
        images=frames,
        frame_rate=order.resolved.fps,
        loop_count=0,
        filename_prefix=order.filename_prefix,
        **encoding,
        save_metadata=True,
        trim_to_audio=False,
        pingpong=False,
        save_output=True,
    )


def graph_hash(graph: Mapping[str, Any]) -> str:
    """sha256 (hex) of the graph's canonical JSON: keys sorted, no spaces, UTF-8, integral floats as integers."""
    text = json.dumps(integral(dict(graph)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
