"""Odd, damaged and lying sound: refused in words, or kept in time; the picture never suffers."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinora.media.finish import finish
from kinora.media.frames import write_lossless
from kinora.media.info import MediaError, Proof
from kinora.media.inspect import probe, prove
from kinora.media.sound import hear

from .hostile import _audio_only, _overwritten, _share, _without
from .sounding import H, W, flashing, heard

FRAMES, FPS = 25, 16.0
PLAN: dict[str, Any] = {
    "width": W, "height": H, "output_width": W, "output_height": H, "rendered": FRAMES, "fps": FPS, "frames": FRAMES,
    "output_fps": FPS, "crf": 18, "watermark": False,
    "sounds": [{"input": "video", "at": 0.0, "seconds": FRAMES / FPS, "anchor": "Begin"}],
    "parts": [{"frames": FRAMES, "input": "", "start": 0, "anchor": "Begin"}],
}  # fmt: skip
Make = Callable[[Path], bytes]


def _made(**more: Any) -> Make:
    return lambda folder: flashing(folder / "made.bin", **more).read_bytes()


def _two_tracks(folder: Path) -> bytes:
    """The second track is louder, and must not be heard."""
    with av.open(str(folder / "two.mkv"), "w") as output:
        video: Any = output.add_stream("libx264", rate=16)
        video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        tracks: list[Any] = [output.add_stream("aac", rate=48_000, layout="stereo") for _ in range(2)]
        for _ in range(32):
            output.mux(video.encode(av.VideoFrame.from_ndarray(np.full((H, W, 3), 30, np.uint8), format="rgb24")))
        output.mux(video.encode(None))
        for number, track in enumerate(tracks):
            tone = np.sin(np.arange(96_000) * 0.1) * (0 if number == 0 else 26_000)
            samples = np.repeat(tone.astype(np.int16)[:, None], 2, axis=1)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), 0
            output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return (folder / "two.mkv").read_bytes()


def _relabelled(old: bytes, new: bytes, **more: Any) -> Make:
    return lambda folder: _made(**more)(folder).replace(old, new)


#: How many clicks are to be heard in the result; None: it may be refused as well.
CASES: dict[str, tuple[Make, int | None]] = {
    "avi-without-times": (_made(codec="libmp3lame", container="avi"), 1),
    "avi-pcm": (_made(codec="pcm_s16le", container="avi"), 1),
    "flv": (_made(codec="aac", container="flv"), 1),
    "transport-stream-mp2": (_made(codec="mp2", container="mpegts", rate=48_000), 1),
    "begins-before-the-picture": (_made(begins=-0.3, container="matroska", codec="pcm_s16le"), 1),
    "eight-channels": (_made(codec="pcm_s16le", container="matroska", layout="7.1", rate=48_000), 1),
    "one-hertz-more": (_made(codec="pcm_s16le", container="mov", rate=44_101), 1),
    "very-slow": (_made(codec="pcm_s16le", container="mov", rate=6000), 1),
    "very-fast": (_made(codec="pcm_s16le", container="mov", rate=192_000), 1),
    "a-tenth-of-a-second": (_made(seconds=0.1), 0),
    "an-hour": (_made(seconds=600.0, rate=8000, layout="mono", flash=8), 1),
    "silent": (_made(flash=None), 0),
    "two-tracks": (_two_tracks, 0),
    "cut": (lambda folder: _share(_made(container="matroska")(folder), 0.6), None),
    "no-index": (lambda folder: _without(_made()(folder), b"moov"), None),
    "says-another-rate": (_relabelled(b"\xac\x44\0\0", b"\xbb\x80\0\0"), None),
    "says-no-rate": (_relabelled(b"\xac\x44\0\0", b"\0\0\0\0"), None),
    "says-another-codec": (_relabelled(b"sowt", b"alac", codec="pcm_s16le", container="mov"), None),
    "says-an-unknown-codec": (_relabelled(b"sowt", b"QDM9", codec="pcm_s16le", container="mov"), None),
    **{
        f"noise-{codec}-{seed}": (
            lambda folder, codec=codec, seed=seed: _overwritten(
                _made(codec=codec, container="matroska")(folder), 0.01, seed
            ),
            None,
        )
        for codec in ("aac", "libmp3lame", "pcm_s16le", "flac")
        for seed in range(3)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_kept_or_refused_in_words(name: str, tmp_path: Path) -> None:
    make, clicks = CASES[name]
    source = tmp_path / "secret-name.mp4"
    source.write_bytes(make(tmp_path))
    with (tmp_path / "render.mkv").open("w+b") as file:
        write_lossless(file, [np.full((H, W, 3), 30, np.uint8)] * FRAMES, W, H, FPS)
    outcome = _outcome(source, tmp_path)
    if isinstance(outcome, MediaError):
        assert clicks is None, str(outcome)
        assert 5 < len(str(outcome)) < 300
        assert "secret-name" not in str(outcome)
        return
    if outcome is None:
        assert clicks is None
        return
    assert (outcome.frames, outcome.fps, outcome.has_audio) == (FRAMES, FPS, True)
    found, end = heard(tmp_path / "out.mp4")
    assert end < FRAMES / FPS + 0.13
    if clicks is not None:
        assert len(found) == clicks
        assert all(at == pytest.approx(0.5, abs=0.07) for at in found)


def _outcome(source: Path, tmp_path: Path) -> Proof | MediaError | None:
    """The finished file's proof; None where there is no sound to keep."""
    with source.open("rb") as given, (tmp_path / "render.mkv").open("rb") as render:
        try:
            probe(given)
            if not hear(given).seconds:
                return None
            with (tmp_path / "out.mp4").open("w+b") as output:
                finish({"render": render, "video": given}, {"video": output}, PLAN, "")
                return prove(output)
        except MediaError as error:
            return error


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(_audio_only(tmp_path))
    with (tmp_path / "a.mp4").open("rb") as file, pytest.raises(MediaError, match="no video stream"):
        probe(file)
