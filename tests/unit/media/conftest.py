"""Small media made on the spot."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Write a video whose frame i is grey of brightness 10 + i: name, frames, fps, width, height, codec, audio."""

    def make(
        name: str = "clip.mp4",
        frames: int = 17,
        fps: str = "16",
        size: tuple[int, int] = (64, 48),
        codec: str = "libx264",
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(fps))
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for number in range(frames):
                picture = np.full((size[1], size[0], 3), 10 + number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
        return path

    return make
