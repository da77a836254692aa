"""Masks: brought to the picture's size, made black and white, and grown. How one moves along: tracking.py.

A mask is a uint8 array [height, width] of 0 and 255; white is what the model generates.
"""

import numpy as np

from kinora.media.frames import Frame, Plane, cover
from kinora.media.signals import luma

_WHITE_FROM = 128


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
