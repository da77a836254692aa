"""Requests of the DashScope dialect: those that the service's document prints, one of each function, any valid one."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import Catalogue, load_catalogue
from kinora.gateway.admit import admit
from kinora.gateway.dashscope.request import Function, VideoSynthesis, check, function_of
from kinora.gateway.dashscope.spec import Draft, draft
from kinora.gateway.errors import InvalidInput
from kinora.recipes.resolve import resolve
from kinora.recipes.resolved import Resolved

Object = dict[str, Any]
VACE, EDIT, LOCAL = "wan2.1-vace-plus", "wan2.7-videoedit", "wan2.1-vace-14b"
SERVERS = [{"metadata": {"name": "vace"}, "spec": {"model": LOCAL}}]
_DOCUMENTS = Path(__file__).parents[5] / "shared" / "seeds"
_DATA = re.compile(r"--data '(\{.*?\n\})'", re.DOTALL)


def catalogue() -> Catalogue:
    """The packaged models, with the hosted names mapped."""
    return load_catalogue().with_aliases({VACE: LOCAL, EDIT: LOCAL})


def printed() -> list[Object]:
    """The bodies of the curl lines of the service's document; none where it is not beside this project."""
    found = sorted(_DOCUMENTS.glob("004*.txt"))
    text = found[0].read_text(encoding="utf-8") if found else ""
    return [json.loads(body.replace("'\\''", "'")) for body in _DATA.findall(text)]


def address(name: str) -> str:
    """Some file."""
    return f"https://media.example.com/{name}"


ONE_OF_EACH: dict[Function, Object] = {
    Function.IMAGE_REFERENCE: {
        "model": VACE,
        "input": {
            "function": "image_reference",
            "prompt": "A fox in a wood",
            "ref_images_url": [address("fox.png"), address("wood.png")],
        },
        "parameters": {"obj_or_bg": ["obj", "bg"], "size": "720*1280", "seed": 7, "watermark": True},
    },
    Function.VIDEO_REPAINTING: {
        "model": VACE,
        "input": {"function": "video_repainting", "prompt": "As a drawing", "video_url": address("a.mp4")},
        "parameters": {"control_condition": "posebodyface", "strength": 0.4, "prompt_extend": False},
    },
    Function.VIDEO_EDIT: {
        "model": VACE,
        "input": {
            "function": "video_edit",
            "prompt": "A lion sits there",
            "video_url": address("a.mp4"),
            "mask_image_url": address("mask.png"),
            "mask_frame_id": 12,
        },
        "parameters": {"mask_type": "tracking", "expand_ratio": 0.2, "size": "960*960"},
    },
    Function.VIDEO_EXTENSION: {
        "model": VACE,
        "input": {"function": "video_extension", "prompt": "It goes on", "first_clip_url": address("start.mp4")},
        "parameters": {},
    },
    Function.VIDEO_OUTPAINTING: {
        "model": VACE,
        "input": {"function": "video_outpainting", "prompt": "Hills around", "video_url": address("a.mp4")},
        "parameters": {"left_scale": 1.5, "top_scale": 1.25},
    },
    Function.EDIT: {
        "model": EDIT,
        "input": {
            "prompt": "In clay",
            "negative_prompt": "blur",
            "media": [
                {"type": "video", "url": address("a.mp4")},
                {"type": "reference_image", "url": address("coat.png")},
            ],
        },
        "parameters": {"resolution": "720P", "ratio": "9:16", "duration": 4, "audio_setting": "origin"},
    },
}


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries({}, optional=fields)


_PROMPT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(str.strip)
_COMMON = {
    "prompt_extend": st.booleans(),
    "watermark": st.booleans(),
    "seed": st.integers(0, 2**31 - 1),
}
_SIZES = st.one_of(
    st.sampled_from(["1280*720", "720*1280", "960*960", "832*1088", "1088*832"]),
    st.tuples(st.integers(64, 640), st.integers(64, 640))
    .map(lambda pair: (pair[0] * 2, pair[1] * 2))
    .filter(lambda pair: pair[0] * pair[1] <= 921_600 and 1 / 8 <= pair[0] / pair[1] <= 8)
    .map(lambda pair: f"{pair[0]}*{pair[1]}"),
)
_VIDEO = {"video_url": st.just(address("a.mp4"))}
_FIVE = {"duration": st.just(5)}
_IMAGES = st.lists(st.just(address("r.png")), min_size=1, max_size=6)
_REFERENCES = {"ref_images_url": _IMAGES}
_SHARE = st.floats(0, 1)


@st.composite
def _references(draw: st.DrawFn) -> Object:
    images = draw(_IMAGES)
    parameters = draw(_maybe(size=_SIZES, **_FIVE, **_COMMON))
    if draw(st.booleans()):
        roles = st.lists(st.sampled_from(["obj", "bg"]), min_size=len(images), max_size=len(images))
        parameters["obj_or_bg"] = draw(roles)
    return _body(draw, Function.IMAGE_REFERENCE, {"ref_images_url": images}, parameters)


@st.composite
def _repainting(draw: st.DrawFn) -> Object:
    condition = st.sampled_from(["posebodyface", "posebody", "depth", "scribble", ""])
    parameters = draw(_maybe(control_condition=condition, strength=_SHARE, **_FIVE, **_COMMON))
    given = draw(st.fixed_dictionaries(_VIDEO, optional=_REFERENCES))
    return _body(draw, Function.VIDEO_REPAINTING, given, parameters)


@st.composite
def _local_edit(draw: st.DrawFn) -> Object:
    mask = draw(st.sampled_from(["mask_image_url", "mask_video_url"]))
    given = draw(st.fixed_dictionaries({**_VIDEO, mask: st.just(address("m"))}, optional=_REFERENCES))
    given |= draw(_maybe(mask_frame_id=st.integers(1, 150)))
    kinds = st.sampled_from(["tracking", "fixed"])
    parameters = draw(_maybe(mask_type=kinds, expand_ratio=_SHARE, size=_SIZES, **_FIVE, **_COMMON))
    return _body(draw, Function.VIDEO_EDIT, given, parameters)


@st.composite
def _extension(draw: st.DrawFn) -> Object:
    names = ["first_clip_url", "last_clip_url", "first_frame_url", "last_frame_url"]
    given = {name: address(name) for name in draw(st.sets(st.sampled_from(names), min_size=1))}
    return _body(draw, Function.VIDEO_EXTENSION, given, draw(_maybe(**_FIVE, **_COMMON)))


@st.composite
def _outpainting(draw: st.DrawFn) -> Object:
    sides = ["top_scale", "bottom_scale", "left_scale", "right_scale"]
    parameters = draw(_maybe(**{side: st.floats(1, 2) for side in sides}, **_FIVE, **_COMMON))
    if not any(parameters.get(side, 1) > 1 for side in sides):
        parameters["left_scale"] = 1.5
    return _body(draw, Function.VIDEO_OUTPAINTING, draw(st.fixed_dictionaries(_VIDEO)), parameters)


@st.composite
def _edit(draw: st.DrawFn) -> Object:
    media = [{"type": "video", "url": address("a.mp4")}]
    media += [{"type": "reference_image", "url": address("r.png")}] * draw(st.integers(0, 4))
    given: Object = {"prompt": draw(_PROMPT), "media": draw(st.permutations(media))}
    given |= draw(_maybe(negative_prompt=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=500)))
    parameters = draw(
        _maybe(
            resolution=st.sampled_from(["720P", "1080P"]),
            ratio=st.sampled_from(["16:9", "9:16", "1:1", "4:3", "3:4", ""]),
            duration=st.sampled_from([0, *range(2, 11)]),
            audio_setting=st.sampled_from(["auto", "origin"]),
            **_COMMON,
        )
    )
    return {"model": EDIT, "input": given, "parameters": parameters}


def _body(draw: st.DrawFn, function: Function, given: Object, parameters: Object) -> Object:
    made: Object = {"model": VACE, "input": {"function": str(function), "prompt": draw(_PROMPT), **given}}
    if parameters or draw(st.booleans()):
        made["parameters"] = parameters
    return made


VALID: st.SearchStrategy[Object] = st.one_of(
    _references(), _repainting(), _local_edit(), _extension(), _outpainting(), _edit()
)


def function_in(body: Object) -> tuple[VideoSynthesis, Function]:
    """What a body asks for, as a route reads it."""
    request = VideoSynthesis.model_validate(body)
    function = function_of(request, edits_only=request.model == EDIT)
    check(request, function)
    return request, function


def draft_of(body: Object) -> Draft:
    """The VideoJob that a body becomes."""
    return draft(*function_in(body))


def resolved_of(body: Object) -> Resolved:
    """What a body renders, admitted and resolved."""
    spec = draft_of(body).spec
    model = admit(spec, catalogue(), SERVERS)
    return resolve(VideoJobSpec.model_validate(spec), model, "uid")


def changed(function: Function, **more: Any) -> Object:
    """One request of the function with `input` and `parameters` changed; None takes a field out."""
    body = copy.deepcopy(ONE_OF_EACH[function])
    for place in ("input", "parameters"):
        for name, value in (more.get(place) or {}).items():
            body[place].pop(name, None)
            if value is not None:
                body[place][name] = value
    return body


def refusal_of(body: Object) -> InvalidInput:
    """Why a body is refused."""
    with pytest.raises(InvalidInput) as caught:
        draft_of(body)
    return caught.value
