"""What a source decides: size, length, the frame of a mask, a resolution in its proportions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.api.videojob import Resolution, VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.recipes.faults import InvalidSpec
from kinora.recipes.finishing import finishing, lengthened
from kinora.recipes.needs import staging_faults
from kinora.recipes.preparation import sized
from kinora.recipes.resolve import resolve
from kinora.recipes.resolved import Resolved
from unit.recipes.test_needs import CLAIM, Facts

VACE, EDIT = "wan2.1-vace-plus", "wan2.7-videoedit"
LOCAL = "wan2.1-vace-14b"
MASK = {"source": CLAIM}


def _model(name: str) -> Model:
    model = load_catalogue().with_aliases({VACE: LOCAL, EDIT: LOCAL}).get(name)
    assert model is not None
    return model


def _resolved(name: str, task: str, **more: Any) -> Resolved:
    inputs = {"video": CLAIM, **({"mask": MASK} if task == "Inpaint" else {})}
    given = {"model": name, "task": task, "prompt": "x", "inputs": inputs, **more}
    return resolve(VideoJobSpec.model_validate(given), _model(name), "uid")


def _staged(name: str, task: str, video: Facts, mask: Facts | None = None, **more: Any) -> Resolved:
    """What the stager decides, judged once more by the agent with the status that the stager wrote."""
    found = {"video": video, **({"mask": mask or Facts("Image")} if task == "Inpaint" else {})}
    resolved = _resolved(name, task, **more)
    assert staging_faults(resolved, found) == ()
    decided = Resolved.from_status(sized(resolved, found, _model(name).limits.size).to_status())
    assert decided is not None
    assert staging_faults(decided, found) == ()
    assert sized(decided, found, _model(name).limits.size) == decided
    return decided


EXPAND = {"Outpaint": {"parameters": {"expand": {"left": 1.5}}}}


@pytest.mark.parametrize("task", ["VideoToVideo", "Inpaint", "Outpaint"])
@pytest.mark.parametrize(
    ("frames", "fps", "rendered", "held"),
    [(150, 30, 81, True), (90, 30, 49, True), (300, 30, 81, False), (81, 16, 81, False), (83, 16, 81, False)],
)
def test_under_the_hosted_name_a_video_is_as_long_as_its_source(
    task: str, frames: int, fps: float, rendered: int, held: bool
) -> None:
    found = _staged(VACE, task, Facts("Video", frames, fps, 640, 480), **EXPAND.get(task, {}))
    assert (found.frames, found.frames_from_input, found.last_held) == (rendered, False, held)
    assert ("the last one twice" in " ".join(found.notes)) is held


def test_the_local_model_still_refuses_a_source_that_is_too_short() -> None:
    [fault] = staging_faults(_resolved(LOCAL, "VideoToVideo"), {"video": Facts("Video", 150, 30)})
    assert "at least 81 frames at 16 fps" in str(fault)


def test_a_repainting_has_its_source_s_size_under_the_hosted_name_alone() -> None:
    assert _resolved(LOCAL, "VideoToVideo").size_from_input is False
    found = _staged(VACE, "VideoToVideo", Facts("Video", 81, 16, 540, 960))
    assert (found.width, found.height, found.output_width, found.output_height) == (544, 960, 540, 960)
    larger = _staged(VACE, "VideoToVideo", Facts("Video", 81, 16, 1920, 1080))
    assert (larger.output_width, larger.output_height) == (1280, 720)


def test_a_mask_video_that_ends_first_ends_the_job() -> None:
    found = _staged(VACE, "Inpaint", Facts("Video", 150, 30), Facts("Video", 90, 30))
    assert found.frames == 49


@pytest.mark.parametrize(
    ("frame", "fps", "rendered"), [(1, 30, 1), (31, 30, 17), (150, 30, 80), (46, 30, 25), (25, 24, 17), (17, 16, 17)]
)
def test_a_mask_s_frame_of_the_source_is_the_same_moment_of_the_render(frame: int, fps: float, rendered: int) -> None:
    inputs = {"video": CLAIM, "mask": {**MASK, "frame": frame, "frameOf": "Source"}}
    found = _staged(VACE, "Inpaint", Facts("Video", 150, fps), inputs=inputs)
    assert (found.mask_frame, found.mask_frame_of) == (rendered, "Render")


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (
            {"frame": 151, "frameOf": "Source"},
            "spec.inputs.mask.frame is 151; allowed: 1 to 150, the frames of the source",
        ),
        ({"frame": 60}, "spec.inputs.mask.frame is 60; allowed: 1 to 49, the frames that are rendered"),
    ],
)
def test_a_mask_s_frame_beyond_the_video_is_refused(mask: dict[str, Any], said: str) -> None:
    resolved = _resolved(VACE, "Inpaint", inputs={"video": CLAIM, "mask": {**MASK, **mask}})
    frames = 150 if "frameOf" in mask else 90
    [fault] = staging_faults(resolved, {"video": Facts("Video", frames, 30), "mask": Facts("Image")})
    assert str(fault) == said


@pytest.mark.parametrize(
    ("asked", "frames", "rendered"), [(None, 300, 161), (4, 300, 65), (10, 150, 81), (2, 300, 33), (10, 300, 161)]
)
def test_a_duration_of_the_hosted_edit_cuts_and_never_refuses(asked: int | None, frames: int, rendered: int) -> None:
    parameters = {} if asked is None else {"durationSeconds": asked}
    assert _staged(EDIT, "Edit", Facts("Video", frames, 30), parameters=parameters).frames == rendered


@pytest.mark.parametrize(
    ("resolution", "source", "delivered", "rendered"),
    [
        ("1080P", (1920, 1080), (1920, 1080), (1280, 720)),
        ("1080P", (640, 360), (1920, 1080), (1280, 720)),
        ("1080P", (720, 1280), (1080, 1920), (720, 1280)),
        ("720P", (3840, 2160), (1280, 720), (1280, 720)),
        ("720P", (640, 480), (1108, 830), None),
        ("480P", (1280, 720), (842, 474), None),
    ],
)
def test_a_resolution_is_delivered_in_the_proportions_of_the_source(
    resolution: str, source: tuple[int, int], delivered: tuple[int, int], rendered: tuple[int, int] | None
) -> None:
    found = _staged(EDIT, "Edit", Facts("Video", 81, 16, *source), output={"resolution": resolution})
    assert (found.output_width, found.output_height) == delivered
    assert rendered is None or (found.width, found.height) == rendered
    assert found.notes[-1].startswith(f"{resolution}: size {delivered[0]}x{delivered[1]} from the source of")
    assert ("rendered at" in found.notes[-1]) is found.scaled


@given(
    st.sampled_from(list(Resolution)),
    st.integers(240, 4096),
    st.integers(240, 4096),
    st.sampled_from(["Edit", "VideoToVideo", "Inpaint"]),
)
def test_any_source_of_any_resolution_comes_out_whole(
    resolution: Resolution, width: int, height: int, task: str
) -> None:
    name = EDIT if task == "Edit" else VACE
    if not 1 / 8 <= width / height <= 8:
        return
    found = _staged(name, task, Facts("Video", 81, 16, width, height), output={"resolution": resolution})
    limits = _model(name).limits.size
    assert found.output_width * found.output_height <= resolution.pixels
    assert found.output_width % 2 == found.output_height % 2 == 0
    assert found.width * found.height <= limits.max_pixels
    assert max(found.width, found.height) <= limits.max_side
    assert found.width % 16 == found.height % 16 == 0
    assert abs(found.output_width / found.output_height - width / height) <= 0.02 * width / height


def test_a_delivered_rate_counts_the_frames_that_are_rendered() -> None:
    facts = {"video": Facts("Video", 150, 30, 1280, 720)}
    resolved = _resolved(VACE, "VideoToVideo", output={"fps": 30})
    found = lengthened(sized(resolved, facts, _model(VACE).limits.size), facts)
    assert (found.frames, found.delivered_frames, found.delivered_fps) == (81, 152, 30)
    plan = finishing(found, facts, {})
    assert plan is not None
    assert plan.frames == 152


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("Edit", {"output": {"resolution": "720P", "width": 640}}, "unset where a width or a height is set"),
        ("Edit", {"output": {"resolution": "720P"}, "parameters": {"width": 640}}, "unset where a width or a height"),
    ],
)
def test_a_resolution_beside_a_size_is_refused(task: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        _resolved(LOCAL, task, **more)


def test_a_resolution_without_a_source_is_refused() -> None:
    spec = {"model": LOCAL, "task": "TextToVideo", "prompt": "x", "output": {"resolution": "720P"}}
    with pytest.raises(InvalidSpec, match="task TextToVideo has no source"):
        resolve(VideoJobSpec.model_validate(spec), _model(LOCAL), "uid")
