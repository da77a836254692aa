"""Masks: brought to the picture's size, made black and white, grown, and moved along with what they cover.

A mask is a uint8 array [height, width] of 0 and 255; white is what the model generates.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from kinora.media.frames import Frame, Plane, cover
from kinora.media.signals import Floats, luma

_WHITE_FROM = 128
_TRACK_SIDE = 160  # the search is done at most this large
_REACH = 0.2  # of the picture's longer side, from one frame to the next


def binary(frame: Frame, width: int, height: int) -> Plane:
    """The picture's brightness at the size, as black and white."""
    return np.where(luma(cover(frame, width, height)) >= _WHITE_FROM, np.uint8(255), np.uint8(0))


def grown(mask: Plane, ratio: float) -> Plane:
    """The white grown to all sides by `ratio` of its own longer side."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows) or ratio <= 0:
        return mask
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return _widened(_widened(mask, round(ratio * longer), 0), round(ratio * longer), 1)


def _widened(mask: Plane, reach: int, axis: int) -> Plane:
    """The largest value within `reach` along an axis, by doubling steps."""
    result, done = mask, 0
    while done < reach:
        step = min(done + 1, reach - done)
        result = np.maximum(result, np.maximum(_shifted(result, step, axis), _shifted(result, -step, axis)))
        done += step
    return result


def _shifted(mask: Plane, by: int, axis: int) -> Plane:
    """Moved by `by` along an axis; what comes in is black."""
    by = int(np.clip(by, -mask.shape[axis], mask.shape[axis]))
    result = np.zeros_like(mask)
    size = mask.shape[axis]
    target = slice(max(by, 0), size + min(by, 0))
    source = slice(max(-by, 0), size + min(-by, 0))
    if axis == 0:
        result[target] = mask[source]
    else:
        result[:, target] = mask[:, source]
    return result


class Tracker:
    """Moves a mask along with what it covers, frame by frame.

    It looks for the covered part of one frame in the next (least squared difference, by Fourier transform) and moves
    the mask there. It follows shifts; it knows neither turning nor growing, for which `expand_ratio` is the allowance.
    """

    def __init__(self, width: int, height: int) -> None:
        scale = min(1.0, _TRACK_SIDE / max(width, height))
        self._size = (max(8, round(width * scale)), max(8, round(height * scale)))
        self._scale = (width / self._size[0], height / self._size[1])
        self._reach = max(2, round(_REACH * max(self._size)))

    def thumbnail(self, frame: Frame) -> Floats:
        """What the search looks at."""
        small = Image.fromarray(frame).resize(self._size, Image.Resampling.BOX)
        return luma(np.asarray(small))

    def follow(self, mask: Plane, thumbnails: Sequence[Floats], start: int) -> list[Plane]:
        """The mask of each frame, when `mask` is that of frame `start` (from 0)."""
        shifts = [(0.0, 0.0)] * len(thumbnails)
        for way in (1, -1):
            y, x = 0.0, 0.0
            ends = range(start + way, len(thumbnails) if way > 0 else -1, way)
            for at in ends:
                here = self._small(mask, y, x)
                dy, dx = _found(thumbnails[at - way], thumbnails[at], here, self._reach) if here.any() else (0.0, 0.0)
                y, x = y + dy, x + dx
                shifts[at] = (y, x)
        return [_shifted(_shifted(mask, round(y * self._scale[1]), 0), round(x * self._scale[0]), 1) for y, x in shifts]

    def _small(self, mask: Plane, y: float, x: float) -> npt.NDArray[np.bool_]:
        moved = _shifted(_shifted(mask, round(y * self._scale[1]), 0), round(x * self._scale[0]), 1)
        return np.asarray(Image.fromarray(moved).resize(self._size, Image.Resampling.BOX)) >= _WHITE_FROM


def _found(before: Floats, after: Floats, covered: npt.NDArray[np.bool_], reach: int) -> tuple[float, float]:
    """How far the covered part of `before` has moved in `after`: down and right, to a part of a pixel."""
    shape = (before.shape[0] + reach, before.shape[1] + reach)
    weight = np.fft.rfft2(covered.astype(np.float64), shape)
    template = np.fft.rfft2(covered * before.astype(np.float64), shape)
    squares = np.fft.irfft2(np.conj(weight) * np.fft.rfft2(after.astype(np.float64) ** 2, shape), shape)
    products = np.fft.irfft2(np.conj(template) * np.fft.rfft2(after.astype(np.float64), shape), shape)
    inside = np.fft.irfft2(np.conj(weight) * np.fft.rfft2(np.ones_like(after, dtype=np.float64), shape), shape)
    own = float((covered * before.astype(np.float64) ** 2).sum())
    # Where part of it would lie outside, only what lies inside counts, and the rest costs as a wrong match does.
    cost = squares - 2 * products + own * np.clip(inside / covered.sum(), 0, 1)
    cost += (1 - np.clip(inside / covered.sum(), 0, 1)) * own
    window = np.roll(cost, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1].copy()
    # Of places that match alike, the nearest.
    far = np.hypot(*np.indices(window.shape) - reach)
    window += far * (0.5 * covered.sum() / reach)
    y, x = np.unravel_index(int(window.argmin()), window.shape)
    return y - reach + _vertex(window[:, x], int(y)), x - reach + _vertex(window[y], int(x))


def _vertex(values: npt.NDArray[np.float64], at: int) -> float:
    """Where between its neighbours the least value of a parabola lies, from -0.5 to 0.5."""
    if not 0 < at < len(values) - 1:
        return 0.0
    left, middle, right = values[at - 1 : at + 2]
    bend = left - 2 * middle + right
    return 0.0 if bend <= 0 else float(np.clip((left - right) / (2 * bend), -0.5, 0.5))
