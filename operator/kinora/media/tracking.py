"""A mask that moves along with what it covers: shifted, turned and scaled, behind things and back, without drifting.

Each frame is held against the one on which the mask was drawn, not only against the one before: what was found is put
right by it as long as it looks alike, so that small errors do not add up. Several guesses are made of every step (the
motion of points in the mask, a search for the covered part, going on as before, standing still); the one under which
the drawn part fits best is taken. Runs in the media child; OpenCV is loaded here and in interpolate.py only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from kinora.media.frames import Frame, Plane

Matrix: TypeAlias = npt.NDArray[np.float64]
"""Two rows of three: where a point of one picture lies in another."""

_SIDE = 384  # pixels of the longer side at which things are followed
_POINTS, _FEWEST, _AFFINE_FROM = 120, 6, 24  # looked for; that tell a motion; that tell a distortion too
_BACK = 0.7  # pixels by which a point that is followed forth and back may be off
_CAP = 40.0  # of 255: a pixel that is off by more is another thing, however much
_LIGHT = 15.0  # by which all of it may have become brighter or darker
_GOOD, _LOST = 6.0, 22.0  # mean difference: nothing more is tried; the thing is not there
_SURE = 12.0  # above it only shifts are tried: a thing that fits badly is not turned and shrunk until it fits
_GROWTH_COST = 8.0  # for each e-fold of growth or shrinking: a smaller part always fits better
_CLOSER = 0.4  # by which another guess must fit better than standing still
_REACH = 0.25  # of the picture's longer side: how far a thing is searched for from one frame to the next
_FAR = 0.06  # of the picture's longer side: what is found farther off must fit well
_STEP_SCALE, _WHOLE_SCALE = 1.35, 6.0  # by which a thing may grow or shrink in one step, and in all
_LEAVING = 0.3  # share of a thing within the picture below which too little is left to go by
_TRIES = 6  # steps of one size towards a better place
_TURNING = 0.02  # of a motion's matrix: above it its shift is another one at every point
_SLOWER = 0.95  # what remains of its motion, a frame, while a thing is not seen
_WHITE_FROM = 128

_STILL: Matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float64)


@dataclass
class Followed:
    """The mask of each frame, and the frames (from 0) in which nothing like the covered part was found."""

    masks: list[Plane]
    lost: list[int] = field(default_factory=list)


class Tracker:
    """Follows what a mask covers through the frames of one size."""

    def __init__(self, width: int, height: int) -> None:
        scale = min(1.0, _SIDE / max(width, height))
        self._whole = (width, height)
        self._size = (max(16, round(width * scale)), max(16, round(height * scale)))
        self._longer = max(self._size)

    def thumbnail(self, frame: Frame) -> Plane:
        """What is looked at of a frame."""
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        return np.asarray(cv2.resize(grey, self._size, interpolation=cv2.INTER_AREA), np.uint8)

    def follow(self, mask: Plane, thumbnails: Sequence[Plane], start: int) -> Followed:
        """The mask of each frame, when `mask` is that of frame `start` (from 0)."""
        small = cv2.resize(mask, self._size, interpolation=cv2.INTER_AREA)
        drawn = _Drawn(thumbnails[start], np.where(small >= _WHITE_FROM, np.uint8(255), np.uint8(0)))
        found = Followed([mask] * len(thumbnails))
        if not drawn.mask.any():
            return found
        for way in (1, -1):
            path = _Path()
            for at in range(start + way, len(thumbnails) if way > 0 else -1, way):
                if not self._step(drawn, path, thumbnails[at - way], thumbnails[at]):
                    found.lost.append(at)
                found.masks[at] = self._moved(mask, path.place)
        found.lost.sort()
        return found

    def _moved(self, mask: Plane, place: Matrix) -> Plane:
        across, down = self._whole[0] / self._size[0], self._whole[1] / self._size[1]
        scale = np.diag([across, down, 1.0])
        whole = (scale @ np.vstack([place, [0, 0, 1]]) @ np.linalg.inv(scale))[:2]
        moved = cv2.warpAffine(mask, whole, self._whole, flags=cv2.INTER_LINEAR)
        return np.where(moved >= _WHITE_FROM, np.uint8(255), np.uint8(0))

    def _step(self, drawn: "_Drawn", path: "_Path", before: Plane, after: Plane) -> bool:
        """Where the thing is in `after`; whether it was found. What has left the picture is not lost."""
        if drawn.share_seen(path.place) < _LEAVING:
            path.go_on()
            return True
        guesses = [path.place, _after(path.step, path.place)]
        moved = _motion(before, after, drawn.at(path.place))
        if moved is not None:
            guesses.append(_after(moved, path.place))
        best, cost = self._best(drawn, guesses, path.place, after)
        if cost > _GOOD:
            covered, reach = drawn.at(path.place), round(_REACH * self._longer)
            shifts = [_searched(seen, after, covered, reach) for seen in (before, drawn.seen(path.place))]
            found, fits = self._best(drawn, [best, *(_after(shift, path.place) for shift in shifts)], path.place, after)
            if fits < _SURE or drawn.apart(found, path.place) < _FAR * self._longer:
                best, cost = found, fits
        if cost > _LOST or not drawn.at(best).any():
            path.go_on(None if moved is None else drawn.shifted(moved, path.place))
            return not drawn.at(path.place).any()
        path.go(best)
        return True

    def _best(self, drawn: "_Drawn", guesses: list[Matrix], before: Matrix, after: Plane) -> tuple[Matrix, float]:
        """Of the guesses, and what each becomes when it is put right against the drawn frame, the one that fits."""
        allowed = [guess for guess in guesses if self._possible(guess, before)]
        righted = [right for guess in allowed if (right := drawn.righted(guess, after)) is not None]
        allowed += [guess for guess in righted if self._possible(guess, before)]
        costs = [drawn.cost(guess, after) for guess in allowed]
        if not costs:
            return before, _CAP
        least = int(np.argmin(costs))
        if costs[0] - costs[least] < _CLOSER and not righted:
            least = 0
        nearer, cost = drawn.nearer(allowed[least], costs[least], after)
        return (nearer, cost) if self._possible(nearer, before) else (allowed[least], costs[least])

    def _possible(self, place: Matrix, before: Matrix) -> bool:
        scales = [_scale(matrix) for matrix in (before, place)]
        grown = scales[1] / max(scales[0], 1e-6)
        return 1 / _STEP_SCALE < grown < _STEP_SCALE and 1 / _WHOLE_SCALE < scales[1] < _WHOLE_SCALE


class _Path:
    """Where the thing is by now, and how it moved last."""

    def __init__(self) -> None:
        self.place, self.step = _STILL, _STILL

    def go(self, place: Matrix) -> None:
        self.step = _after(place, _inverse(self.place))
        self.place = place

    def go_on(self, shift: Matrix | None = None) -> None:
        """With what moves in its place, else as before, ever slower; no turning or growing, which run away."""
        if shift is None:
            shift = _STILL.copy()
            shift[:, 2] = (
                self.step[:, 2] * _SLOWER if np.abs(self.step[:, :2] - _STILL[:, :2]).max() < _TURNING else 0.0
            )
        self.step, self.place = shift, _after(shift, self.place)


class _Drawn:
    """The frame on which the mask was drawn, seen as it would look elsewhere."""

    def __init__(self, frame: Plane, mask: Plane) -> None:
        self.frame, self.mask = frame, mask
        self._size = (frame.shape[1], frame.shape[0])
        rows, columns = np.nonzero(mask)
        self._middle = np.array([columns.mean(), rows.mean()]) if len(rows) else np.zeros(2)
        self._radius = max(float(np.sqrt(len(rows) / np.pi)), 4.0)

    def at(self, place: Matrix) -> Plane:
        """What the mask covers there."""
        moved = cv2.warpAffine(self.mask, place, self._size, flags=cv2.INTER_LINEAR)
        return np.where(moved >= _WHITE_FROM, np.uint8(255), np.uint8(0))

    def seen(self, place: Matrix) -> Plane:
        """The drawn frame as it would look there."""
        return np.asarray(
            cv2.warpAffine(self.frame, place, self._size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            np.uint8,
        )

    def shifted(self, motion: Matrix, place: Matrix) -> Matrix:
        """The shift alone of a motion, at the middle of the covered part."""
        middle = place[:, :2] @ self._middle + place[:, 2]
        shift = _STILL.copy()
        shift[:, 2] = motion[:, :2] @ middle + motion[:, 2] - middle
        return shift

    def apart(self, one: Matrix, other: Matrix) -> float:
        """Pixels between the middle of the covered part here and there."""
        middles = [place[:, :2] @ self._middle + place[:, 2] for place in (one, other)]
        return float(np.hypot(*(middles[0] - middles[1])))

    def share_seen(self, place: Matrix) -> float:
        """How much of the covered part lies within the picture there."""
        whole = np.count_nonzero(self.mask) * abs(float(np.linalg.det(place[:, :2])))
        return float(np.count_nonzero(self.at(place)) / max(whole, 1.0))

    def cost(self, place: Matrix, frame: Plane) -> float:
        """How much the covered part differs there from the drawn one, brighter or darker as a whole aside."""
        covered = self.at(place) > 0
        if not covered.any():
            return _CAP
        off = frame[covered].astype(np.float32) - self.seen(place)[covered]
        light = float(np.clip(np.median(off), -_LIGHT, _LIGHT))
        grown = abs(float(np.log(max(_scale(place), 1e-6))))
        return float(np.minimum(np.abs(off - light), _CAP).mean()) + _GROWTH_COST * grown

    def nearer(self, place: Matrix, cost: float, frame: Plane) -> tuple[Matrix, float]:
        """The place from which no small shift, turn or growth fits better, and its cost: half covered things too."""
        for size in (1.0, 0.5, 0.25):
            tried = 0
            while tried < _TRIES:
                moves = self._around(place, size)
                better = [(self.cost(moved, frame), moved) for moved in (moves if cost < _SURE else islice(moves, 4))]
                least = min(better, key=lambda one: one[0])
                if least[0] > cost - 0.02:
                    break
                cost, place = least
                tried += 1
        return place, cost

    def _around(self, place: Matrix, size: float) -> Iterator[Matrix]:
        """The place a little to four sides, then turned and scaled so that the mask's edge moves by about `size`."""
        middle = place[:, :2] @ self._middle + place[:, 2]
        turn = size / self._radius
        for across, down in ((size, 0), (-size, 0), (0, size), (0, -size)):
            yield _after(np.array([[1, 0, across], [0, 1, down]], np.float64), place)
        for angle, scale in ((turn, 1.0), (-turn, 1.0), (0.0, 1 + turn), (0.0, 1 / (1 + turn))):
            matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), np.degrees(angle), scale)
            yield _after(matrix, place)

    def righted(self, place: Matrix, frame: Plane) -> Matrix | None:
        """The place put right by what is seen there; None where too little is."""
        rest = _motion(self.seen(place), frame, self.at(place))
        return None if rest is None else _after(rest, place)


def _motion(before: Plane, after: Plane, mask: Plane) -> Matrix | None:
    """How most points of the masked part move: followed forth and back, those that disagree left out."""
    quality: dict[str, Any] = {"maxCorners": _POINTS, "qualityLevel": 0.02, "minDistance": 3, "blockSize": 5}
    points = cv2.goodFeaturesToTrack(before, mask=mask, **quality)
    if points is None or len(points) < _FEWEST:
        points = cv2.goodFeaturesToTrack(before, mask=cv2.dilate(mask, np.ones((3, 3), np.uint8)), **quality)
    if points is None or len(points) < _FEWEST:
        return None
    window: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 4}
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **window)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **window)
    good = (found & returned).ravel().astype(bool) & (np.abs(back - points).max(axis=2).ravel() < _BACK)
    if good.sum() < _FEWEST:
        return None
    pairs = points[good].reshape(-1, 2), there[good].reshape(-1, 2)
    matrix, agreed = cv2.estimateAffinePartial2D(*pairs, ransacReprojThreshold=1.5)
    if matrix is None or agreed.sum() < _FEWEST:
        return None
    if agreed.sum() >= _AFFINE_FROM:
        chosen = agreed.ravel().astype(bool)
        free, free_agreed = cv2.estimateAffine2D(pairs[0][chosen], pairs[1][chosen], ransacReprojThreshold=1.5)
        if free is not None and free_agreed.sum() >= 0.9 * agreed.sum():
            matrix = free
    return np.asarray(matrix, np.float64)


def _searched(before: Plane, after: Plane, mask: Plane, reach: int) -> Matrix:
    """How far the masked part was shifted, by looking for it around its place."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return _STILL
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    part, covered = before[top:bottom, left:right], mask[top:bottom, left:right]
    around = cv2.copyMakeBorder(after, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    window = around[top : bottom + 2 * reach, left : right + 2 * reach]
    off = cv2.matchTemplate(window, part, cv2.TM_SQDIFF, mask=covered) / max(np.count_nonzero(covered), 1)
    far = np.hypot(*(np.indices(off.shape) - reach))
    off = np.where(np.isfinite(off), off, np.inf) + far * (20 / reach)  # of places that match alike, the nearest
    down, across = np.unravel_index(int(np.argmin(off)), off.shape)
    return np.array([[1, 0, across - reach], [0, 1, down - reach]], np.float64)


def _scale(matrix: Matrix) -> float:
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _after(then: Matrix, first: Matrix) -> Matrix:
    """One motion after another."""
    return np.asarray((np.vstack([then, [0, 0, 1]]) @ np.vstack([first, [0, 0, 1]]))[:2], np.float64)


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2], np.float64)
