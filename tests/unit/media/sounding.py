"""Videos with a flash and a click at the same moment, so that what is delivered can be held against it."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

W, H = 96, 64
CLICK = 0.005  # seconds


def flashing(
    path: Path,
    *,
    frames: int = 32,
    fps: int = 16,
    flash: int | None = 8,
    codec: str = "aac",
    rate: int = 44_100,
    layout: str = "stereo",
    container: str = "mp4",
    begins: float = 0.0,
    seconds: float | None = None,
    size: tuple[int, int] = (W, H),
    pictures: np.ndarray | None = None,
) -> Path:
    """Dark but for frame `flash`, at whose time a click is heard; or these `pictures`, with a tone all along.

    The sound begins `begins` after the picture.
    """
    size = size if pictures is None else (pictures.shape[2], pictures.shape[1])
    length = frames / fps if seconds is None else seconds
    with av.open(str(path), "w", format=container) as output:
        video: Any = output.add_stream("libx264", rate=Fraction(fps))
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound: Any = output.add_stream(codec, rate=rate)
        sound.layout = layout
        for number in range(frames):
            level = 240 if number == flash else 30
            picture = np.full((size[1], size[0], 3), level, np.uint8) if pictures is None else pictures[number]
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode(None))
        samples = np.zeros((round(length * rate), sound.layout.nb_channels), np.int16)
        if pictures is not None:
            samples[:] = (np.sin(np.arange(len(samples)) * 2 * np.pi * 440 / rate) * 9000)[:, None]
        elif flash is not None:
            at, count = round((flash / fps - begins) * rate), round(CLICK * rate)
            tone = np.sin(np.arange(count) * 2 * np.pi * 2000 / rate) * 26_000
            samples[at : at + count] = tone[: max(len(samples) - at, 0), None]
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(begins * rate), Fraction(1, rate)
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    return path


def heard(path: Path) -> tuple[list[float], float]:
    """When clicks begin in a video, in seconds, and when its sound ends."""
    clicks: list[float] = []
    end = 0.0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.time is not None
            samples = np.abs(frame.to_ndarray()).max(axis=0)
            loud = np.flatnonzero(samples > 0.3)
            if len(loud) and (not clicks or frame.time - clicks[-1] > 0.1):
                clicks.append(frame.time + float(loud[0]) / frame.sample_rate)
            end = frame.time + frame.samples / frame.sample_rate
    return clicks, end


def flashes(path: Path) -> list[float]:
    """When a bright frame is shown, in seconds."""
    with av.open(str(path)) as container:
        return [
            float(frame.time or 0)
            for frame in container.decode(video=0)
            if frame.to_ndarray(format="gray").mean() > 120
        ]
