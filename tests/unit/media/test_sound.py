"""The source's sound in the delivered video: in time with the picture, copied where it can be, and of its length."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinora.media.finish import finish
from kinora.media.frames import write_lossless
from kinora.media.info import MediaError
from kinora.media.inspect import prove
from kinora.media.sound import hear

from .sounding import H, W, flashes, flashing, heard

RENDERED, FPS = 25, 16.0
IN_TIME = 0.012  # seconds: half of what AAC packs into a packet


def _plan(sounds: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "width": W, "height": H, "output_width": W, "output_height": H, "rendered": RENDERED, "fps": FPS,
        "frames": RENDERED, "output_fps": FPS, "crf": 18, "watermark": False, "sounds": sounds,
        "parts": [{"frames": RENDERED, "input": "", "start": 0, "anchor": "Begin"}],
    }  # fmt: skip
    return {**plan, **more}


def _whole(name: str = "video") -> dict[str, Any]:
    return {"input": name, "at": 0.0, "seconds": RENDERED / FPS, "anchor": "Begin"}


def _finished(tmp_path: Path, plan: dict[str, Any], flash: int = 8, **sources: Path) -> tuple[str, ...]:
    render = [np.full((H, W, 3), 240 if at == flash else 30, np.uint8) for at in range(RENDERED)]
    with (tmp_path / "render.mkv").open("w+b") as file:
        write_lossless(file, render, W, H, FPS)
    files = {name: path.open("rb") for name, path in {"render": tmp_path / "render.mkv", **sources}.items()}
    with (tmp_path / "out.mp4").open("w+b") as output:
        actions = finish(files, {"video": output}, plan, "").actions
        proof = prove(output)
    assert (proof.frames, proof.fps) == (plan["frames"], plan["output_fps"])
    assert proof.has_audio is bool(plan["sounds"])
    return actions


COPIED, ENCODED = "audio copied", "audio encoded as AAC"
SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    "aac": ({}, COPIED),
    "aac-mono-48k": ({"rate": 48_000, "layout": "mono"}, COPIED),
    "aac-8k": ({"rate": 8000, "layout": "mono"}, COPIED),
    "aac-in-matroska": ({"container": "matroska"}, COPIED),
    "aac-96k": ({"rate": 96_000}, ENCODED),
    "aac-5.1": ({"layout": "5.1"}, ENCODED),
    "aac-in-transport-stream": ({"container": "mpegts"}, ENCODED),
    "mp3": ({"codec": "libmp3lame"}, ENCODED),
    "opus": ({"codec": "libopus", "container": "webm", "rate": 48_000}, ENCODED),
    "pcm": ({"codec": "pcm_s16le", "container": "mov"}, ENCODED),
    "pcm-odd-rate": ({"codec": "pcm_s16le", "container": "mov", "rate": 37_123}, ENCODED),
    "pcm-eight-channels": ({"codec": "pcm_s16le", "container": "matroska", "layout": "7.1", "rate": 48_000}, ENCODED),
    "flac": ({"codec": "flac", "container": "matroska"}, ENCODED),
}


@pytest.mark.parametrize("name", SOURCES)
def test_click_and_flash_stay_together(tmp_path: Path, name: str) -> None:
    more, how = SOURCES[name]
    if more.get("container") == "webm":
        more = {**more, "container": "matroska"}
    source = flashing(tmp_path / "source.mp4", **more)
    assert _finished(tmp_path, _plan([_whole()]), video=source) == (how,)
    [flash], (clicks, end) = flashes(tmp_path / "out.mp4"), heard(tmp_path / "out.mp4")
    assert flash == pytest.approx(0.5)
    assert len(clicks) == 1
    assert clicks[0] == pytest.approx(0.5, abs=IN_TIME)
    assert end == pytest.approx(RENDERED / FPS, abs=0.13 if "8k" in name else 0.03)


@pytest.mark.parametrize("begins", [0.25, 1.0])
@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_sound_that_begins_later_keeps_its_place(tmp_path: Path, begins: float, codec: str) -> None:
    source = flashing(tmp_path / "source.mkv", begins=begins, flash=20, codec=codec, container="matroska")
    _finished(tmp_path, _plan([_whole()]), flash=20, video=source)
    clicks, _ = heard(tmp_path / "out.mp4")
    assert clicks == [pytest.approx(20 / 16, abs=IN_TIME + 0.005)]  # Matroska counts milliseconds


@pytest.mark.parametrize(("seconds", "codec"), [(0.7, "aac"), (0.7, "libmp3lame"), (6.0, "aac"), (6.0, "libmp3lame")])
def test_sound_of_another_length_does_not_change_the_video_s(tmp_path: Path, seconds: float, codec: str) -> None:
    source = flashing(tmp_path / "source.mp4", seconds=seconds, codec=codec)
    _finished(tmp_path, _plan([_whole()]), video=source)
    clicks, end = heard(tmp_path / "out.mp4")
    assert clicks == [pytest.approx(0.5, abs=IN_TIME)]
    assert end < RENDERED / FPS + 0.03


def test_it_stays_in_time_at_another_rate(tmp_path: Path) -> None:
    source = flashing(tmp_path / "source.mp4")
    _finished(tmp_path, _plan([_whole()], frames=47, output_fps=30.0), video=source)
    clicks, _ = heard(tmp_path / "out.mp4")
    assert clicks == [pytest.approx(0.5, abs=IN_TIME)]
    assert flashes(tmp_path / "out.mp4")[0] == pytest.approx(0.5, abs=1 / 30)


def test_clips_sound_where_they_lie_and_silence_is_between(tmp_path: Path) -> None:
    """A first clip of 40 frames (its last one joins), five frames without, a last clip of 32."""
    first = flashing(tmp_path / "first.mp4", frames=40, flash=24)
    last = flashing(tmp_path / "last.mp4", frames=32, flash=16, codec="libmp3lame")
    parts = [
        {"frames": 40, "input": "firstClip", "start": 0, "anchor": "End"},
        {"frames": 5, "input": "", "start": 10, "anchor": "Begin"},
        {"frames": 32, "input": "lastClip", "start": 0, "anchor": "Begin"},
    ]
    sounds = [
        {"input": "firstClip", "at": 0.0, "seconds": 2.5, "anchor": "End"},
        {"input": "lastClip", "at": 45 / 16, "seconds": 2.0, "anchor": "Begin"},
    ]
    plan = _plan(sounds, parts=parts, frames=77)
    assert _finished(tmp_path, plan, flash=99, firstClip=first, lastClip=last) == (ENCODED,)
    clicks, end = heard(tmp_path / "out.mp4")
    assert clicks == [pytest.approx(1.5, abs=IN_TIME), pytest.approx((45 + 16) / 16, abs=IN_TIME)]
    assert flashes(tmp_path / "out.mp4") == [pytest.approx(1.5), pytest.approx((45 + 16) / 16)]
    assert end == pytest.approx(77 / 16, abs=0.03)


def test_the_end_of_a_clip_is_what_sounds_where_only_that_is_kept(tmp_path: Path) -> None:
    """The last 16 of 40 frames: their sound begins a second and a half into the clip."""
    clip = flashing(tmp_path / "clip.mp4", frames=40, flash=32)
    sounds = [{"input": "firstClip", "at": 0.0, "seconds": 1.0, "anchor": "End"}]
    _finished(tmp_path, _plan(sounds), firstClip=clip)
    clicks, _ = heard(tmp_path / "out.mp4")
    assert clicks == [pytest.approx(0.5, abs=IN_TIME)]


def test_how_much_is_heard(tmp_path: Path) -> None:
    with flashing(tmp_path / "a.mp4").open("rb") as file:
        assert hear(file).seconds == pytest.approx(2.0, abs=0.1)
    with (tmp_path / "silent.mkv").open("w+b") as file:
        write_lossless(file, [np.zeros((H, W, 3), np.uint8)] * 3, W, H, FPS)
        assert hear(file).seconds == 0


def test_sound_that_cannot_be_decoded_is_refused_in_words(tmp_path: Path) -> None:
    path = flashing(tmp_path / "a.mov", codec="pcm_s16le", container="mov")
    content = path.read_bytes().replace(b"sowt", b"QDM9")
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(MediaError, match="audio"):
        hear(file)
