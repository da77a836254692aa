"""What is posted to video-synthesis: every field of DashScope's documents with its range and default, and the checks
that no single field can make. Pure. What a VideoJob is made of lies in spec.py.

Ranges are those of DashScope's pages on general video editing (wan2.1-vace-plus, wan2.7-videoedit). Keys that are not
in them are kept as extras, told to the log and otherwise ignored: the 1.x client always sends some.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from kinora.gateway.dashscope.inline import is_inline
from kinora.gateway.errors import InvalidInput

MAX_REFERENCES: Final = 3  # of wan2.1-vace-plus: of more, the first three are used
MAX_EDIT_REFERENCES: Final = 4
MAX_SEED: Final = 2**31 - 1
SECONDS: Final = 5  # of every video of wan2.1-vace-plus that is not as long as its source
MAX_PIXELS: Final = 1280 * 720
_MIN_SIDE, _MAX_ASPECT = 128, 8  # of a size
_MAX_ADDRESS: Final = 2048  # characters, as a VideoJob's Source has it


class Function(StrEnum):
    """What wan2.1-vace-plus is asked to do; EDIT is wan2.7-videoedit, which has no function."""

    IMAGE_REFERENCE = "image_reference"
    VIDEO_REPAINTING = "video_repainting"
    VIDEO_EDIT = "video_edit"
    VIDEO_EXTENSION = "video_extension"
    VIDEO_OUTPAINTING = "video_outpainting"
    EDIT = ""


VACE: Final = tuple(function for function in Function if function)


def _none_if_empty(value: object) -> object:
    """The documents' default of some fields is an empty text."""
    return None if value == "" else value


def _list_of_one(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Fields(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


Address = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=_MAX_ADDRESS)] | None, BeforeValidator(_none_if_empty)
]
Scale = Annotated[float | None, Field(ge=1, le=2)]


class Media(_Fields):
    """One of the media of wan2.7-videoedit."""

    type: Literal["video", "reference_image"]
    url: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="an address of at most 2,048 characters; of an image also data:image/TYPE;base64,..."
    )


class Input(_Fields):
    """What is worked on. Addresses are http, https, or oss:// keys of this service's own uploads."""

    prompt: Annotated[str, StringConstraints(max_length=5000)] | None = None
    negative_prompt: Annotated[str, StringConstraints(max_length=500)] | None = None
    function: str | None = Field(None, description=f"of wan2.1-vace-plus: {', '.join(VACE)}")
    ref_images_url: Annotated[list[str] | None, BeforeValidator(_list_of_one)] = Field(
        None, description="reference images; of more than three the first three are used"
    )
    video_url: Address = None
    mask_image_url: Address = Field(None, description="white is edited; this or mask_video_url")
    mask_frame_id: int | None = Field(None, ge=1, description="the frame of the video that the mask belongs to, from 1")
    mask_video_url: Address = None
    first_clip_url: Address = None
    last_clip_url: Address = None
    first_frame_url: Address = None
    last_frame_url: Address = None
    media: list[Media] | None = Field(
        None, description=f"of wan2.7-videoedit: one video, at most {MAX_EDIT_REFERENCES} reference_image"
    )


class Parameters(_Fields):
    """How it is made. What is left out has the documents' default."""

    obj_or_bg: list[Literal["obj", "bg"]] | None = Field(None, description="as many as ref_images_url")
    size: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="WIDTH*HEIGHT, 1280*720 for example; at most 921,600 pixels"
    )
    control_condition: Annotated[
        Literal["posebodyface", "posebody", "depth", "scribble"] | None, BeforeValidator(_none_if_empty)
    ] = Field(None, description="of video_repainting; depth where it is left out")
    strength: float | None = Field(None, ge=0, le=1, description="of video_repainting: 1.0 where it is left out")
    mask_type: Literal["tracking", "fixed"] | None = Field(None, description="tracking where it is left out")
    expand_ratio: float | None = Field(None, ge=0, le=1, description="with mask_type tracking; 0.05 if left out")
    top_scale: Scale = None
    bottom_scale: Scale = None
    left_scale: Scale = None
    right_scale: Scale = None
    resolution: Literal["720P", "1080P"] | None = Field(None, description="of wan2.7-videoedit; 1080P if left out")
    ratio: Annotated[Literal["16:9", "9:16", "1:1", "4:3", "3:4"] | None, BeforeValidator(_none_if_empty)] = Field(
        None, description="of wan2.7-videoedit; the video's own where it is left out"
    )
    duration: int | None = Field(
        None, ge=0, le=10, description="seconds; of wan2.7-videoedit 0 (all of the video) or 2 to 10, else 5"
    )
    audio_setting: Literal["auto", "origin"] | None = Field(None, description="auto where it is left out")
    prompt_extend: bool | None = Field(None, description="true where it is left out")
    watermark: bool | None = Field(None, description="false where it is left out")
    seed: int | None = Field(None, ge=0, le=MAX_SEED)


class VideoSynthesis(_Fields):
    """The body of POST /services/aigc/video-generation/video-synthesis."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    input: Input
    parameters: Parameters | None = None

    @property
    def asked(self) -> Parameters:
        """The parameters; without any, all are left out."""
        return self.parameters or Parameters()


_EVERYWHERE = ("prompt", "negative_prompt", "function", "seed", "prompt_extend", "watermark")
#: The fields that a function looks at, besides those that all do.
_USED: Mapping[Function, tuple[str, ...]] = MappingProxyType(
    {
        Function.IMAGE_REFERENCE: ("ref_images_url", "obj_or_bg", "size", "duration"),
        Function.VIDEO_REPAINTING: ("video_url", "ref_images_url", "control_condition", "strength", "duration"),
        Function.VIDEO_EDIT: (
            *("video_url", "mask_image_url", "mask_video_url", "mask_frame_id", "mask_type", "expand_ratio"),
            *("ref_images_url", "size", "duration"),
        ),
        Function.VIDEO_EXTENSION: (
            *("first_clip_url", "last_clip_url", "first_frame_url", "last_frame_url", "duration"),
        ),
        Function.VIDEO_OUTPAINTING: (
            *("video_url", "top_scale", "bottom_scale", "left_scale", "right_scale", "duration"),
        ),
        Function.EDIT: ("media", "resolution", "ratio", "duration", "audio_setting"),
    }
)
#: What the 1.x client sends with every request, whatever it is.
_NOISE: Final = frozenset({"extend_prompt", "function"})


def function_of(request: VideoSynthesis, *, edits_only: bool) -> Function:
    """Which function is meant. `edits_only`: the model does nothing else (wan2.7-videoedit). Raises InvalidInput."""
    named = request.input.function
    if edits_only or (named not in VACE and request.input.media is not None):
        return Function.EDIT
    if named not in VACE:
        found = "is not set" if not named else f"is {named[:80]!r}"
        raise InvalidInput("input.function", f"input.function {found}; allowed: {', '.join(VACE)}")
    return Function(named)


def ignored(request: VideoSynthesis, function: Function) -> tuple[str, ...]:
    """The keys that were given and that this function does not look at, sorted; names only, at most 32."""
    used = {*_EVERYWHERE, *_USED[function]}
    found = [f"{name}" for name in request.model_extra or {}]
    for place, fields in (("input", request.input), ("parameters", request.asked)):
        given = [name for name in fields.model_fields_set if getattr(fields, name, None) is not None]
        found += [f"{place}.{name}" for name in given if name not in used and name not in _NOISE]
    return tuple(sorted(name[:80] for name in found)[:32])


def check(request: VideoSynthesis, function: Function) -> None:
    """What concerns more than one field. Raises InvalidInput with the first fault."""
    if not (request.input.prompt or "").strip():
        raise _fault("input.prompt", None, "a text of 1 to 5,000 characters")
    _CHECKS[function](request)


def _check_references(request: VideoSynthesis) -> None:
    given, roles = request.input.ref_images_url or [], request.asked.obj_or_bg
    if not given:
        raise _fault("input.ref_images_url", None if request.input.ref_images_url is None else "empty", "1 to 3 images")
    if roles is not None and len(roles) != len(given):
        raise _fault(
            "parameters.obj_or_bg", f"a list of {len(roles)}", f"{len(given)}, one for each of input.ref_images_url"
        )
    size_of(request)
    _check_five_seconds(request)


def _check_video(request: VideoSynthesis) -> None:
    if request.input.video_url is None:
        raise _fault("input.video_url", None, "the address of a video")
    _check_five_seconds(request)


def _check_mask(request: VideoSynthesis) -> None:
    _check_video(request)
    image, video = request.input.mask_image_url, request.input.mask_video_url
    if image is None and video is None:
        raise _fault("input.mask_image_url", None, "an image, or input.mask_video_url instead")
    if image is not None and video is not None:
        raise _fault("input.mask_video_url", "set", "unset where input.mask_image_url is set")
    size_of(request)


def _check_ends(request: VideoSynthesis) -> None:
    given = request.input
    if not any((given.first_clip_url, given.last_clip_url, given.first_frame_url, given.last_frame_url)):
        fields = "first_clip_url, last_clip_url, first_frame_url and last_frame_url"
        raise _fault("input", f"without all of {fields}", "one of them at least")
    _check_five_seconds(request)


def _check_scales(request: VideoSynthesis) -> None:
    _check_video(request)
    if all(value in (None, 1) for value in scales(request).values()):
        allowed = "one at least of top_scale, bottom_scale, left_scale and right_scale above 1.0"
        raise _fault("parameters", "without any scale above 1.0", allowed)


def _check_edit(request: VideoSynthesis) -> None:
    media = request.input.media or []
    videos = sum(one.type == "video" for one in media)
    if videos != 1:
        raise _fault("input.media", f"a list with {videos} of type video", "exactly one of type video")
    if len(media) - videos > MAX_EDIT_REFERENCES:
        found = f"a list with {len(media) - videos} of type reference_image"
        raise _fault("input.media", found, f"at most {MAX_EDIT_REFERENCES} of them")
    for index, one in enumerate(media):
        inline = is_inline(one.url) and one.type == "reference_image"
        if len(one.url) > _MAX_ADDRESS and not inline:
            raise _fault(f"input.media[{index}].url", f"a text of {len(one.url)}", f"{_MAX_ADDRESS} characters at most")
    if request.asked.duration == 1:
        raise _fault("parameters.duration", 1, "0 (all of the video), or 2 to 10 seconds")


def _check_five_seconds(request: VideoSynthesis) -> None:
    if request.asked.duration not in (None, SECONDS):
        raise _fault("parameters.duration", request.asked.duration, f"{SECONDS}: it is the same for all videos")


_CHECKS: Final = MappingProxyType(
    {
        Function.IMAGE_REFERENCE: _check_references,
        Function.VIDEO_REPAINTING: _check_video,
        Function.VIDEO_EDIT: _check_mask,
        Function.VIDEO_EXTENSION: _check_ends,
        Function.VIDEO_OUTPAINTING: _check_scales,
        Function.EDIT: _check_edit,
    }
)


def size_of(request: VideoSynthesis) -> tuple[int, int] | None:
    """Width and height of `parameters.size`; None where it is left out. Raises InvalidInput."""
    text = request.asked.size
    if text is None:
        return None
    parts = text.split("*")
    allowed = (
        f"WIDTH*HEIGHT, both even and at least {_MIN_SIDE}, together at most {MAX_PIXELS} pixels,"
        " 1280*720 or 720*1280 or 960*960 for example"
    )
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise _fault("parameters.size", text, allowed)
    width, height = (int(part) for part in parts)
    least, most = sorted((width, height))
    if width % 2 or height % 2 or least < _MIN_SIDE or most > least * _MAX_ASPECT or width * height > MAX_PIXELS:
        raise _fault("parameters.size", text, allowed)
    return width, height


def scales(request: VideoSynthesis) -> dict[str, float | None]:
    """How far each side grows, by side."""
    return {side: getattr(request.asked, f"{side}_scale") for side in ("top", "bottom", "left", "right")}


def _fault(field: str, value: Any, allowed: str) -> InvalidInput:
    found = "is not set" if value is None else f"is {str(value)[:80]}"
    return InvalidInput(field, f"{field} {found}; allowed: {allowed}")
