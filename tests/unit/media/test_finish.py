"""The delivered video: its size, rate, colours, mark and joints, whatever the engine's frames are."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinora.media import child
from kinora.media.finish import FinishedFacts, finish
from kinora.media.frames import Frame, write_lossless
from kinora.media.info import InputError, MediaError
from kinora.media.inspect import prove

from .scenes import texture

W, H, N, FPS = 96, 64, 9, 16.0
WORDS = "AI generated"


def _plan(**more: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "width": W, "height": H, "output_width": W, "output_height": H, "rendered": N, "fps": FPS, "frames": N,
        "output_fps": FPS, "crf": 8, "parts": [{"frames": N, "input": "", "start": 0, "anchor": "Begin"}],
        "sounds": [], "watermark": False,
    }  # fmt: skip
    return {**plan, **more}


def _render(path: Path, frames: list[Frame] | None = None) -> Path:
    found = [texture(W, H, 3)] * N if frames is None else frames
    with path.open("w+b") as file:
        write_lossless(file, found, found[0].shape[1], found[0].shape[0], FPS)
    return path


def _finished(tmp_path: Path, plan: dict[str, Any], **sources: Path) -> tuple[np.ndarray, FinishedFacts]:
    sources.setdefault("render", tmp_path / "render.mkv")
    files = {name: path.open("rb") for name, path in sources.items()}
    with (tmp_path / "out.mp4").open("w+b") as output:
        facts = finish(files, {"video": output}, plan, WORDS)
        assert prove(output).frames == plan["frames"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), facts


def _off(left: Any, right: Any) -> float:
    return float(np.abs(np.asarray(left, int) - np.asarray(right, int)).mean())


def test_it_is_a_file_that_browsers_play(tmp_path: Path) -> None:
    _render(tmp_path / "render.mkv")
    _finished(tmp_path, _plan())
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert len(content) < 60_000
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", FPS)
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize("colour", [(200, 40, 30), (30, 170, 60), (30, 60, 220), (250, 250, 250), (5, 5, 5)])
def test_colours_come_out_as_they_were(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    _render(tmp_path / "render.mkv", [np.full((H, W, 3), colour, np.uint8)] * N)
    found, _ = _finished(tmp_path, _plan())
    assert _off(found, np.broadcast_to(np.uint8(colour), found.shape)) < 3


@pytest.mark.parametrize("size", [(192, 128), (48, 32), (96, 96), (64, 64), (200, 64), (90, 60)])
def test_another_size_is_filled_and_its_overhang_cut_off(tmp_path: Path, size: tuple[int, int]) -> None:
    """A white square in the middle stays a square in the middle: nothing is stretched."""
    frame = np.full((H, W, 3), 20, np.uint8)
    frame[H // 2 - 8 : H // 2 + 8, W // 2 - 8 : W // 2 + 8] = 240
    _render(tmp_path / "render.mkv", [frame] * N)
    found, _ = _finished(tmp_path, _plan(output_width=size[0], output_height=size[1]))
    assert found.shape == (N, size[1], size[0], 3)
    lit = found[4, :, :, 0] > 128
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    crop = 0 <= W - size[0] < 16 and 0 <= H - size[1] < 16
    side = 16 * (1 if crop else max(size[0] / W, size[1] / H))
    assert abs(len(rows) - side) <= 1
    assert abs(len(columns) - side) <= 1
    assert abs((rows[0] + rows[-1]) / 2 - (size[1] - 1) / 2) <= 1
    assert abs((columns[0] + columns[-1]) / 2 - (size[0] - 1) / 2) <= 1


def _moving(count: int) -> list[Frame]:
    frames = [np.full((H, W, 3), 40, np.uint8) for _ in range(count)]
    for time, frame in enumerate(frames):
        frame[20:36, 4 + 4 * time : 20 + 4 * time] = 230
    return frames


def _middle(frame: Frame) -> float:
    weight = np.clip(frame[..., 0].astype(float) - 60, 0, None).sum(axis=0)
    return float((weight * np.arange(W)).sum() / weight.sum())


@pytest.mark.parametrize(("rate", "frames"), [(30.0, 17), (24.0, 14), (60.0, 34), (12.0, 7), (8.0, 4)])
def test_another_rate_keeps_length_and_motion(tmp_path: Path, rate: float, frames: int) -> None:
    _render(tmp_path / "render.mkv", _moving(N))
    found, facts = _finished(tmp_path, _plan(output_fps=rate, frames=frames))
    for number, frame in enumerate(found):
        position = min(number * FPS / rate, N - 1)
        assert abs(_middle(frame) - (11.5 + 4 * position)) < 0.6, number
    assert facts.actions == ("interpolated by optical flow",)


def test_a_cut_is_held_and_said(tmp_path: Path) -> None:
    one, two = texture(W, H, 1), texture(W, H, 2)
    _render(tmp_path / "render.mkv", [one] * 4 + [two] * 5)
    found, facts = _finished(tmp_path, _plan(output_fps=32.0, frames=18, crf=1))
    assert facts.actions == ("interpolated by optical flow, held at 1 cuts",)
    for frame in found:  # 4:2:0 costs noise some of its colour; a ghost would cost more, and to both
        near, far = sorted((_off(frame, one), _off(frame, two)))
        assert near < 8
        assert far > 30


@pytest.mark.parametrize("light", [5, 128, 250])
def test_the_mark_is_seen_at_the_lower_right_alone(tmp_path: Path, light: int) -> None:
    frame = np.full((H, W, 3), light, np.uint8)
    _render(tmp_path / "render.mkv", [frame] * N)
    plain, _ = _finished(tmp_path, _plan())
    found, facts = _finished(tmp_path, _plan(watermark=True))
    change = np.abs(found.astype(int) - plain).max(axis=(0, 3))
    assert change[H - 18 :, W // 2 :].max() > 90
    assert change[: H - 24].max() < 12
    assert change[:, : W // 4].max() < 12
    assert facts.actions == ("watermark set",)


def test_a_picture_may_be_the_mark(tmp_path: Path) -> None:
    from PIL import Image

    _render(tmp_path / "render.mkv", [np.full((H, W, 3), 60, np.uint8)] * N)
    logo = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    logo.paste((0, 0, 0, 0), (0, 0, 20, 20))
    logo.save(tmp_path / "logo.png")
    found, _ = _finished(tmp_path, _plan(watermark=True), watermark=tmp_path / "logo.png")
    red = (found[4, :, :, 0].astype(int) - found[4, :, :, 1]) > 90
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert H - 3 <= rows[-1] <= H - 1
    assert W - 3 <= columns[-1] <= W - 1
    assert abs(len(columns) - len(rows)) <= 2  # the opaque half of it


def test_a_clip_is_joined_whole_and_its_end_is_where_the_render_begins(tmp_path: Path) -> None:
    """A clip of 40 frames at 32 fps is 20 at 16; its last four are the first of the render."""
    clip = [np.full((H, W, 3), 40 + 4 * number, np.uint8) for number in range(40)]
    with (tmp_path / "clip.mkv").open("w+b") as file:
        write_lossless(file, clip, W, H, 32)
    render = [clip[33 + 2 * number] for number in range(4)] + [np.full((H, W, 3), 230, np.uint8)] * 5
    _render(tmp_path / "render.mkv", render)
    parts = [
        {"frames": 20, "input": "firstClip", "start": 0, "anchor": "End"},
        {"frames": 5, "input": "", "start": 4, "anchor": "Begin"},
    ]
    found, _ = _finished(tmp_path, _plan(parts=parts, frames=25), firstClip=tmp_path / "clip.mkv")
    levels = found.mean(axis=(1, 2, 3))
    assert np.abs(levels[:20] - [41 + 4 * (2 * number) + 3 for number in range(20)]).max() < 2.5
    assert np.abs(levels[20:] - 230).max() < 2.5
    # At the clip's own rate none of its frames is made up, and the last is the last.
    found, _ = _finished(tmp_path, _plan(parts=parts, frames=50, output_fps=32.0), firstClip=tmp_path / "clip.mkv")
    levels = found.mean(axis=(1, 2, 3))
    assert np.abs(levels[:39] - [41 + 4 * number + 3 for number in range(39)]).max() < 2.5


def test_both_clips_and_pictures_are_joined(tmp_path: Path) -> None:
    from PIL import Image

    def flat(name: str, *levels: int) -> Path:
        with (tmp_path / f"{name}.mkv").open("w+b") as file:
            write_lossless(file, [np.full((H, W, 3), level, np.uint8) for level in levels], W, H, FPS)
        return tmp_path / f"{name}.mkv"

    Image.new("RGB", (W, H), (10, 10, 10)).save(tmp_path / "first.png")
    Image.new("RGB", (W, H), (250, 250, 250)).save(tmp_path / "last.png")
    first, last = flat("firstClip", 30, 40, 50, 60), flat("lastClip", 150, 160, 170)
    levels = [50, 60, 80, 90, 100, 110, 120, 150, 160]
    _render(tmp_path / "render.mkv", [np.full((H, W, 3), level, np.uint8) for level in levels])
    parts = [
        {"frames": 1, "input": "firstFrame", "start": 0, "anchor": "Begin"},
        {"frames": 4, "input": "firstClip", "start": 0, "anchor": "End"},
        {"frames": 5, "input": "", "start": 2, "anchor": "Begin"},
        {"frames": 3, "input": "lastClip", "start": 0, "anchor": "Begin"},
        {"frames": 1, "input": "lastFrame", "start": 0, "anchor": "Begin"},
    ]
    found, _ = _finished(
        tmp_path, _plan(parts=parts, frames=14), firstClip=first, lastClip=last,
        firstFrame=tmp_path / "first.png", lastFrame=tmp_path / "last.png",
    )  # fmt: skip
    expected = [10, 30, 40, 50, 60, 80, 90, 100, 110, 120, 150, 160, 170, 250]
    assert np.abs(found.mean(axis=(1, 2, 3)) - expected).max() < 3


@pytest.mark.parametrize(
    ("frames", "size", "words"),
    [(8, (W, H), "8 frames instead of 9"), (10, (W, H), "10 frames instead of 9"), (9, (64, 64), "64x64 instead of")],
)
def test_a_render_that_is_not_the_planned_one_is_refused(
    tmp_path: Path, frames: int, size: tuple[int, int], words: str
) -> None:
    _render(tmp_path / "render.mkv", [texture(*size, 1)] * frames)
    with pytest.raises(MediaError, match=words):
        _finished(tmp_path, _plan())


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _render(tmp_path / "render.mkv")
    (tmp_path / "clip.mkv").write_bytes(b"no video")
    parts = [
        {"frames": 3, "input": "firstClip", "start": 0, "anchor": "End"},
        {"frames": 8, "input": "", "start": 1, "anchor": "Begin"},
    ]
    with pytest.raises(InputError) as caught:
        _finished(tmp_path, _plan(parts=parts, frames=11), firstClip=tmp_path / "clip.mkv")
    assert caught.value.name == "firstClip"


async def test_the_child_finishes_too_and_says_what_it_did(tmp_path: Path) -> None:
    _render(tmp_path / "render.mkv", _moving(N))
    plan = _plan(output_fps=30.0, frames=17, output_width=192, output_height=108, watermark=True)
    with (tmp_path / "render.mkv").open("rb") as render, (tmp_path / "out.mp4").open("w+b") as output:
        actions = await child.finish({"render": render}, output, plan, WORDS)
        proof = prove(output)
    assert (proof.frames, proof.fps, proof.width, proof.height) == (17, 30, 192, 108)
    assert actions == ["interpolated by optical flow", "watermark set"]


def test_patience_grows_with_the_work() -> None:
    small = child.finishing_limits(_plan())
    large = child.finishing_limits(_plan(output_width=3840, output_height=2160, frames=405, output_fps=60.0))
    assert large.wall_seconds > 5 * small.wall_seconds
    assert large.data_bytes == small.data_bytes
