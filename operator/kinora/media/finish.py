"""The delivered video out of the engine's frames: joined, brought to another rate and size, marked, with sound.

The plan arrives as the plain values of the recipes' Finishing. One faststart MP4 comes out: H.264, 4:2:0, BT.709 in
limited range, which browsers play. Frames stream through: a handful is held, whatever the length. Runs in the media
child.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from kinora.media import sound
from kinora.media.frames import Box, Frame, cover_box, cut, frames_at, picture, to_rgb
from kinora.media.info import MediaError, about
from kinora.media.inspect import decode, open_video
from kinora.media.interpolate import Interpolator
from kinora.media.mark import Mark

RENDER, VIDEO, MARK = "render", "video", "watermark"  # the engine's file; what comes out; the administrator's picture
_BT709, _LIMITED = 1, 1  # as FFmpeg numbers them
_GRID = 16
_THREADS = 4
_LARGE = 2_300_000  # pixels of a frame above which the encoder looks less far ahead, for the memory
_NEAR = 1e-6  # of a frame
_PACKETS = 48_000 / 1024 + 1  # AAC packets a second, at most
_AHEAD = 0.5  # seconds that sound may lie before the picture in the file


@dataclass(frozen=True, slots=True)
class FinishedFacts:
    """What was done, in words for status."""

    actions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {"actions": list(self.actions)}


@dataclass
class _Work:
    plan: Mapping[str, Any]
    inputs: Mapping[str, BinaryIO]
    interpolator: Interpolator = field(default_factory=Interpolator)
    seen: int = 0
    "Frames of the render that came in."

    @property
    def rendered(self) -> tuple[int, int]:
        return self.plan["width"], self.plan["height"]

    @property
    def delivered(self) -> tuple[int, int]:
        return self.plan["output_width"], self.plan["output_height"]


def finish(
    inputs: Mapping[str, BinaryIO], outputs: Mapping[str, BinaryIO], plan: Mapping[str, Any], text: str
) -> FinishedFacts:
    """Write the video. `text` is the mark, unless `inputs` holds a picture for it.

    Raises MediaError for a render that is not the planned one, InputError for a source that cannot be read.
    """
    cv2.setNumThreads(min(os.cpu_count() or 1, _THREADS))
    work = _Work(plan, inputs)
    track = sound.track(inputs, plan)
    frames: Iterable[Frame] = _frames(work)
    if plan["watermark"]:
        frames = map(Mark(*work.delivered, text, inputs.get(MARK)).over, frames)
    count = _write(outputs[VIDEO], frames, track, work)
    if count != plan["frames"]:  # the promise of the plan: never padded, never cut
        raise MediaError(f"{count} frames came out instead of {plan['frames']}")
    return FinishedFacts(tuple(_words(work, track)))


def _words(work: _Work, track: sound.Track | None) -> Iterator[str]:
    plan = work.plan
    if plan["output_fps"] != plan["fps"]:
        cuts = work.interpolator.cuts
        yield f"interpolated by optical flow{f', held at {cuts} cuts' if cuts else ''}"
    if track is not None:
        yield "audio copied" if track.copied else "audio encoded as AAC"
    if plan["watermark"]:
        yield "watermark set"


# --- frames -----------------------------------------------------------------------------------------------------------


def _frames(work: _Work) -> Iterator[Frame]:
    """Every frame of the result, in its size."""
    parts = work.plan["parts"]
    for number, group in groupby(_places(work.plan), key=lambda place: place[0]):
        part, positions = parts[number], [position for _, position in group]
        source = _render(work, positions) if not part["input"] else _given(work, part, positions)
        yield from source
    if work.seen != work.plan["rendered"]:
        raise MediaError(f"the engine made {work.seen} frames instead of {work.plan['rendered']}")


def _places(plan: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """For each frame of the result the part that it is of, and its position there in frames at the rendered rate.

    Between a clip's last frame and the first one that was generated, the render is looked at: it holds both.
    """
    parts, step = plan["parts"], Fraction(str(plan["fps"])) / Fraction(str(plan["output_fps"]))
    begins = np.cumsum([0, *(part["frames"] for part in parts)])
    for frame in range(plan["frames"]):
        at = float(frame * step)
        number = min(int(np.searchsorted(begins, at + _NEAR, side="right")) - 1, len(parts) - 1)
        part, beyond = parts[number], at - float(begins[number])
        over = beyond - (part["frames"] - 1)
        following = parts[number + 1] if number + 1 < len(parts) else None
        if part["anchor"] == "End" and over > _NEAR and following is not None and not following["input"]:
            yield number + 1, following["start"] - 1 + over
        else:
            yield number, beyond + part["start"]


def _render(work: _Work, positions: list[float]) -> Iterator[Frame]:
    box = _delivered_box(work)
    engine = _engine_frames(work)
    for frame in work.interpolator.at(engine, positions):
        yield cut(frame, box, *work.delivered)
    for _ in engine:  # counted to the end
        pass


def _engine_frames(work: _Work) -> Iterator[Frame]:
    with open_video(work.inputs[RENDER]) as (container, stream):
        for frame in decode(container, stream):
            if (frame.width, frame.height) != work.rendered:
                wanted = "x".join(map(str, work.rendered))
                raise MediaError(f"the engine made frames of {frame.width}x{frame.height} instead of {wanted}")
            work.seen += 1
            yield to_rgb(frame)


def _given(work: _Work, part: Mapping[str, Any], positions: list[float]) -> Iterator[Frame]:
    """Frames of a clip or picture: cut as the render's overlap was, and scaled once."""
    name, file, fps = part["input"], work.inputs[part["input"]], work.plan["fps"]
    with about(name):
        if name in ("firstFrame", "lastFrame"):
            shown = picture(file)
            found: Iterable[Frame] = [shown] * len(positions)
        else:
            from_end = part["anchor"] == "End"
            offsets = (np.array(positions) - (part["frames"] - 1 if from_end else 0)) / fps
            found = frames_at(file, offsets, fps, from_end=from_end)
        for frame in found:
            yield cut(frame, _source_box(work, frame), *work.delivered)


def _delivered_box(work: _Work) -> Box:
    """The part of a rendered frame that is delivered: its middle."""
    (wide, high), (width, height) = work.rendered, work.delivered
    if 0 <= wide - width < _GRID and 0 <= high - height < _GRID:
        left, top = (wide - width) // 2, (high - height) // 2
        return left, top, left + width, top + height
    return cover_box(wide, high, width, height)


def _source_box(work: _Work, frame: Frame) -> Box:
    """The part of a source frame that lies where `_delivered_box` of the render does."""
    high, wide = frame.shape[:2]
    outer = cover_box(wide, high, *work.rendered)
    across, down = (outer[2] - outer[0]) / work.rendered[0], (outer[3] - outer[1]) / work.rendered[1]
    left, top, right, bottom = _delivered_box(work)
    return (
        outer[0] + left * across,
        outer[1] + top * down,
        min(outer[0] + right * across, wide),
        min(outer[1] + bottom * down, high),
    )


# --- the file ---------------------------------------------------------------------------------------------------------


def _write(file: BinaryIO, frames: Iterable[Frame], track: sound.Track | None, work: _Work) -> int:
    plan, count, words = work.plan, 0, _kept_words(work.inputs[RENDER])
    # FFmpeg's own faststart opens the file a second time by its name, which it has not: room for the index is kept.
    index = {"moov_size": str(_index_bytes(plan, words))}
    with av.open(file, "w", format="mp4", options=index) as container:
        container.metadata.update(words)
        stream = _h264(container, plan)
        if track is not None:
            track.join(container)
        for frame in frames:
            container.mux(stream.encode(_bt709(frame)))
            count += 1
            if track is not None:
                _mux(container, track.until(count / plan["output_fps"] + _AHEAD))
        container.mux(stream.encode(None))
        if track is not None:
            _mux(container, track.until(float("inf")))
    file.flush()
    return count


def _index_bytes(plan: Mapping[str, Any], words: Mapping[str, str]) -> int:
    """Room for an MP4's index: per frame its size, place, times and whether it stands alone; so for each AAC packet."""
    packets = plan["frames"] / plan["output_fps"] * _PACKETS if plan["sounds"] else 0
    told = sum(len(value.encode()) + 64 for value in words.values())
    return 8192 + told + 40 * int(plan["frames"]) + int(28 * packets)


def _mux(container: Any, packets: Iterator[Any]) -> None:
    for packet in packets:
        container.mux(packet)


def _kept_words(render: BinaryIO) -> dict[str, str]:
    """What the engine says of its file: the graph that made it, as ComfyUI keeps it."""
    with open_video(render) as (container, _):
        words = {key.lower(): value for key, value in container.metadata.items()}
    return {key: words[key] for key in ("comment", "description") if key in words}


def _h264(container: Any, plan: Mapping[str, Any]) -> Any:
    stream = container.add_stream("libx264", rate=Fraction(plan["output_fps"]).limit_denominator(100_000))
    stream.width, stream.height, stream.pix_fmt = plan["output_width"], plan["output_height"], "yuv420p"
    large = plan["output_width"] * plan["output_height"] > _LARGE
    stream.options = {"crf": str(plan["crf"]), "preset": "fast" if large else "medium"}
    if large:
        stream.options |= {"rc-lookahead": "16"}
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = _LIMITED
    context.thread_count = min(os.cpu_count() or 1, _THREADS)
    return stream


def _bt709(frame: Frame) -> VideoFrame:
    image = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return image.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)
