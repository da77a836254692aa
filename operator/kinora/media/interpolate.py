"""Frames between frames, by dense optical flow: things move to where they would have been, nothing is faded over.

Of each two neighbours the motion is measured both ways (DIS, Dense Inverse Search). A frame between them is looked up
in both along that motion; where a part is hidden in one of them (the two ways disagree), only the other one counts. At
a cut, where the second frame is no moved first one, the nearer frame is held. One pair of frames is held at a time.
Runs in the media child; OpenCV is loaded nowhere else.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from kinora.media.frames import Frame
from kinora.media.info import MediaError

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

_SMALLEST, _LARGEST = 256, 480  # pixels of the longer side at which motion is measured
_EXACT = 1e-4  # of a frame: nearer to a frame than this, it is that frame
_AGREE, _AGREE_SHARE = 1.0, 0.1  # pixels, and share of the motion, by which the two ways may differ
_MATCH = 24  # of 255: a moved pixel that differs by more is another one
_CUT, _CUT_COLOURS = 0.5, 0.2  # share of pixels that match nothing: at a cut; at one that changes the colours too
_COLOURS_DIFFER = 0.45  # Bhattacharyya distance of two histograms, 0 to 1


class Interpolator:
    """Frames at any position of a sequence. `cuts` counts the ones that were held."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.cuts = 0

    def at(self, frames: Iterable[Frame], positions: Sequence[float]) -> Iterator[Frame]:
        """The frame at each position (rising; 2.25 is a quarter on the way from the third frame to the fourth).

        Beyond the last frame it stands. Raises MediaError without frames.
        """
        source = enumerate(frames)
        number, before = next(source, (0, None))
        if before is None:
            raise MediaError("there are no frames to interpolate")
        after: Frame | None = None
        pair: _Pair | None = None
        for position in positions:
            below, share = _split(position)
            while number < below:
                following = after if after is not None else next(source, (0, None))[1]
                if following is None:
                    break
                number, before, after, pair = number + 1, following, None, None
            if share == 0 or number < below:
                yield before
                continue
            if after is None:
                after = next(source, (0, None))[1]
            if after is None:
                yield before
                continue
            if pair is None:
                pair = self._pair(before, after)
            yield pair.at(share)

    def _pair(self, before: Frame, after: Frame) -> "_Pair":
        pair = _Pair(before, after, self._flow)
        self.cuts += pair.is_cut
        return pair


def _split(position: float) -> tuple[int, float]:
    below = int(np.floor(position + _EXACT))
    share = position - below
    return below, share if share > _EXACT else 0.0


class _Pair:
    """Two neighbours and the motion between them, at the size at which it was measured."""

    def __init__(self, before: Frame, after: Frame, flow: cv2.DISOpticalFlow) -> None:
        self._before, self._after = before, after
        small = _measured_size(before)
        first, second = (cv2.resize(frame, small, interpolation=cv2.INTER_AREA) for frame in (before, after))
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        self._grid = _grid(small[1], small[0])
        self._forward = np.asarray(flow.calc(grey[0], grey[1], None), np.float32)
        self._backward = np.asarray(flow.calc(grey[1], grey[0], None), np.float32)
        self._seen_after = _agree(self._forward, self._backward, self._grid)
        self._seen_before = _agree(self._backward, self._forward, self._grid)
        self.is_cut = self._judged(first, second)

    def _judged(self, first: Frame, second: Frame) -> bool:
        moved = _looked_up(second, self._grid + self._forward)
        off = np.abs(moved.astype(np.int16) - first).max(axis=2) > _MATCH
        unmatched = float((off | ~self._seen_after).mean())
        wrong = float(off.mean())
        if wrong > _CUT or (unmatched > _CUT and wrong > _CUT_COLOURS):
            return True
        return wrong > _CUT_COLOURS and _colours_apart(first, second) > _COLOURS_DIFFER

    def at(self, share: float) -> Frame:
        """The frame at this share of the way."""
        if self.is_cut:
            return self._before if share < 0.5 else self._after
        motion = self._motion_at(share)
        from_before, from_after = self._grid - share * motion, self._grid + (1 - share) * motion
        weights = self._weights(share, motion, from_before, from_after)
        return self._blended(share, motion, weights)

    def _motion_at(self, share: float) -> Floats:
        """The motion of what lies at each pixel then: carried there from both frames, the seen over the hidden."""
        motion = np.zeros_like(self._forward)
        known = np.zeros(motion.shape[:2], bool)
        ways = (
            (self._grid + (1 - share) * self._backward, -self._backward, ~self._seen_before),
            (self._grid + share * self._forward, self._forward, ~self._seen_after),
            (self._grid + (1 - share) * self._backward, -self._backward, self._seen_before),
            (self._grid + share * self._forward, self._forward, self._seen_after),
        )
        for place, moved, chosen in ways:
            _carried(motion, known, place[chosen], moved[chosen])
        return _filled(motion, known)

    def _weights(self, share: float, motion: Floats, from_before: Floats, from_after: Floats) -> tuple[Floats, Floats]:
        """How much each frame counts at each pixel: nothing where it shows something else there."""
        there_before = _alike(_looked_up(self._forward, from_before), motion) & _inside(from_before)
        there_after = _alike(-_looked_up(self._backward, from_after), motion) & _inside(from_after)
        neither = ~(there_before | there_after)
        before = np.where(there_before | neither, 1 - share, 0.0).astype(np.float32)
        after = np.where(there_after | neither, share, 0.0).astype(np.float32)
        before, after = cv2.blur(before, (3, 3)), cv2.blur(after, (3, 3))
        total = before + after
        return before / total, after / total

    def _blended(self, share: float, motion: Floats, weights: tuple[Floats, Floats]) -> Frame:
        height, width = self._before.shape[:2]
        scale = np.array([width / motion.shape[1], height / motion.shape[0]], np.float32)
        whole = cv2.resize(motion, (width, height), interpolation=cv2.INTER_LINEAR) * scale
        grid = _grid(height, width)
        one = _looked_up(self._before, grid - share * whole, cv2.INTER_CUBIC).astype(np.float32)
        two = _looked_up(self._after, grid + (1 - share) * whole, cv2.INTER_CUBIC).astype(np.float32)
        first = cv2.resize(weights[0], (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
        return np.asarray(np.clip(one * first + two * (1 - first) + 0.5, 0, 255), np.uint8)


def _measured_size(frame: Frame) -> tuple[int, int]:
    """Width and height at which motion is measured: small pictures enlarged, large ones reduced."""
    height, width = frame.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, _SMALLEST), _LARGEST) / longer
    return max(round(width * scale), 32), max(round(height * scale), 32)


def _grid(height: int, width: int) -> Floats:
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack([across, down])


def _looked_up(values: npt.NDArray[Any], place: Floats, how: int = cv2.INTER_LINEAR) -> npt.NDArray[Any]:
    return np.asarray(cv2.remap(values, place, None, how, borderMode=cv2.BORDER_REPLICATE))


def _agree(one: Floats, other: Floats, grid: Floats) -> Mask:
    """Where going one way and then the other ends where it began."""
    back = _looked_up(other, grid + one)
    return _alike(-back, one) & _inside(grid + one)


def _alike(one: npt.NDArray[Any], other: Floats) -> Mask:
    apart = np.hypot(*np.moveaxis(one - other, 2, 0))
    return np.asarray(apart <= _AGREE + _AGREE_SHARE * np.hypot(other[..., 0], other[..., 1]))


def _inside(place: Floats) -> Mask:
    height, width = place.shape[:2]
    across, down = place[..., 0], place[..., 1]
    return np.asarray((across >= -0.5) & (down >= -0.5) & (across <= width - 0.5) & (down <= height - 0.5))


def _carried(motion: Floats, known: Mask, place: Floats, moved: Floats) -> None:
    """Write each motion to the four pixels around its place."""
    height, width = known.shape
    across, down = np.floor(place[:, 0]).astype(np.int32), np.floor(place[:, 1]).astype(np.int32)
    for right in (0, 1):
        for below in (0, 1):
            x, y = across + right, down + below
            good = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            motion[y[good], x[good]] = moved[good]
            known[y[good], x[good]] = True


def _filled(motion: Floats, known: Mask) -> Floats:
    """Pixels to which nothing was carried take what lies around them."""
    reach = 5
    while not known.all():
        weight = cv2.blur(known.astype(np.float32), (reach, reach))
        around = cv2.blur(motion * known[..., None], (reach, reach))
        new = ~known & (weight > 0)
        motion[new] = around[new] / weight[new][:, None]
        known = known | new
        reach = min(reach * 2 + 1, 255)
    return motion


def _colours_apart(first: Frame, second: Frame) -> float:
    counts = [cv2.calcHist([frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3) for frame in (first, second)]
    return float(cv2.compareHist(counts[0], counts[1], cv2.HISTCMP_BHATTACHARYYA))
