"""Every option of a VACE job once, and all pairs of options, for every model: accepted by the contract, and rendered.

The pairs are covered by few jobs (greedy covering); all of them pass the node contract, and one model's are rendered.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import av
import numpy as np
import pytest

from contract.harness import Standin
from contract.test_recipes import CLIP, FACE, FRAMES, PHOTO, TREE, VACE_MODELS, Rendered, _from, _rendered, standin
from kinora.api.videojob import Task, VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model, Windows
from kinora.engine.contract import check_graph
from kinora.media.frames import cover
from kinora.recipes.build import build, graph_inputs
from kinora.recipes.graph import StagedInput
from kinora.recipes.preparation import SIZED_BY
from kinora.recipes.resolve import prompts_of, resolve

__all__ = ["standin"]

#: An option is (path in the spec, value). The values of one axis exclude each other; the first is the plain one.
Axis = tuple[dict[str, Any], ...]
OBJECT, BACKGROUND = {"source": FACE}, {"source": TREE, "role": "Background"}
COMMON: dict[str, Axis] = {
    "size": (
        {"parameters.width": 64, "parameters.height": 64},
        {"parameters.width": 96, "parameters.height": 64},
        {"output.width": 70, "output.height": 90},
        {},
        {"parameters.width": 64, "parameters.height": 64, "output.width": 100, "output.height": 64},
        {"parameters.width": 64, "parameters.height": 64, "output.width": 48},
    ),
    "frames": ({"parameters.frames": FRAMES}, {"parameters.durationSeconds": 0.5}),
    "fps": ({}, {"parameters.fps": 24}),
    "seed": ({}, {"parameters.seed": 2**53 - 1}),
    "guidance": ({}, {"parameters.guidance": 0}, {"parameters.guidance": 7.5}),
    "shift": ({}, {"parameters.shift": 1}),
    "negative": ({}, {"negativePrompt": ""}, {"negativePrompt": "雾，模糊"}),
    "crf": ({"output.crf": 8}, {"output.crf": 0}),
    "rate": ({}, {"output.fps": 30}, {"output.fps": 10}),
    "mark": ({}, {"output.watermark": True}),
    "preset": ({}, {"parameters.preset": "Fast"}),
}
REFERENCES: Axis = ({}, {"inputs.references": [OBJECT]}, {"inputs.references": [OBJECT, BACKGROUND] * 2 + [OBJECT]})
LOUD = _from("loud.mp4")
#: The sound of a source that has some, of one that has none, and none.
VIDEO: Axis = ({"inputs.video": CLIP}, *({"inputs.video": one, "output.audio": "Source"} for one in (LOUD, CLIP)))
STRENGTH: Axis = ({}, {"parameters.controlStrength": 0}, {"parameters.controlStrength": 2})
CONTROLS = ("None", "Gray", "Canny", "Scribble", "Flow", "Depth", "Pose", "PoseFace", "Layout")
MASK = _from("mask.png")
TASKS: dict[str, dict[str, Axis]] = {
    "TextToVideo": {},
    "ImageToVideo": {"image": ({"inputs.image": PHOTO},), "strength": STRENGTH, "references": REFERENCES},
    "ReferenceToVideo": {"references": REFERENCES[1:], "strength": STRENGTH},
    "VideoToVideo": {
        "video": VIDEO,
        "control": tuple({"parameters.control": control} for control in CONTROLS),
        "strength": STRENGTH,
        "references": REFERENCES,
    },
    "Inpaint": {
        "video": VIDEO,
        "mask": (
            {"inputs.mask": {"source": MASK}},
            {"inputs.mask": {"source": MASK, "mode": "Fixed"}},
            {"inputs.mask": {"source": MASK, "frame": 3, "expandRatio": 0.3}},
            {"inputs.mask": {"source": _from("mask.mkv"), "expandRatio": 1}},
        ),
        "references": REFERENCES,
        "strength": STRENGTH,
    },
    "Outpaint": {
        "video": VIDEO,
        "expand": tuple(
            {"parameters.expand": sides} for sides in ({"left": 1.5}, {"top": 2, "bottom": 1.1, "right": 1.2})
        ),
        "references": REFERENCES,
        "strength": STRENGTH,
    },
    "Extend": {
        "before": (
            {"inputs.firstClip": _from("bit.mkv")},
            {"inputs.firstFrame": PHOTO},
            {"inputs.firstClip": LOUD, "output.audio": "Source"},
        ),
        "after": ({}, {"inputs.lastFrame": FACE}),
        "references": REFERENCES,
    },
    "FirstLastFrame": {
        "frames2": ({"inputs.firstFrame": PHOTO, "inputs.lastFrame": FACE},),
        "references": REFERENCES,
        "strength": STRENGTH,
    },
    "Edit": {
        "video": VIDEO,
        "control": ({}, *({"parameters.control": control} for control in ("Canny", "PoseFace"))),
        "references": REFERENCES,
        # One render, two windows, and as long as the source.
        "frames": ({"parameters.frames": 5}, {"parameters.frames": FRAMES}, {}),
    },
}


def jobs(task: str) -> Iterator[dict[str, Any]]:
    """Few jobs in which every pair of options of different axes occurs together at least once."""
    axes = {**COMMON, **TASKS[task]}
    for chosen in covering(axes):
        yield _spec(task, [axes[axis][value] for axis, value in chosen.items()])


def covering(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, int]]:
    """Choices of one value (its place) an axis, so that every pair of values of two axes is in one of them."""
    open_pairs = {
        ((one, i), (two, j))
        for one, two in combinations(axes, 2)
        for i in range(len(axes[one]))
        for j in range(len(axes[two]))
    }
    while open_pairs:
        first = min(open_pairs)
        chosen = dict(first)
        for axis, values in axes.items():
            if axis not in chosen:
                gains = [len(_met(open_pairs, {**chosen, axis: value})) for value in range(len(values))]
                chosen[axis] = gains.index(max(gains))
        open_pairs -= _met(open_pairs, chosen)
        yield {axis: chosen[axis] for axis in axes}


def _met(pairs: set[Any], chosen: dict[str, int]) -> set[Any]:
    return {pair for pair in pairs if all(chosen.get(axis) == value for axis, value in pair)}


def _spec(task: str, options: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = {"task": task, "prompt": "a cat", "parameters": {"steps": 2}}
    for option in options:
        for path, value in option.items():
            *outer, last = path.split(".")
            place = spec
            for name in outer:
                place = place.setdefault(name, {})
            place[last] = value
    return spec


@pytest.mark.parametrize("model_name", VACE_MODELS)
@pytest.mark.parametrize("task", TASKS)
def test_all_pairs_are_accepted(task: str, model_name: str) -> None:
    found = load_catalogue().get(model_name)
    assert found is not None
    model = _short_windows(found)
    count = 0
    for job in jobs(task):
        spec = VideoJobSpec.model_validate({"model": model_name, **job})
        resolved = resolve(spec, model, "uid")
        staged = {name: StagedInput(f"job/{name}", kind) for name, kind in graph_inputs(model, resolved).items()}
        files = {"input": [one.file for one in staged.values()]}
        for weight in model.weights:
            files.setdefault(weight.folder, []).append(weight.name)
        assert check_graph(build(model, resolved, prompts_of(spec, model), staged, "job/out"), files) is None
        count += 1
    assert count >= len(COMMON["size"]) * len(COMMON["guidance"])


def _short_windows(model: Model) -> Model:
    """The model with windows of 5 frames, 1 of overlap: quickly rendered, and the same graph."""
    windows = Windows(frames=5, overlap=1, maximum=4)
    return model.model_copy(update={"limits": model.limits.model_copy(update={"windows": windows})})


@pytest.mark.parametrize("task", TASKS)
async def test_all_pairs_render(standin: Standin, task: str) -> None:
    found = load_catalogue().get(VACE_MODELS[0])
    assert found is not None
    model = _short_windows(found)
    for job in jobs(task):
        sized = any(name in job["parameters"] or name in job.get("output", {}) for name in ("width", "height"))
        if not sized and Task(task) not in SIZED_BY:
            job["parameters"] |= {"width": 64, "height": 64}  # the model's own default is large
        spec = VideoJobSpec.model_validate({"model": model.name, **job})
        found = await _rendered(standin, model, spec)
        resolved = found.resolved
        shape = (resolved.delivered_frames, resolved.output_height, resolved.output_width, 3)
        assert found.frames.shape == shape, job
        assert found.frames.std() > 1, job
        _check_finished(found, job)


def _check_finished(found: Rendered, job: dict[str, Any]) -> None:
    """Where a delivered frame falls on a rendered one it is that, scaled and cut; the mark and the sound are there."""
    resolved = found.resolved
    asked = job.get("output", {})
    assert resolved.finished is (found.engine.suffix == ".mkv")
    if not resolved.finished:
        return
    with av.open(str(found.engine)) as container:
        rendered = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    joined = resolved.delivered_frames != round(resolved.frames * resolved.delivered_fps / resolved.fps)
    if not joined:
        last = resolved.frames - 1
        for number, frame in enumerate(found.frames):
            position = number * resolved.fps / resolved.delivered_fps
            if position % 1 == 0 and position <= last:
                expected = _cut(rendered[int(position)], resolved.output_width, resolved.output_height)
                _check_frame(frame, expected, marked=bool(asked.get("watermark")), job=job)
    with av.open(str(found.path)) as container:
        assert bool(container.streams.audio) is (resolved.audio == "Source"), job
    assert (resolved.audio == "Source") is (asked.get("audio") == "Source" and LOUD in job["inputs"].values()), job


def _cut(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    high, wide = frame.shape[:2]
    if 0 <= wide - width < 16 and 0 <= high - height < 16:
        left, top = (wide - width) // 2, (high - height) // 2
        return frame[top : top + height, left : left + width]
    return cover(frame, width, height)


def _check_frame(frame: np.ndarray, expected: np.ndarray, *, marked: bool, job: dict[str, Any]) -> None:
    off = np.abs(frame.astype(int) - expected).mean(axis=2)
    above = off[: len(off) // 2]
    assert above.mean() < 9, job  # 4:2:0 blurs the colour of the stand-in's fine patterns
    if marked:
        height, width = max(14, off.shape[0] // 9), max(30, off.shape[1] // 4)  # the mark grows with the picture
        assert off[-height:, -width:].mean() > above.mean() + 6, job
