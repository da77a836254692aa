"""A WaveSpeed prediction's input -> VideoJob.spec. Pure. The fields, ranges and defaults are those of its document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.gateway.errors import InvalidInput
from kinora.gateway.mapping import (
    MAX_PROMPT,
    Body,
    Draft,
    compact,
    local_model,
    references,
    shown,
    size_of,
    unknown_notes,
    url,
)

#: The model of the document, the name by which an administrator may map it, and the model that is meant otherwise.
MODEL: Final = "wavespeed-ai/wan-2.1-14b-vace"
HOSTED: Final = "wan-2.1-14b-vace"
LOCAL: Final = "wan2.1-vace-14b"

#: Fields of the VideoJob -> fields of the request, for messages.
NAMES: Final = {
    "spec.model": "model",
    "spec.task": "task",
    "spec.prompt": "prompt",
    "spec.negativePrompt": "negative_prompt",
    "spec.inputs.references": "images",
    "spec.inputs.image": "first_image",
    "spec.inputs.video": "video",
    "spec.inputs.mask": "mask",
    "spec.inputs.firstFrame": "first_image",
    "spec.inputs.lastFrame": "last_image",
    "spec.parameters.durationSeconds": "duration",
    "spec.parameters.frames": "frames",
    "spec.parameters.steps": "num_inference_steps",
    "spec.parameters.guidance": "guidance_scale",
    "spec.parameters.shift": "flow_shift",
    "spec.parameters.controlStrength": "context_scale",
    "spec.parameters.control": "task",
    "spec.parameters.seed": "seed",
    "spec.output.width": "size",
    "spec.output.height": "size",
    "spec.output": "size",
    "spec.webhook.url": "webhook",
    "spec.webhook": "webhook",
}

_CONTROLS: Final = {"depth": "Depth", "pose": "Pose", "face": "PoseFace"}
_Link = Annotated[str, StringConstraints(max_length=2048)]


class Prediction(Body):
    """The input of wan-2.1-14b-vace. A link may be http(s), or one that this gateway gave for an upload or a result."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT, pattern=r"\S")]
    images: Annotated[list[_Link], Field(max_length=5)] = Field(default=[], description="Reference images, at most 5")
    video: _Link | None = Field(None, description="The video to work on")
    task: Literal["depth", "pose", "face", "inpainting", "none"] = Field(
        "depth", description="What is taken from the video to guide the new one"
    )
    negative_prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT)] | None = None
    mask_video: _Link | None = Field(None, description="White is made anew; with task inpainting")
    mask_image: _Link | None = Field(None, description="White is made anew; with task inpainting")
    first_image: _Link | None = Field(None, description="The first frame of the result")
    last_image: _Link | None = Field(None, description="The last frame of the result")
    duration: int = Field(5, ge=5, le=10, description="Seconds")
    size: Literal["832*480", "480*832", "1280*720", "720*1280"] = "832*480"
    num_inference_steps: int = Field(30, ge=1, le=40)
    guidance_scale: float = Field(5, ge=0, le=20)
    flow_shift: float = Field(16, ge=0, le=30, description="0 is rendered as 1")
    context_scale: float = Field(1, ge=0, le=2, description="How closely the result keeps to the video")
    seed: int = Field(-1, ge=-1, le=2147483647, description="-1: a random one")
    loras: Annotated[list[Any], Field(max_length=8)] | None = Field(
        None, description="The LoRAs of one of the model's presets, by file name; none is fetched"
    )
    enable_sync_mode: bool = Field(False, description="Keep the request open until the result is there")


def model_of(path: str, catalogue: Catalogue) -> str | None:
    """The local model behind the model in a request's path; None: there is none of that name.

    The document's model, or any other of the catalogue under `vendor/name`: all take the same parameters.
    """
    if path == MODEL:
        return local_model(HOSTED, LOCAL, catalogue)
    vendor, _, name = path.partition("/")
    return name if vendor and catalogue.get(name) is not None else None


@dataclass(frozen=True, slots=True)
class _Choice:
    task: str
    inputs: dict[str, Any]
    control: str | None = None
    notes: tuple[str, ...] = ()


def draft(asked: Prediction, model: str, webhook: str = "", *, entry: Model | None = None) -> Draft:
    """The VideoJob's spec for the local model `model`. `webhook`: the URL that is told of its end; empty: none.

    `entry`: what the catalogue knows of the model, and so of its LoRAs.
    Raises InvalidInput for what cannot go together.
    """
    _refuse(asked)
    choice = _choice(asked)
    notes = [*choice.notes, *unknown_notes(asked)]
    scale: float | None = asked.context_scale
    if choice.task == "TextToVideo":
        if asked.context_scale != 1:
            notes.append("context_scale has nothing to scale in a text-to-video prediction and was ignored")
        scale = None
    width, height = size_of(asked.size, "*")
    pictures = [link for link in asked.images if link]
    inputs = {**choice.inputs, **({"references": references(pictures)} if pictures else {})}
    preset = _preset(asked.loras, entry) if asked.loras else None

    def default(name: str) -> Any:
        """What a preset says itself is the request's to say only where it does."""
        return getattr(asked, name) if preset is None or name in asked.model_fields_set else None

    parameters = {
        "durationSeconds": asked.duration,
        "preset": preset,
        "steps": default("num_inference_steps"),
        "guidance": default("guidance_scale"),
        "shift": default("flow_shift"),
        "controlStrength": scale,
        "control": choice.control,
        "seed": None if asked.seed == -1 else asked.seed,
    }
    spec = {
        "model": model,
        "task": choice.task,
        "prompt": asked.prompt,
        "negativePrompt": asked.negative_prompt,
        "inputs": inputs,
        "parameters": compact(parameters),
        "output": {"width": width, "height": height},
        "webhook": {"url": webhook} if webhook else None,
    }
    return Draft(compact(spec), tuple(notes))


def _refuse(asked: Prediction) -> None:
    """What the API would have to guess about is said instead."""
    mask = "mask_video" if asked.mask_video else "mask_image" if asked.mask_image else None
    if asked.mask_video and asked.mask_image:
        raise InvalidInput("mask_image", "mask_image and mask_video are both set; allowed: one of them")
    if mask and not asked.video:
        raise InvalidInput("video", f"video is not set; allowed: the video that {mask} lies over")
    if mask and asked.task in _CONTROLS and "task" in asked.model_fields_set:
        raise InvalidInput("task", f"task is {asked.task} and {mask} is set; allowed: inpainting with a mask")
    if asked.task == "inpainting" and not asked.video:
        raise InvalidInput("video", "video is not set; allowed: one video, task inpainting needs it")
    if asked.task == "inpainting" and not mask:
        raise InvalidInput("mask_image", "mask_image is not set; allowed: it or mask_video, task inpainting needs one")
    for name in ("first_image", "last_image"):
        if asked.video and getattr(asked, name):
            raise InvalidInput(name, f"{name} and video are both set; allowed: one of them")


def _preset(loras: list[Any], entry: Model | None) -> str:
    """The preset whose LoRAs these are: all of its files, each as strong as it is made for. Raises InvalidInput."""
    presets = {name: entry.preset_weights(name) for name in entry.presets} if entry is not None else {}
    files = {_stem(one.name): (one, name) for name, found in presets.items() for one in found}
    known = ", ".join(sorted(one.name for one, _ in files.values())) or "none, the model has no LoRA"
    chosen: set[tuple[str, str]] = set()
    for index, lora in enumerate(loras):
        path, scale = _lora(f"loras[{index}]", lora, known)
        if _stem(path) not in files:
            said = "a URL" if "://" in path else shown(path)
            mend = "no LoRA is fetched: weights are the administrator's, and mounted for reading"
            raise InvalidInput(f"loras[{index}].path", f"loras[{index}].path is {said}; allowed: {known} ({mend})")
        file, name = files[_stem(path)]
        strength = entry.presets[name].strengths.get(file.role, 1) if entry is not None else 1
        if scale != strength:
            field, allowed = f"loras[{index}].scale", f"{strength:g}, for which {file.name} is made"
            raise InvalidInput(field, f"{field} is {shown(scale)}; allowed: {allowed}")
        chosen.add((str(name), file.name))
    names = {name for name, _ in chosen}
    wanted = {(str(name), one.name) for name, found in presets.items() if str(name) in names for one in found}
    if len(names) > 1 or chosen != wanted:
        missing = ", ".join(sorted(name for _, name in wanted))
        raise InvalidInput("loras", f"loras are {len(chosen)} of a preset's; allowed: all of one: {missing}")
    return names.pop()


def _lora(field: str, lora: Any, known: str) -> tuple[str, Any]:
    """The path and the scale of an entry. InvalidInput."""
    path = lora.get("path") if isinstance(lora, dict) else None
    if not isinstance(path, str) or not path:
        allowed = f'{{"path": a file name, "scale": 1}}, of these files: {known}'
        raise InvalidInput(field, f"{field} has no path; allowed: {allowed}")
    return path, lora.get("scale", 1)


def _stem(path: str) -> str:
    """`loras/a.safetensors` and `a` are one."""
    name = path.replace("\\", "/").removeprefix("loras/")
    return name.removesuffix(".safetensors")


def _choice(asked: Prediction) -> _Choice:
    mask = asked.mask_video or asked.mask_image
    if asked.video and mask:
        # A mask image stays where it is, as the API has it; following what it covers is DashScope's mask_type.
        return _Choice("Inpaint", {"video": url(asked.video), "mask": {"source": url(mask), "mode": "Fixed"}})
    if asked.video:
        return _Choice("VideoToVideo", {"video": url(asked.video)}, _CONTROLS.get(asked.task, "None"))
    choice = _without_video(asked)
    if asked.task in _CONTROLS and "task" in asked.model_fields_set:
        said = f"task {asked.task} has no video to work on: rendered as {_SAID[choice.task]}"
        return _Choice(choice.task, choice.inputs, notes=(said,))
    return choice


_SAID: Final = {
    "TextToVideo": "text-to-video",
    "ImageToVideo": "image-to-video",
    "ReferenceToVideo": "reference-to-video",
    "FirstLastFrame": "first-to-last-frame video",
    "Extend": "a video that leads to the last frame",
}


def _without_video(asked: Prediction) -> _Choice:
    if asked.first_image and asked.last_image:
        frames = {"firstFrame": url(asked.first_image), "lastFrame": url(asked.last_image)}
        return _Choice("FirstLastFrame", frames)
    if asked.first_image:
        return _Choice("ImageToVideo", {"image": url(asked.first_image)})
    if asked.last_image:
        return _Choice("Extend", {"lastFrame": url(asked.last_image)})
    return _Choice("ReferenceToVideo" if any(asked.images) else "TextToVideo", {})
