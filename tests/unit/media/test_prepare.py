"""Preparation: exact counts and sizes, exact pixels where they are kept, masks and references as they were planned."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from kinora.media import child
from kinora.media.frames import clip_frames, write_lossless
from kinora.media.info import InputError, MediaError
from kinora.media.masks import binary, grown
from kinora.media.prepare import prepare
from kinora.media.sheet import grid, sheet
from kinora.media.signals import SIGNALS, motion

W, H = 64, 48
Make = Callable[..., io.BufferedRandom]


@pytest.fixture
def clip(tmp_path: Path) -> Make:
    """A lossless clip: frame i is of brightness 10 + 3 i, with a bright square that moves 2 pixels a frame."""
    made: list[io.BufferedRandom] = []

    def make(frames: int = 17, fps: float = 16, size: tuple[int, int] = (W, H)) -> io.BufferedRandom:
        file = (tmp_path / f"clip{len(made)}.mkv").open("w+b")
        made.append(file)
        write_lossless(file, (_frame(at, *size) for at in range(frames)), *size, fps)
        return file

    return make


def _frame(at: int, width: int, height: int) -> np.ndarray:
    frame = np.full((height, width, 3), 10 + 3 * at, np.uint8)
    frame[height // 3 : height // 3 + 10, 4 + 2 * at : 14 + 2 * at] = (250, 240, 90)
    return frame


def _png(picture: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file


def _plan(**more: Any) -> dict[str, Any]:
    plan = {"width": W, "height": H, "frames": 9, "fps": 16.0, "segments": [], "signal": "None", "rect": None}
    return {**plan, "mask": None, "references": [], **more}


def _segment(frames: int, name: str = "", anchor: str = "Begin") -> dict[str, Any]:
    return {"frames": frames, "input": name, "anchor": anchor}


def _made(
    inputs: dict[str, Any], plan: dict[str, Any], *names: str
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    outputs = {name: io.BytesIO() for name in names}
    actions = prepare(inputs, outputs, plan).actions  # type: ignore[arg-type]
    return {name: np.stack(list(_all(file))) for name, file in outputs.items() if name != "reference"}, actions


def _all(file: io.BytesIO) -> Any:
    file.seek(0)
    with av.open(file) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def test_what_is_written_comes_back_bit_by_bit() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (5, H, W, 3), dtype=np.uint8)
    file = io.BytesIO()
    assert write_lossless(file, frames, W, H, 12.5) == 5
    assert (np.stack(list(_all(file))) == frames).all()
    file.seek(0)
    with av.open(file) as container:
        assert container.streams.video[0].average_rate == Fraction(25, 2)


@pytest.mark.parametrize(
    ("count", "fps", "from_end", "expected"),
    [
        (5, 16, False, [0, 1, 2, 3, 4]),
        (5, 16, True, [12, 13, 14, 15, 16]),
        (4, 8, False, [0, 2, 4, 6]),
        (4, 8, True, [10, 12, 14, 16]),
        (6, 32, False, [0, 0, 1, 1, 2, 2]),
        (17, 16, True, list(range(17))),
    ],
)
def test_frames_at_another_rate(clip: Make, count: int, fps: float, from_end: bool, expected: list[int]) -> None:
    found = [int(frame[0, 0, 0] - 10) // 3 for frame in clip_frames(clip(), count, fps, from_end=from_end)]
    assert found == expected


def test_a_variable_rate_is_read_by_its_times(tmp_path: Path) -> None:
    path = tmp_path / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = W, H, "bgr0"
        for number, time in enumerate((0, 100, 200, 800, 900)):  # milliseconds
            frame = av.VideoFrame.from_ndarray(_frame(number, W, H), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with path.open("rb") as file:
        found = [int(frame[0, 0, 0] - 10) // 3 for frame in clip_frames(file, 10, 10)]
    assert found == [0, 1, 2, 2, 2, 2, 2, 2, 3, 4]


def test_too_short_is_refused_and_names_the_input(clip: Make) -> None:
    with pytest.raises(InputError, match="too short") as caught:
        _made({"video": clip(4)}, _plan(segments=[_segment(9, "video")]), "control")
    assert caught.value.name == "video"


def test_segments_keep_what_is_given_and_leave_grey_between(clip: Make) -> None:
    plan = _plan(segments=[_segment(3, "firstClip", "End"), _segment(4), _segment(2, "lastClip")])
    made, actions = _made({"firstClip": clip(7), "lastClip": clip(5)}, plan, "control", "mask.video")
    assert (made["control"][:3] == np.stack([_frame(at, W, H) for at in (4, 5, 6)])).all()
    assert (made["control"][3:7] == 127).all()
    assert (made["control"][7:] == np.stack([_frame(at, W, H) for at in (0, 1)])).all()
    assert [int(mask[0, 0, 0]) for mask in made["mask.video"]] == [0, 0, 0, 255, 255, 255, 255, 0, 0]
    assert actions == {
        "firstClip": ["the last 3 frames at 16 fps"],
        "lastClip": ["the first 2 frames at 16 fps"],
    }


def test_an_outpainting_lies_where_it_was_planned(clip: Make) -> None:
    rect = {"x": 16, "y": 8, "width": 32, "height": 24}
    plan = _plan(segments=[_segment(9, "video")], rect=rect)
    made, _ = _made({"video": clip(9, size=(32, 24))}, plan, "control", "mask.video")
    assert (made["control"][:, 8:32, 16:48] == np.stack([_frame(at, 32, 24) for at in range(9)])).all()
    assert (made["control"][:, :8] == 127).all()
    assert (made["mask.video"][:, 8:32, 16:48] == 0).all()
    assert (made["mask.video"][:, 33:] == 255).all()


def _mask(**more: Any) -> dict[str, Any]:
    return {"input": "mask", "kind": "Image", "mode": "Fixed", "frame": 1, "expand_ratio": 0.0, **more}


def _square(top: int, left: int, side: int = 10, size: tuple[int, int] = (W, H)) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def test_a_fixed_mask_stays_and_its_region_is_grey(clip: Make) -> None:
    plan = _plan(segments=[_segment(9, "video")], mask=_mask())
    made, actions = _made({"video": clip(9), "mask": _png(_square(20, 30))}, plan, "control", "mask.video")
    assert (made["mask.video"][..., 0] == _square(20, 30)).all()
    assert (made["control"][:, 20:30, 30:40] == 127).all()
    assert (made["control"][:, :15] == np.stack([_frame(at, W, H) for at in range(9)])[:, :15]).all()
    assert actions["mask"] == ["the same for 9 frames"]


@pytest.mark.parametrize("start", [1, 5, 9])
def test_a_tracked_mask_moves_with_what_it_covers(clip: Make, start: int) -> None:
    plan = _plan(segments=[_segment(9, "video")], mask=_mask(mode="Tracking", frame=start))
    drawn = _png(_square(H // 3, 4 + 2 * (start - 1)))
    made, _ = _made({"video": clip(9), "mask": drawn}, plan, "mask.video")
    for at in range(9):
        columns = np.flatnonzero(made["mask.video"][at, :, :, 0].any(axis=0))
        assert abs(int(columns[0]) - (4 + 2 * at)) <= 1, at


def test_a_mask_video_is_taken_frame_by_frame(clip: Make, tmp_path: Path) -> None:
    moving = (tmp_path / "mask.mkv").open("w+b")
    masks = [np.repeat(_square(5, 3 * at)[..., None], 3, axis=2) for at in range(9)]
    write_lossless(moving, masks, W, H, 16)
    plan = _plan(segments=[_segment(9, "video")], mask=_mask(kind="Video"))
    made, _ = _made({"video": clip(9), "mask": moving}, plan, "mask.video")
    assert (made["mask.video"] == np.stack(masks)).all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((H, W), np.uint8), "no white"),
        (_square(5, 5, size=(W, W)), "proportions must be the same"),
    ],
)
def test_a_mask_that_fits_nothing_is_refused(clip: Make, mask: np.ndarray, words: str) -> None:
    plan = _plan(segments=[_segment(9, "video")], mask=_mask())
    with pytest.raises(InputError, match=words) as caught:
        _made({"video": clip(9), "mask": _png(mask)}, plan, "control", "mask.video")
    assert caught.value.name == "mask"


def test_a_larger_mask_of_the_same_shape_is_brought_to_size(clip: Make) -> None:
    plan = _plan(segments=[_segment(9, "video")], mask=_mask())
    made, _ = _made({"video": clip(9), "mask": _png(_square(40, 60, 20, (2 * W, 2 * H)))}, plan, "mask.video")
    assert (made["mask.video"][0, :, :, 0] == _square(20, 30)).all()


@pytest.mark.parametrize(("ratio", "reach"), [(0.0, 0), (0.1, 1), (0.5, 5), (1.0, 10)])
def test_growth_is_a_share_of_the_region(ratio: float, reach: int) -> None:
    found = grown(_square(20, 30), ratio)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (20 - reach, 29 + reach, 30 - reach, 39 + reach)
    assert grown(np.zeros((4, 4), np.uint8), 1.0).max() == 0


def test_a_mask_is_black_and_white() -> None:
    ramp = np.tile(np.arange(W, dtype=np.uint8) * 4, (H, 1))
    found = binary(np.repeat(ramp[..., None], 3, axis=2), W, H)
    assert set(np.unique(found)) == {0, 255}
    assert found[0, 31] == 0
    assert found[0, 33] == 255


def test_references_on_a_sheet() -> None:
    red, blue = np.full((20, 40, 3), (200, 0, 0), np.uint8), np.full((40, 20, 3), (0, 0, 200), np.uint8)
    page = sheet([(red, False), (blue, True)], W, H)
    assert (page[0, 0] == 255).all()
    assert (page[H // 2, W // 4] == (200, 0, 0)).all()
    assert (page[:, W // 2 :] == (0, 0, 200)).all()
    assert [grid(count, 832, 480) for count in range(1, 6)] == [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2)]
    assert [grid(count, 480, 832) for count in range(1, 6)] == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_give_as_many_frames_of_the_same_size(name: str) -> None:
    frames = [_frame(at, W, H) for at in range(5)]
    found = list(SIGNALS[name](iter(frames)))
    assert [frame.shape for frame in found] == [(H, W, 3)] * 5
    assert all(frame.dtype == np.uint8 for frame in found)
    if name in ("Gray", "Canny", "Scribble"):
        assert all((frame[..., 0] == frame[..., 2]).all() for frame in found)
    if name in ("Canny", "Scribble"):
        assert set(np.unique(np.stack(found))) == {0, 255}
        assert 0.01 < np.stack(found).mean() / 255 < 0.5


def test_motion_is_measured() -> None:
    numbers = np.random.default_rng(3).normal(0, 1, (48, 64))
    smooth = np.fft.irfft2(np.fft.rfft2(numbers) * np.exp(-np.arange(33) / 4), (48, 64))
    before = (128 + 400 * smooth).astype(np.float32)
    across, down = motion(before, np.roll(before, (1, 3), (0, 1)))
    inner = (slice(12, -12), slice(12, -12))
    assert abs(float(np.median(across[inner])) - 3) < 0.6
    assert abs(float(np.median(down[inner])) - 1) < 0.6


async def test_the_child_prepares_too(clip: Make, tmp_path: Path) -> None:
    plan = _plan(segments=[_segment(9, "video")])
    with (tmp_path / "out.mkv").open("w+b") as output:
        try:
            actions = await child.prepare({"video": clip(9)}, {"control": output}, plan)
        except MediaError as error:  # pragma: no cover - says which, where it fails
            pytest.fail(str(error))
        assert len(list(_all(output))) == 9  # type: ignore[arg-type]
    assert actions == {"video": ["the first 9 frames at 16 fps"]}
    with (tmp_path / "short.mkv").open("w+b") as output, pytest.raises(InputError) as caught:
        await child.prepare({"video": clip(3)}, {"control": output}, plan)
    assert caught.value.name == "video"


def test_the_moment_at_which_a_clip_ends_shows_its_last_frame(clip: Make) -> None:
    """5 s at 30 fps are 80 frames at 16 fps, and the one at 5 s: what plans with a held last frame rest on."""
    frames = list(clip_frames(clip(60, 30), 33, 16))
    assert len(frames) == 33
    assert (frames[32] == frames[31]).all() or frames[32].mean() >= frames[31].mean()
    with pytest.raises(MediaError, match="too short"):
        list(clip_frames(clip(60, 30), 34, 16))
