"""What is made of the rendered frames before they are delivered: a pure value, carried out by kinora.media.

The engine hands its frames over without loss where anything of this is asked for, so that the user's video is encoded
once: other sizes, other rates, the source's sound, a mark, clips joined on. Where nothing is, the engine's own file is
delivered and nothing here is used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from kinora.api.videojob import Audio
from kinora.recipes.joining import joins, outer_pictures
from kinora.recipes.needs import MediaFacts, MediaKind, frames_at_rate
from kinora.recipes.preparation import Anchor
from kinora.recipes.resolved import Resolved

#: Inputs whose sound a job may keep.
SOUNDING = ("video", "firstClip", "lastClip")

_SAME = 0.005  # proportions that differ by less are the same


@dataclass(frozen=True, slots=True)
class Part:
    """A run of the delivered video, `frames` long at the rendered rate: of the render from frame `start` (from 0) on
    (no `input`), of a clip that keeps its first or its last frame exactly, or of a picture that stands."""

    frames: int
    input: str = ""
    start: int = 0
    anchor: Anchor = Anchor.BEGIN


@dataclass(frozen=True, slots=True)
class Sound:
    """Sound of an input, in seconds: from its video's first frame on, or up to its last one, laid `at` the result."""

    input: str
    at: float
    seconds: float
    anchor: Anchor = Anchor.BEGIN


@dataclass(frozen=True, slots=True)
class Finishing:
    """Everything to be made. Sizes in pixels: rendered, delivered. `frames` are delivered, `rendered` come in."""

    width: int
    height: int
    output_width: int
    output_height: int
    rendered: int
    fps: float
    frames: int
    output_fps: float
    crf: int
    parts: tuple[Part, ...]
    sounds: tuple[Sound, ...] = ()
    watermark: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, for the media child."""
        return asdict(self)


def at_rate(resolved: Resolved, fps: float | None) -> Resolved:
    """The job delivered at this rate: as long as before, to half a frame."""
    if fps is None or fps == resolved.fps:
        return resolved
    return replace(resolved, output_fps=float(fps), output_frames=_count(resolved.frames, resolved.fps, fps))


def _count(frames: int, fps: float, output_fps: float) -> int:
    return max(round(frames * Fraction(str(output_fps)) / Fraction(str(fps))), 1)


def noted(resolved: Resolved) -> Resolved:
    """The job with what is done to its frames in words."""
    return replace(resolved, notes=(*resolved.notes, *_notes(resolved)))


def _notes(resolved: Resolved) -> Iterator[str]:
    if resolved.scaled:
        grown = resolved.output_width * resolved.output_height > resolved.width * resolved.height
        proportions = resolved.width * resolved.output_height / (resolved.height * resolved.output_width)
        cut = "" if abs(proportions - 1) < _SAME else " and cut around the middle"
        yield (
            f"renders at {resolved.width}x{resolved.height} and is {'up' if grown else 'down'}scaled (Lanczos){cut}"
            f" to {resolved.output_width}x{resolved.output_height}"
        )
    if resolved.output_fps:
        yield (f"interpolated from {resolved.fps:g} to {resolved.output_fps:g} fps by optical flow (DIS), held at cuts")


def lengthened(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Resolved:
    """The job with the delivered length that its clips give it, where they are joined to what is rendered.

    At another rate a length that the source has decided (preparation.sized) is counted anew.
    """
    parts = joins(resolved, found)
    if not parts and not resolved.output_fps:
        return resolved
    total = sum(part.frames for part in _parts(resolved, found))
    words = (
        f"{part.input} of {part.frames} frames is joined whole; {part.overlap} of them lead the render"
        for part in parts
    )
    frames = _count(total, resolved.fps, resolved.delivered_fps)
    return replace(resolved, output_frames=frames, notes=(*resolved.notes, *words))


def silenced(resolved: Resolved, sounding: Mapping[str, bool]) -> Resolved:
    """The job without sound where none of its videos has any (`sounding`, by input), which is said and no failure."""
    if resolved.audio == Audio.NONE or any(sounding.values()):
        return resolved
    return replace(resolved, audio=str(Audio.NONE), notes=(*resolved.notes, "the source has no audio: without audio"))


def finishing(resolved: Resolved, found: Mapping[str, MediaFacts], sounding: Mapping[str, bool]) -> Finishing | None:
    """What is to be made of the render of a job whose inputs are as `found`; None where nothing is.

    `resolved` has gone through `sized`, `lengthened` and `silenced`.
    """
    if not resolved.finished:
        return None
    parts = _parts(resolved, found)
    return Finishing(
        width=resolved.width,
        height=resolved.height,
        output_width=resolved.output_width,
        output_height=resolved.output_height,
        rendered=resolved.frames,
        fps=resolved.fps,
        frames=resolved.delivered_frames,
        output_fps=resolved.delivered_fps,
        crf=resolved.crf,
        parts=parts,
        sounds=tuple(_sounds(resolved, found, parts, sounding)) if resolved.audio == Audio.SOURCE else (),
        watermark=resolved.watermark,
    )


def _parts(resolved: Resolved, found: Mapping[str, MediaFacts]) -> tuple[Part, ...]:
    """First picture, first clip, the render less its overlaps, last clip, last picture."""
    joined = {part.input: part for part in joins(resolved, found)}
    pictures = outer_pictures(resolved, tuple(joined.values()))
    first, last = joined.get("firstClip"), joined.get("lastClip")
    before, after = first.overlap if first else 0, last.overlap if last else 0
    parts = [Part(1, "firstFrame")] if "firstFrame" in pictures else []
    parts += [Part(first.frames, first.input, anchor=Anchor.END)] if first else []
    parts += [Part(resolved.frames - before - after, start=before)]
    parts += [Part(last.frames, last.input)] if last else []
    parts += [Part(1, "lastFrame")] if "lastFrame" in pictures else []
    return tuple(parts)


def _sounds(
    resolved: Resolved, found: Mapping[str, MediaFacts], parts: tuple[Part, ...], sounding: Mapping[str, bool]
) -> Iterator[Sound]:
    """Where each source's sound lies in the result: with its frames."""
    if "video" in resolved.inputs:
        yield Sound("video", 0.0, resolved.frames / resolved.fps)
        return
    at = 0
    if not any(part.input for part in parts):  # the clips lie within the render
        parts = tuple(_within(resolved, found))
    for part in parts:
        if part.input and found[part.input].kind == MediaKind.VIDEO and sounding.get(part.input):
            yield Sound(part.input, at / resolved.fps, part.frames / resolved.fps, part.anchor)
        at += part.frames


def _within(resolved: Resolved, found: Mapping[str, MediaFacts]) -> Iterator[Part]:
    """The order of an extension's frames where all of them are in the render (preparation.joined_segments)."""
    first = [Part(1, "firstFrame")] if "firstFrame" in resolved.inputs else []
    last = [Part(1, "lastFrame")] if "lastFrame" in resolved.inputs else []
    for name, side, anchor in (("firstClip", first, Anchor.END), ("lastClip", last, Anchor.BEGIN)):
        if name in resolved.inputs:
            count = frames_at_rate(found[name].frames, found[name].fps, resolved.fps)
            side.append(Part(count, name, anchor=anchor))
    kept = sum(part.frames for part in (*first, *last))
    yield from (*first, Part(resolved.frames - kept), *reversed(last))
