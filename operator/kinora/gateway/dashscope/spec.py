"""A checked request -> VideoJob.spec, and the note by which its task is answered later. Pure.

An address becomes `{"url": text}`; `settled` then puts there what the gateway knows of that text. `Draft.fields` says
which field of the request a field of the spec comes from, so that refusals name what the caller wrote.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from kinora.api.base import integral
from kinora.gateway.dashscope.request import (
    MAX_EDIT_REFERENCES,
    MAX_REFERENCES,
    SECONDS,
    Function,
    VideoSynthesis,
    scales,
    size_of,
)
from kinora.gateway.errors import InvalidInput, NotFound

FPS: Final = 30  # of every video that is delivered
_CONTROLS: Final = {"posebodyface": "PoseFace", "posebody": "Pose", "depth": "Depth", "scribble": "Scribble"}
_ROLES: Final = {"obj": "Object", "bg": "Background"}
#: What wan2.7-videoedit delivers where a ratio is asked for, as its document has it.
SIZES: Mapping[tuple[str, str], tuple[int, int]] = MappingProxyType(
    {
        ("720P", "16:9"): (1280, 720),
        ("720P", "9:16"): (720, 1280),
        ("720P", "1:1"): (960, 960),
        ("720P", "4:3"): (1104, 832),
        ("720P", "3:4"): (832, 1104),
        ("1080P", "16:9"): (1920, 1080),
        ("1080P", "9:16"): (1080, 1920),
        ("1080P", "1:1"): (1440, 1440),
        ("1080P", "4:3"): (1648, 1248),
        ("1080P", "3:4"): (1248, 1648),
    }
)

Spec = dict[str, Any]
#: A user's address -> the Source of the VideoJob.
SourceOf = Callable[[str], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Draft:
    """What a request comes to, its sources still as the caller wrote them."""

    spec: Spec
    note: Mapping[str, Any]
    fields: Mapping[str, str]
    "Field of the spec, `spec.inputs.video` -> field of the request, `input.video_url`."


class _Making:
    """A spec in the making, with where each part comes from."""

    def __init__(self, request: VideoSynthesis, task: str) -> None:
        self.given, self.asked = request.input, request.asked
        self.inputs: Spec = {}
        self.parameters: Spec = {"seed": self.asked.seed}
        self.output: Spec = {"fps": FPS, "watermark": bool(self.asked.watermark)}
        self.spec: Spec = {"model": request.model, "task": task, "prompt": self.given.prompt}
        self.spec["negativePrompt"] = self.given.negative_prompt
        self.fields = {
            "spec.model": "model",
            "spec.prompt": "input.prompt",
            "spec.negativePrompt": "input.negative_prompt",
            "spec.parameters.seed": "parameters.seed",
            "spec.output.watermark": "parameters.watermark",
        }

    def source(self, field: str, text: str | None, origin: str) -> None:
        if text is not None:
            self.inputs[field] = {"url": text}
            self.fields[f"spec.inputs.{field}"] = origin

    def references(self, texts: list[tuple[str, str]], roles: Sequence[str]) -> None:
        """`texts`: address and field of the request; `roles`: as many, or fewer, the rest being objects."""
        if texts:
            known = [_ROLES[role] for role in roles] + ["Object"] * len(texts)
            self.inputs["references"] = [
                {"source": {"url": text}, "role": role} for (text, _), role in zip(texts, known, strict=False)
            ]
        for index, (_, origin) in enumerate(texts):
            self.fields[f"spec.inputs.references[{index}]"] = origin

    def size(self, size: tuple[int, int] | None, origin: str) -> None:
        if size is not None:
            self.output["width"], self.output["height"] = size
        for field in ("spec.parameters.width", "spec.parameters.height", "spec.output.width", "spec.output.height"):
            self.fields[field] = origin

    def made(self, note: Mapping[str, Any]) -> Draft:
        parts = {"inputs": self.inputs, "parameters": _kept(self.parameters), "output": _kept(self.output)}
        return Draft(integral({**_kept(self.spec), **_kept(parts)}), note, self.fields)


def _kept(value: Spec) -> Spec:
    return {name: item for name, item in value.items() if item is not None and item != {}}


def draft(request: VideoSynthesis, function: Function) -> Draft:
    """The VideoJob of a request that `check` has let through."""
    making = _Making(request, _TASKS[function])
    _MAPPINGS[function](making, request)
    note: Spec = {"function": str(function)} if function else {"sr": _tier(request)}
    return making.made(note)


_TASKS: Mapping[Function, str] = MappingProxyType(
    {
        Function.IMAGE_REFERENCE: "ReferenceToVideo",
        Function.VIDEO_REPAINTING: "VideoToVideo",
        Function.VIDEO_EDIT: "Inpaint",
        Function.VIDEO_EXTENSION: "Extend",
        Function.VIDEO_OUTPAINTING: "Outpaint",
        Function.EDIT: "Edit",
    }
)


def _seconds(making: _Making) -> None:
    making.parameters["durationSeconds"] = SECONDS
    making.fields["spec.parameters.durationSeconds"] = "parameters.duration"


def _first_references(making: _Making) -> list[tuple[str, str]]:
    texts = (making.given.ref_images_url or [])[:MAX_REFERENCES]
    return [(text, f"input.ref_images_url[{index}]") for index, text in enumerate(texts)]


def _image_reference(making: _Making, request: VideoSynthesis) -> None:
    making.references(_first_references(making), list(making.asked.obj_or_bg or [])[:MAX_REFERENCES])
    making.size(size_of(request), "parameters.size")
    _seconds(making)


def _video_repainting(making: _Making, _request: VideoSynthesis) -> None:
    making.source("video", making.given.video_url, "input.video_url")
    making.references(_first_references(making), [])
    making.parameters["control"] = _CONTROLS[making.asked.control_condition or "depth"]
    making.parameters["controlStrength"] = 1 if making.asked.strength is None else making.asked.strength
    making.fields["spec.parameters.control"] = "parameters.control_condition"
    making.fields["spec.parameters.controlStrength"] = "parameters.strength"


def _video_edit(making: _Making, request: VideoSynthesis) -> None:
    making.source("video", making.given.video_url, "input.video_url")
    making.references(_first_references(making), [])
    if making.given.mask_image_url is not None:
        mask: Spec = {"source": {"url": making.given.mask_image_url}, "frameOf": "Source"}
        mask["frame"] = making.given.mask_frame_id or 1
        tracking = making.asked.mask_type != "fixed"
        mask["mode"] = "Tracking" if tracking else "Fixed"
        if tracking:
            mask["expandRatio"] = 0.05 if making.asked.expand_ratio is None else making.asked.expand_ratio
    else:
        mask = {"source": {"url": making.given.mask_video_url}, "mode": "Fixed"}
    making.inputs["mask"] = mask
    origin = "input.mask_image_url" if making.given.mask_image_url is not None else "input.mask_video_url"
    making.fields |= {
        "spec.inputs.mask": origin,
        "spec.inputs.mask.frame": "input.mask_frame_id",
        "spec.inputs.mask.expandRatio": "parameters.expand_ratio",
    }
    making.size(size_of(request), "parameters.size")


def _video_extension(making: _Making, _request: VideoSynthesis) -> None:
    for field, name in (
        ("firstClip", "first_clip_url"),
        ("lastClip", "last_clip_url"),
        ("firstFrame", "first_frame_url"),
        ("lastFrame", "last_frame_url"),
    ):
        making.source(field, getattr(making.given, name), f"input.{name}")
    _seconds(making)


def _video_outpainting(making: _Making, request: VideoSynthesis) -> None:
    making.source("video", making.given.video_url, "input.video_url")
    making.parameters["expand"] = {side: 1 if value is None else value for side, value in scales(request).items()}
    making.fields["spec.parameters.expand"] = "parameters.top_scale, bottom_scale, left_scale, right_scale"


def _edit(making: _Making, request: VideoSynthesis) -> None:
    references = []
    for index, one in enumerate(making.given.media or []):
        if one.type == "video":
            making.source("video", one.url, f"input.media[{index}].url")
        else:
            references.append((one.url, f"input.media[{index}].url"))
    making.references(references[:MAX_EDIT_REFERENCES], [])
    tier, ratio = _tier(request), making.asked.ratio
    if ratio is None:
        making.output["resolution"] = f"{tier}P"
        making.fields["spec.output.resolution"] = "parameters.resolution"
    else:
        making.size(SIZES[f"{tier}P", ratio], "parameters.ratio")
    making.parameters["durationSeconds"] = making.asked.duration or None
    making.fields["spec.parameters.durationSeconds"] = "parameters.duration"
    making.output["audio"] = "Source"
    making.fields["spec.output.audio"] = "parameters.audio_setting"


def _tier(request: VideoSynthesis) -> int:
    return int((request.asked.resolution or "1080P").removesuffix("P"))


_MAPPINGS: Mapping[Function, Callable[[_Making, VideoSynthesis], None]] = MappingProxyType(
    {
        Function.IMAGE_REFERENCE: _image_reference,
        Function.VIDEO_REPAINTING: _video_repainting,
        Function.VIDEO_EDIT: _video_edit,
        Function.VIDEO_EXTENSION: _video_extension,
        Function.VIDEO_OUTPAINTING: _video_outpainting,
        Function.EDIT: _edit,
    }
)


async def settled(made: Draft, source: SourceOf) -> Spec:
    """The spec with every address replaced by what `source` makes of it. InvalidInput names the request's field."""
    inputs = dict(made.spec.get("inputs") or {})

    async def found(field: str, value: Mapping[str, Any]) -> Spec:
        try:
            return dict(await source(value["url"]))
        except (InvalidInput, NotFound) as error:
            origin = made.fields.get(f"spec.inputs.{field}", field)
            raise InvalidInput(origin, f"{origin}: {error.message}") from None

    for name, value in inputs.items():
        if name == "references":
            inputs[name] = [
                {**one, "source": await found(f"references[{index}]", one["source"])} for index, one in enumerate(value)
            ]
        elif name == "mask":
            inputs[name] = {**value, "source": await found("mask", value["source"])}
        else:
            inputs[name] = await found(name, value)
    return {**made.spec, "inputs": inputs}


_ENDS: Final = {
    f"spec.inputs.{side}{kind}": f"input.{side}_{kind.lower()}_url"
    for side in ("first", "last")
    for kind in ("Clip", "Frame")
}
_OF_VACE: Mapping[str, str] = MappingProxyType(
    {
        **_ENDS,
        "spec.inputs.video": "input.video_url",
        "spec.inputs.references": "input.ref_images_url",
        "spec.inputs.mask": "the mask of input.mask_image_url or input.mask_video_url",
        "spec.inputs.mask.frame": "input.mask_frame_id",
    }
)
_OF_EDIT: Mapping[str, str] = MappingProxyType(
    {
        "spec.inputs.video": "the video of input.media",
        "spec.inputs.references": "reference_image of input.media",
        "spec.parameters.durationSeconds": "parameters.duration",
    }
)


def fields_of(note: Mapping[str, Any]) -> Mapping[str, str]:
    """What the fields of a job's spec were in its request, as far as its note tells."""
    return _OF_VACE if "function" in note else _OF_EDIT


def retold(text: str, fields: Mapping[str, str]) -> str:
    """A message about a VideoJob's fields, in those of the request."""
    for field in sorted(fields, key=len, reverse=True):
        place = rf"(?<![\w.]){re.escape(field)}(?!\w)(?:\.source)?(?:\.(?:url|upload|artifact)\b)?"
        text = re.sub(place, fields[field].replace("\\", ""), text)
    return text
