"""Staging on real files: inputs from a claim are looked at, sized and prepared, and status says what was done."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from kinora.agent.settings import Settings, settings_from
from kinora.agent.staging import MediaChild, Staged, Stager
from kinora.agent.verdict import Refusal
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.media.frames import clip_frames, write_lossless
from kinora.recipes.build import build, graph_inputs
from kinora.recipes.graph import Prompts
from kinora.recipes.needs import named_inputs
from kinora.recipes.resolve import resolve
from unit.agent.test_small import ENVIRONMENT

WIDTH, HEIGHT, FRAMES = 80, 64, 9


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Folders of a server pod; the claim `films` holds a clip, a mask, a text and two pictures."""
    found = settings_from(ENVIRONMENT)
    paths = replace(found.paths, input=tmp_path / "input", claims=tmp_path / "claims")
    films = paths.claims / "films"
    films.mkdir(parents=True)
    paths.input.mkdir()
    with (films / "clip.mkv").open("w+b") as file:
        frames = [np.full((HEIGHT, WIDTH, 3), 20 + 9 * at, np.uint8) for at in range(FRAMES)]
        write_lossless(file, frames, WIDTH, HEIGHT, 16)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:24, 8:24] = 255
    Image.fromarray(mask).save(films / "mask.png")
    Image.new("RGB", (30, 40), "red").save(films / "red.jpg")
    (films / "notes.mp4").write_text("no video")
    config = found.config.model_copy(update={"input_claims": ["films"]})
    return replace(found, paths=paths, config=config)


def _from(path: str) -> dict[str, Any]:
    return {"claim": {"name": "films", "path": path}}


async def _staged(settings: Settings, task: str, inputs: dict[str, Any], **parameters: Any) -> Staged:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    asked = {"frames": FRAMES, **parameters}
    spec = VideoJobSpec.model_validate(
        {"model": model.name, "task": task, "prompt": "a cat", "inputs": inputs, "parameters": asked}
    )
    stager = Stager(settings, cast(Any, None), cast(Any, None), MediaChild())
    resolved = resolve(spec, model, "uid")
    staged = await stager.stage(named_inputs(spec), resolved, model, "job-1")
    assert build(model, staged.resolved, Prompts("a", "b"), staged.files, "job-1/out")
    assert set(graph_inputs(model, staged.resolved)) <= set(staged.files)
    return staged


async def test_an_inpainting_takes_the_size_of_its_video_and_says_what_was_done(settings: Settings) -> None:
    mask = {"source": _from("mask.png"), "mode": "Fixed"}
    references = [{"source": _from("red.jpg")}, {"source": _from("red.jpg"), "role": "Background"}]
    inputs = {"video": _from("clip.mkv"), "mask": mask, "references": references}
    staged = await _staged(settings, "Inpaint", inputs)
    assert (staged.resolved.width, staged.resolved.height) == (WIDTH, HEIGHT)
    told = {fact["name"]: fact for fact in staged.facts}
    assert told["video"]["actions"] == ["the first 9 frames at 16 fps"]
    assert told["mask"]["actions"] == ["the same for 9 frames"]
    assert told["references[1]"]["actions"] == ["filled in a tile of one sheet"]
    assert (told["video"]["width"], told["video"]["frames"]) == (WIDTH, FRAMES)
    with (settings.paths.input / staged.files["control"].file).open("rb") as file:
        control = np.stack(list(clip_frames(file, FRAMES, 16)))
    assert (control[:, 8:24, 8:24] == 127).all()
    assert [int(frame[40, 40, 0]) for frame in control] == [20 + 9 * at for at in range(FRAMES)]
    with Image.open(settings.paths.input / staged.files["reference"].file) as sheet:
        assert sheet.size == (WIDTH, HEIGHT)


async def test_an_outpainting_grows_within_the_model_s_limits(settings: Settings) -> None:
    staged = await _staged(settings, "Outpaint", {"video": _from("clip.mkv")}, expand={"left": 1.5, "bottom": 1.2})
    resolved = staged.resolved
    assert (resolved.output_width, resolved.output_height) == (120, 76)
    assert (resolved.width, resolved.height) == (128, 80)
    assert not resolved.size_from_input


@pytest.mark.parametrize(
    ("task", "inputs", "words"),
    [
        ("Inpaint", {"video": _from("notes.mp4"), "mask": {"source": _from("mask.png")}}, "spec.inputs.video"),
        ("Inpaint", {"video": _from("clip.mkv"), "mask": {"source": _from("red.jpg")}}, "spec.inputs.mask"),
        ("Outpaint", {"video": _from("red.jpg")}, "allowed: one video"),
        ("FirstLastFrame", {"firstFrame": _from("clip.mkv"), "lastFrame": _from("red.jpg")}, "spec.inputs.firstFrame"),
        ("VideoToVideo", {"video": _from("missing.mp4")}, "spec.inputs.video.claim.path"),
    ],
)
async def test_a_bad_input_is_permanent_and_named(
    settings: Settings, task: str, inputs: dict[str, Any], words: str
) -> None:
    parameters = {"expand": {"top": 1.5}} if task == "Outpaint" else {}
    with pytest.raises(Refusal) as caught:
        await _staged(settings, task, inputs, **parameters)
    assert caught.value.verdict.reason == "InvalidInput"
    assert words in caught.value.verdict.message
    assert str(settings.paths.input) not in caught.value.verdict.message


async def test_under_a_hosted_name_a_clip_is_rendered_to_its_very_end(settings: Settings) -> None:
    """2 s at 30 fps are 32 frames at 16 fps and the moment at which they end; a mask's frame is one of the clip's."""
    with (settings.paths.claims / "films" / "hosted.mkv").open("w+b") as file:
        write_lossless(
            file, [np.full((HEIGHT, WIDTH, 3), 10 + 3 * at, np.uint8) for at in range(60)], WIDTH, HEIGHT, 30
        )
    model = load_catalogue().with_aliases({"wan2.1-vace-plus": "wan2.1-vace-14b"}).get("wan2.1-vace-plus")
    assert model is not None
    mask = {"source": _from("mask.png"), "frame": 31, "frameOf": "Source", "mode": "Tracking"}
    spec = VideoJobSpec.model_validate(
        {
            "model": model.name,
            "task": "Inpaint",
            "prompt": "a cat",
            "inputs": {"video": _from("hosted.mkv"), "mask": mask},
            "output": {"fps": 30},
        }
    )
    stager = Stager(settings, cast(Any, None), cast(Any, None), MediaChild())
    staged = await stager.stage(named_inputs(spec), resolve(spec, model, "uid"), model, "job-2")
    found = staged.resolved
    assert (found.frames, found.last_held, found.mask_frame, found.mask_frame_of) == (33, True, 17, "Render")
    assert (found.width, found.height, found.delivered_frames, found.delivered_fps) == (WIDTH, HEIGHT, 62, 30)
    assert staged.finishing is not None
    assert (staged.finishing["rendered"], staged.finishing["frames"]) == (33, 62)
    told = {fact["name"]: fact["actions"] for fact in staged.facts}
    assert told["video"] == ["the first 33 frames at 16 fps"]
    assert any(words.startswith("moved along from frame 17 over 33 frames") for words in told["mask"])
    with (settings.paths.input / staged.files["control"].file).open("rb") as file:
        assert len(list(clip_frames(file, 33, 16))) == 33
