"""resolve: what is decided where a job says nothing, and every fault with field, value and what is allowed."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.recipes.build import build
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.graph import StagedInput
from kinora.recipes.needs import MediaKind
from kinora.recipes.resolve import prompts_of, resolve, seed_of
from kinora.recipes.resolved import Resolved
from kinora.recipes.rules import frames_of_duration
from kinora.recipes.windows import spans

UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
CLAIM = {"claim": {"name": "footage", "path": "a.png"}}
NAMES = {"vace": "wan2.1-vace-1.3b", "i2v": "wan2.1-i2v-14b-480p"}


def _model(short: str) -> Model:
    model = load_catalogue().get(NAMES[short])
    assert model is not None
    return model


def _spec(task: str = "TextToVideo", **more: Any) -> VideoJobSpec:
    return VideoJobSpec.model_validate({"model": "m", "task": task, "prompt": "a cat", **more})


def _resolve(short: str = "vace", task: str = "TextToVideo", **more: Any) -> Resolved:
    return resolve(_spec(task, **more), _model(short), UID)


def _faults(short: str = "vace", task: str = "TextToVideo", **more: Any) -> tuple[Fault, ...]:
    with pytest.raises(InvalidSpec) as caught:
        _resolve(short, task, **more)
    return caught.value.faults


def test_defaults_of_vace() -> None:
    found = _resolve()
    assert (found.width, found.height, found.frames, found.fps) == (480, 480, 49, 16)
    assert (found.steps, found.guidance, found.shift, found.crf) == (20, 4, 8, 19)
    assert (found.sampler, found.scheduler, found.weight_dtype) == ("uni_pc", "simple", "fp8_e4m3fn_fast")
    assert (found.output_width, found.output_height, found.denoise, found.notes) == (480, 480, 1, ())
    assert found.tokens == 13 * 30 * 30
    assert found.duration_seconds == 49 / 16


def test_defaults_of_i2v() -> None:
    found = _resolve("i2v", "ImageToVideo", inputs={"image": CLAIM}, prompt="")
    assert (found.width, found.height, found.frames, found.steps) == (512, 512, 81, 10)
    assert (found.guidance, found.shift, found.scheduler) == (6, 5, "dpm++")
    assert found.inputs == ("image",)


def test_fast_is_the_entry_s_and_what_is_asked_for_wins() -> None:
    found = _resolve(parameters={"preset": "Fast"})
    assert (found.preset, found.steps, found.guidance, found.shift) == ("Fast", 4, 1, 8)
    assert (found.sampler, found.scheduler) == ("lcm", "simple")
    asked = _resolve(parameters={"preset": "Fast", "steps": 8, "guidance": 2, "shift": 3})
    assert (asked.steps, asked.guidance, asked.shift, asked.sampler) == (8, 2, 3, "lcm")
    assert found.to_status()["preset"] == "Fast"
    assert "preset" not in _resolve(parameters={"preset": "Quality"}).to_status()
    assert Resolved.from_status(found.to_status()) == found


def test_a_preset_that_the_model_has_not_is_refused() -> None:
    plain = _model("vace")
    entry = plain.model_copy(update={"presets": {}, "weights": plain.required_weights})
    with pytest.raises(InvalidSpec) as caught:
        resolve(_spec(parameters={"preset": "Fast"}), entry, UID)
    assert str(caught.value) == "spec.parameters.preset is Fast; allowed: Quality for wan2.1-vace-1.3b"


def test_an_edit_is_as_long_as_its_source_up_to_all_windows() -> None:
    found = _resolve("vace", "Edit", inputs={"video": CLAIM})
    assert (found.frames, found.frames_from_input, found.size_from_input) == (273, True, True)
    assert "81 frames are rendered in windows, 17 of overlap" in found.notes[1]
    assert Resolved.from_status(found.to_status()) == found
    asked = _resolve("vace", "Edit", inputs={"video": CLAIM}, parameters={"durationSeconds": 10})
    assert (asked.frames, asked.frames_from_input) == (161, False)
    [fault] = _faults("vace", "Edit", inputs={"video": CLAIM}, parameters={"frames": 277})
    assert "between 5 and 273" in str(fault)
    [other] = _faults("vace", "VideoToVideo", inputs={"video": CLAIM}, parameters={"frames": 161})
    assert "between 5 and 81" in str(other)


def test_a_missing_seed_is_the_first_53_bits_of_the_uid_s_hash() -> None:
    # sha256 of UID, from another program: first 14 hex digits, without the last 3 bits
    assert _resolve().seed == seed_of(UID) == int(_sha256(UID)[:14], 16) >> 3
    assert _resolve(parameters={"seed": 0}).seed == 0
    assert seed_of(UID) < 2**53


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("duration", "fps", "frames"),
    [
        (5, 16, 81),
        (5.0, 16, 81),
        (5.07, 16, 81),
        (4.99, 16, 77),
        (3, 16, 49),
        (0.1, 30, 1),
        (2.7, 30, 81),
        (1.1, 10, 9),
    ],
)
def test_frames_of_a_duration(duration: float, fps: float, frames: int) -> None:
    assert frames_of_duration(duration, fps) == frames


def test_duration_becomes_frames() -> None:
    assert _resolve(parameters={"durationSeconds": 5}).frames == 81
    assert _resolve(parameters={"durationSeconds": 2, "fps": 8}).frames == 17


def test_shift_of_zero_is_rendered_as_one_and_recorded() -> None:
    found = _resolve(parameters={"shift": 0})
    assert found.shift == 1
    assert found.notes == ("shift 0 is rendered as 1",)


@pytest.mark.parametrize(
    ("parameters", "output", "expected"),
    [
        ({}, {"width": 470, "height": 474}, (480, 480, 470, 474)),
        ({"width": 832, "height": 480}, {}, (832, 480, 832, 480)),
        ({"width": 832, "height": 480}, {"width": 820}, (832, 480, 820, 480)),
        ({}, {"width": 512}, (512, 480, 512, 480)),
        ({}, {"width": 960}, (480, 480, 960, 960)),
        ({}, {"height": 1080}, (480, 480, 1080, 1080)),
        ({}, {"width": 1920, "height": 1080}, (832, 464, 1920, 1080)),
        ({}, {"width": 1080, "height": 1920}, (464, 832, 1080, 1920)),
        ({}, {"width": 4096, "height": 2304}, (832, 464, 4096, 2304)),
        ({}, {"width": 32, "height": 32}, (64, 64, 32, 32)),
        ({"width": 832, "height": 480}, {"width": 1664, "height": 960}, (832, 480, 1664, 960)),
        ({"width": 832, "height": 480}, {"width": 416}, (832, 480, 416, 240)),
        ({"width": 832, "height": 480}, {"width": 600, "height": 600}, (832, 480, 600, 600)),
        ({"width": 832}, {"width": 1920, "height": 1080}, (832, 464, 1920, 1080)),
        ({"height": 480}, {"width": 1080, "height": 1920}, (272, 480, 1080, 1920)),
    ],
)
def test_render_and_delivered_size(parameters: Any, output: Any, expected: tuple[int, ...]) -> None:
    found = _resolve(parameters=parameters, output=output)
    assert (found.width, found.height, found.output_width, found.output_height) == expected


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"output": {"width": 470, "height": 474}}, []),
        ({"output": {"width": 960}}, ["renders at 480x480 and is upscaled (Lanczos) to 960x960"]),
        (
            {"parameters": {"width": 832, "height": 480}, "output": {"width": 416, "height": 416}},
            ["renders at 832x480 and is downscaled (Lanczos) and cut around the middle to 416x416"],
        ),
        ({"output": {"fps": 30}}, ["interpolated from 16 to 30 fps by optical flow (DIS), held at cuts"]),
        ({"output": {"fps": 16}}, []),
    ],
)
def test_what_is_done_to_the_frames_is_said(more: dict[str, Any], words: list[str]) -> None:
    found = _resolve(**more)
    assert list(found.notes) == words
    assert found.finished is bool(words)
    assert Resolved.from_status(found.to_status()) == found


@pytest.mark.parametrize(("name", "frames"), [("wan2.1-vace-14b", 273), ("wan2.7-videoedit", 161)])
def test_an_edit_in_1080p_renders_at_720p_in_windows(name: str, frames: int) -> None:
    model = load_catalogue().with_aliases({"wan2.7-videoedit": "wan2.1-vace-14b"}).get(name)
    assert model is not None
    spec = _spec("Edit", inputs={"video": CLAIM}, output={"width": 1920, "height": 1080})
    found = resolve(spec, model, UID)
    assert (found.width, found.height, found.output_width, found.output_height) == (1280, 720, 1920, 1080)
    assert (found.frames, found.frames_from_input, found.size_from_input) == (frames, True, False)
    assert "more than 81 frames are rendered in windows, 17 of overlap" in found.notes
    assert found.notes[-1] == "renders at 1280x720 and is upscaled (Lanczos) to 1920x1080"
    staged = {"control": StagedInput("job/control.mkv", MediaKind.VIDEO)}
    graph = build(model, found, prompts_of(spec, model), staged, "job/out")
    windows = [item for item in graph.values() if item["class_type"] == "WanVaceToVideo"]
    assert len(windows) == len(spans(frames, model.limits.windows)) > 1


@pytest.mark.parametrize(
    ("frames", "fps", "output_fps", "delivered"),
    [(81, 16, 30, 152), (81, 16, 24, 122), (81, 12, 60, 405), (81, 24, 16, 54), (81, 16, 8, 40), (5, 30, 1, 1)],
)
def test_another_rate_keeps_the_duration(frames: int, fps: float, output_fps: float, delivered: int) -> None:
    found = _resolve(parameters={"frames": frames, "fps": fps}, output={"fps": output_fps})
    assert (found.fps, found.delivered_fps, found.delivered_frames) == (fps, output_fps, delivered)
    assert abs(found.duration_seconds - frames / fps) <= 0.5 / output_fps or delivered == 1


IMAGE: dict[str, Any] = {"image": CLAIM}
WRONG: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("vace", "TextToVideo", {"output": {"width": 8, "height": 8}}, "spec.output.width", "16 to 4096"),
    ("vace", "TextToVideo", {"output": {"width": 4096, "height": 4096}}, "spec.output", "at most 9437184 pixels"),
    ("vace", "TextToVideo", {"parameters": {"fps": 12}, "output": {"fps": 100}}, "spec.output.fps", "1 to 96"),
    ("vace", "TextToVideo", {"output": {"audio": "Source"}}, "spec.output.audio", "TextToVideo has no video"),
    (
        "i2v",
        "ImageToVideo",
        {"inputs": IMAGE, "output": {"audio": "Source"}},
        "spec.output.audio",
        "ImageToVideo has no video",
    ),
    (
        "vace",
        "Extend",
        {"inputs": {"firstFrame": CLAIM}, "output": {"audio": "Source"}},
        "spec.output.audio",
        "spec.inputs.firstClip or spec.inputs.lastClip set",
    ),
    (
        "vace",
        "TextToVideo",
        {"parameters": {"frames": 85}},
        "spec.parameters.frames",
        "85; allowed: 4n+1 between 5 and 81",
    ),
    ("vace", "TextToVideo", {"parameters": {"frames": 1}}, "spec.parameters.frames", "5 is nearest"),
    ("vace", "TextToVideo", {"parameters": {"durationSeconds": 6}}, "spec.parameters.durationSeconds", "6 (97 frames"),
    ("vace", "TextToVideo", {"parameters": {"width": 1024, "height": 1024}}, "spec.parameters", "399360 pixels"),
    ("vace", "TextToVideo", {"parameters": {"width": 1040}}, "spec.parameters.width", "64 to 1024"),
    ("vace", "TextToVideo", {"parameters": {"height": 32}}, "spec.parameters.height", "64 to 1024"),
    ("vace", "TextToVideo", {"parameters": {"steps": 150}}, "spec.parameters.steps", "1 to 100"),
    ("vace", "TextToVideo", {"parameters": {"denoise": 0.5}}, "spec.parameters.denoise", "allowed: 1 for"),
    ("i2v", "ImageToVideo", {"inputs": IMAGE, "parameters": {"denoise": 0}}, "spec.parameters.denoise", "0.1 to 1"),
    ("i2v", "TextToVideo", {}, "spec.task", "allowed: ImageToVideo for wan2.1-i2v-14b-480p"),
    ("i2v", "Inpaint", {}, "spec.task", "allowed: ImageToVideo"),
    ("vace", "ImageToVideo", {}, "spec.inputs.image", "not set"),
    ("vace", "ReferenceToVideo", {}, "spec.inputs.references", "not set"),
    ("vace", "VideoToVideo", {}, "spec.inputs.video", "not set"),
    ("vace", "TextToVideo", {"inputs": IMAGE}, "spec.inputs.image", "uses no inputs"),
    ("vace", "ImageToVideo", {"inputs": {**IMAGE, "video": CLAIM}}, "spec.inputs.video", "uses spec.inputs.image"),
    ("vace", "TextToVideo", {"inputs": {"mask": {"source": CLAIM}}}, "spec.inputs.mask", "uses no inputs"),
    ("vace", "ImageToVideo", {"inputs": {"image": {}}}, "spec.inputs.image", "0 sources"),
    ("vace", "ImageToVideo", {"inputs": {"image": {**CLAIM, "url": "http://x"}}}, "spec.inputs.image", "2 sources"),
    ("vace", "TextToVideo", {"prompt": "  "}, "spec.prompt", "not set"),
    ("vace", "TextToVideo", {"parameters": {"controlStrength": 1}}, "spec.parameters.controlStrength", "TextToVideo"),
    (
        "i2v",
        "ImageToVideo",
        {"inputs": IMAGE, "parameters": {"controlStrength": 1}},
        "spec.parameters.controlStrength",
        "unset",
    ),
    ("vace", "TextToVideo", {"parameters": {"expand": {"top": 2}}}, "spec.parameters.expand", "does not use it"),
    ("vace", "TextToVideo", {"parameters": {"control": "Canny"}}, "spec.parameters.control", "unset"),
    ("vace", "Inpaint", {"inputs": {"video": CLAIM}}, "spec.inputs.mask", "not set"),
    ("vace", "Outpaint", {"inputs": {"video": CLAIM}}, "spec.parameters.expand", "one side at least above 1"),
    (
        "vace",
        "Outpaint",
        {"inputs": {"video": CLAIM}, "parameters": {"expand": {"top": 1}}},
        "spec.parameters.expand",
        "1 on every side",
    ),
    ("vace", "Extend", {}, "spec.inputs", "firstFrame, lastFrame, firstClip and lastClip"),
    ("vace", "FirstLastFrame", {"inputs": {"firstFrame": CLAIM}}, "spec.inputs.lastFrame", "not set"),
    (
        "vace",
        "Inpaint",
        {"inputs": {"video": CLAIM, "mask": {"source": CLAIM, "frame": 50}}},
        "spec.inputs.mask.frame",
        "1 to 49",
    ),
    ("i2v", "ImageToVideo", {"inputs": {**IMAGE, "references": [{"source": CLAIM}]}}, "spec.inputs.references", "0"),
    ("vace", "TextToVideo", {"output": {"keyPrefix": "../up"}}, "spec.output.keyPrefix", "'..'"),
    ("vace", "TextToVideo", {"output": {"keyPrefix": "/abs"}}, "spec.output.keyPrefix", "relative"),
]


@pytest.mark.parametrize(("short", "task", "more", "field", "words"), WRONG)
def test_faults_name_field_value_and_allowed(
    short: str, task: str, more: dict[str, Any], field: str, words: str
) -> None:
    faults = _faults(short, task, **more)
    found = next(fault for fault in faults if fault.field == field)
    assert words in str(found)
    assert not found.not_implemented


def test_what_a_mask_and_an_edit_default_to() -> None:
    def mask(**more: Any) -> Resolved:
        return _resolve(task="Inpaint", inputs={"video": CLAIM, "mask": {"source": CLAIM, **more}})

    assert (mask().mask_mode, mask().mask_frame, mask().mask_expand_ratio) == ("Tracking", 1, 0.05)
    assert mask(mode="Fixed").mask_expand_ratio == 0
    assert mask(mode="Fixed", expandRatio=0.5).mask_expand_ratio == 0.5
    edit = _resolve(task="Edit", inputs={"video": CLAIM})
    assert edit.control == "Depth"
    assert "approximation" in edit.notes[0]
    assert _resolve(task="Edit", inputs={"video": CLAIM}, parameters={"control": "Pose"}).control == "Pose"


def test_a_size_comes_from_the_input_only_where_none_is_asked_for() -> None:
    inputs = {"firstFrame": CLAIM, "lastFrame": CLAIM}
    assert _resolve(task="FirstLastFrame", inputs=inputs).size_from_input
    assert not _resolve(task="FirstLastFrame", inputs=inputs, parameters={"width": 480}).size_from_input
    assert not _resolve(task="FirstLastFrame", inputs=inputs, output={"height": 470}).size_from_input
    assert not _resolve(task="VideoToVideo", inputs={"video": CLAIM}).size_from_input


def test_a_workflow_is_no_task() -> None:
    spec = VideoJobSpec.model_validate({"model": "m", "workflow": {"inline": "{}"}})
    with pytest.raises(InvalidSpec) as caught:
        resolve(spec, _model("vace"), UID)
    assert [fault.field for fault in caught.value.faults] == ["spec.workflow"]
    assert not caught.value.not_implemented


def test_all_faults_at_once() -> None:
    with pytest.raises(InvalidSpec) as caught:
        _resolve(task="ImageToVideo", parameters={"frames": 89, "steps": 200}, output={"keyPrefix": "../x"})
    fields = [fault.field for fault in caught.value.faults]
    assert fields == ["spec.inputs.image", "spec.parameters.frames", "spec.parameters.steps", "spec.output.keyPrefix"]
    assert not caught.value.not_implemented
    assert str(caught.value).count(";") >= 3


def test_eighty_frames_are_mended() -> None:
    # The CRD refuses them; a spec that comes by another way is refused here, with the same words.
    spec = _spec().model_copy(update={"parameters": _spec().parameters.model_copy(update={"frames": 80})})
    with pytest.raises(InvalidSpec) as caught:
        resolve(spec, _model("vace"), UID)
    assert str(caught.value) == (
        "spec.parameters.frames is 80; allowed: 4n+1 between 5 and 81: 77 or 81 are nearest (set it to 81)"
    )


def test_a_size_off_the_grid_is_refused_here_too() -> None:
    parameters = _spec().parameters.model_copy(update={"width": 72})
    with pytest.raises(InvalidSpec, match="multiples of 16: 64 or 80 are nearest"):
        resolve(_spec().model_copy(update={"parameters": parameters}), _model("vace"), UID)


def test_prompts() -> None:
    model = _model("vace")
    assert prompts_of(_spec(), model).negative == model.defaults.negative_prompt
    assert prompts_of(_spec(negativePrompt=""), model).negative == ""
    assert prompts_of(_spec(negativePrompt="mist"), model).negative == "mist"


def test_status_round_trip() -> None:
    found = _resolve(task="ImageToVideo", inputs=IMAGE, parameters={"shift": 0, "fps": 12.5, "guidance": 5})
    status = json.loads(json.dumps(found.to_status()))
    assert status["outputWidth"] == 480
    assert status["fps"] == 12.5
    assert isinstance(status["guidance"], int)
    assert "cat" not in json.dumps(status)
    assert Resolved.from_status(status) == found


@pytest.mark.parametrize(
    "change", [{"frames": "81"}, {"inputs": [1]}, {"seed": True}, {"seed": None}, {"inputs": None}]
)
def test_a_status_of_another_version_is_not_believed(change: dict[str, Any]) -> None:
    status = _resolve().to_status()
    assert Resolved.from_status({**status, **change}) is None
    assert Resolved.from_status({}) is None
    assert Resolved.from_status({**status, "fromTheFuture": 1}) == _resolve()


_SOURCE = st.sampled_from([CLAIM, {}, {"url": "x"}, {"configMap": {"name": "a", "key": "b"}}])
_JOB = st.fixed_dictionaries(
    {},
    optional={
        "task": st.sampled_from(["TextToVideo", "ImageToVideo", "VideoToVideo", "ReferenceToVideo", "Extend"]),
        "prompt": st.text(max_size=3),
        "inputs": st.fixed_dictionaries(
            {},
            optional={
                "image": _SOURCE,
                "video": _SOURCE,
                "references": st.lists(st.fixed_dictionaries({"source": _SOURCE}), max_size=5),
            },
        ),
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "width": st.integers(1, 256).map(lambda n: n * 16),
                "frames": st.integers(1, 1025),
                "durationSeconds": st.floats(0.001, 60),
                "fps": st.floats(1, 60),
                "shift": st.floats(0, 100),
            },
        ),
        "output": st.fixed_dictionaries({}, optional={"width": st.integers(1, 600).map(lambda n: n * 2)}),
    },
)


@settings(deadline=None)
@given(_JOB, st.sampled_from(["vace", "i2v"]), st.text(max_size=40))
def test_resolve_is_total(job: dict[str, Any], short: str, uid: str) -> None:
    model = _model(short)
    faults: tuple[Fault, ...] = ()
    try:
        found = resolve(VideoJobSpec.model_validate({"model": "m", **job}), model, uid)
    except InvalidSpec as invalid:
        faults = invalid.faults
    if faults:
        assert all(fault.field.startswith("spec.") and str(fault) for fault in faults)
        return
    assert found.frames % 4 == 1
    assert found.width * found.height <= model.limits.size.max_pixels
    assert found.scaled or 0 <= found.width - found.output_width < 16
    assert 16 <= found.output_width <= 4096
    assert found.output_width * found.output_height <= 4096 * 2304
    assert Resolved.from_status(found.to_status()) == found


# --- hosted names


def _hosted(name: str, task: str, local: str = "wan2.1-vace-14b", **more: Any) -> Resolved | str:
    model = load_catalogue().with_aliases({name: local}).get(name)
    assert model is not None
    try:
        return resolve(_spec(task, **more), model, UID)
    except InvalidSpec as invalid:
        return str(invalid)


REFERENCE = {"source": CLAIM}


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("TextToVideo", {}, "spec.task is TextToVideo; allowed: Edit for wan2.7-videoedit"),
        ("Edit", {"inputs": {"video": CLAIM, "references": [REFERENCE] * 5}}, "at most 4 for wan2.7-videoedit"),
        ("Edit", {"parameters": {"durationSeconds": 11}}, "durationSeconds is 11; allowed: 2 to 10 seconds"),
        ("Edit", {"parameters": {"durationSeconds": 1}}, "durationSeconds is 1; allowed: 2 to 10 seconds"),
        ("Edit", {"parameters": {"frames": 165}}, "frames is 165 (10.31 s at 16 fps); allowed: 2 to 10 seconds"),
        (
            "Edit",
            {"negativePrompt": "x" * 501},
            "spec.negativePrompt is a text of 501 characters; allowed: at most 500",
        ),
    ],
)
def test_limits_of_the_hosted_edit(task: str, more: dict[str, Any], said: str) -> None:
    found = _hosted("wan2.7-videoedit", task, **{"inputs": {"video": CLAIM}, **more})
    assert said in str(found)


def test_the_hosted_edit_takes_the_whole_source_up_to_ten_seconds() -> None:
    found = _hosted("wan2.7-videoedit", "Edit", inputs={"video": CLAIM, "references": [REFERENCE] * 4})
    assert isinstance(found, Resolved)
    assert (found.frames, found.frames_from_input, found.model) == (161, True, "wan2.1-vace-14b")
    assert "wan2.7-videoedit is rendered by wan2.1-vace-14b" in found.notes
    longest = _hosted(
        "wan2.7-videoedit", "Edit", inputs={"video": CLAIM}, parameters={"durationSeconds": 10, "fps": 24}
    )
    assert isinstance(longest, Resolved)
    assert longest.frames == 241


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("Edit", {"inputs": {"video": CLAIM}}, "spec.task is Edit"),
        ("ReferenceToVideo", {"inputs": {"references": [REFERENCE] * 4}}, "at most 3 for wan2.1-vace-plus"),
        (
            "VideoToVideo",
            {"inputs": {"video": CLAIM}, "parameters": {"control": "Flow"}},
            "control is Flow; allowed: None",
        ),
        ("VideoToVideo", {"inputs": {"video": CLAIM}, "parameters": {"controlStrength": 1.5}}, "allowed: 0 to 1"),
        ("VideoToVideo", {"inputs": {"video": CLAIM}, "parameters": {"frames": 85}}, "allowed: 0 to 5 seconds"),
    ],
)
def test_limits_of_the_hosted_vace(task: str, more: dict[str, Any], said: str) -> None:
    assert said in str(_hosted("wan2.1-vace-plus", task, **more))


def test_the_hosted_vace_renders_720p() -> None:
    found = _hosted("wan2.1-vace-plus", "ReferenceToVideo", inputs={"references": [REFERENCE]})
    assert isinstance(found, Resolved)
    assert (found.width, found.height, found.frames) == (1280, 720, 81)
