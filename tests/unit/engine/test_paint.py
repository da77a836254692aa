"""Every input of a scene leaves its mark in the pixels, so that a wrong wiring is seen."""

from dataclasses import replace

import numpy as np
import pytest

from contract.harness import clip, photo
from kinora.engine.standin.paint import Painter, Scene
from kinora.engine.standin.pictures import luma

SIZE, FRAMES = 128, 17
PLAIN = Scene(SIZE, SIZE, FRAMES, prompt="a red fox runs through snow", negative="blurry", seed=7)
CLIP = clip(SIZE, SIZE, FRAMES)


def _frames(scene: Scene) -> np.ndarray:
    painter = Painter(scene)
    return np.stack([painter.frame(at) for at in range(scene.frames)])


def _difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(int) - right).mean())


def test_the_same_scene_gives_the_same_pixels() -> None:
    assert np.array_equal(_frames(PLAIN), _frames(PLAIN))


@pytest.mark.parametrize(
    "change",
    [{"prompt": "an ocean wave at night"}, {"seed": 8}, {"negative": "dark"}, {"guidance": 8.0}, {"shift": 1.0},
     {"steps": 60}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_parameter_changes_the_picture(change: dict) -> None:
    assert _difference(_frames(PLAIN), _frames(replace(PLAIN, **change))) > 2


def test_the_picture_moves_smoothly() -> None:
    frames = _frames(PLAIN)
    steps = [_difference(frames[at], frames[at + 1]) for at in range(FRAMES - 1)]
    assert min(steps) > 0.3
    assert max(steps) < 12


def test_black_keeps_the_control_videos_pixels_and_white_does_not() -> None:
    masks = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    masks[:, 32:96, 40:120] = 255
    frames = _frames(replace(PLAIN, control=CLIP, masks=masks))
    kept = masks == 0
    assert np.array_equal(frames[kept], CLIP[kept])
    assert _difference(frames[~kept], CLIP[~kept]) > 20


def test_a_small_mask_is_painted_too() -> None:
    masks = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    masks[:, 60:70, 60:70] = 255  # 0.6 % of the picture
    control = CLIP.copy()
    control[:, 60:70, 60:70] = 127
    frames = _frames(replace(PLAIN, control=control, masks=masks))
    assert _difference(frames[:, 60:70, 60:70], control[:, 60:70, 60:70]) > 10


def test_the_forms_of_a_control_video_come_through_in_the_prompts_colours() -> None:
    controlled = _frames(replace(PLAIN, control=CLIP))
    plain = _frames(PLAIN)

    def likeness(frames: np.ndarray) -> float:
        pairs = zip(frames, CLIP, strict=True)
        return float(np.mean([np.corrcoef(luma(frame).ravel(), luma(source).ravel())[0, 1] for frame, source in pairs]))

    assert likeness(controlled) > 0.75
    assert abs(likeness(plain)) < 0.5
    assert _difference(controlled, CLIP) > 15
    other = _frames(replace(PLAIN, control=CLIP, prompt="an ocean wave at night"))
    assert _difference(controlled, other) > 10


def test_strength_and_denoise_lead_away_from_and_back_to_the_control_video() -> None:
    full = _frames(replace(PLAIN, control=CLIP))
    weak = _frames(replace(PLAIN, control=CLIP, strength=0.2))
    half = _frames(replace(PLAIN, control=CLIP, denoise=0.5))
    assert _difference(full, weak) > 5
    assert _difference(half, CLIP) < 0.7 * _difference(full, CLIP)


def test_a_grey_control_video_says_nothing() -> None:
    grey = np.full((FRAMES, SIZE, SIZE, 3), 127, np.uint8)
    assert _difference(_frames(replace(PLAIN, control=grey)), _frames(PLAIN)) < 1


def test_a_reference_gives_its_colours_and_is_seen() -> None:
    reference = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    reference[:, : SIZE // 2] = (230, 20, 20)
    reference[:, SIZE // 2 :] = (150, 10, 10)
    frames = _frames(replace(PLAIN, reference=reference))
    means = frames.reshape(-1, 3).mean(axis=0)
    assert means[0] > 2.5 * means[1:].max()
    middle = frames[0, SIZE // 2 - 20 : SIZE // 2 + 20, SIZE // 2 - 4 : SIZE // 2 + 4].reshape(-1, 3)
    assert np.abs(middle.astype(int) - (230, 20, 20)).sum(axis=1).min() < 12


def test_a_start_image_is_the_first_frame_and_a_camera_moves() -> None:
    control = np.full((FRAMES, SIZE, SIZE, 3), 128, np.uint8)
    control[0] = photo(SIZE, SIZE)
    masks = np.full((FRAMES, SIZE, SIZE), 255, np.uint8)
    masks[0] = 0
    frames = _frames(replace(PLAIN, control=control, masks=masks))
    assert np.array_equal(frames[0], control[0])
    away = [_difference(frame[:100], control[0][:100]) for frame in frames]
    assert 0 < away[1] < away[8] < away[16]
    assert away[1] < 10
    likeness = np.corrcoef(luma(frames[8]).ravel(), luma(control[0]).ravel())[0, 1]
    assert likeness > 0.6


def test_the_stamp_is_on_what_is_painted_only() -> None:
    masks = np.full((FRAMES, SIZE, SIZE), 255, np.uint8)
    masks[:, SIZE // 2 :] = 0
    frames = _frames(replace(PLAIN, control=CLIP, masks=masks))
    assert np.array_equal(frames[:, SIZE // 2 :], CLIP[:, SIZE // 2 :])
    band = frames[0, SIZE // 2 - 14 : SIZE // 2].astype(int)
    letters = (band.min(axis=2) > 170) & (band.max(axis=2) - band.min(axis=2) < 25)  # near to white
    assert letters.sum() > 20
