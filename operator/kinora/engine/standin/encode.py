"""H.264 in MP4 and FFV1 in Matroska by PyAV: writing what was rendered, reading what was uploaded.

Pure on frames and paths.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from kinora.engine.standin import STANDIN_NAME
from kinora.engine.standin.values import Images, NodeError, Video

BT709 = 1  # the number of BT.709 among FFmpeg's primaries, transfer functions and matrices
MAX_PICTURES = 4096  # a loader stops here: what ComfyUI would read until its memory is full


def write_mp4(
    path: Path,
    images: Images,
    fps: float,
    *,
    crf: int,
    pix_fmt: str = "yuv420p",
    metadata: Mapping[str, str],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Writes images [frames, height, width, 3] (both sides even) as H.264. `progress` gets the count of frames done.

    The file appears under its name when it is whole. The metadata always tell that this is the stand-in's work.
    """
    height, width = images.shape[1:3]
    if height % 2 or width % 2:
        raise NodeError(f"{'width' if width % 2 else 'height'} not divisible by 2 ({width}x{height})", "ValueError")
    partial = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
            container.metadata.update({"comment": STANDIN_NAME, **metadata, "description": STANDIN_NAME})
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(100_000))
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.options = {"crf": str(crf), "preset": "veryfast"}
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = BT709
            context.color_range = 1  # limited
            context.thread_count = 2
            for number, picture in enumerate(images, 1):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format=pix_fmt, dst_colorspace=BT709, dst_color_range=1)
                container.mux(stream.encode(frame))
                progress(number)
            container.mux(stream.encode(None))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_ffv1(
    path: Path,
    images: Images,
    fps: float,
    *,
    options: Mapping[str, str],
    pix_fmt: str,
    metadata: Mapping[str, str],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Writes images [frames, height, width, 3] without loss, as far as `pix_fmt` holds them. Otherwise as `write_mp4`.

    `options` are FFmpeg's, by its names.
    """
    height, width = images.shape[1:3]
    partial = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(partial), "w", format="matroska") as container:
            container.metadata.update({"comment": STANDIN_NAME, **metadata, "description": STANDIN_NAME})
            stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(100_000))
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.options = dict(options)
            for number, picture in enumerate(images, 1):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                container.mux(stream.encode(frame.reformat(format=pix_fmt)))
                progress(number)
            container.mux(stream.encode(None))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_video(path: Path, seconds: float = 0, size: tuple[int, int] | None = None) -> Video:
    """The frames of the first video stream and their rate. NodeError when it is no video.

    `seconds` ends the reading there (0: at the end); `size` (width, height) scales while reading, to save memory.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise NodeError(f"No video stream found in file '{path.name}'", "ValueError")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 1)
            limit = min(MAX_PICTURES, math.ceil(seconds * fps) + 1 if seconds else MAX_PICTURES)
            width, height = size or (None, None)
            frames = []
            for frame in container.decode(stream):
                frames.append(frame.reformat(width, height, "rgb24").to_ndarray())
                if len(frames) == limit:
                    break
    except av.error.FFmpegError as exc:
        raise NodeError(f"cannot decode {path.name!r}: {exc.strerror}", type(exc).__name__) from exc
    if not frames:
        raise NodeError(f"no frames in {path.name!r}", "ValueError")
    return Video(np.stack(frames), fps)
