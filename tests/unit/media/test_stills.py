"""Pictures that stand for a video: one frame, and a sheet of many."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from kinora.media import child
from kinora.media.info import MediaError
from kinora.media.stills import CELL, THUMBNAIL, spread, spritesheet, thumbnail
from kinora_cluster import ROOT
from unit.media.conftest import MakeVideo

CLIP = ROOT / "examples/inputs/bunny.mp4"


def _drawn(path: Path, draw: object) -> Image.Image:
    output = io.BytesIO()
    with path.open("rb") as file:
        draw(file, output)  # type: ignore[operator]
    return Image.open(output)


def test_a_thumbnail_is_the_frame_in_the_middle_made_smaller(make_video: MakeVideo) -> None:
    made = _drawn(make_video(frames=101, size=(1280, 720)), thumbnail)
    assert (made.format, made.size) == ("WEBP", (THUMBNAIL, 360))
    assert abs(_brightness(made, 9, 9) - 60) < 6


def test_a_small_video_is_not_made_larger(make_video: MakeVideo) -> None:
    for draw in (thumbnail, spritesheet):
        assert _drawn(make_video(frames=1), draw).size == (64, 48)


def test_a_sheet_has_frames_row_by_row_first_and_last_included(make_video: MakeVideo) -> None:
    made = _drawn(make_video(frames=201, size=(480, 240)), spritesheet)
    width, height = CELL, CELL // 2
    assert (made.format, made.size) == ("JPEG", (5 * width, 5 * height))
    found = [_brightness(made, place % 5 * width + 9, place // 5 * height + 9) for place in range(25)]
    wanted = [10 + number for number in spread(201, 25)]
    assert all(abs(one - other) < 8 for one, other in zip(found, wanted, strict=True)), found
    few = _drawn(make_video(frames=7, size=(480, 240)), spritesheet)
    assert few.size == (5 * width, 2 * height)


def _brightness(picture: Image.Image, x: int, y: int) -> int:
    value = picture.convert("L").getpixel((x, y))
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize(
    ("total", "wanted", "numbers"), [(1, 25, [0]), (3, 25, [0, 1, 2]), (101, 5, [0, 25, 50, 75, 100])]
)
def test_spread(total: int, wanted: int, numbers: list[int]) -> None:
    assert spread(total, wanted) == numbers


@pytest.mark.parametrize("draw", [thumbnail, spritesheet])
def test_what_is_no_video_has_none(draw: object, tmp_path: Path) -> None:
    for content in (b"", b"no video", CLIP.read_bytes()[:3000]):
        path = tmp_path / "bad"
        path.write_bytes(content)
        with pytest.raises(MediaError):
            _drawn(path, draw)


async def test_in_a_child(tmp_path: Path) -> None:
    for draw, kind in ((child.thumbnail, "WEBP"), (child.spritesheet, "JPEG")):
        with CLIP.open("rb") as file, (tmp_path / "out").open("w+b") as output:
            await draw(file, output)
            assert Image.open(output).format == kind
