"""Frames between frames lie on the path of what moves, are better than fading and repeating, and hold at cuts."""

from collections.abc import Sequence

import numpy as np
import pytest

from kinora.media.frames import Frame
from kinora.media.info import MediaError
from kinora.media.interpolate import Interpolator

from .scenes import Scene, texture

SCENES = {
    "slow": Scene(),
    "fast": Scene(speed=(7, 2)),
    "small": Scene(64, 64, 20, start=(10, 20), speed=(4, 1)),
    "turning": Scene(turn=7),
    "growing": Scene(growth=1.06),
    "behind a bar": Scene(bar=(70, 80)),
    "camera": Scene(pan=-5, speed=(3, 0)),
    "large": Scene(640, 360, 120, start=(120, 90), speed=(14, 4), pan=-8),
}


def _psnr(left: Frame, right: Frame) -> float:
    inner = (slice(4, -4), slice(4, -4))
    return float(10 * np.log10(255**2 / np.mean((left[inner].astype(float) - right[inner]) ** 2)))


def _at(frames: Sequence[Frame], positions: Sequence[float]) -> tuple[list[Frame], int]:
    work = Interpolator()
    return list(work.at(iter(frames), positions)), work.cuts


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_it_is_nearer_to_the_truth_than_fading_and_repeating(name: str, share: float) -> None:
    scene = SCENES[name]
    frames = [scene.at(time) for time in range(4)]
    found, cuts = _at(frames, [time + share for time in range(3)])
    assert cuts == 0
    for time in range(3):
        truth = scene.at(time + share)
        faded = (frames[time] * (1 - share) + frames[time + 1] * share).astype(np.uint8)
        assert _psnr(found[time], truth) > max(_psnr(faded, truth), _psnr(frames[time], truth)) + 2


def _square(left: float) -> Frame:
    frame = np.full((64, 96, 3), 40, np.uint8)
    whole = int(left)
    frame[20:36, whole : whole + 16] = 230
    return frame


def _middle(frame: Frame) -> float:
    weight = (frame[..., 0].astype(float) - 40).sum(axis=0)
    return float((weight * np.arange(96)).sum() / weight.sum())


@pytest.mark.parametrize(("fps", "output_fps"), [(16, 30), (16, 24), (12, 60), (24, 16), (16, 8)])
def test_what_moves_evenly_still_does_at_another_rate(fps: int, output_fps: int) -> None:
    frames = [_square(4 + 4 * time) for time in range(13)]
    positions = [number * fps / output_fps for number in range(int(12 * output_fps / fps))]
    found, _ = _at(frames, positions)
    assert len(found) == len(positions)
    for position, frame in zip(positions, found, strict=True):
        assert abs(_middle(frame) - (11.5 + 4 * position)) < 0.35, position


def test_whole_positions_are_the_frames_themselves() -> None:
    frames = [_square(4 + 4 * time) for time in range(5)]
    found, _ = _at(frames, [0, 2, 4, 4.6])
    assert all((left == frames[number]).all() for left, number in zip(found, (0, 2, 4, 4), strict=True))


RED, GREEN = np.full((64, 96, 3), (200, 30, 30), np.uint8), np.full((64, 96, 3), (30, 200, 30), np.uint8)
CUTS = {
    "pictures": (texture(96, 64, 1), texture(96, 64, 2)),
    "colours": (RED, GREEN),
    "negative": (texture(96, 64, 1), 255 - texture(96, 64, 1)),
    "to black": (texture(96, 64, 1), np.zeros_like(RED)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_leaves_no_ghost(name: str) -> None:
    before, after = CUTS[name]
    found, cuts = _at([before, before, after, after], [0.5, 1.25, 1.5, 1.75, 2.5])
    assert cuts == 1
    for frame, expected in zip(found, (before, before, after, after, after), strict=True):
        assert np.abs(frame.astype(int) - expected).max() <= 1


def test_light_that_changes_is_no_cut() -> None:
    picture = texture(96, 64, 1)
    found, cuts = _at([picture, np.clip(picture.astype(int) + 14, 0, 255).astype(np.uint8)], [0.5])
    assert cuts == 0
    assert abs(float(found[0].mean()) - float(picture.mean()) - 7) < 1.5


def test_without_frames_there_is_nothing_to_interpolate() -> None:
    with pytest.raises(MediaError, match="no frames"):
        _at([], [0.0])
    found, _ = _at([RED], [0.0, 0.4])
    assert all((frame == RED).all() for frame in found)
