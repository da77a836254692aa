"""Scenes of known motion, drawn at any moment: what lies between two frames is known, and can be compared."""

from dataclasses import dataclass

import cv2
import numpy as np

from kinora.media.frames import Frame


def texture(width: int, height: int, seed: int, grain: int = 8) -> Frame:
    """Smooth coloured noise."""
    numbers = np.random.default_rng(seed).integers(20, 230, (height // grain + 1, width // grain + 1, 3), np.uint8)
    return np.asarray(cv2.resize(numbers, (width, height), interpolation=cv2.INTER_CUBIC))


@dataclass(frozen=True)
class Scene:
    """A textured square that moves, turns and grows over a background that may move too; times are frame numbers."""

    width: int = 128
    height: int = 96
    side: int = 32
    start: tuple[float, float] = (30.0, 30.0)
    speed: tuple[float, float] = (4.0, 1.0)
    turn: float = 0.0
    growth: float = 1.0
    pan: float = 0.0
    bar: tuple[int, int] | None = None
    "An upright bar in front, from and to a column."
    seed: int = 5

    def at(self, time: float) -> Frame:
        """The picture at this moment."""
        ground = texture(self.width * 3, self.height, self.seed)
        shift = np.array([[1, 0, -self.width - self.pan * time], [0, 1, 0]], np.float32)
        frame = cv2.warpAffine(ground, shift, (self.width, self.height), flags=cv2.INTER_CUBIC)
        square = texture(self.side, self.side, self.seed + 1, 4)
        share = self._share(time)[..., None] / 255
        front = cv2.warpAffine(square, self._placed(time), (self.width, self.height), flags=cv2.INTER_LINEAR)
        frame = (frame * (1 - share) + front * share).astype(np.uint8)
        if self.bar is not None:
            frame[:, self.bar[0] : self.bar[1]] = (60, 60, 60)
        return np.asarray(frame)

    def mask(self, time: float) -> np.ndarray:
        """Where the square is, behind the bar too: 0 and 255."""
        return np.where(self._share(time) > 127, np.uint8(255), np.uint8(0))

    def _share(self, time: float) -> np.ndarray:
        whole = np.full((self.side, self.side), 255, np.uint8)
        return np.asarray(cv2.warpAffine(whole, self._placed(time), (self.width, self.height)))

    def _placed(self, time: float) -> np.ndarray:
        middle = self.side / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), self.turn * time, self.growth**time)
        matrix[:, 2] += (self.start[0] + self.speed[0] * time, self.start[1] + self.speed[1] * time)
        return np.asarray(matrix)
