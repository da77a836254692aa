"""Sizes and counts followed through links: never below what the engine would make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from kinora.engine.contract import node_specs
from kinora.workflows.allow import CURATED, NEVER, never_allowed
from kinora.workflows.check import ordered
from kinora.workflows.shapes import CAP, RULES, Extent, Open, Shapes
from unit.workflows.made import node

LATER = Open.LATER


@dataclass(frozen=True)
class Facts:
    kind: str
    width: int
    height: int
    frames: int = 1
    fps: float = 0.0


FILES = {"a.png": Facts("Image", 100, 50), "v.mp4": Facts("Video", 640, 360, 100, 25.0)}


def extent(graph: dict[str, Any], files: Any = None, output: int = 0) -> Any:
    """What the last node makes."""
    order, cycle = ordered(graph)
    assert cycle is None
    return Shapes(graph, order, FILES if files is None else files).output(list(graph)[-1], output)


def video(**more: Any) -> dict[str, Any]:
    inputs = {"video": "v.mp4", "force_rate": 0, "custom_width": 0, "custom_height": 0, "frame_load_cap": 0}
    return node("VHS_LoadVideo", **{**inputs, "skip_first_frames": 0, "select_every_nth": 1, **more})


IMAGE = {"1": node("LoadImage", image="a.png")}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (IMAGE, Extent(1, 100, 50)),
        ({"1": video()}, Extent(100, 640, 360)),
        ({"1": video(frame_load_cap=9)}, Extent(9, 640, 360)),
        ({"1": video(skip_first_frames=90)}, Extent(10, 640, 360)),
        ({"1": video(select_every_nth=3)}, Extent(34, 640, 360)),
        ({"1": video(force_rate=50.0)}, Extent(201, 640, 360)),
        ({"1": video(custom_width=320)}, Extent(100, 320, 180)),
        ({"1": video(custom_height=720)}, Extent(100, 1280, 720)),
        (
            {"1": node("LoadVideo", file="v.mp4"), "2": node("GetVideoComponents", video=["1", 0])},
            Extent(100, 640, 360),
        ),
        ({**IMAGE, "2": node("ImageScale", image=["1", 0], width=0, height=100)}, Extent(1, 200, 100)),
        ({**IMAGE, "2": node("ImageScale", image=["1", 0], width=0, height=0)}, Extent(1, 100, 50)),
        ({**IMAGE, "2": node("ImageScale", image=["1", 0], width=7, height=9)}, Extent(1, 7, 9)),
        ({**IMAGE, "2": node("RepeatImageBatch", image=["1", 0], amount=9)}, Extent(9, 100, 50)),
        ({**IMAGE, "2": node("ImageCrop", image=["1", 0], width=300, height=20, x=0, y=0)}, Extent(1, 100, 20, False)),
        ({**IMAGE, "2": node("ImageBatch", image1=["1", 0], image2=["1", 0])}, Extent(2, 100, 50)),
        ({**IMAGE, "2": node("ImageInvert", image=["1", 0])}, Extent(1, 100, 50)),
        ({**IMAGE, "2": node("Mystery", image=["1", 0])}, Extent(1, 100, 50, False)),
        ({"1": node("WanFunToVideo", width=64, height=32, length=9, batch_size=2)}, Extent(18, 64, 32, False)),
        ({**IMAGE, "2": node("Upscale", image=["1", 0], width=64, height=32)}, Extent(1, 64, 32, False)),
        ({"1": node("EmptyImage", width=8, height=9, batch_size=3)}, Extent(3, 8, 9)),
        (
            {**IMAGE, "2": node("ImagePadForOutpaint", image=["1", 0], left=1, right=2, top=3, bottom=4)},
            Extent(1, 103, 57),
        ),
        (
            {
                **IMAGE,
                "2": node("GetImageSize", image=["1", 0]),
                "3": node("EmptyImage", width=["2", 0], height=["2", 1]),
            },
            Extent(1, 100, 50, False),
        ),
    ],
)
def test_extents(graph: dict[str, Any], expected: Extent) -> None:
    assert extent(graph) == expected


def test_what_a_file_decides_is_later() -> None:
    none: dict[str, Any] = {"a.png": None, "v.mp4": None}
    assert extent(IMAGE, none) == Extent(LATER, LATER, LATER)
    assert extent({"1": video(frame_load_cap=9)}, none) == Extent(9, LATER, LATER)
    assert extent({"1": video(custom_width=64, custom_height=32, frame_load_cap=5)}, none) == Extent(5, 64, 32)


def test_what_nobody_can_tell_is_unknown() -> None:
    graph = {"1": node("Mystery"), "2": node("EmptyImage", width=["1", 0], height=8, batch_size=1)}
    assert extent(graph) == Extent(1, Open.UNKNOWN, 8, False)
    graph = {"1": node("FloatConstant", value=8.0), "2": video(force_rate=["1", 0])}
    assert extent(graph).frames is Open.UNKNOWN


def test_nothing_is_divided_by_a_bound() -> None:
    """A cut at the edge may be one pixel high: scaled to a height, it would be wide beyond measure."""
    graph = {**IMAGE, "2": node("ImageCrop", image=["1", 0], width=100, height=50, x=0, y=49)}
    graph["3"] = node("ImageScale", image=["2", 0], width=0, height=4000)
    assert extent(graph).width is Open.UNKNOWN
    graph["3"] = node("ImageScale", image=["2", 0], width=80, height=40)
    assert extent(graph) == Extent(1, 80, 40)


def test_frames_that_are_skipped_are_counted_only_where_their_number_is_sure() -> None:
    graph = {**IMAGE, "2": node("GetImageSize", image=["1", 0]), "3": video(skip_first_frames=["2", 0])}
    assert extent(graph).frames is Open.UNKNOWN
    graph = {"1": node("INTConstant", value=90), "2": video(skip_first_frames=["1", 0])}
    assert extent(graph).frames == 10


def test_numbers_stop_growing() -> None:
    graph = {"0": node("EmptyImage", width=4096, height=4096, batch_size=4096)}
    for index in range(1, 200):
        graph[str(index)] = node("RepeatImageBatch", image=[str(index - 1), 0], amount=4096)
    assert extent(graph).frames == CAP


def test_the_curated_classes_are_of_the_contract_and_none_is_forbidden() -> None:
    assert set(node_specs()) >= CURATED
    assert not [name for name in CURATED if never_allowed(name)]
    assert never_allowed("VHS_LoadVideoPath")
    assert len(NEVER) == len(set(NEVER))


def test_every_curated_class_that_makes_pictures_has_a_rule_or_hands_on_what_it_gets() -> None:
    """A class with a size of its own among its inputs must say what it makes of it."""
    sized = {"width", "height", "batch_size", "amount", "length", "num_frames", "generation_width", "custom_width"}
    for name in CURATED:
        spec = node_specs()[name]
        if sized & set(spec.inputs) and any(kind in ("IMAGE", "MASK", "LATENT") for _, kind in spec.outputs):
            assert name in RULES, name
