"""The spec of a VideoJob (kinora.dev/v1alpha1): one video to render. Every field of the design's api.md.

These models validate what people write. What is known of a job, its status, is in videojob_status.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from kinora.api.base import (
    ApiModel,
    ConfigMapKey,
    Finding,
    ObjectName,
    RelativePath,
    cel,
    exactly_one,
    is_set,
    rule,
)

SEED_MAX = 2**53 - 1


class Task(StrEnum):
    """What is asked of a model."""

    TEXT_TO_VIDEO = "TextToVideo"
    IMAGE_TO_VIDEO = "ImageToVideo"
    REFERENCE_TO_VIDEO = "ReferenceToVideo"
    VIDEO_TO_VIDEO = "VideoToVideo"
    INPAINT = "Inpaint"
    OUTPAINT = "Outpaint"
    EXTEND = "Extend"
    FIRST_LAST_FRAME = "FirstLastFrame"
    EDIT = "Edit"


class Control(StrEnum):
    """The signal that is drawn from the source video to steer the model."""

    NONE = "None"
    DEPTH = "Depth"
    POSE = "Pose"
    POSE_FACE = "PoseFace"
    SCRIBBLE = "Scribble"
    CANNY = "Canny"
    GRAY = "Gray"
    FLOW = "Flow"
    LAYOUT = "Layout"


class Preset(StrEnum):
    """Quality: the model's own steps; Fast: few steps through a LoRA."""

    QUALITY = "Quality"
    FAST = "Fast"


class Audio(StrEnum):
    """What becomes of the source's audio."""

    NONE = "None"
    SOURCE = "Source"


class ReferenceRole(StrEnum):
    """What a reference shows."""

    OBJECT = "Object"
    BACKGROUND = "Background"


class MaskMode(StrEnum):
    """Whether a mask image follows the object or stays where it is."""

    TRACKING = "Tracking"
    FIXED = "Fixed"


class MaskFrameOf(StrEnum):
    """Among which frames a mask's frame is counted: those that are rendered, or those of the source video."""

    RENDER = "Render"
    SOURCE = "Source"


class Resolution(StrEnum):
    """How large a video is delivered whose proportions its source gives: in at most so many pixels."""

    P480 = "480P"
    P720 = "720P"
    P1080 = "1080P"

    @property
    def pixels(self) -> int:
        """Width times height: 832x480, 1280x720 or 1920x1080."""
        return {"480P": 832 * 480, "720P": 1280 * 720, "1080P": 1920 * 1080}[self.value]


class ArtifactSource(ApiModel):
    """An output of another VideoJob of the same namespace."""

    video_job_name: ObjectName
    index: int = Field(0, ge=0, le=7)


class ClaimSource(ApiModel):
    """A file on one of the ModelServer's inputClaims, opened beneath its root without symlinks."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    path: RelativePath


class ConfigMapSource(ApiModel):
    """A binary or text key of a ConfigMap of the same namespace, at most 1 MiB."""

    name: ObjectName
    key: ConfigMapKey


_URL = r"[hH][tT][tT][pP][sS]?://[^/?#@\\\s]+([/?#].*)?"
_URL_ALLOWED = "https:// or http:// URLs without a user or password before the host"
_UPLOAD = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
_UPLOAD_ALLOWED = "a relative path whose parts begin with a letter, a digit or _ and hold only those, - and ."


def _no_url(value: Any) -> Iterator[Finding]:
    if isinstance(value, str) and not re.fullmatch(_URL, value):
        yield Finding(
            "", "no URL that is fetched", _URL_ALLOWED
        )  # it may hold a signature, which does not belong in a message


def _no_upload(value: Any) -> Iterator[Finding]:
    if isinstance(value, str) and not re.fullmatch(_UPLOAD, value):
        yield Finding("", "no key of the store", _UPLOAD_ALLOWED)


def _matches(pattern: str) -> str:
    return f"self.matches(r'^{pattern}$')"


# What the URL's host may be is the guarded fetcher's to say (kinora.storage.guard).
_URL_RULE = rule(_matches(_URL), f"url is no URL that is fetched; allowed: {_URL_ALLOWED}", meaning=_no_url)
_WEBHOOK_RULE = rule(_matches(_URL), f"url is none that is sent to; allowed: {_URL_ALLOWED}", meaning=_no_url)
_UPLOAD_RULE = rule(_matches(_UPLOAD), f"upload is no key of the store; allowed: {_UPLOAD_ALLOWED}", meaning=_no_upload)


class Source(ApiModel):
    """Where an input comes from: exactly one of the five."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("url", "artifact", "upload", "claim", "configMap")))

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        None, json_schema_extra=cel(_URL_RULE)
    )
    artifact: ArtifactSource | None = None
    upload: Annotated[str, StringConstraints(min_length=1, max_length=900)] | None = Field(
        None, json_schema_extra=cel(_UPLOAD_RULE)
    )
    claim: ClaimSource | None = None
    config_map: ConfigMapSource | None = None


class Mask(ApiModel):
    """The region that an Inpaint job generates anew (white)."""

    source: Source
    frame: int | None = Field(None, ge=1)
    frame_of: MaskFrameOf = MaskFrameOf.RENDER
    mode: MaskMode = MaskMode.TRACKING
    expand_ratio: float | None = Field(None, ge=0, le=1)


class Reference(ApiModel):
    """One reference image."""

    source: Source
    role: ReferenceRole = ReferenceRole.OBJECT


class Inputs(ApiModel):
    """What the task works on; which ones a task needs is said by the catalogue and checked before queueing."""

    image: Source | None = None
    video: Source | None = None
    first_frame: Source | None = None
    last_frame: Source | None = None
    first_clip: Source | None = None
    last_clip: Source | None = None
    mask: Mask | None = None
    references: list[Reference] = Field(default_factory=list, max_length=5)


class Expand(ApiModel):
    """Outpaint: how far each side grows, as a multiple of the source (1: not at all)."""

    top: float = Field(1, ge=1, le=2)
    bottom: float = Field(1, ge=1, le=2)
    left: float = Field(1, ge=1, le=2)
    right: float = Field(1, ge=1, le=2)


def _off_the_grid(value: Any) -> Iterator[Finding]:
    if isinstance(value, int) and value > 0 and value % 4 != 1:
        below = value - (value + 3) % 4
        yield Finding("", value, f"4n+1, the nearest are {below} and {below + 4}")


# `format`, not `+`: a concatenation that holds string(self) is over the API server's cost limit for messages.
_FRAMES = rule(
    "self % 4 == 1",
    "'frames is %d; allowed: 4n+1, the nearest are %d and %d'"
    ".format([self, self - (self + 3) % 4, self - (self + 3) % 4 + 4])",
    meaning=_off_the_grid,
)


def _two_lengths(value: Any) -> Iterator[Finding]:
    if is_set(value, "frames") and is_set(value, "durationSeconds"):
        yield Finding("durationSeconds", value["durationSeconds"], "unset where frames is set")


class Parameters(ApiModel):
    """How the model renders. What is left out comes from the catalogue."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            rule(
                "!(has(self.frames) && has(self.durationSeconds))",
                "frames and durationSeconds are both set; allowed: one of them",
                meaning=_two_lengths,
            )
        )
    )

    width: int | None = Field(None, ge=16, le=4096, multiple_of=16)
    height: int | None = Field(None, ge=16, le=4096, multiple_of=16)
    frames: int | None = Field(None, ge=1, le=1025, json_schema_extra=cel(_FRAMES))
    duration_seconds: float | None = Field(None, gt=0, le=60)
    fps: float | None = Field(None, ge=1, le=60)
    steps: int | None = Field(None, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=30)
    shift: float | None = Field(None, ge=0, le=100)
    seed: int | None = Field(None, ge=0, le=SEED_MAX, json_schema_extra={"format": "int64"})
    denoise: float | None = Field(None, ge=0, le=1)
    control_strength: float | None = Field(None, ge=0, le=2)
    control: Control | None = None
    expand: Expand | None = None
    preset: Preset | None = None


class Output(ApiModel):
    """How the result is delivered."""

    format: Literal["MP4"] = "MP4"
    width: int | None = Field(None, ge=2, le=4096, multiple_of=2)
    height: int | None = Field(None, ge=2, le=4096, multiple_of=2)
    resolution: Resolution | None = None
    fps: float | None = Field(None, ge=1, le=120)
    crf: int | None = Field(None, ge=0, le=51)
    audio: Audio = Audio.NONE
    watermark: bool = False
    key_prefix: Annotated[str, StringConstraints(max_length=256, pattern=r"^[-._/a-zA-Z0-9]*$")] | None = None


class WorkflowFile(ApiModel):
    """A file that a raw graph names, pinned by its hash where one is given."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        description="The name as it stands in the graph; the agent stages the file under one of its own and rewrites it"
    )
    source: Source
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$", max_length=64)] | None = None


#: What a raw graph can be given by name: fields of the spec, by the last step of their path.
BINDING_NAMES = (
    *("prompt", "negativePrompt", "width", "height", "frames", "fps", "steps", "guidance", "shift", "seed", "denoise"),
    *("controlStrength", "image", "video", "firstFrame", "lastFrame", "firstClip", "lastClip", "mask"),
    *(f"references[{index}]" for index in range(5)),
)
# One target or several, `node.input`: the node's id in the graph, and the name of one of its inputs.
_TARGETS = r"^[A-Za-z0-9_:-]{1,64}\.[^,]{1,128}(, ?[A-Za-z0-9_:-]{1,64}\.[^,]{1,128})*$"


def _unknown_bindings(value: Any) -> Iterator[Finding]:
    if isinstance(value, Mapping):
        for name in value:
            if name not in BINDING_NAMES:
                yield Finding(str(name), "no name of a binding", ", ".join(BINDING_NAMES))


_NAMED = rule(
    f"self.all(name, name in {list(BINDING_NAMES)})",
    f"bindings are named {', '.join(BINDING_NAMES)}",
    meaning=_unknown_bindings,
)


class WorkflowUpload(ApiModel):
    """A graph's text that lies in the store as an upload, at most 1 MiB; a stager reads and judges it."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=900)] = Field(json_schema_extra=cel(_UPLOAD_RULE))
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$", max_length=64)] = Field(
        description="Of the text: another text under that key is refused"
    )


class Workflow(ApiModel):
    """A raw graph in ComfyUI's API format, rendered instead of a task."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("configMapRef", "inline", "upload")))

    config_map_ref: ConfigMapSource | None = None
    upload: WorkflowUpload | None = None
    inline: Annotated[str, StringConstraints(min_length=2, max_length=65536)] | None = None
    bindings: dict[str, Annotated[str, StringConstraints(max_length=256, pattern=_TARGETS)]] = Field(
        default_factory=dict, max_length=len(BINDING_NAMES), json_schema_extra=cel(_NAMED)
    )
    files: list[WorkflowFile] = Field(default_factory=list, max_length=16)


class Webhook(ApiModel):
    """Whom to tell at the end, by an HTTP POST; signed with what is in the Secret, where one is named."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(json_schema_extra=cel(_WEBHOOK_RULE))
    secret_name: ObjectName | None = Field(
        None, description="A Secret of the job's namespace with the label kinora.dev/webhook-secret=true."
    )


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a task needs of spec.inputs: each of `all_of`, and one of `any_of`."""

    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()

    @property
    def present(self) -> str:
        """CEL about the spec: it is there."""

        def there(field: str) -> str:
            return f"self.?inputs.?{field}{'[?0]' if field == 'references' else ''}.hasValue()"

        return f"({' || '.join(map(there, self.any_of))})" if self.any_of else " && ".join(map(there, self.all_of))

    @property
    def named(self) -> str:
        """For people."""
        return (
            f"{', '.join(self.any_of[:-1])} or {self.any_of[-1]}"
            if self.any_of
            else " and spec.inputs.".join(self.all_of)
        )


_NEEDED: Mapping[str, _Needs] = {
    Task.IMAGE_TO_VIDEO: _Needs(("image",)),
    Task.REFERENCE_TO_VIDEO: _Needs(("references",)),
    Task.VIDEO_TO_VIDEO: _Needs(("video",)),
    Task.INPAINT: _Needs(("video", "mask")),
    Task.OUTPAINT: _Needs(("video",)),
    Task.EXTEND: _Needs(any_of=("firstClip", "lastClip", "firstFrame", "lastFrame")),
    Task.FIRST_LAST_FRAME: _Needs(("firstFrame", "lastFrame")),
    Task.EDIT: _Needs(("video",)),
}


def _missing_inputs(spec: Any) -> Iterator[Finding]:
    task = spec.get("task") if isinstance(spec, Mapping) else None
    needs = _NEEDED.get(task) if isinstance(task, str) else None
    if needs is None:
        return
    given = spec.get("inputs") or {}
    for field in needs.all_of:
        if not is_set(given, field) or given[field] == []:
            yield Finding(f"inputs.{field}", None, f"one: task {task} needs it")
    if needs.any_of and not any(is_set(given, field) for field in needs.any_of):
        yield Finding("inputs", "without all of them", f"at least one of {', '.join(needs.any_of)} for task {task}")


# One rule for all tasks, which reads `task` once, and `inputs` once for each needed input: the API server runs a
# CRD's rules again at every status write, and copies the schemas of all fields of the spec each time that a rule looks
# at one of them (docs/performance.md).
_MISSING = {str(task): f"{task} needs spec.inputs.{needs.named}, which is not set" for task, needs in _NEEDED.items()}
_REQUIRED_INPUTS = rule(
    "[self.?task.orValue('')].all(task, "
    + " : ".join(f"task == '{task}' ? {needs.present}" for task, needs in _NEEDED.items())
    + " : true)",
    f"'task ' + {_MISSING}[self.task]",
    meaning=_missing_inputs,
)


class VideoJobSpec(ApiModel):
    """What is asked for. Immutable but for suspend, cancel, priority and ttlSecondsAfterFinished."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            exactly_one("model", "modelServerName"), exactly_one("task", "workflow"), _REQUIRED_INPUTS
        )
    )

    model: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    model_server_name: ObjectName | None = None
    task: Task | None = None
    workflow: Workflow | None = None
    prompt: Annotated[str, StringConstraints(max_length=5000)] = ""
    negative_prompt: Annotated[str, StringConstraints(max_length=5000)] | None = None
    inputs: Inputs = Field(default_factory=Inputs)
    parameters: Parameters = Field(default_factory=Parameters)
    output: Output = Field(default_factory=Output)
    queue: Annotated[str, StringConstraints(min_length=1, max_length=63)] = "default"
    priority: int = Field(0, ge=-1000, le=1000)
    suspend: bool = False
    cancel: bool = Field(
        False, json_schema_extra=cel(rule("!oldSelf || self", "cancel is one-way: it is true and cannot be unset"))
    )
    start_deadline_seconds: int | None = Field(None, ge=1)
    ttl_seconds_after_finished: int | None = Field(None, ge=0)
    active_deadline_seconds: int = Field(7200, ge=1)
    backoff_limit: int = Field(2, ge=0, le=100)
    disruption_limit: int = Field(6, ge=0, le=1000)
    webhook: Webhook | None = None
