"""Carries out a preparation: the control video, the mask video and the reference picture of one job, from its inputs.

The plan arrives as the plain values of the recipes' Preparation; every choice has been made there. Files are open:
inputs by their names in the plan, outputs by what they are to hold. Runs in the media child.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from kinora.media.frames import (
    BLACK,
    GREY,
    WHITE,
    Frame,
    Plane,
    as_frames,
    clip_frames,
    cover,
    how_covered,
    picture,
    scaled,
    solid,
    write_lossless,
)
from kinora.media.info import MediaError, about
from kinora.media.masks import binary, grown
from kinora.media.sheet import sheet
from kinora.media.signals import SIGNALS

CONTROL, MASK, REFERENCE = "control", "mask.video", "reference"
_SHAPE_TOLERANCE = 0.02  # between the proportions of a mask and of what it covers


@dataclass(frozen=True, slots=True)
class PreparedFacts:
    """What was done to each input, in words for status."""

    actions: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {"actions": self.actions}


@dataclass
class _Work:
    plan: Mapping[str, Any]
    inputs: Mapping[str, BinaryIO]
    actions: dict[str, list[str]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        return self.plan["width"], self.plan["height"]

    def note(self, name: str, *words: str) -> None:
        known = self.actions.setdefault(name, [])
        known.extend(word for word in words if word not in known)


def prepare(inputs: Mapping[str, BinaryIO], outputs: Mapping[str, BinaryIO], plan: Mapping[str, Any]) -> PreparedFacts:
    """Write what `outputs` names. Raises MediaError for an input that cannot be used."""
    work = _Work(plan, inputs)
    masks = None
    if plan["mask"]:
        with about(plan["mask"]["input"]):
            masks = _region(work)
    if CONTROL in outputs:
        frames = _control(work) if masks is None else _greyed(_control(work), masks)
        _written(work, CONTROL, outputs[CONTROL], frames)
    if MASK in outputs:
        _written(work, MASK, outputs[MASK], as_frames(masks if masks is not None else _masks(work)))
    if REFERENCE in outputs:
        page = sheet([(picture(inputs[tile["input"]]), tile["background"]) for tile in plan["references"]], *work.size)
        Image.fromarray(page).save(outputs[REFERENCE], format="PNG", compress_level=1)
        outputs[REFERENCE].flush()
        for tile in plan["references"]:
            alone = "" if len(plan["references"]) == 1 else " in a tile of one sheet"
            work.note(
                tile["input"], "filled" + (alone or " the picture") if tile["background"] else "whole on white" + alone
            )
    return PreparedFacts(work.actions)


def _written(work: _Work, name: str, file: BinaryIO, frames: Iterable[Frame]) -> None:
    count = write_lossless(file, frames, *work.size, work.plan["fps"])
    if count != work.plan["frames"]:  # the promise of the plan: never padded, never cut
        raise MediaError(f"the {name} came out with {count} frames instead of {work.plan['frames']}")


# --- the control video ------------------------------------------------------------------------------------------------


def _control(work: _Work) -> Iterator[Frame]:
    drawn = SIGNALS[work.plan["signal"]]
    return drawn(_joined(work))


def _joined(work: _Work) -> Iterator[Frame]:
    for segment in work.plan["segments"]:
        if not segment["input"]:
            for _ in range(segment["frames"]):
                yield solid(*work.size, GREY)
            continue
        with about(segment["input"]):
            yield from _segment(work, segment)


def _segment(work: _Work, segment: Mapping[str, Any]) -> Iterator[Frame]:
    name, count = segment["input"], segment["frames"]
    file = work.inputs[name]
    if name in ("image", "firstFrame", "lastFrame"):
        found: Iterable[Frame] = [picture(file)] * count
    else:
        found = clip_frames(file, count, work.plan["fps"], from_end=segment["anchor"] == "End")
        where = "the last" if segment["anchor"] == "End" else "the first"
        work.note(name, f"{where} {count} frames at {work.plan['fps']:g} fps")
        if work.plan["signal"] != "None":
            work.note(name, f"control {work.plan['signal']}")
    for frame in found:
        yield _placed(work, name, frame)


def _placed(work: _Work, name: str, frame: Frame) -> Frame:
    rect = work.plan["rect"]
    if rect is None:
        work.note(name, *how_covered((frame.shape[1], frame.shape[0]), *work.size))
        return cover(frame, *work.size)
    work.note(name, f"scaled to {rect['width']}x{rect['height']} at ({rect['x']}, {rect['y']})")
    canvas = solid(*work.size, GREY).copy()
    inner = scaled(frame, rect["width"], rect["height"])
    canvas[rect["y"] : rect["y"] + rect["height"], rect["x"] : rect["x"] + rect["width"]] = inner
    return canvas


def _greyed(frames: Iterable[Frame], masks: Iterable[Plane]) -> Iterator[Frame]:
    for frame, mask in zip(frames, masks, strict=True):
        yield np.where(mask[..., None] > 0, np.uint8(GREY), frame)


# --- masks ------------------------------------------------------------------------------------------------------------


def _masks(work: _Work) -> Iterator[Plane]:
    """Of segments or of a rectangle: black where the source is kept."""
    width, height = work.size
    rect = work.plan["rect"]
    around = np.full((height, width), WHITE, np.uint8)
    if rect is not None:
        around[rect["y"] : rect["y"] + rect["height"], rect["x"] : rect["x"] + rect["width"]] = BLACK
    for segment in work.plan["segments"]:
        kept = around if rect is not None else np.zeros((height, width), np.uint8)
        for _ in range(segment["frames"]):
            yield kept if segment["input"] else np.full((height, width), WHITE, np.uint8)


def _region(work: _Work) -> list[Plane]:
    """The mask of an inpainting for every frame, each its own or, where it stands still, the same one."""
    mask, frames = work.plan["mask"], work.plan["frames"]
    file, name, ratio = work.inputs[mask["input"]], mask["input"], mask["expand_ratio"]
    if mask["kind"] == "Video":
        found = []
        for number, frame in enumerate(clip_frames(file, frames, work.plan["fps"])):
            if number == 0:
                _check_shape(work, frame)
            found.append(grown(binary(frame, *work.size), ratio))
        if not any(plane.any() for plane in found):
            raise MediaError("the mask has no white: nothing would be generated")
        work.note(name, f"the first {frames} frames at {work.plan['fps']:g} fps", *_grown_words(ratio))
        return found
    frame = picture(file)
    _check_shape(work, frame)
    drawn = binary(frame, *work.size)
    if not drawn.any():
        raise MediaError("the mask has no white: nothing would be generated")
    work.note(name, *how_covered((frame.shape[1], frame.shape[0]), *work.size), *_grown_words(ratio))
    if mask["mode"] == "Fixed":
        work.note(name, f"the same for {frames} frames")
        return [grown(drawn, ratio)] * frames
    from kinora.media.tracking import Tracker  # noqa: PLC0415 - OpenCV only where something is followed

    tracker = Tracker(*work.size)
    followed = tracker.follow(drawn, [tracker.thumbnail(shown) for shown in _joined(work)], mask["frame"] - 1)
    work.note(name, f"moved along from frame {mask['frame']} over {frames} frames")
    if followed.lost:
        where = f"first in frame {followed.lost[0] + 1}"
        work.note(name, f"changed or out of sight in {len(followed.lost)} frames, {where}: moved on")
    return [grown(plane, ratio) for plane in followed.masks]


def _grown_words(ratio: float) -> tuple[str, ...]:
    return (f"grown by {ratio:g} of its longer side",) if ratio else ()


def _check_shape(work: _Work, mask: Frame) -> None:
    """A mask of another shape than the video would cover something else than was drawn."""
    source = next(clip_frames(work.inputs["video"], 1, work.plan["fps"]))
    ratio = (mask.shape[1] / mask.shape[0]) / (source.shape[1] / source.shape[0])
    if abs(ratio - 1) > _SHAPE_TOLERANCE:
        raise MediaError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]}, the video {source.shape[1]}x{source.shape[0]}:"
            " their proportions must be the same"
        )
