"""A mask follows what it covers: shifts, turns, growth, things in front, a moving camera; and says when it cannot."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kinora.media.frames import write_lossless
from kinora.media.prepare import prepare
from kinora.media.tracking import Followed, Tracker

from .scenes import Scene

FRAMES = 13
SCENES: dict[str, tuple[Scene, float]] = {
    "shift": (Scene(speed=(2, 0.5)), 0.9),
    "fast": (Scene(start=(10, 30), speed=(6, 1)), 0.9),
    "still": (Scene(speed=(0, 0)), 0.98),
    "growing": (Scene(speed=(1, 0), growth=1.05), 0.85),
    "shrinking": (Scene(speed=(1, 0), growth=0.95), 0.8),
    "turning": (Scene(speed=(1, 0), turn=8), 0.9),
    "camera": (Scene(speed=(2, 0), pan=-4), 0.9),
    "all of it": (Scene(speed=(2, 1), turn=4, growth=1.02, pan=-2), 0.9),
    "behind a bar": (Scene(start=(10, 30), speed=(5, 0), bar=(60, 75)), 0.85),
    "small": (Scene(64, 64, 16, start=(10, 20), speed=(2, 0)), 0.9),
    "large": (Scene(832, 480, 200, start=(100, 100), speed=(9, 3), turn=2, growth=1.01, pan=-4), 0.95),
}


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    both, either = ((one > 0) & (other > 0)).sum(), ((one > 0) | (other > 0)).sum()
    return float(both / max(either, 1))


def _followed(scene: Scene, start: int, frames: int = FRAMES) -> tuple[Followed, list[float]]:
    tracker = Tracker(scene.width, scene.height)
    looks = [tracker.thumbnail(scene.at(time)) for time in range(frames)]
    found = tracker.follow(scene.mask(start), looks, start)
    return found, [_overlap(found.masks[time], scene.mask(time)) for time in range(frames)]


#: A mask that is drawn when the thing is half hidden would cover the bar too.
CASES = [(name, start) for name, (scene, _) in SCENES.items() for start in (0, 6) if not (scene.bar and start)]


@pytest.mark.parametrize(("name", "start"), CASES)
def test_it_stays_on_what_it_covers(name: str, start: int) -> None:
    scene, least = SCENES[name]
    found, overlaps = _followed(scene, start)
    assert min(overlaps) > least, [round(value, 2) for value in overlaps]
    assert found.lost == []


def test_it_does_not_drift_off_with_time() -> None:
    scene = Scene(160, 96, 32, start=(20, 20), speed=(1.0, 0.3), turn=1.5, pan=-1)
    _, overlaps = _followed(scene, 0, 61)
    assert min(overlaps[50:]) > 0.9


def test_what_is_hidden_is_said_and_the_mask_moves_on() -> None:
    scene = Scene(start=(10, 30), speed=(5, 0), bar=(50, 85))
    found, overlaps = _followed(scene, 0)
    assert found.lost
    assert all(time >= 5 for time in found.lost)
    assert min(overlaps) > 0.4


def test_what_leaves_the_picture_is_not_lost() -> None:
    found, _ = _followed(Scene(start=(80, 30), speed=(6, 0)), 0)
    assert not found.masks[-1].any()
    assert found.lost == []


def test_it_stands_still_on_a_flat_picture() -> None:
    tracker, mask = Tracker(64, 48), np.zeros((48, 64), np.uint8)
    mask[10:20, 10:20] = 255
    flat = [tracker.thumbnail(np.full((48, 64, 3), 90, np.uint8))] * 5
    assert all((found == mask).all() for found in tracker.follow(mask, flat, 2).masks)


def test_a_flat_thing_is_followed_too() -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:22, 6:18] = 255
    frames = []
    for time in range(7):
        frame = np.full((48, 64, 3), 60, np.uint8)
        frame[10:22, 6 + 5 * time : 18 + 5 * time] = (220, 200, 40)
        frames.append(frame)
    tracker = Tracker(64, 48)
    found = tracker.follow(mask, [tracker.thumbnail(frame) for frame in frames], 0).masks
    for time in range(7):
        assert _overlap(found[time], np.roll(mask, 5 * time, axis=1)) > 0.8, time


def test_status_says_from_where_to_where_and_where_it_was_out_of_sight() -> None:
    scene = Scene(start=(10, 30), speed=(5, 0), bar=(50, 85))
    video, drawn, made = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write_lossless(video, (scene.at(time) for time in range(FRAMES)), scene.width, scene.height, 16)
    Image.fromarray(scene.mask(0)).save(drawn, format="PNG")
    mask = {"input": "mask", "kind": "Image", "mode": "Tracking", "frame": 1, "expand_ratio": 0.0}
    plan: dict[str, Any] = {
        "width": scene.width, "height": scene.height, "frames": FRAMES, "fps": 16.0, "signal": "None", "rect": None,
        "segments": [{"frames": FRAMES, "input": "video", "anchor": "Begin"}], "mask": mask, "references": [],
    }  # fmt: skip
    actions = prepare({"video": video, "mask": drawn}, {"mask.video": made}, plan).actions["mask"]
    assert actions[0] == f"moved along from frame 1 over {FRAMES} frames"
    assert "out of sight in" in actions[1]
    assert actions[1].endswith("moved on")
    assert all(len(words) <= 96 for words in actions)
