"""Control signals that need no model: grey, edges, sketch and motion, drawn from the source's frames with numpy.

Each takes the frames of a clip in order and gives as many. Depth and pose need a model and are nodes of the graph.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from kinora.media.frames import Frame, Plane

Floats: TypeAlias = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LOW, _HIGH = 0.10, 0.25  # of the slope's possible height
_FLOW_SIDE = 192  # motion is computed at most this large
_FLOW_LEVELS, _FLOW_ROUNDS, _FLOW_WINDOW = 3, 3, 3


def luma(frame: Frame) -> Floats:
    """Brightness, 0 to 255."""
    return np.asarray(frame.astype(np.float32) @ _LUMA, np.float32)


def gray(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames without colour."""
    for frame in frames:
        yield _spread(np.clip(luma(frame) + 0.5, 0, 255).astype(np.uint8))


def canny(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Thin white edges on black."""
    for frame in frames:
        yield _spread(_edges(frame, 1.2))


def scribble(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The main outlines as thick white strokes on black: edges of what remains when detail is blurred away."""
    for frame in frames:
        strokes = Image.fromarray(_edges(frame, max(2.0, min(frame.shape[:2]) / 160)))
        thick = strokes.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(1))
        yield _spread(np.where(np.asarray(thick) > 96, np.uint8(255), np.uint8(0)))


def _spread(plane: Plane) -> Frame:
    return np.repeat(plane[..., None], 3, axis=2)


def _edges(frame: Frame, blur: float) -> Plane:
    """Canny: slopes, thinned to their crests, weak ones only where they touch strong ones."""
    smooth = Image.fromarray(np.clip(luma(frame) + 0.5, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    values = np.pad(np.asarray(smooth, np.float32) / 255, 1, mode="edge")
    across = values[:, 2:] - values[:, :-2]
    down = values[2:] - values[:-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    slope = np.asarray(np.hypot(across, down) * max(1.0, blur / 1.2), np.float32)  # blurring flattens slopes
    crest = _crests(slope, np.asarray(across, np.float32), np.asarray(down, np.float32))
    return _connected(crest > 4 * _HIGH * 0.5, crest > 4 * _LOW * 0.5)


def _crests(slope: Floats, across: Floats, down: Floats) -> Floats:
    padded = np.pad(slope, 1)
    turn = (np.round(np.arctan2(down, across) / (np.pi / 4)).astype(np.int64)) % 4
    result = np.zeros_like(slope)
    for way, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        behind = padded[1 - dy : padded.shape[0] - 1 - dy, 1 - dx : padded.shape[1] - 1 - dx]
        top = (turn == way) & (slope >= ahead) & (slope > behind)
        result[top] = slope[top]
    return result


def _connected(strong: npt.NDArray[np.bool_], weak: npt.NDArray[np.bool_]) -> Plane:
    """Strong pixels, and the weak ones that hang together with them within some steps."""
    found = strong
    for _ in range(12):
        grown = np.asarray(Image.fromarray(found.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))) > 0
        following = found | (grown & weak)
        if (following == found).all():
            break
        found = following
    return found.astype(np.uint8) * np.uint8(255)


def flow(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Motion from each frame to the next as colour: hue is the direction, white is rest. The last one is repeated.

    Pyramidal Lucas-Kanade at a small size: right for what moves smoothly, blind to what jumps.
    """
    before: Frame | None = None
    shown: Frame | None = None
    for frame in frames:
        if before is not None:
            shown = _motion_colours(before, frame)
            yield shown
        before = frame
    if before is not None:
        yield shown if shown is not None else np.full_like(before, 255)


def _motion_colours(before: Frame, after: Frame) -> Frame:
    height, width = before.shape[:2]
    scale = min(1.0, _FLOW_SIDE / max(height, width))
    small = (max(8, round(width * scale)), max(8, round(height * scale)))
    across, down = motion(_shrunk(before, small), _shrunk(after, small))
    strength = np.hypot(across, down) / (0.04 * max(small))
    hue = (np.arctan2(down, across) / (2 * np.pi)) % 1.0
    colours = np.stack([hue * 255, np.clip(strength, 0, 1) * 255, np.full_like(hue, 255)], axis=-1)
    picture = Image.fromarray(colours.astype(np.uint8), mode="HSV").convert("RGB")
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _shrunk(frame: Frame, size: tuple[int, int]) -> Floats:
    grey = Image.fromarray(np.clip(luma(frame) + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(grey.resize(size, Image.Resampling.BOX), np.float32)


def motion(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """How far each pixel of `before` moves to the right and down to be where it is in `after`."""
    pyramid = [(before, after)]
    while len(pyramid) < _FLOW_LEVELS and min(pyramid[-1][0].shape) >= 24:
        pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
    across = np.zeros_like(pyramid[-1][0])
    down = np.zeros_like(across)
    for first, second in reversed(pyramid):
        if across.shape != first.shape:
            across, down = (2 * _resized(part, first.shape) for part in (across, down))
        for _ in range(_FLOW_ROUNDS):
            moved = _warped(second, across, down)
            more_across, more_down = _lucas_kanade(first, moved)
            across, down = across + more_across, down + more_down
    return across, down


def _lucas_kanade(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    slopes = np.gradient((first + second) / 2)
    slope_down, slope_across = np.asarray(slopes[0], np.float32), np.asarray(slopes[1], np.float32)
    change = second - first
    xx, yy, xy = (_window(part) for part in (slope_across**2, slope_down**2, slope_across * slope_down))
    xt, yt = _window(slope_across * change), _window(slope_down * change)
    xx, yy = xx + 4, yy + 4  # keeps still what has no structure
    determinant = xx * yy - xy * xy
    across, down = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    return np.clip(across, -2, 2).astype(np.float32), np.clip(down, -2, 2).astype(np.float32)


def _window(values: npt.NDArray[np.floating]) -> Floats:
    """Mean over a square around each pixel."""
    side = 2 * _FLOW_WINDOW + 1
    sums = np.pad(
        values.astype(np.float64), ((_FLOW_WINDOW + 1, _FLOW_WINDOW), (_FLOW_WINDOW + 1, _FLOW_WINDOW)), "edge"
    )
    sums = sums.cumsum(axis=0).cumsum(axis=1)
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(total / side**2, np.float32)


def _halved(values: Floats) -> Floats:
    return _resized(values, (values.shape[0] // 2, values.shape[1] // 2))


def _resized(values: Floats, shape: tuple[int, ...]) -> Floats:
    return np.asarray(Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float32)


def _warped(values: Floats, across: Floats, down: Floats) -> Floats:
    """`values` looked up where each pixel has moved to."""
    height, width = values.shape
    rows, columns = np.indices(values.shape, np.float32)
    y, x = np.clip(rows + down, 0, height - 1.001), np.clip(columns + across, 0, width - 1.001)
    top, left = y.astype(np.int64), x.astype(np.int64)
    low, right = y - top, x - left
    upper = values[top, left] * (1 - right) + values[top, left + 1] * right
    lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
    return np.asarray(upper * (1 - low) + lower * low, np.float32)


def _as_it_is(frames: Iterable[Frame]) -> Iterator[Frame]:
    yield from frames


#: Control -> what media draws of the source. Depth and Pose get the plain frames: a node of the graph follows. A Layout
#: is drawn by the user already.
SIGNALS: Mapping[str, Callable[[Iterable[Frame]], Iterator[Frame]]] = MappingProxyType(
    {
        "None": _as_it_is,
        "Depth": _as_it_is,
        "Pose": _as_it_is,
        "PoseFace": _as_it_is,
        "Layout": _as_it_is,
        "Gray": gray,
        "Canny": canny,
        "Scribble": scribble,
        "Flow": flow,
    }
)
