"""Requests of /v1/videos -> VideoJob.spec. Pure. Fields of the `openai` package, and those that other servers added.

Which file `input_reference` and `video` are is the caller's to find out: here they are Sources of a VideoJob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from kinora.catalogue.load import Catalogue
from kinora.gateway.errors import InvalidInput, ModelNotFound
from kinora.gateway.mapping import MAX_PROMPT, MAX_SEED, Body, Draft, Source, compact, shown, size_of, unknown_notes
from kinora.recipes.joining import generated_frames

#: What the API renders where the request says nothing.
SECONDS: Final = 4.0
SIZE: Final = "720x1280"
#: The model that its clients name, or mean by naming none: an administrator may map it.
HOSTED: Final = "sora-2"

#: Fields of the VideoJob -> fields of the request, for messages.
NAMES: Final = {
    "spec.model": "model",
    "spec.task": "model",
    "spec.prompt": "prompt",
    "spec.negativePrompt": "negative_prompt",
    "spec.inputs.image": "input_reference",
    "spec.inputs.video": "video",
    "spec.inputs.firstClip": "video",
    "spec.parameters.durationSeconds": "seconds",
    "spec.parameters.frames": "num_frames",
    "spec.parameters.fps": "fps",
    "spec.parameters.steps": "num_inference_steps",
    "spec.parameters.guidance": "guidance_scale",
    "spec.parameters.shift": "flow_shift",
    "spec.parameters.seed": "seed",
    "spec.output.width": "size",
    "spec.output.height": "size",
    "spec.output": "size",
}

_Prompt = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT, pattern=r"\S")]
_Model = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class Rendering(Body):
    """What every request may say of how it is rendered; the model's own value where it says nothing."""

    model: _Model | None = Field(
        None, description="A model of the catalogue; none: what sora-2 is mapped to, or served"
    )
    fps: float | None = Field(None, ge=1, le=60)
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    guidance_scale: float | None = Field(None, ge=0, le=30)
    flow_shift: float | None = Field(None, ge=0, le=100)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    negative_prompt: Annotated[str, StringConstraints(max_length=MAX_PROMPT)] | None = None


class CreateVideo(Rendering):
    """POST /videos."""

    prompt: _Prompt
    seconds: float = Field(SECONDS, gt=0, le=60, description="Length, as text or number")
    size: Annotated[str, StringConstraints(pattern=r"^\d{2,4}x\d{2,4}$")] = Field(SIZE, description="WIDTHxHEIGHT")
    input_reference: Any = Field(
        None, description="The first frame: a file, or as JSON {image_url: URL or data URL} or a URL"
    )
    num_frames: int | None = Field(None, ge=1, le=1025, description="4n+1; goes before seconds")
    width: int | None = Field(None, ge=16, le=4096, description="With height: goes before size")
    height: int | None = Field(None, ge=16, le=4096)


class EditVideo(Rendering):
    """POST /videos/edits."""

    prompt: _Prompt
    video: Any = Field(description="A file, or as JSON {id: a completed video}, or a URL")


class ExtendVideo(EditVideo):
    """POST /videos/extensions."""

    seconds: float = Field(gt=0, le=60, description="Length of what is added")


class RemixVideo(Body):
    """POST /videos/{id}/remix."""

    prompt: _Prompt


def create_draft(asked: CreateVideo, model: str, picture: Source | None) -> Draft:
    """A video from a prompt and, where there is one, its first frame."""
    width, height = _size(asked)
    length = {"frames": asked.num_frames} if asked.num_frames else {"durationSeconds": asked.seconds}
    spec = {
        "model": model,
        "task": "TextToVideo" if picture is None else "ImageToVideo",
        "prompt": asked.prompt,
        "negativePrompt": asked.negative_prompt,
        "inputs": {} if picture is None else {"image": picture},
        "parameters": compact({**length, **_parameters(asked)}),
        "output": {"width": width, "height": height},
    }
    return Draft(compact(spec), unknown_notes(asked))


def edit_draft(asked: EditVideo, model: str, source: Source) -> Draft:
    """An edit: as long and as large as the video that it starts from. `source`: that video, as VideoJobs name it."""
    return _with_video(asked, model, "Edit", {"video": source}, {})


def extend_draft(asked: ExtendVideo, model: str, source: Source, frames: int) -> Draft:
    """A video that goes on from another one; `frames` as `extension_frames` has it."""
    return _with_video(asked, model, "Extend", {"firstClip": source}, {"frames": frames})


def _with_video(asked: EditVideo, model: str, task: str, inputs: dict[str, Any], parameters: dict[str, Any]) -> Draft:
    spec = {
        "model": model,
        "task": task,
        "prompt": asked.prompt,
        "negativePrompt": asked.negative_prompt,
        "inputs": inputs,
        "parameters": compact({**parameters, **_parameters(asked)}),
    }
    return Draft(compact(spec), unknown_notes(asked))


def remix_spec(spec: dict[str, Any], prompt: str, seed: int | None) -> dict[str, Any]:
    """The stored request with another prompt, and the seed that was rendered. Raises InvalidInput for a raw graph."""
    if spec.get("workflow") is not None:
        raise InvalidInput("video_id", "the video was rendered from a raw graph; allowed: one made from a prompt")
    kept: dict[str, Any] = {name: spec[name] for name in _KEPT if name in spec}
    parameters = dict(kept.get("parameters") or {})
    if seed is not None:
        parameters.setdefault("seed", seed)
    return compact({**kept, "parameters": parameters, "prompt": prompt})


#: Of a stored spec, what says what is rendered; not how the job was queued or ended.
_KEPT: Final = ("model", "modelServerName", "task", "negativePrompt", "inputs", "parameters", "output")


def extension_frames(seconds: float, fps: float, clip: int | None, most: int) -> int:
    """`parameters.frames` of an extension by `seconds` (rounded to what the model makes, four frames).

    `clip`: the frames of the clip at that rate; None: not known, it is taken to be longer than what is added. `most`:
    the model's own limit. Raises InvalidInput where no number of frames adds that much.
    """
    added = max(round(seconds * fps / 4), 1) * 4
    length = most + 1 if clip is None else clip
    generated = {frames: generated_frames(frames, length) for frames in range(5, most + 1, 4)}
    for frames, more in generated.items():
        if more >= added:
            return frames
    longest = max(generated.values(), default=0) / fps
    raise InvalidInput("seconds", f"seconds is {seconds:g}; allowed: at most {longest:g} for this model and video")


def default_model(task: str, servers: Sequence[Mapping[str, Any]], catalogue: Catalogue) -> str:
    """The model of a request that names none: what an administrator mapped sora-2 to, else one that is served.

    `servers`: the ModelServers that there are, by name; the first one whose model does the task. Raises ModelNotFound.
    """
    if catalogue.get(HOSTED) is not None:
        return HOSTED
    for server in servers:
        model = catalogue.get((server.get("spec") or {}).get("model"))
        if model is not None and task in model.tasks:
            return model.name
    raise ModelNotFound("model", f"model is not set, and nothing that is served here does the task {task}")


def served_models(servers: Sequence[Mapping[str, Any]], catalogue: Catalogue) -> list[str]:
    """The names of models that these ModelServers serve, and the aliases that lead to them."""
    served = {(server.get("spec") or {}).get("model") for server in servers}
    names = [name for name in catalogue.names if name in served]
    return names + sorted(alias for alias, target in catalogue.aliases.items() if target in served)


def reference_url(value: object) -> str | None:
    """The text in `input_reference` as JSON: a URL, or {image_url}. None: none given. Raises InvalidInput."""
    if isinstance(value, dict) and value.get("file_id") is not None:
        raise InvalidInput("input_reference", "file_id is set; allowed: image_url, this server keeps no files by id")
    text = value.get("image_url") if isinstance(value, dict) else value
    if text is None and not isinstance(value, dict):
        return None
    if not isinstance(text, str) or not text:
        allowed = "a file, a URL, or an object with image_url"
        raise InvalidInput("input_reference", f"input_reference is {shown(value)}; allowed: {allowed}")
    return text


def _size(asked: CreateVideo) -> tuple[int, int]:
    if (asked.width is None) is not (asked.height is None):
        missing = "width" if asked.width is None else "height"
        raise InvalidInput(missing, f"{missing} is not set; allowed: both of width and height, or size")
    if asked.width is not None and asked.height is not None:
        return asked.width, asked.height
    return size_of(asked.size)


def _parameters(asked: Rendering) -> dict[str, Any]:
    return {
        "fps": asked.fps,
        "steps": asked.num_inference_steps,
        "guidance": asked.guidance_scale,
        "shift": asked.flow_shift,
        "seed": asked.seed,
    }
