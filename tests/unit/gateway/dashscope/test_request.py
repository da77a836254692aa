"""A DashScope request -> a VideoJob: every printed request, every field, every range, and what is ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kinora.gateway.admit import admit
from kinora.gateway.dashscope.request import Function, VideoSynthesis, check, function_of, ignored, size_of
from kinora.gateway.dashscope.spec import SIZES, draft, retold, settled
from kinora.gateway.errors import InvalidInput, NotFound
from unit.gateway.dashscope.asked import (
    EDIT,
    LOCAL,
    ONE_OF_EACH,
    SERVERS,
    VACE,
    VALID,
    Object,
    address,
    catalogue,
    changed,
    draft_of,
    function_in,
    printed,
    resolved_of,
)

PRINTED = printed()


# --- the requests of the document -------------------------------------------------------------------------------------


@pytest.mark.skipif(not PRINTED, reason="the service's document is not beside this project")
def test_every_printed_request_is_here() -> None:
    functions = [body["input"].get("function", EDIT) for body in PRINTED]
    assert sorted(set(functions)) == sorted([*(str(one) for one in Function if one), EDIT])
    assert len(functions) >= 7


@pytest.mark.parametrize("body", PRINTED, ids=lambda body: str(body["input"].get("function", body["model"])))
def test_a_printed_request_is_a_job(body: Object) -> None:
    made = draft_of(body)
    resolved = resolved_of(body)
    assert made.spec["prompt"] == body["input"]["prompt"]
    assert resolved.delivered_fps == 30
    assert ignored(*function_in(body)) == ()
    assert resolved.watermark is body["parameters"].get("watermark", False)


@pytest.mark.parametrize("body", PRINTED, ids=lambda body: str(body["input"].get("function", body["model"])))
def test_what_the_printed_requests_ask_for_arrives(body: Object) -> None:
    spec, asked = draft_of(body).spec, body["parameters"]
    urls = {source["url"] for source in _sources(spec)}
    given = [body["input"].get(name) for name in ("video_url", "mask_image_url", "first_clip_url")]
    given += body["input"].get("ref_images_url", []) + [one["url"] for one in body["input"].get("media", [])]
    assert urls == {url for url in given if url}
    if "size" in asked:
        assert f"{spec['output']['width']}*{spec['output']['height']}" == asked["size"]
    if "control_condition" in asked:
        assert spec["parameters"]["control"].lower() == asked["control_condition"]
    if "top_scale" in asked:
        assert spec["parameters"]["expand"] == dict.fromkeys(("top", "bottom", "left", "right"), 1.5)
    if "resolution" in asked:
        assert spec["output"]["resolution"] == asked["resolution"]
    if "obj_or_bg" in asked:
        roles = [one["role"] for one in spec["inputs"]["references"]]
        assert roles == [{"obj": "Object", "bg": "Background"}[role] for role in asked["obj_or_bg"]]


def _sources(spec: Mapping[str, Any]) -> list[Mapping[str, str]]:
    found = []
    for name, value in spec["inputs"].items():
        if name == "references":
            found += [one["source"] for one in value]
        else:
            found.append(value.get("source", value))
    return found


# --- each function, each field ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", list(Function))
def test_one_of_each_is_a_job_at_30_fps_in_mp4(function: Function) -> None:
    resolved = resolved_of(ONE_OF_EACH[function])
    assert (resolved.delivered_fps, resolved.fps, resolved.format) == (30, 16, "MP4")
    assert resolved.model == LOCAL


def test_references_are_objects_and_backgrounds_and_720p() -> None:
    spec = draft_of(ONE_OF_EACH[Function.IMAGE_REFERENCE]).spec
    assert spec == {
        "model": VACE,
        "task": "ReferenceToVideo",
        "prompt": "A fox in a wood",
        "inputs": {
            "references": [
                {"source": {"url": address("fox.png")}, "role": "Object"},
                {"source": {"url": address("wood.png")}, "role": "Background"},
            ]
        },
        "parameters": {"seed": 7, "durationSeconds": 5},
        "output": {"fps": 30, "watermark": True, "width": 720, "height": 1280},
    }


def test_without_a_size_references_are_rendered_in_1280_by_720() -> None:
    found = resolved_of(changed(Function.IMAGE_REFERENCE, parameters={"size": None, "obj_or_bg": None}))
    assert (found.output_width, found.output_height, found.backgrounds) == (1280, 720, ())


def test_of_more_than_three_references_the_first_three_are_used() -> None:
    images = [address(f"{index}.png") for index in range(5)]
    body = changed(
        Function.IMAGE_REFERENCE,
        input={"ref_images_url": images},
        parameters={"obj_or_bg": ["obj", "bg", "bg", "obj", "bg"]},
    )
    references = draft_of(body).spec["inputs"]["references"]
    assert [one["source"]["url"] for one in references] == images[:3]
    assert [one["role"] for one in references] == ["Object", "Background", "Background"]
    assert resolved_of(body).backgrounds == ("references[1]", "references[2]")


def test_one_reference_may_be_a_text() -> None:
    body = changed(Function.IMAGE_REFERENCE, input={"ref_images_url": address("a.png")}, parameters={"obj_or_bg": None})
    assert len(draft_of(body).spec["inputs"]["references"]) == 1


@pytest.mark.parametrize(
    ("asked", "control"),
    [
        ("posebodyface", "PoseFace"),
        ("posebody", "Pose"),
        ("depth", "Depth"),
        ("scribble", "Scribble"),
        (None, "Depth"),
        ("", "Depth"),
    ],
)
def test_a_control_condition_is_a_control(asked: str | None, control: str) -> None:
    body = changed(Function.VIDEO_REPAINTING, parameters={"control_condition": asked})
    assert resolved_of(body).control == control


@pytest.mark.parametrize(("strength", "found"), [(None, 1), (0.0, 0), (0.4, 0.4), (1, 1)])
def test_strength_is_control_strength(strength: float | None, found: float) -> None:
    body = changed(Function.VIDEO_REPAINTING, parameters={"strength": strength})
    assert resolved_of(body).control_strength == found


def test_a_repainting_and_an_outpainting_take_length_and_size_of_their_source() -> None:
    for function in (Function.VIDEO_REPAINTING, Function.VIDEO_OUTPAINTING):
        found = resolved_of(ONE_OF_EACH[function])
        assert (found.size_from_input, found.frames_from_input, found.frames) == (True, True, 81)


def test_a_mask_is_tracked_from_its_frame_in_the_source() -> None:
    spec = draft_of(ONE_OF_EACH[Function.VIDEO_EDIT]).spec
    assert spec["inputs"]["mask"] == {
        "source": {"url": address("mask.png")},
        "frame": 12,
        "frameOf": "Source",
        "mode": "Tracking",
        "expandRatio": 0.2,
    }


@pytest.mark.parametrize(
    ("given", "parameters", "mask"),
    [
        ({"mask_frame_id": None}, {"mask_type": None, "expand_ratio": None}, ("Tracking", 1, 0.05)),
        ({}, {"mask_type": "fixed", "expand_ratio": 0.5}, ("Fixed", 12, 0.0)),
        ({"mask_image_url": None, "mask_video_url": address("m.mp4")}, {"expand_ratio": 0.5}, ("Fixed", 1, 0.0)),
    ],
)
def test_expand_ratio_counts_only_where_a_mask_image_is_tracked(
    given: Object, parameters: Object, mask: tuple[str, int, float]
) -> None:
    found = resolved_of(changed(Function.VIDEO_EDIT, input=given, parameters=parameters))
    assert (found.mask_mode, found.mask_frame, found.mask_expand_ratio) == mask


def test_an_extension_is_five_seconds_of_clips_and_frames() -> None:
    names = ("first_clip_url", "last_clip_url", "first_frame_url", "last_frame_url")
    found = resolved_of(changed(Function.VIDEO_EXTENSION, input={name: address(name) for name in names}))
    assert found.inputs == ("firstFrame", "lastFrame", "firstClip", "lastClip")
    assert (found.frames, found.frames_from_input, found.size_from_input) == (81, False, True)


def test_scales_are_how_far_each_side_grows() -> None:
    found = resolved_of(ONE_OF_EACH[Function.VIDEO_OUTPAINTING])
    sides = (found.expand_top, found.expand_bottom, found.expand_left, found.expand_right)
    assert sides == (1.25, 1, 1.5, 1)


def test_an_edit_keeps_the_sound_and_has_the_size_of_its_ratio() -> None:
    spec = draft_of(ONE_OF_EACH[Function.EDIT]).spec
    assert spec["negativePrompt"] == "blur"
    assert spec["output"] == {"fps": 30, "watermark": False, "width": 720, "height": 1280, "audio": "Source"}
    assert spec["parameters"] == {"durationSeconds": 4}
    assert len(spec["inputs"]["references"]) == 1
    assert draft_of(ONE_OF_EACH[Function.EDIT]).note == {"sr": 720}


@pytest.mark.parametrize(("tier", "ratio"), list(SIZES))
def test_every_ratio_is_delivered_in_its_documented_size(tier: str, ratio: str) -> None:
    found = resolved_of(changed(Function.EDIT, parameters={"resolution": tier, "ratio": ratio}))
    assert (found.output_width, found.output_height) == SIZES[tier, ratio]
    assert found.width * found.height <= 1280 * 720


def test_without_resolution_and_ratio_an_edit_is_1080p_in_the_proportions_of_its_source() -> None:
    body = changed(Function.EDIT, parameters={"resolution": None, "ratio": None, "duration": None})
    found = resolved_of(body)
    assert (found.resolution, found.size_from_input, found.frames_from_input) == ("1080P", True, True)
    assert draft_of(body).note == {"sr": 1080}


@pytest.mark.parametrize(("duration", "frames"), [(0, 161), (None, 161), (2, 33), (10, 161), (5, 81)])
def test_a_duration_cuts_an_edit(duration: int | None, frames: int) -> None:
    found = resolved_of(changed(Function.EDIT, parameters={"duration": duration}))
    assert (found.frames, found.frames_from_input) == (frames, True)


@pytest.mark.parametrize("setting", ["auto", "origin", None])
def test_the_sound_of_an_edit_is_its_source_s(setting: str | None) -> None:
    assert resolved_of(changed(Function.EDIT, parameters={"audio_setting": setting})).audio == "Source"


# --- every valid request ----------------------------------------------------------------------------------------------


@given(VALID)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_every_valid_request_is_a_valid_job_and_comes_back_as_it_was_asked(body: Object) -> None:
    asked, resolved, made = body.get("parameters") or {}, resolved_of(body), draft_of(body)
    if asked.get("seed") is not None:
        assert resolved.seed == asked["seed"]
    if asked.get("size") and made.spec["task"] in ("ReferenceToVideo", "Inpaint"):
        assert f"{resolved.output_width}*{resolved.output_height}" == asked["size"]
    if "strength" in asked:
        assert resolved.control_strength == pytest.approx(asked["strength"])
    if made.spec["task"] == "Edit":
        seconds = asked.get("duration") or 10
        assert (resolved.frames - 1) / resolved.fps == seconds
        assert f"{made.note['sr']}P" == asked.get("resolution", "1080P")
        if asked.get("ratio"):
            wide, high = map(int, asked["ratio"].split(":"))
            assert resolved.output_width / resolved.output_height == pytest.approx(wide / high, rel=0.02)
    else:
        assert (resolved.frames - 1) / resolved.fps == 5
    assert resolved.watermark is asked.get("watermark", False)
    assert made.spec["prompt"] == body["input"]["prompt"]
    assert len(resolved.backgrounds) == (asked.get("obj_or_bg") or [])[:3].count("bg")


@given(VALID)
@settings(max_examples=60)
def test_every_source_of_a_job_has_its_field_in_the_request(body: Object) -> None:
    made = draft_of(body)
    for name, value in made.spec["inputs"].items():
        fields = [f"references[{index}]" for index in range(len(value))] if name == "references" else [name]
        for field in fields:
            assert made.fields[f"spec.inputs.{field}"].startswith("input.")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(VALID, st.sampled_from(["model", "input", "parameters", "input.*", "parameters.*"]), _JSON, st.randoms())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_does_more_than_be_refused(body: Object, place: str, value: object, random: Any) -> None:
    """Whatever one field holds: a job that the gateway would make, or a verdict; nothing else is raised."""
    outer, _, inner = place.partition(".")
    if inner and body.get(outer):
        body = {**body, outer: {**body[outer], random.choice(sorted(body[outer])): value}}
    else:
        body = {**body, outer: value}
    with suppress(ValidationError, InvalidInput):
        request = VideoSynthesis.model_validate_json(json.dumps(body))
        function = function_of(request, edits_only=request.model == EDIT)
        check(request, function)
        admit(draft(request, function).spec, catalogue(), SERVERS)
        ignored(request, function)


# --- sources and words ------------------------------------------------------------------------------------------------


async def test_what_the_gateway_knows_of_an_address_takes_its_place() -> None:
    async def source(text: str) -> Object:
        return {"upload": text.rpartition("/")[2]} if text.endswith(".png") else {"url": text}

    spec = await settled(draft_of(ONE_OF_EACH[Function.VIDEO_EDIT]), source)
    assert spec["inputs"]["mask"]["source"] == {"upload": "mask.png"}
    assert spec["inputs"]["video"] == {"url": address("a.mp4")}
    reference = await settled(draft_of(ONE_OF_EACH[Function.IMAGE_REFERENCE]), source)
    assert [one["source"] for one in reference["inputs"]["references"]] == [
        {"upload": "fox.png"},
        {"upload": "wood.png"},
    ]


@pytest.mark.parametrize("error", [NotFound("no such upload"), InvalidInput("", "no such upload")])
async def test_a_source_that_cannot_be_used_is_told_with_the_request_s_field(error: Exception) -> None:
    async def source(_text: str) -> Object:
        raise error

    with pytest.raises(InvalidInput) as caught:
        await settled(draft_of(ONE_OF_EACH[Function.EDIT]), source)
    assert (caught.value.field, caught.value.message) == ("input.media[0].url", "input.media[0].url: no such upload")


def test_a_refused_job_is_told_in_the_fields_of_the_request() -> None:
    made = draft_of(ONE_OF_EACH[Function.VIDEO_EDIT])
    text = "spec.inputs.video.url is no URL that is fetched; spec.inputs.mask.frame is 99; spec.inputs.mask is not set"
    assert retold(text, made.fields) == (
        "input.video_url is no URL that is fetched; input.mask_frame_id is 99; input.mask_image_url is not set"
    )
    references = draft_of(ONE_OF_EACH[Function.IMAGE_REFERENCE])
    found = retold("spec.inputs.references[1].source.url is no URL", references.fields)
    assert found == "input.ref_images_url[1] is no URL"


def test_sizes_are_width_then_height() -> None:
    assert size_of(VideoSynthesis.model_validate(ONE_OF_EACH[Function.IMAGE_REFERENCE])) == (720, 1280)
