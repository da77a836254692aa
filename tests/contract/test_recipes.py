"""Every recipe's graph renders in the stand-in, with the demo's weight files, and the pixels prove its wiring.

The inputs go the way that the agent takes them: looked at, sized, prepared by kinora.media, then the graph is built.
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from contract.harness import Standin, clip, photo, running_standin
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.engine.base import Failed, GraphRefused, Interrupted, Succeeded
from kinora.engine.client import ComfyClient
from kinora.engine.contract import check_graph
from kinora.engine.standin.encode import write_mp4
from kinora.media.finish import finish
from kinora.media.frames import cover
from kinora.media.inspect import probe
from kinora.media.prepare import prepare
from kinora.media.sound import hear
from kinora.recipes.build import build, preparation
from kinora.recipes.finishing import SOUNDING, finishing, lengthened, silenced
from kinora.recipes.graph import Graph, StagedInput
from kinora.recipes.needs import named_inputs, staging_faults
from kinora.recipes.preparation import kind_of_prepared, sized
from kinora.recipes.resolve import prompts_of, resolve
from kinora.recipes.resolved import Resolved
from kinora.weights.tiny import write_demo_weights
from unit.media.sounding import flashes, flashing, heard

SIZE, FRAMES, DEADLINE = 64, 9, 30.0
LONG = 31  # frames of the clip that takes several windows, or is joined on whole
VACE, I2V = "wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p"
RED, GREEN, YELLOW = (210, 40, 30), (30, 170, 60), (240, 220, 40)


def _from(path: str) -> dict[str, Any]:
    return {"claim": {"name": "inputs", "path": path}}


PHOTO, CLIP, FACE, TREE = (_from(name) for name in ("photo.png", "clip.mkv", "face.png", "tree.png"))
INPUTS: dict[str, dict[str, Any]] = {
    "TextToVideo": {},
    "ImageToVideo": {"image": PHOTO},
    "ReferenceToVideo": {"references": [{"source": FACE}]},
    "VideoToVideo": {"video": CLIP},
    "Edit": {"video": CLIP, "references": [{"source": FACE}]},
    "Inpaint": {"video": CLIP, "mask": {"source": _from("mask.png"), "mode": "Fixed"}},
    "Outpaint": {"video": CLIP},
    "Extend": {"firstClip": _from("start.mkv")},
    "FirstLastFrame": {"firstFrame": FACE, "lastFrame": PHOTO},
}
PARAMETERS: dict[str, dict[str, Any]] = {"Outpaint": {"expand": {"left": 1.5, "right": 1.5, "top": 1.5, "bottom": 1.5}}}
VACE_MODELS = [model.name for model in load_catalogue() if model.name != I2V]
CASES = [(name, task) for name in VACE_MODELS for task in INPUTS] + [(I2V, "ImageToVideo")]


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    root = tmp_path_factory.mktemp("recipes")
    for name in ("input/job", "output", "temp"):
        (root / name).mkdir(parents=True)
    for model in load_catalogue():
        write_demo_weights(model, root / "models")
    raw = root / "input/job"
    Image.fromarray(photo(SIZE, SIZE)).save(raw / "photo.png")
    for name, colour in (("face", RED), ("tree", GREEN), ("sun", YELLOW)):
        Image.new("RGB", (40, 24), colour).save(raw / f"{name}.png")
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:40, 8:40] = 255
    Image.fromarray(mask).save(raw / "mask.png")
    moving = np.stack([np.roll(mask, 2 * at, axis=1) for at in range(FRAMES)])
    _clip(raw / "mask.mkv", np.repeat(moving[..., None], 3, axis=3))
    frames = clip(SIZE, SIZE, FRAMES)
    _clip(raw / "clip.mkv", frames)
    _clip(raw / "start.mkv", frames[:4])
    _clip(raw / "end.mkv", frames[-4:])
    _clip(raw / "bit.mkv", frames[:2])
    _clip(raw / "long.mkv", clip(SIZE, SIZE, LONG))
    flashing(raw / "loud.mp4", frames=FRAMES, flash=None, pictures=frames)
    with running_standin(root) as running:
        yield running


def _clip(path: Path, frames: np.ndarray) -> None:
    """Near to lossless, so that what is kept can be compared."""
    partial = path.with_suffix(".mp4")
    write_mp4(partial, frames, 16, crf=1, pix_fmt="yuv444p", metadata={})
    partial.rename(path)


@dataclass
class Rendered:
    """A finished job: frames, what was decided, graph, what was done to its inputs, its file and the engine's."""

    frames: np.ndarray
    resolved: Resolved
    graph: Graph
    actions: dict[str, list[str]]
    path: Path
    engine: Path
    watched: dict[str, np.ndarray] = field(default_factory=dict)
    "Frames of nodes in the middle of the graph."


async def _render(
    standin: Standin,
    task: str,
    model_name: str = VACE,
    *,
    model: Model | None = None,
    inputs: dict[str, Any] | None = None,
    prompt: str = "a cat",
    output: dict[str, Any] | None = None,
    watch: dict[str, str] | None = None,
    **parameters: Any,
) -> Rendered:
    model = model or load_catalogue().get(model_name)
    assert model is not None
    size = {} if parameters.pop("own_size", False) else {"width": SIZE, "height": SIZE}
    asked = {**size, "frames": FRAMES, "steps": 4, **PARAMETERS.get(task, {}), **parameters}
    asked = {name: value for name, value in asked.items() if value is not None}
    given = INPUTS[task] if inputs is None else inputs
    spec = VideoJobSpec.model_validate(
        {"model": model_name, "task": task, "prompt": prompt, "inputs": given, "parameters": asked}
        | {"output": {"crf": 1, **(output or {})}}
    )
    return await _rendered(standin, model, spec, watch)


async def _rendered(
    standin: Standin, model: Model, spec: VideoJobSpec, watch: dict[str, str] | None = None
) -> Rendered:
    resolved, folder = resolve(spec, model, "uid"), f"job/{uuid.uuid4()}"
    (standin.input / folder).mkdir()
    sources = {}
    for named in named_inputs(spec):
        assert named.source.claim is not None
        sources[named.name] = standin.input / "job" / named.source.claim.path
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.open("rb")) for name, path in sources.items()}
        found = {name: probe(file) for name, file in files.items()}
        assert staging_faults(resolved, found) == ()
        sounding = {name: hear(files[name]).seconds > 0 for name in SOUNDING if name in files}
        resolved = silenced(lengthened(sized(resolved, found, model.limits.size), found), sounding)
        plan = preparation(model, resolved, found)
        staged = {name: StagedInput(f"job/{path.name}", found[name].kind) for name, path in sources.items()}
        actions = {}
        if plan is not None:
            made = {str(name): f"{folder}/{name}.{'png' if name == 'reference' else 'mkv'}" for name in plan.makes}
            outputs = {name: stack.enter_context((standin.input / path).open("w+b")) for name, path in made.items()}
            actions = prepare(files, outputs, plan.to_dict()).actions
            staged |= {name: StagedInput(path, kind_of_prepared(name)) for name, path in made.items()}
    graph = build(model, resolved, prompts_of(spec, model), staged, f"{folder}/out")
    path, watched = await _engine(standin, graph, watch or {}, folder)
    engine, plan = path, finishing(resolved, found, sounding)
    if plan is not None:
        with ExitStack() as stack:
            used = {"render": path, **sources}
            files = {name: stack.enter_context(source.open("rb")) for name, source in used.items()}
            finished = stack.enter_context((standin.output / folder / "finished.mp4").open("w+b"))
            done = finish(files, {"video": finished}, plan.to_dict(), "AI generated").actions
            actions = {**actions, "result": list(done)}
        path = standin.output / folder / "finished.mp4"
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(resolved.delivered_fps).limit_denominator(100_000)
    return Rendered(_pictures(path), resolved, graph, actions, path, engine, watched)


async def _engine(
    standin: Standin, graph: Graph, watch: dict[str, str], folder: str
) -> tuple[Path, dict[str, np.ndarray]]:
    """The engine's file, and the frames of the nodes to watch, by the names given to them; they join the graph."""
    saver = next(key for key, item in graph.items() if item["class_type"] == "VHS_VideoCombine")
    for at, name in watch.items():
        copy = {**graph[saver]["inputs"], "images": [at, 0], "filename_prefix": f"{folder}/{name}"}
        graph[name] = {"class_type": "VHS_VideoCombine", "inputs": copy}
    made = await _files(standin, graph)
    return made[saver], {name: _pictures(made[name]) for name in watch.values()}


def _pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


async def _files(standin: Standin, graph: Graph) -> dict[str, Path]:
    """The videos that the engine makes of the graph, by the node that writes each."""
    assert check_graph(graph, {}) is None
    async with ComfyClient(standin.url) as client, asyncio.timeout(DEADLINE):
        prompt_id = str(uuid.uuid4())
        await client.submit(graph, prompt_id, "me")
        while not isinstance(outcome := await client.outcome(prompt_id), Succeeded | Failed | Interrupted):
            pass
    assert isinstance(outcome, Succeeded), outcome
    return {file.node: standin.output / file.subfolder / file.filename for file in outcome.outputs}


def _difference(left: Any, right: Any) -> float:
    return float(np.abs(np.asarray(left, int) - np.asarray(right, int)).mean())


def _likeness(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(left.mean(axis=-1).ravel(), right.mean(axis=-1).ravel())[0, 1])


def _nearest(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int(np.abs(picture.reshape(-1, 3).astype(int) - colour).sum(axis=1).min())


@pytest.mark.parametrize(("model", "task"), CASES)
async def test_it_renders_as_asked_and_the_prompt_is_seen(standin: Standin, model: str, task: str) -> None:
    fox = (await _render(standin, task, model, prompt="a red fox in snow")).frames
    wave = (await _render(standin, task, model, prompt="a wave at night")).frames
    assert fox.shape == wave.shape == (FRAMES, SIZE, SIZE, 3)
    assert _difference(fox, wave) > 1
    assert _difference(fox[0], fox[-1]) > 1


async def test_an_image_is_the_first_frame(standin: Standin) -> None:
    """That its image was wired to nothing is the defect of the first seed document's script."""
    for model in (VACE, I2V):
        assert _difference((await _render(standin, "ImageToVideo", model)).frames[0], photo(SIZE, SIZE)) < 6


async def test_a_video_gives_its_forms(standin: Standin) -> None:
    found = await _render(standin, "VideoToVideo")
    assert _likeness(found.frames, clip(SIZE, SIZE, FRAMES)) > 0.6
    assert found.actions == {"video": [f"the first {FRAMES} frames at 16 fps"]}


CONTROLS = ["Gray", "Canny", "Scribble", "Flow", "Depth", "Pose", "PoseFace", "Layout"]


@pytest.mark.parametrize("control", CONTROLS)
async def test_each_control_is_a_picture_of_its_own(standin: Standin, control: str) -> None:
    plain, found = await _render(standin, "VideoToVideo"), await _render(standin, "VideoToVideo", control=control)
    assert found.frames.shape == plain.frames.shape
    assert (_difference(found.frames, plain.frames) > 1) is (control != "Layout")
    classes = {item["class_type"] for item in found.graph.values()}
    assert ("DepthAnythingV2Preprocessor" in classes) is (control == "Depth")
    assert ("DWPreprocessor" in classes) is (control in ("Pose", "PoseFace"))
    assert f"control {control}" in found.actions["video"]


async def test_an_inpainting_leaves_the_black_part_as_it_was(standin: Standin) -> None:
    found, source = (await _render(standin, "Inpaint")).frames, clip(SIZE, SIZE, FRAMES)
    inside, outside = np.zeros((SIZE, SIZE), bool), np.ones((SIZE, SIZE), bool)
    inside[10:38, 10:38], outside[6:42, 6:42] = True, False
    assert _difference(found[:, outside], source[:, outside]) < 6
    assert _difference(found[:, inside], source[:, inside]) > 20


async def test_a_mask_video_moves_what_is_inpainted(standin: Standin) -> None:
    inputs = {"video": CLIP, "mask": {"source": _from("mask.mkv")}}
    found, source = (await _render(standin, "Inpaint", inputs=inputs)).frames, clip(SIZE, SIZE, FRAMES)
    last = np.zeros((SIZE, SIZE), bool)
    last[10:38, 28:54] = True
    assert _difference(found[-1][last], source[-1][last]) > 20
    assert _difference(found[-1][:, :18], source[-1][:, :18]) < 6


async def test_an_outpainting_keeps_the_source_in_its_place(standin: Standin) -> None:
    found = await _render(standin, "Outpaint", own_size=True)
    assert found.frames.shape == (FRAMES, 2 * SIZE, 2 * SIZE, 3)
    source = clip(SIZE, SIZE, FRAMES)
    assert _difference(found.frames[:, 32:96, 32:96], source) < 5
    assert _likeness(found.frames[:, :64, :64], source) < 0.9
    assert found.resolved.notes == ("size 128x128 from the source of 64x64",)


async def test_an_outpainting_to_one_side(standin: Standin) -> None:
    found = await _render(standin, "Outpaint", own_size=True, expand={"left": 2})
    assert found.frames.shape == (FRAMES, SIZE, 2 * SIZE, 3)
    assert _difference(found.frames[:, :, SIZE:], clip(SIZE, SIZE, FRAMES)) < 5


async def test_first_and_last_frame_are_the_given_pictures(standin: Standin) -> None:
    found = (await _render(standin, "FirstLastFrame")).frames
    assert _difference(found[0], np.full((SIZE, SIZE, 3), RED)) < 6
    assert _difference(found[-1], photo(SIZE, SIZE)) < 6
    assert _difference(found[4], found[0]) > 10


EXTENSIONS: list[tuple[dict[str, Any], int, int]] = [
    ({"firstClip": _from("start.mkv")}, 4, 0),
    ({"lastClip": _from("end.mkv")}, 0, 4),
    ({"firstClip": _from("start.mkv"), "lastClip": _from("end.mkv")}, 4, 4),
    ({"firstFrame": PHOTO}, -1, 0),
    ({"lastFrame": PHOTO}, 0, -1),
    ({"firstClip": _from("start.mkv"), "lastFrame": PHOTO}, 4, -1),
]


@pytest.mark.parametrize(("inputs", "before", "after"), EXTENSIONS)
async def test_an_extension_keeps_what_was_given(
    standin: Standin, inputs: dict[str, Any], before: int, after: int
) -> None:
    frames = 17
    found, source = (await _render(standin, "Extend", inputs=inputs, frames=frames)).frames, clip(SIZE, SIZE, FRAMES)
    assert len(found) == frames
    if before > 0:
        assert _difference(found[:before], source[:before]) < 5
    if after > 0:
        assert _difference(found[-after:], source[-after:]) < 5
    if before < 0:
        assert _difference(found[0], photo(SIZE, SIZE)) < 6
    if after < 0:
        assert _difference(found[-1], photo(SIZE, SIZE)) < 6


async def test_every_reference_is_seen(standin: Standin) -> None:
    inputs = {"references": [{"source": _from(f"{name}.png")} for name in ("face", "tree", "sun")]}
    found = await _render(standin, "ReferenceToVideo", inputs=inputs)
    for colour in (RED, GREEN, YELLOW):
        assert _nearest(found.frames[0, 16:48, 16:48], colour) < 110
    assert _difference(found.frames, (await _render(standin, "TextToVideo")).frames) > 15
    assert found.actions["references[2]"] == ["whole on white in a tile of one sheet"]


async def test_a_size_off_the_grid_is_cut_out_of_the_middle(standin: Standin) -> None:
    found = await _render(standin, "TextToVideo", own_size=True, output={"width": 70, "height": 66})
    assert found.frames.shape == (FRAMES, 66, 70, 3)
    assert (found.resolved.width, found.resolved.height) == (80, 80)


@pytest.mark.parametrize("model", VACE_MODELS)
async def test_fast_is_seen_and_each_expert_gets_its_own_lora(standin: Standin, model: str) -> None:
    entry = load_catalogue().get(model)
    assert entry is not None
    same = {"steps": 4, "guidance": 1, "shift": 5, "seed": 1}
    plain = await _render(standin, "TextToVideo", model, **same)
    fast = await _render(standin, "TextToVideo", model, preset="Fast", **same)
    assert _difference(plain.frames, fast.frames) > 1
    loras = [weight.name for weight in entry.preset_weights("Fast")]
    wired = [item["inputs"]["lora_name"] for item in fast.graph.values() if item["class_type"] == "LoraLoaderModelOnly"]
    assert sorted(wired) == sorted(loras)
    if len(loras) == 2:
        turned = {**fast.graph}
        for name, lora in (("19", loras[1]), ("29", loras[0])):
            turned[name] = {**turned[name], "inputs": {**turned[name]["inputs"], "lora_name": lora}}
        [path] = (await _files(standin, turned)).values()
        assert _difference(_pictures(path), fast.frames) > 1


async def test_a_lora_that_is_not_there_or_is_none_is_refused(standin: Standin) -> None:
    entry = load_catalogue().get(VACE)
    assert entry is not None
    [lora] = entry.preset_weights("Fast")
    spec = VideoJobSpec.model_validate(
        {"model": VACE, "task": "TextToVideo", "prompt": "a", "parameters": {"preset": "Fast", "frames": 5}}
    )
    path = standin.models / lora.path
    content = path.read_bytes()
    try:
        path.write_bytes((standin.models / entry.weights[2].path).read_bytes())
        with pytest.raises(AssertionError, match="is no LoRA"):
            await _rendered(standin, entry, spec)
        path.unlink()
        with pytest.raises(GraphRefused, match="lora_name"):
            await _rendered(standin, entry, spec)
    finally:
        path.write_bytes(content)


async def test_a_size_of_other_proportions_is_filled_and_cut(standin: Standin) -> None:
    """The photo's house stands where it stands in the picture that is cut to the same shape."""
    found = await _render(standin, "ImageToVideo", output={"width": 128, "height": 64})
    assert found.frames.shape == (FRAMES, 64, 128, 3)
    assert found.resolved.notes == ("renders at 64x64 and is upscaled (Lanczos) and cut around the middle to 128x64",)
    assert _difference(found.frames[0], cover(photo(SIZE, SIZE), 128, 64)) < 5
    assert found.actions["result"] == []


@pytest.mark.parametrize(("rate", "frames"), [(30, 17), (24, 14), (8, 4), (60, 34)])
async def test_another_rate_has_frames_between_frames(standin: Standin, rate: float, frames: int) -> None:
    inputs = {"video": CLIP, "mask": {"source": _from("mask.png"), "mode": "Fixed"}}
    found = await _render(standin, "Inpaint", inputs=inputs, output={"fps": rate})
    source = clip(SIZE, SIZE, FRAMES)
    assert len(found.frames) == frames
    outside = np.ones((SIZE, SIZE), bool)
    outside[:48, :] = False
    for number, frame in enumerate(found.frames):
        assert _difference(frame[outside], source[0][outside]) < 6, number
    assert found.resolved.duration_seconds == pytest.approx(FRAMES / 16, abs=0.51 / rate)


async def test_a_mark_is_set_over_the_result(standin: Standin) -> None:
    plain = await _render(standin, "VideoToVideo", output={"watermark": False})
    found = await _render(standin, "VideoToVideo", output={"watermark": True})
    change = np.abs(found.frames.astype(int) - plain.frames).max(axis=(0, 3))
    assert change[48:, :].max() > 60
    assert change[:40].mean() < 6


async def test_the_source_s_sound_is_kept_in_time(standin: Standin) -> None:
    flashing(standin.input / "job/sounding.mp4", frames=FRAMES, flash=4, size=(SIZE, SIZE))
    inputs = {"video": _from("sounding.mp4"), "mask": {"source": _from("mask.png"), "mode": "Fixed"}}
    found = await _render(standin, "Inpaint", inputs=inputs, output={"audio": "Source", "fps": 32})
    clicks, _ = heard(found.path)
    assert clicks == [pytest.approx(4 / 16, abs=0.012)]
    assert flashes(found.path)[0] == pytest.approx(4 / 16, abs=1 / 32)
    assert found.actions["result"] == ["interpolated by optical flow, held at 2 cuts", "audio copied"]


async def test_a_source_without_sound_is_delivered_without(standin: Standin) -> None:
    found = await _render(standin, "VideoToVideo", output={"audio": "Source"})
    assert found.resolved.audio == "None"
    assert found.resolved.notes == ("the source has no audio: without audio",)
    with av.open(str(found.path)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"firstClip": "long.mkv"}, LONG + 17 - 5),
        ({"lastClip": "long.mkv"}, LONG + 17 - 5),
        ({"firstClip": "long.mkv", "lastClip": "long.mkv"}, 2 * LONG + 17 - 2),
        ({"firstClip": "long.mkv", "lastFrame": "photo.png"}, LONG + 17 - 5),
        ({"firstClip": "long.mkv", "firstFrame": "photo.png"}, 1 + LONG + 17 - 5),
    ],
)
async def test_clips_longer_than_the_render_are_joined_whole(
    standin: Standin, given: dict[str, str], expected: int
) -> None:
    source = clip(SIZE, SIZE, LONG)
    inputs = {name: _from(path) for name, path in given.items()}
    found = await _render(standin, "Extend", inputs=inputs, frames=17)
    assert len(found.frames) == expected == found.resolved.delivered_frames
    first = found.frames[1:] if "firstFrame" in given else found.frames
    if "firstClip" in given:
        assert _difference(first[:LONG], source) < 5
    if "lastClip" in given:
        assert _difference(found.frames[-LONG:], source) < 5
    if "lastFrame" in given:
        assert _difference(found.frames[-1], photo(SIZE, SIZE)) < 6
    if "firstFrame" in given:
        assert _difference(found.frames[0], photo(SIZE, SIZE)) < 6
    assert any("joined whole" in note for note in found.resolved.notes)
