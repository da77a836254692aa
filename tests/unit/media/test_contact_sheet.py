"""The contact sheet shows the frames that it names."""

from pathlib import Path

import pytest
from PIL import Image

from kinora.media.contact_sheet import contact_sheet, main
from kinora.media.info import MediaError

from .conftest import MakeVideo


def test_frames_from_first_to_last(make_video: MakeVideo) -> None:
    with make_video(frames=201).open("rb") as file:
        sheet = contact_sheet(file, frames=4, columns=2)
    width = (sheet.width - 3 * 8) // 2
    assert width == 64
    firsts = [sheet.getpixel((8 + 10, 30 + 10)), sheet.getpixel((8 + width + 8 + 10, 30 + 48 + 28 + 10))]
    assert abs(firsts[0][0] - 10) < 8  # type: ignore[index]
    assert abs(firsts[1][0] - 210) < 8  # type: ignore[index]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_fewer_frames_than_cells(make_video: MakeVideo, frames: int) -> None:
    with make_video(frames=frames).open("rb") as file:
        assert contact_sheet(file).height > 48


def test_a_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file, pytest.raises(MediaError):
        contact_sheet(file)


def test_command(make_video: MakeVideo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_video()), str(tmp_path / "sheet.png"), "--frames", "6", "--columns", "3"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * 72 + 8
    assert main([str(tmp_path / "absent.mp4"), str(tmp_path / "x.png")]) == 1
    assert "absent.mp4" in capsys.readouterr().err
