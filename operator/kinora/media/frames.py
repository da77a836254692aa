"""Frames out of a video at another rate and size, and into a lossless one. Streams: one frame at a time is held.

Frames are uint8 arrays [height, width, 3] in RGB, upright. Times are seconds from the first frame on, so that a
variable frame rate comes out even.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from PIL import Image

from kinora.media.info import MediaError
from kinora.media.inspect import decode, open_image, open_video

Frame: TypeAlias = npt.NDArray[np.uint8]
Plane: TypeAlias = npt.NDArray[np.uint8]

GREY, BLACK, WHITE = 127, 0, 255
_PQ, _HLG = 16, 18  # transfer functions of HDR, as FFmpeg numbers them
_BT601, _BT709, _UNSPECIFIED = 5, 1, 2
_HD_HEIGHT = 720  # from here on untagged video is taken for BT.709


def picture(file: BinaryIO) -> Frame:
    """A picture that was normalised before (upright, opaque, eight bits)."""
    with open_image(file) as image:
        return np.asarray(image.convert("RGB"))


def clip_frames(file: BinaryIO, count: int, fps: float, *, from_end: bool = False) -> Iterator[Frame]:
    """`count` frames at `fps`: from the first frame on, or up to the last one, which is then kept to the frame.

    Raises MediaError when the video is too short: nothing is invented.
    """
    steps = np.arange(count) / fps
    return frames_at(file, -steps[::-1] if from_end else steps, fps, from_end=from_end)


def frames_at(
    file: BinaryIO, offsets: npt.NDArray[np.float64], fps: float, *, from_end: bool = False
) -> Iterator[Frame]:
    """The frame shown at each of the rising `offsets`: seconds from the first frame on, or back from the last one.

    `fps` is the rate for which they were chosen: how far beyond either end one may lie. Raises MediaError beyond that.
    """
    times, rate = _times(file)
    wanted = _chosen(times, rate, offsets + times[-1] if from_end else offsets, fps)
    count = len(wanted)
    with open_video(file) as (container, stream):
        at = 0
        for number, frame in enumerate(decode(container, stream)):
            while at < count and wanted[at] == number:
                yield to_rgb(frame)
                at += 1
            if at == count:
                return
    raise MediaError(f"only {at} of {count} frames could be decoded")


def span(file: BinaryIO) -> tuple[float, float]:
    """The times of the first and of the last frame, as the file counts them."""
    with open_video(file) as (container, stream):
        first = next((frame.time for frame in decode(container, stream)), None) or 0.0
    return first, first + float(_times(file)[0][-1])


def _times(file: BinaryIO) -> tuple[npt.NDArray[np.float64], float]:
    with open_video(file) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if rate <= 0:
            raise MediaError("its frame rate is not known")
        times = [frame.time for frame in decode(container, stream)]
    if not times:
        raise MediaError("it holds no frame that can be decoded")
    if any(time is None for time in times):
        return np.arange(len(times)) / rate, rate
    known = np.array(times, np.float64)
    return np.maximum.accumulate(known - known[0]), rate


def _chosen(
    times: npt.NDArray[np.float64], rate: float, wanted: npt.NDArray[np.float64], fps: float
) -> npt.NDArray[np.int64]:
    """The number of the frame that is shown at each wanted time. A quarter of a frame is allowed for rounded times."""
    slack = 0.25 / max(rate, fps)
    if wanted[0] < -1 / fps or wanted[-1] > times[-1] + 1 / rate + slack:
        count = len(wanted)
        raise MediaError(f"{len(times)} frames at {rate:g} fps are too short for {count} at {fps:g} fps")
    return np.maximum(np.searchsorted(times, wanted + slack, side="right") - 1, 0)


def to_rgb(frame: VideoFrame) -> Frame:
    """The frame upright in RGB, by its own colour matrix and range. MediaError for HDR, which would come out wrong."""
    if int(frame.color_trc) in (_PQ, _HLG):
        raise MediaError("HDR video (PQ or HLG) is not converted; give it in SDR (BT.709)")
    matrix = int(frame.colorspace)
    if matrix == _UNSPECIFIED:
        matrix = _BT709 if frame.height >= _HD_HEIGHT else _BT601
    if frame.format.name.startswith(("rgb", "bgr", "gbr", "gray", "pal", "0", "a")):
        pixels = frame.to_ndarray(format="rgb24")
    else:
        pixels = frame.reformat(format="rgb24", src_colorspace=matrix, src_color_range=frame.color_range).to_ndarray()
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else np.asarray(pixels)


Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge of a part of a picture, in its pixels."""


def cover(frame: Frame, width: int, height: int) -> Frame:
    """Scaled to fill the size, the overhang cut off around the middle. What has the size already stays as it is."""
    high, wide = frame.shape[:2]
    if (wide, high) == (width, height):
        return frame
    return cut(frame, cover_box(wide, high, width, height), width, height)


def cover_box(wide: float, high: float, width: int, height: int) -> Box:
    """The part of a picture that fills the size when it is scaled, the middle in the middle."""
    scale = max(width / wide, height / high)
    inner_wide, inner_high = width / scale, height / scale
    left, top = (wide - inner_wide) / 2, (high - inner_high) / 2
    return max(left, 0.0), max(top, 0.0), min(left + inner_wide, wide), min(top + inner_high, high)


def cut(frame: Frame, box: Box, width: int, height: int) -> Frame:
    """A part of the frame, scaled to the size (Lanczos); bit by bit where it has that size and lies on pixels."""
    left, top = round(box[0]), round(box[1])
    if box == (left, top, left + width, top + height):
        return frame[top : top + height, left : left + width]
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box))


def letterbox(frame: Frame, width: int, height: int, fill: int = WHITE) -> Frame:
    """Scaled to lie whole within the size, the rest filled."""
    high, wide = frame.shape[:2]
    scale = min(width / wide, height / high)
    inner_wide, inner_high = max(round(wide * scale), 1), max(round(high * scale), 1)
    page = np.full((height, width, 3), fill, np.uint8)
    top, left = (height - inner_high) // 2, (width - inner_wide) // 2
    page[top : top + inner_high, left : left + inner_wide] = scaled(frame, inner_wide, inner_high)
    return page


def scaled(frame: Frame, width: int, height: int) -> Frame:
    """Stretched to the size."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))


def how_covered(size: tuple[int, int], width: int, height: int) -> tuple[str, ...]:
    """In words for status, what `cover` does to a source of this size."""
    wide, high = size
    if (wide, high) == (width, height):
        return ()
    same_shape = abs(wide * height - high * width) <= max(wide, high)
    return (f"scaled to {width}x{height}" if same_shape else f"scaled and cut to {width}x{height} around the middle",)


def write_lossless(file: BinaryIO, frames: Iterable[Frame], width: int, height: int, fps: float) -> int:
    """Write the frames as FFV1 in RGB in Matroska, bit by bit as they are; how many there were.

    Loaders of engines read it (OpenCV does, bit by bit), and a mask stays black and white where H.264 would smear it.
    """
    count = 0
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(100_000))
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for frame in frames:
            image = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(image.reformat(format="bgr0")))
            count += 1
        container.mux(stream.encode(None))
    file.flush()
    return count


def solid(width: int, height: int, value: int) -> Frame:
    """One flat picture; it takes the memory of one pixel."""
    return np.broadcast_to(np.uint8(value), (height, width, 3))


def as_frames(planes: Iterable[Plane]) -> Iterator[Frame]:
    """Grey planes as RGB."""
    for plane in planes:
        yield np.broadcast_to(plane[..., None], (*plane.shape, 3))
