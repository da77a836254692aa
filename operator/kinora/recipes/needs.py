"""Which inputs a task works on, by name and kind: the one table that resolution, staging and the recipes read.

Names of staged inputs: `image`, `video`, `mask`, `references[0]`. What was found in a staged file is judged here too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from kinora.api.videojob import Inputs, MaskFrameOf, Source, Task, VideoJobSpec
from kinora.recipes.delivery import MAX_FRAMES
from kinora.recipes.faults import Fault
from kinora.recipes.resolved import Resolved


class MediaKind(StrEnum):
    """What a staged file must be."""

    IMAGE = "Image"
    VIDEO = "Video"
    EITHER = "ImageOrVideo"


@dataclass(frozen=True, slots=True)
class Need:
    """One input of a task: its field in `spec.inputs`, and how many of them this release renders."""

    field: str
    kind: MediaKind
    required: bool = True
    at_most: int = 1


@dataclass(frozen=True, slots=True)
class NamedInput:
    """One input of one job, to be staged under `name`. `source` is as the job gives it."""

    name: str
    kind: MediaKind
    source: Source


class MediaFacts(Protocol):
    """What a probe tells of a staged file."""

    @property
    def kind(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def fps(self) -> float: ...


_IMAGE = Need("image", MediaKind.IMAGE)
_VIDEO = Need("video", MediaKind.VIDEO)
_REFERENCES = Need("references", MediaKind.IMAGE, required=False, at_most=5)
_FIRST_LAST = (Need("firstFrame", MediaKind.IMAGE), Need("lastFrame", MediaKind.IMAGE))

#: The tasks that this release renders. What is not here is NotImplemented.
NEEDS: Mapping[Task, tuple[Need, ...]] = MappingProxyType(
    {
        Task.TEXT_TO_VIDEO: (),
        Task.IMAGE_TO_VIDEO: (_IMAGE, _REFERENCES),
        Task.REFERENCE_TO_VIDEO: (replace(_REFERENCES, required=True),),
        Task.VIDEO_TO_VIDEO: (_VIDEO, _REFERENCES),
        Task.INPAINT: (_VIDEO, Need("mask", MediaKind.EITHER), _REFERENCES),
        Task.OUTPAINT: (_VIDEO, _REFERENCES),
        Task.EXTEND: (
            *(replace(need, required=False) for need in _FIRST_LAST),
            Need("firstClip", MediaKind.VIDEO, required=False),
            Need("lastClip", MediaKind.VIDEO, required=False),
            _REFERENCES,
        ),
        Task.FIRST_LAST_FRAME: (*_FIRST_LAST, _REFERENCES),
        Task.EDIT: (_VIDEO, _REFERENCES),
    }
)


def given_inputs(inputs: Inputs) -> Mapping[str, tuple[Source, ...]]:
    """The sources of each field of `spec.inputs` that is set, by the field's name in the manifest."""
    found: dict[str, tuple[Source, ...]] = {}
    for attribute, field in Inputs.model_fields.items():
        value = getattr(inputs, attribute)
        if isinstance(value, Source):
            found[field.alias or attribute] = (value,)
        elif isinstance(value, list) and value:
            found[field.alias or attribute] = tuple(item.source for item in value)
        elif value is not None and not isinstance(value, list):
            found[field.alias or attribute] = (value.source,)
    return found


def given_sources(spec: VideoJobSpec) -> tuple[tuple[str, Source], ...]:
    """Every source of a job, its inputs' and its workflow's, with the field of the manifest that holds it."""
    given = [
        (field_of(input_name(field, index)), source)
        for field, sources in given_inputs(spec.inputs).items()
        for index, source in enumerate(sources)
    ]
    files = spec.workflow.files if spec.workflow is not None else ()
    return (*given, *((field_of(file_name(index)), file.source) for index, file in enumerate(files)))


def named_inputs(spec: VideoJobSpec) -> tuple[NamedInput, ...]:
    """What the agent stages for this job, in a stable order; empty for a task that this release does not render."""
    given = given_inputs(spec.inputs)
    if spec.workflow is not None:
        named = [(input_name(field, index), one) for field, found in given.items() for index, one in enumerate(found)]
        named += [(file_name(index), file.source) for index, file in enumerate(spec.workflow.files)]
        return tuple(NamedInput(name, kind_of(name), source) for name, source in named)
    return tuple(_named(NEEDS.get(spec.task, ()) if spec.task else (), given))


def _named(needs: tuple[Need, ...], given: Mapping[str, tuple[Source, ...]]) -> Iterator[NamedInput]:
    for need in needs:
        for index, source in enumerate(given.get(need.field, ())[: need.at_most]):
            yield NamedInput(input_name(need.field, index), need.kind, source)


def input_name(field: str, index: int = 0) -> str:
    """The name of an input: `references[1]` for fields that hold several, else the field."""
    return f"{field}[{index}]" if field == "references" else field


def file_name(index: int) -> str:
    """The name under which a file of a raw workflow is staged."""
    return f"files[{index}]"


def field_of(name: str) -> str:
    """The field of the manifest that a staged input of this name comes from."""
    if not name.startswith("files["):
        return f"spec.inputs.{name}"
    file, _, below = name.partition("]")
    return f"spec.workflow.{file}].source{below}"


def kind_of(name: str) -> MediaKind:
    """What the input of this name must be."""
    if name == "mask" or name.startswith("files["):
        return MediaKind.EITHER
    return MediaKind.VIDEO if name in ("video", "firstClip", "lastClip") else MediaKind.IMAGE


def staging_faults(resolved: Resolved, found: Mapping[str, MediaFacts]) -> tuple[Fault, ...]:
    """Judge what was found in the staged inputs. A source video must have every frame that is asked for.

    The engine would pad a short one with grey and let the model invent the rest, without a word.
    """
    faults = []
    for name in resolved.inputs:
        facts, expected = found.get(name), kind_of(name)
        field = f"spec.inputs.{name}"
        words = "one image or video" if expected is MediaKind.EITHER else f"one {expected.lower()}"
        if facts is None:
            faults.append(Fault(field, None, words))
        elif expected not in (facts.kind, MediaKind.EITHER):
            faults.append(Fault(field, f"a file of kind {facts.kind}", words))
        elif facts.kind == MediaKind.VIDEO and name not in ("firstClip", "lastClip"):
            faults.extend(_length_faults(field, facts, resolved))
    return tuple(faults) or (*_clip_faults(resolved, found), *_mask_faults(resolved, found))


def _clip_faults(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Iterator[Fault]:
    """An extension's clips have frames; something is left to generate; the whole is not too long to be looked at."""
    clips = [name for name in resolved.inputs if name in ("firstClip", "lastClip")]
    kept = {name: frames_at_rate(found[name].frames, found[name].fps, resolved.fps) for name in clips}
    for name, count in kept.items():
        if count < 1:
            yield Fault(f"spec.inputs.{name}", f"a video at {found[name].fps:g} fps", "a video with a frame rate")
    least = LEAST_GENERATED + sum(
        f"{side}Frame" in resolved.inputs or f"{side}Clip" in resolved.inputs for side in ("first", "last")
    )
    if kept and resolved.frames < least:
        allowed = f"at least {(least + 2) // 4 * 4 + 1} frames, some of them generated"
        yield Fault("spec.parameters.frames", resolved.frames, allowed)
    total = sum(kept.values()) * resolved.delivered_fps / resolved.fps if kept else 0
    if total > MAX_FRAMES - resolved.delivered_frames:
        words = f"{' and '.join(map(str, kept.values()))} frames at {resolved.fps:g} fps"
        allowed = f"clips of which at most {MAX_FRAMES} frames in all are delivered"
        yield Fault(f"spec.inputs.{clips[0]}", words, allowed, "give shorter clips, or lower spec.output.fps")


LEAST_GENERATED = 4  # one step of the VAE


def _length_faults(field: str, facts: MediaFacts, resolved: Resolved) -> Iterator[Fault]:
    available = frames_at_rate(facts.frames, facts.fps, resolved.fps)
    wanted = 5 if resolved.frames_from_input else resolved.frames - resolved.last_held
    if available < wanted:
        fitting = (available - 1) // 4 * 4 + 1
        yield Fault(
            field,
            f"a video of {facts.frames} frames at {facts.fps:g} fps, which makes {available} at {resolved.fps:g} fps",
            f"at least {wanted} frames at {resolved.fps:g} fps",
            f"set spec.parameters.frames to {fitting} or give a longer video"
            if fitting >= 5
            else "give a longer video",
        )


def _mask_faults(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Iterator[Fault]:
    """A mask's frame is one of those that are rendered, however it is counted."""
    if "mask" not in found or "video" not in found or resolved.mask_frame == 1:
        return
    frames = frames_to_render(resolved, found)
    video, of_source = found["video"], resolved.mask_frame_of == MaskFrameOf.SOURCE
    most = min(video.frames, int((frames - 1) * video.fps / resolved.fps) + 1) if of_source else frames
    if resolved.mask_frame > most:
        whose = "of the source" if of_source else "that are rendered"
        yield Fault("spec.inputs.mask.frame", resolved.mask_frame, f"1 to {most}, the frames {whose}")


def frames_of_source(resolved: Resolved, found: Mapping[str, MediaFacts]) -> int:
    """How many frames at the rate of the render the source has: a mask that is a video has to last, too."""
    masks = [facts for name, facts in found.items() if name == "mask" and facts.kind == MediaKind.VIDEO]
    return min(frames_at_rate(facts.frames, facts.fps, resolved.fps) for facts in (found["video"], *masks))


def frames_to_render(resolved: Resolved, found: Mapping[str, MediaFacts]) -> int:
    """The job's frames; where the source says how many, 4n+1 of them, of which the last may be the source's very end:
    5 s at 16 fps are 80 frames and the moment at which they end, 81."""
    if not resolved.frames_from_input:
        return resolved.frames
    return min(resolved.frames, max(frames_of_source(resolved, found) // 4 * 4, 4) + 1)


def frame_at_rate(frame: int, source_fps: float, fps: float) -> int:
    """Which frame at `fps` shows the moment of a source's frame; both counted from 1."""
    return round((frame - 1) * fps / source_fps) + 1 if source_fps > 0 else 1


def frames_at_rate(frames: int, source_fps: float, fps: float) -> int:
    """How many whole frames at `fps` a video of `frames` frames lasts; one at least when it has any."""
    if frames <= 0 or source_fps <= 0 or fps <= 0:
        return 0
    return max(1, int(frames * fps / source_fps + 1e-4))
