"""A long edit in windows: every window gets exactly its frames, keeps the end of the one before, and all are joined.

The model is the catalogue's with windows of 13 frames, 5 of overlap: the same graph as with 81 and 17, quicker.
"""

from typing import Any

import numpy as np
import pytest

from contract.harness import Standin, clip
from contract.test_recipes import (
    LONG,
    RED,
    SIZE,
    VACE_MODELS,
    Rendered,
    _difference,
    _from,
    _likeness,
    _nearest,
    _pictures,
    _render,
    standin,
)
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model, Windows
from kinora.media.frames import cover
from kinora.recipes.graph import Graph
from kinora.recipes.windows import spans

__all__ = ["standin"]

WINDOWS = Windows(frames=13, overlap=5, maximum=4)
INPUTS = {"video": _from("long.mkv")}


def _model(name: str = VACE_MODELS[0]) -> Model:
    model = load_catalogue().get(name)
    assert model is not None
    return model.model_copy(update={"limits": model.limits.model_copy(update={"windows": WINDOWS})})


async def _edit(standin: Standin, model: Model | None = None, **more: Any) -> Rendered:
    inputs = more.pop("inputs", INPUTS)
    return await _render(standin, "Edit", model=model or _model(), inputs=inputs, control="None", **more)


def _classes(graph: Graph) -> list[str]:
    return sorted(item["class_type"] for item in graph.values())


@pytest.mark.parametrize("name", VACE_MODELS)
@pytest.mark.parametrize(("frames", "windows"), [(9, 1), (13, 1), (17, 2), (21, 2), (29, 3)])
async def test_the_result_has_the_asked_frames_and_the_source_s_forms(
    standin: Standin, name: str, frames: int, windows: int
) -> None:
    found = await _edit(standin, _model(name), frames=frames)
    assert found.frames.shape == (frames, SIZE, SIZE, 3)
    assert _classes(found.graph).count("WanVaceToVideo") == windows == len(spans(frames, WINDOWS))
    source = clip(SIZE, SIZE, LONG)[:frames]
    for window in spans(frames, WINDOWS):
        fresh = slice(window.start + window.kept, window.start + window.frames)
        assert _likeness(found.frames[fresh], source[fresh]) > 0.6


async def test_the_whole_source_is_edited_where_no_length_is_asked_for(standin: Standin) -> None:
    found = await _edit(standin, frames=None)
    assert (len(found.frames), found.resolved.frames) == (29, 29)
    assert "29 frames of the source's 31 at 16 fps" in found.resolved.notes


async def test_each_window_begins_with_the_end_of_the_one_before(standin: Standin) -> None:
    """What the second window decodes is watched before the joint: its first frames are the first one's last."""
    found = await _edit(standin, frames=21, watch={"131": "after"})
    first, after = found.frames[:13], found.watched["after"]
    assert len(after) == 13
    assert _difference(after[:5], first[-5:]) < 3
    assert _difference(after[5:], first[-8:]) > 3


async def test_a_window_s_control_is_exactly_its_frames(standin: Standin) -> None:
    found = await _edit(standin, frames=29, watch={"80": "one", "180": "two", "280": "three", "182": "given"})
    source = clip(SIZE, SIZE, LONG)
    for name, (start, end) in {"one": (0, 13), "two": (13, 21), "three": (21, 29)}.items():
        assert found.watched[name].shape == (end - start, SIZE, SIZE, 3)
        assert _difference(found.watched[name], source[start:end]) < 4
    given = found.watched["given"]
    assert len(given) == 13
    assert _difference(given[:5], found.frames[8:13]) < 3
    assert _difference(given[5:], source[13:21]) < 4


async def test_a_window_is_brought_to_the_colours_of_the_one_before(standin: Standin) -> None:
    found = await _edit(standin, frames=21, watch={"131": "raw"})
    last = found.frames[12].astype(float).mean((0, 1))
    matched, raw = found.frames[13:].astype(float).mean((1, 2)), found.watched["raw"][5:].astype(float).mean((1, 2))
    assert np.abs(matched - last).max() < 4
    assert np.abs(raw - last).max() > np.abs(matched - last).max()


async def test_every_window_gets_the_reference(standin: Standin) -> None:
    inputs = {**INPUTS, "references": [{"source": _from("face.png")}]}
    found = await _edit(standin, inputs=inputs, frames=21)
    readers = [item["inputs"] for item in found.graph.values() if item["class_type"] == "WanVaceToVideo"]
    assert [reader["reference_image"] for reader in readers] == [["50", 0], ["50", 0]]
    for at in (0, 20):
        assert _nearest(found.frames[at], RED) < 160


async def test_one_render_more_or_less_changes_nothing_before_it(standin: Standin) -> None:
    short, long = await _edit(standin, frames=13), await _edit(standin, frames=29)
    assert _difference(short.frames, long.frames[:13]) < 2


async def test_windows_are_finished_as_one_render(standin: Standin) -> None:
    """As long as the source, with Fast, larger and at another rate: the engine's lossless frames are the windows'."""
    output = {"width": 2 * SIZE, "height": 2 * SIZE, "fps": 32, "watermark": True}
    found = await _edit(standin, frames=None, preset="Fast", output=output, watch={"131": "after"})
    assert found.engine.suffix == ".mkv"
    assert (found.resolved.frames, found.resolved.delivered_frames) == (29, 58)
    assert found.frames.shape == (58, 2 * SIZE, 2 * SIZE, 3)
    assert "LoraLoaderModelOnly" in _classes(found.graph)
    rendered = _pictures(found.engine)
    assert _difference(found.watched["after"][:5], rendered[8:13]) < 1
    for number in (0, 12, 13, 28):
        assert _difference(found.frames[2 * number][:SIZE], cover(rendered[number], 2 * SIZE, 2 * SIZE)[:SIZE]) < 6
