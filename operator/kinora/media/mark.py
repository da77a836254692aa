"""The visible mark on a delivered video: a text or a picture at the lower right, legible on light and on dark.

Its size goes with the picture's. Light letters in a dark outline on a half-transparent plate stand out anywhere.
"""

from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from kinora.media.frames import Frame
from kinora.media.inspect import open_image

_HEIGHT, _MARGIN, _WIDEST = 0.042, 0.02, 0.5  # of the shorter side; of the shorter side; of the width
_SMALLEST = 9  # pixels of a letter's height that can still be read
_INK, _EDGE, _PLATE = (255, 255, 255, 235), (0, 0, 0, 220), (0, 0, 0, 70)


class Mark:
    """Lays the mark over frames of one size."""

    def __init__(self, width: int, height: int, text: str, picture: BinaryIO | None = None) -> None:
        mark = _of_picture(picture, width, height) if picture is not None else _of_text(text, width, height)
        margin = max(round(min(width, height) * _MARGIN), 1)
        left, top = max(width - margin - mark.width, 0), max(height - margin - mark.height, 0)
        mark = mark.crop((0, 0, min(mark.width, width - left), min(mark.height, height - top)))
        self._place = (slice(top, top + mark.height), slice(left, left + mark.width))
        pixels = np.asarray(mark, np.float32)
        self._share: npt.NDArray[np.float32] = pixels[..., 3:] / np.float32(255)
        self._colours: npt.NDArray[np.float32] = pixels[..., :3] * self._share

    def over(self, frame: Frame) -> Frame:
        """The frame with the mark."""
        marked = frame.copy()
        marked[self._place] = (frame[self._place] * (1 - self._share) + self._colours + 0.5).astype(np.uint8)
        return marked


def _of_text(text: str, width: int, height: int) -> Image.Image:
    size = max(min(width, height) * _HEIGHT, _SMALLEST)
    edge = max(round(size / 12), 1)
    while True:
        font = ImageFont.load_default(size)
        left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(
            (0, 0), text, font, stroke_width=edge
        )
        pad = max(round(size / 4), 1)
        wide, high = int(right - left) + 2 * pad + 1, int(bottom - top) + 2 * pad + 1
        if wide <= width * _WIDEST or size <= _SMALLEST:
            break
        size = max(size * 0.95 * width * _WIDEST / wide, _SMALLEST)
    mark = Image.new("RGBA", (wide, high), _PLATE)
    place = (pad - left, pad - top)
    ImageDraw.Draw(mark).text(place, text, font=font, fill=_INK, stroke_width=edge, stroke_fill=_EDGE)
    return mark


def _of_picture(file: BinaryIO, width: int, height: int) -> Image.Image:
    """The picture with its transparency, at most half as wide as the frame and as high as two lines and a half."""
    with open_image(file) as image:
        mark = image.convert("RGBA")
    high = max(min(width, height) * _HEIGHT * 2.5, _SMALLEST)
    scale = min(high / mark.height, width * _WIDEST / mark.width)
    size = (max(round(mark.width * scale), 1), max(round(mark.height * scale), 1))
    return mark.resize(size, Image.Resampling.LANCZOS)
