"""What is made of a job's inputs before its graph runs: a pure value, carried out by kinora.media.

Every VACE task comes down to the same three things, all in the render size: a control video and a mask video of
exactly as many frames as asked for, and one reference picture. Masks are white where the model generates; what is to be
generated is grey in the control video. Nothing here decodes anything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from kinora.api.videojob import Control, MaskFrameOf, Resolution, Task
from kinora.catalogue.model import SizeLimits
from kinora.recipes import delivery
from kinora.recipes.joining import clip_lengths, joins, outer_pictures
from kinora.recipes.needs import MediaFacts, MediaKind, frame_at_rate, frames_of_source, frames_to_render
from kinora.recipes.resolved import Resolved

_GRID = 16


class Prepared(StrEnum):
    """The names under which a recipe finds what was prepared."""

    CONTROL = "control"
    MASK = "mask.video"
    REFERENCE = "reference"


class Anchor(StrEnum):
    """Which end of a clip is kept to the frame when its rate is changed: the one that joins something."""

    BEGIN = "Begin"
    END = "End"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of frames of the control video: of an input (a picture is repeated), or grey and generated without one."""

    frames: int
    input: str = ""
    anchor: Anchor = Anchor.BEGIN


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """Where the mask of an inpainting comes from. `frame` counts from 1 among the job's frames."""

    input: str
    kind: str
    mode: str
    frame: int
    expand_ratio: float


@dataclass(frozen=True, slots=True)
class Rect:
    """A part of the picture, in pixels from the upper left."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Tile:
    """One reference on the sheet; a background fills its tile, an object lies whole on white."""

    input: str
    background: bool


@dataclass(frozen=True, slots=True)
class Preparation:
    """Everything to be made. `rect` is where an outpainting's source goes; elsewhere the source fills the picture."""

    width: int
    height: int
    frames: int
    fps: float
    segments: tuple[Segment, ...] = ()
    signal: str = Control.NONE
    rect: Rect | None = None
    mask: MaskPlan | None = None
    references: tuple[Tile, ...] = ()

    @property
    def makes(self) -> tuple[Prepared, ...]:
        """What comes out, in a stable order."""
        kept_everywhere = self.mask is None and self.rect is None and all(part.input for part in self.segments)
        found = [Prepared.CONTROL] if self.segments else []
        found += [Prepared.MASK] if self.segments and not kept_everywhere else []
        return (*found, Prepared.REFERENCE) if self.references else tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, for the media child."""
        return asdict(self)


def kind_of_prepared(name: str) -> MediaKind:
    """What a prepared file is."""
    return MediaKind.IMAGE if name == Prepared.REFERENCE else MediaKind.VIDEO


def vace_preparation(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Preparation:
    """The preparation of a VACE job whose inputs are as `found` (by name). They have passed `staging_faults`."""
    tiles = tuple(
        Tile(name, name in resolved.backgrounds) for name in resolved.inputs if name.startswith("references[")
    )
    base = Preparation(resolved.width, resolved.height, resolved.frames, resolved.fps, references=tiles)
    task, whole = Task(resolved.task), (Segment(resolved.frames, "video"),)
    if task is Task.IMAGE_TO_VIDEO:
        return replace(base, segments=(Segment(1, "image"), Segment(resolved.frames - 1)))
    if task in (Task.VIDEO_TO_VIDEO, Task.EDIT):
        return replace(base, segments=whole, signal=resolved.control)
    if task is Task.INPAINT:
        plan = MaskPlan("mask", found["mask"].kind, resolved.mask_mode, resolved.mask_frame, resolved.mask_expand_ratio)
        return replace(base, segments=whole, mask=plan)
    if task is Task.OUTPAINT:
        return replace(base, segments=whole, rect=outpaint_rect(resolved, found["video"]))
    if task in (Task.EXTEND, Task.FIRST_LAST_FRAME):
        return replace(base, segments=joined_segments(resolved, found))
    return base


def joined_segments(resolved: Resolved, found: Mapping[str, MediaFacts]) -> tuple[Segment, ...]:
    """First frame, first clip, what is generated, last clip, last frame; what is not given is left out.

    Of clips that are joined on afterwards (joining.py) only the overlap is here, and no picture that lies beyond them.
    """
    joined = joins(resolved, found)
    left_out = outer_pictures(resolved, joined)
    lengths = {**clip_lengths(resolved, found), **{part.input: part.overlap for part in joined}}

    def kept(side: str, anchor: Anchor) -> tuple[Segment, ...]:
        picture, clip = f"{side}Frame", f"{side}Clip"
        outer = [Segment(1, picture)] if picture in resolved.inputs and picture not in left_out else []
        return (*outer, *([Segment(lengths[clip], clip, anchor)] if clip in lengths else []))

    before, after = kept("first", Anchor.END), kept("last", Anchor.BEGIN)
    count = sum(part.frames for part in (*before, *after))
    return (*before, Segment(resolved.frames - count), *reversed(after))


def outpaint_rect(resolved: Resolved, source: MediaFacts) -> Rect:
    """Where the source lies: the canvas (decisions 2) is fitted into the render size, its middle in the middle."""
    across, down = canvas(resolved, source)
    scale = min(resolved.width / across, resolved.height / down)
    left = (resolved.width - across * scale) / 2 + source.width * (resolved.expand_left - 1) * scale
    top = (resolved.height - down * scale) / 2 + source.height * (resolved.expand_top - 1) * scale
    width = min(max(round(source.width * scale), 1), resolved.width)
    height = min(max(round(source.height * scale), 1), resolved.height)
    x, y = min(max(round(left), 0), resolved.width - width), min(max(round(top), 0), resolved.height - height)
    return Rect(x, y, width, height)


def canvas(resolved: Resolved, source: MediaFacts) -> tuple[float, float]:
    """Width and height of the picture that the source grows to: w*(left+right-1) by h*(top+bottom-1)."""
    across = source.width * (resolved.expand_left + resolved.expand_right - 1)
    return across, source.height * (resolved.expand_top + resolved.expand_bottom - 1)


#: The input that gives a job its size where it asks for none, by task.
SIZED_BY: Mapping[Task, tuple[str, ...]] = {
    Task.VIDEO_TO_VIDEO: ("video",),
    Task.INPAINT: ("video",),
    Task.OUTPAINT: ("video",),
    Task.EXTEND: ("firstClip", "lastClip", "firstFrame", "lastFrame"),
    Task.FIRST_LAST_FRAME: ("firstFrame",),
    Task.EDIT: ("video",),
}
#: Of these, the tasks that do so only where a resolution is asked for, or under names whose entry says so.
SIZED_IF_ASKED = frozenset({Task.VIDEO_TO_VIDEO})


def sized(resolved: Resolved, found: Mapping[str, MediaFacts], limits: SizeLimits) -> Resolved:
    """The job in the size of its source, scaled down into the model's limits; as it is when a size was asked for.

    An edit without a length gets its source's too, cut to 4n+1 frames and to the most that the model renders.
    """
    resolved = _mask_counted(_lengthened(resolved, found), found)
    if not resolved.size_from_input:
        return resolved
    facts = next(found[name] for name in SIZED_BY[Task(resolved.task)] if name in found)
    across, down = (
        canvas(resolved, facts) if resolved.task == Task.OUTPAINT else (float(facts.width), float(facts.height))
    )
    if resolved.resolution:
        return _of_resolution(resolved, facts, across / down, limits)
    scale = min(1.0, limits.max_side / max(across, down), (limits.max_pixels / (across * down)) ** 0.5)
    scale = max(scale, limits.min_side / min(across, down))
    while True:
        output = (_even(across * scale), _even(down * scale))
        width, height = (-(-side // _GRID) * _GRID for side in output)
        if (width * height <= limits.max_pixels and max(width, height) <= limits.max_side) or scale < 1e-3:
            break
        scale *= 0.995
    size = f"size {output[0]}x{output[1]} from the source of {facts.width}x{facts.height}"
    return replace(
        resolved, width=width, height=height, output_width=output[0], output_height=output[1], size_from_input=False,
        notes=(*resolved.notes, size),
    )  # fmt: skip


def _lengthened(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Resolved:
    if not resolved.frames_from_input:
        return resolved
    available = frames_of_source(resolved, found)
    frames = frames_to_render(resolved, found)
    held = frames > available
    note = f"{frames} frames of the source's {available} at {resolved.fps:g} fps" + (", the last one twice" * held)
    return replace(resolved, frames=frames, frames_from_input=False, last_held=held, notes=(*resolved.notes, note))


def _mask_counted(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Resolved:
    """A mask's frame that is counted in the source, as the frame of the render that shows the same moment."""
    if resolved.mask_frame_of != MaskFrameOf.SOURCE or "video" not in found:
        return resolved
    at = frame_at_rate(resolved.mask_frame, found["video"].fps, resolved.fps)
    return replace(resolved, mask_frame=min(at, resolved.frames), mask_frame_of=str(MaskFrameOf.RENDER))


def _of_resolution(resolved: Resolved, facts: MediaFacts, proportions: float, limits: SizeLimits) -> Resolved:
    """Delivered in about so many pixels, in these proportions; rendered so, or as near to it as the model goes."""
    pixels = Resolution(resolved.resolution).pixels
    high = min((pixels / proportions) ** 0.5, delivery.MAX_SIDE, delivery.MAX_SIDE / proportions)
    while True:
        output = (_even(high * proportions), _even(high))
        if (output[0] * output[1] <= pixels and max(output) <= delivery.MAX_SIDE) or high <= delivery.MIN_SIDE:
            break
        high -= 0.5
    width, height = delivery.render_size(*output, limits)
    size = f"{resolved.resolution}: size {output[0]}x{output[1]} from the source of {facts.width}x{facts.height}"
    if not (delivery.crop_only(width, output[0]) and delivery.crop_only(height, output[1])):
        size += f", rendered at {width}x{height} and scaled (Lanczos)"
    return replace(
        resolved, width=width, height=height, output_width=output[0], output_height=output[1], size_from_input=False,
        notes=(*resolved.notes, size),
    )  # fmt: skip


def _even(side: float) -> int:
    return max(round(side / 2) * 2, 2)
