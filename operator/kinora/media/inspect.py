"""Looking into pictures and videos: decoded with Pillow and PyAV, in the process that calls.

Untrusted files are looked at through child.py only, which runs these functions where there is nothing to steal. Files
are given open; nothing here opens a path, and FFmpeg may open nothing by itself (a playlist names other files).
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO

import av
import av.error
import av.logging
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, UnidentifiedImageError

from kinora.media.info import MediaError, MediaInfo, Proof

MAX_PIXELS = 64_000_000  # of one picture or frame
MAX_FRAMES = 20_000
#: JPEG brings MPO (several pictures, the first of which counts) with it.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
#: Demuxers that read one file. Playlists, concatenations and devices are not among them.
VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif"

_CHUNK = 1 << 20

av.logging.set_level(av.logging.PANIC)


def probe(file: BinaryIO) -> MediaInfo:
    """What the open file is; every frame is decoded. Raises MediaError for what is neither picture nor video."""
    image = _probe_image(file)
    return image if image is not None else _probe_video(file)


def prove(file: BinaryIO) -> Proof:
    """Read a finished video or picture back: decode it to its end and hash its bytes. Raises MediaError."""
    found = probe(file)
    digest, size = hashlib.sha256(), os.fstat(file.fileno()).st_size
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return Proof(
        frames=found.frames,
        fps=found.fps,
        width=found.width,
        height=found.height,
        duration_seconds=found.duration_seconds,
        codec=found.codec,
        sha256=digest.hexdigest(),
        bytes=size,
        has_audio=found.has_audio,
    )


@contextmanager
def open_image(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture, not decoded yet, its size checked. Raises MediaError, also for what is decoded inside the block."""
    Image.MAX_IMAGE_PIXELS = None  # our own check says more
    file.seek(0)
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            check_size(image.width, image.height, max_pixels)
            yield image
    except UnidentifiedImageError:
        raise NotAnImageError("not a picture") from None
    except MediaError:
        raise
    except (OSError, SyntaxError, ValueError, ArithmeticError, EOFError, MemoryError) as error:
        raise MediaError(f"the picture is damaged: {_short(error)}") from None


class NotAnImageError(MediaError):
    """No picture format knows the file."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """MediaError for a size that is not decoded at all."""
    if width < 1 or height < 1:
        raise MediaError(f"its size is {width}x{height}")
    if width * height > max_pixels:
        raise MediaError(f"{width}x{height} is {width * height} pixels, at most {max_pixels} are decoded")


def _probe_image(file: BinaryIO) -> MediaInfo | None:
    """None for what is no still picture."""
    try:
        with open_image(file) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":
                return None
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1)
            rotation = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(turned, 0)
            width, height = image.size if rotation in (0, 180) else image.size[::-1]
            return MediaInfo("Image", width, height, 1, 0.0, 0.0, image.format or "", rotation, False, image.mode)
    except NotAnImageError:
        return None


_ORIENTATION = 0x0112


def _probe_video(file: BinaryIO) -> MediaInfo:
    with open_video(file) as (container, stream):
        check_size(stream.width, stream.height, MAX_PIXELS)
        frames, rotation = 0, 0
        first, last = math.inf, -math.inf  # some containers give times out of order
        for frame in decode(container, stream):
            if frames == 0:
                rotation = int(frame.rotation) % 360
            if frame.time is not None:
                first, last = min(first, frame.time), max(last, frame.time)
            frames += 1
        if frames == 0:
            raise MediaError("it holds no frame that can be decoded")
        rate = stream.average_rate or stream.guessed_rate or Fraction(0)
        upright = rotation in (0, 180)
        return MediaInfo(
            kind="Video",
            width=stream.width if upright else stream.height,
            height=stream.height if upright else stream.width,
            frames=frames,
            fps=round(float(rate), 6),
            duration_seconds=round(max(last - first, 0.0) + (float(1 / rate) if rate else 0.0), 6),
            codec=stream.codec_context.name,
            rotation=rotation,
            has_audio=bool(container.streams.audio),
            pix_fmt=stream.codec_context.pix_fmt or "",
        )


@contextmanager
def open_video(file: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container of an open file and its first video stream. Raises MediaError, for decoding inside it too."""
    file.seek(0)
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "none"}
    try:
        with av.open(file, mode="r", options=options) as container:
            if not container.streams.video:
                raise MediaError("it holds no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:  # damaged, or nothing here decodes it
                raise MediaError("no decoder knows its video stream")
            stream.codec_context.thread_count = 1  # a known number of stacks under the memory limit
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError, OverflowError, MemoryError, EOFError) as error:
        raise MediaError(f"not a picture or video that can be decoded: {_short(error)}") from None


def decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame in order. Raises MediaError above MAX_FRAMES or when a frame has another size than the stream."""
    for number, frame in enumerate(container.decode(stream)):
        if number >= MAX_FRAMES:
            raise MediaError(f"more than {MAX_FRAMES} frames")
        check_size(frame.width, frame.height, MAX_PIXELS)
        yield frame


def _short(error: BaseException) -> str:
    """An error's own words, without the name of a file."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)[:160]
