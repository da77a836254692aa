"""Looking at videos and pictures as numbers: frames as luma arrays, and how alike two of them are."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps


def luma(path: Path) -> np.ndarray:
    """Every frame's luma, float [frames, height, width]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)


def picture(path: Path, width: int, height: int) -> np.ndarray:
    """A photograph's luma, cropped to the middle and scaled, as float [height, width]."""
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("L"), (width, height))
        return np.asarray(fitted).astype(float)


def scaled(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """One luma frame, cropped to the middle and scaled."""
    fitted = ImageOps.fit(Image.fromarray(frame.astype(np.uint8)), (width, height))
    return np.asarray(fitted).astype(float)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of two frames: 1 is the same picture, 0 has nothing to do with it."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def metadata(path: Path) -> dict[str, str]:
    """The container's tags."""
    with av.open(str(path)) as container:
        return dict(container.metadata)


def stream(path: Path) -> tuple[int, int, int, float, str]:
    """Width, height, decoded frames, frames per second, codec."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        rate = float(video.average_rate or 0)
        frames = sum(1 for _ in container.decode(video=0))
        return video.width, video.height, frames, rate, video.codec_context.name
