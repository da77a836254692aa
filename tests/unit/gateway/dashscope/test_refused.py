"""What a DashScope request may not ask for, and what of it is ignored."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kinora.gateway.dashscope.inline import decoded, is_inline
from kinora.gateway.dashscope.request import Function, VideoSynthesis, function_of, ignored
from kinora.gateway.errors import InvalidInput
from unit.gateway.dashscope.asked import (
    LOCAL,
    ONE_OF_EACH,
    VACE,
    Object,
    address,
    changed,
    draft_of,
    function_in,
    refusal_of,
)

# --- what is refused --------------------------------------------------------------------------------------------------

REFERENCE, REPAINT, MASKED, EXTEND, OUTPAINT, EDITED = list(Function)


@pytest.mark.parametrize(
    ("function", "more", "field"),
    [
        (REFERENCE, {"input": {"prompt": None}}, "input.prompt"),
        (REFERENCE, {"input": {"prompt": "  "}}, "input.prompt"),
        (REFERENCE, {"input": {"ref_images_url": None}}, "input.ref_images_url"),
        (REFERENCE, {"input": {"ref_images_url": []}, "parameters": {"obj_or_bg": []}}, "input.ref_images_url"),
        (REFERENCE, {"parameters": {"obj_or_bg": ["obj"]}}, "parameters.obj_or_bg"),
        (REFERENCE, {"parameters": {"obj_or_bg": ["obj", "bg", "bg"]}}, "parameters.obj_or_bg"),
        (REFERENCE, {"parameters": {"size": "1920*1080"}}, "parameters.size"),
        (REFERENCE, {"parameters": {"size": "1280x720"}}, "parameters.size"),
        (REFERENCE, {"parameters": {"size": "1281*719"}}, "parameters.size"),
        (REFERENCE, {"parameters": {"size": "2048*128"}}, "parameters.size"),
        (REFERENCE, {"parameters": {"size": "١٢٨٠*720"}}, "parameters.size"),
        (REFERENCE, {"parameters": {"duration": 4}}, "parameters.duration"),
        (REFERENCE, {"input": {"function": None}}, "input.function"),
        (REFERENCE, {"input": {"function": "video-synthesis"}}, "input.function"),
        (REPAINT, {"input": {"video_url": None}}, "input.video_url"),
        (REPAINT, {"parameters": {"duration": 10}}, "parameters.duration"),
        (MASKED, {"input": {"mask_image_url": None}}, "input.mask_image_url"),
        (MASKED, {"input": {"mask_video_url": address("m.mp4")}}, "input.mask_video_url"),
        (MASKED, {"input": {"video_url": ""}}, "input.video_url"),
        (EXTEND, {"input": {"first_clip_url": None}}, "input"),
        (OUTPAINT, {"input": {"video_url": None}}, "input.video_url"),
        (OUTPAINT, {"parameters": {"left_scale": 1, "top_scale": None}}, "parameters"),
        (EDITED, {"input": {"media": None}}, "input.media"),
        (EDITED, {"input": {"media": [{"type": "reference_image", "url": "https://a.b/c"}]}}, "input.media"),
        (EDITED, {"input": {"media": [{"type": "video", "url": "https://a.b/c"}] * 2}}, "input.media"),
        (EDITED, {"parameters": {"duration": 1}}, "parameters.duration"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_field(function: Function, more: Object, field: str) -> None:
    refused = refusal_of(changed(function, **more))
    assert refused.field == field
    assert refused.message.startswith(field)
    assert "; allowed: " in refused.message


def test_five_references_are_one_too_many_for_an_edit() -> None:
    media = ONE_OF_EACH[EDITED]["input"]["media"][:1] + [{"type": "reference_image", "url": "https://a.b/c"}] * 5
    assert "at most 4" in refusal_of(changed(EDITED, input={"media": media})).message


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("parameters", "strength", 1.01),
        ("parameters", "strength", -0.01),
        ("parameters", "strength", float("nan")),
        ("parameters", "expand_ratio", 1.1),
        ("parameters", "top_scale", 0.99),
        ("parameters", "right_scale", 2.01),
        ("parameters", "seed", -1),
        ("parameters", "seed", 2**31),
        ("parameters", "seed", 1.5),
        ("parameters", "duration", 11),
        ("parameters", "resolution", "480P"),
        ("parameters", "ratio", "21:9"),
        ("parameters", "audio_setting", "none"),
        ("parameters", "control_condition", "canny"),
        ("parameters", "mask_type", "moving"),
        ("parameters", "obj_or_bg", ["subject"]),
        ("parameters", "watermark", "perhaps"),
        ("input", "prompt", "x" * 5001),
        ("input", "negative_prompt", "x" * 501),
        ("input", "mask_frame_id", 0),
        ("input", "video_url", "https://" + "x" * 2048),
        ("input", "media", [{"type": "audio", "url": "https://a.b/c"}]),
        ("input", "media", [{"type": "video"}]),
        ("input", "ref_images_url", [1]),
    ],
)
def test_every_range_has_an_end(place: str, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"{place}.{name}"):
        VideoSynthesis.model_validate({"model": VACE, "input": {}, place: {name: value}})


@pytest.mark.parametrize(("name", "values"), [("strength", (0, 1)), ("seed", (0, 2**31 - 1)), ("left_scale", (1, 2))])
def test_the_ends_of_a_range_are_in_it(name: str, values: tuple[float, float]) -> None:
    for value in values:
        VideoSynthesis.model_validate({"model": VACE, "input": {}, "parameters": {name: value}})


def test_a_picture_may_be_in_the_request_itself_and_a_video_may_not() -> None:
    picture = "data:image/png;base64," + "A" * 4000
    media = [ONE_OF_EACH[EDITED]["input"]["media"][0], {"type": "reference_image", "url": picture}]
    assert draft_of(changed(EDITED, input={"media": media})).spec["inputs"]["references"][0]["source"] == {
        "url": picture
    }
    for url, kind in ((picture, "video"), ("https://a.b/" + "x" * 2048, "reference_image")):
        other = "reference_image" if kind == "video" else "video"
        wrong = [{"type": kind, "url": url}, {"type": other, "url": "https://a.b/c"}]
        assert refusal_of(changed(EDITED, input={"media": wrong})).field == "input.media[0].url"


def test_a_picture_in_a_request_is_base64_of_a_known_type() -> None:
    assert decoded("data:image/PNG;base64,aGVsbG8=") == b"hello"
    for text in (
        "data:text/html;base64,aGVsbG8=",
        "data:image/png,hello",
        "data:image/png;base64,",
        "data:image/png;base64,%%",
    ):
        assert is_inline(text)
        with pytest.raises(InvalidInput, match="allowed: data:image/TYPE;base64"):
            decoded(text)


# --- what is ignored --------------------------------------------------------------------------------------------------


def test_keys_that_are_not_known_are_ignored_and_named() -> None:
    body = changed(
        Function.VIDEO_OUTPAINTING, input={"audio_url": "x"}, parameters={"size": "1280*720", "shot_type": "m"}
    )
    body["resources"] = []
    assert ignored(*function_in(body)) == ("input.audio_url", "parameters.shot_type", "parameters.size", "resources")
    assert draft_of(body).spec == draft_of(ONE_OF_EACH[Function.VIDEO_OUTPAINTING]).spec


def test_what_the_1_x_client_always_sends_is_not_even_named() -> None:
    body = changed(Function.EDIT, input={"extend_prompt": True, "function": "video-synthesis"})
    assert ignored(*function_in(body)) == ()
    assert function_in(body)[1] is Function.EDIT


def test_a_model_that_does_everything_is_told_apart_by_function_and_media() -> None:
    for function, body in ONE_OF_EACH.items():
        request = VideoSynthesis.model_validate({**body, "model": LOCAL})
        assert function_of(request, edits_only=False) is function


def test_null_is_as_left_out() -> None:
    body = changed(Function.VIDEO_REPAINTING)
    body["parameters"] = {"strength": None, "seed": None, "size": None, "control_condition": None, "duration": None}
    body["input"] |= {"ref_images_url": None, "media": None}
    assert draft_of(body).spec["parameters"] == {"control": "Depth", "controlStrength": 1}
