"""Names of inputs, and what is made of the files that were found."""

from dataclasses import dataclass
from typing import Any

import pytest

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.recipes.finishing import Part, finishing, lengthened
from kinora.recipes.needs import frames_at_rate, named_inputs, staging_faults
from kinora.recipes.preparation import sized
from kinora.recipes.resolve import resolve

CLAIM = {"claim": {"name": "footage", "path": "a.mp4"}}


@dataclass(frozen=True)
class Facts:
    """What a probe would say."""

    kind: str
    frames: int = 1
    fps: float = 0
    width: int = 64
    height: int = 48


def _spec(**inputs: Any) -> VideoJobSpec:
    return VideoJobSpec.model_validate(
        {"model": "m", "task": "VideoToVideo", "prompt": "x", "inputs": inputs, "parameters": {"frames": 17}}
    )


def test_names_and_kinds() -> None:
    spec = _spec(video=CLAIM, references=[{"source": CLAIM}])
    assert [(item.name, item.kind) for item in named_inputs(spec)] == [("video", "Video"), ("references[0]", "Image")]
    assert named_inputs(VideoJobSpec.model_validate({"model": "m", "workflow": {"inline": "{}"}})) == ()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"video": Facts("Video", 17, 16)}, ""),
        ({"video": Facts("Video", 40, 16)}, ""),
        ({"video": Facts("Video", 34, 32)}, ""),
        ({"video": Facts("Video", 16, 16)}, "at least 17 frames at 16 fps (set spec.parameters.frames to 13"),
        ({"video": Facts("Video", 3, 16)}, "give a longer video"),
        ({"video": Facts("Video", 20, 32)}, "makes 10 at 16 fps"),
        ({"video": Facts("Video", 20, 0)}, "makes 0 at 16 fps"),
        ({"video": Facts("Image")}, "a file of kind Image; allowed: one video"),
        ({}, "not set"),
    ],
)
def test_a_source_video_has_every_frame_that_is_asked_for(facts: dict[str, Facts], words: str) -> None:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    faults = staging_faults(resolve(_spec(video=CLAIM), model, "uid"), facts)
    assert bool(faults) is bool(words)
    assert all(words in str(fault) and fault.field == "spec.inputs.video" for fault in faults)


@pytest.mark.parametrize(
    ("frames", "source", "target", "expected"),
    [
        (81, 16, 16, 81),
        (81, 30, 16, 43),
        (150, 24, 16, 100),
        (10, 8, 16, 20),
        (1, 8, 16, 2),
        (1, 30, 16, 1),
        (500, 29.97, 30, 500),
        (0, 16, 16, 0),
        (9, 16, 0, 0),
    ],
)
def test_frames_at_another_rate(frames: int, source: float, target: float, expected: int) -> None:
    assert frames_at_rate(frames, source, target) == expected


@pytest.mark.parametrize(
    ("source", "rate", "frames"), [(31, 16, 29), (5, 16, 5), (273, 16, 273), (400, 16, 273), (150, 30, 81)]
)
def test_an_edit_takes_its_source_s_length(source: int, rate: float, frames: int) -> None:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    edit = VideoJobSpec.model_validate({"model": "m", "task": "Edit", "prompt": "a", "inputs": {"video": CLAIM}})
    facts, resolved = {"video": Facts("Video", source, rate)}, resolve(edit, model, "uid")
    assert staging_faults(resolved, facts) == ()
    found = sized(resolved, facts, model.limits.size)
    assert (found.frames, found.frames_from_input) == (frames, False)
    assert found.notes[-2].startswith(f"{frames} frames of the source's")


@pytest.mark.parametrize(("source", "output_fps", "delivered"), [(31, 30, 54), (31, 8, 14), (400, 24, 410)])
def test_an_edit_at_another_rate_is_as_long_as_its_source(source: int, output_fps: float, delivered: int) -> None:
    """What is delivered is counted from the frames that the source has, not from the most that could be rendered."""
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    edit = VideoJobSpec.model_validate(
        {"model": "m", "task": "Edit", "prompt": "a", "inputs": {"video": CLAIM}, "output": {"fps": output_fps}}
    )
    facts = {"video": Facts("Video", source, 16)}
    found = lengthened(sized(resolve(edit, model, "uid"), facts, model.limits.size), facts)
    assert (found.delivered_frames, found.delivered_fps) == (delivered, output_fps)
    assert lengthened(found, facts) == found
    plan = finishing(found, facts, {})
    assert plan is not None
    assert (plan.rendered, plan.frames, plan.parts) == (found.frames, delivered, (Part(found.frames),))


def test_an_edit_of_next_to_nothing_is_refused() -> None:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    edit = VideoJobSpec.model_validate({"model": "m", "task": "Edit", "prompt": "a", "inputs": {"video": CLAIM}})
    [fault] = staging_faults(resolve(edit, model, "uid"), {"video": Facts("Video", 4, 16)})
    assert "at least 5 frames at 16 fps" in str(fault)
