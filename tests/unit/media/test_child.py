"""The isolated child: right answers for good files, MediaError for bad ones, limits that hold, nothing inherited."""

import asyncio
import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from kinora.media import child
from kinora.media.child import IsolationError, Limits, run_isolated
from kinora.media.info import MediaError, MediaInfo

from .conftest import MakeVideo


async def _probe(path: Path, limits: Limits | None = None) -> MediaInfo:
    with path.open("rb") as file:
        file.read(3)  # the position of the caller does not matter
        return await child.probe(file, limits)


@pytest.mark.parametrize(
    ("name", "frames", "fps", "size"),
    [
        ("a.mp4", 17, "16", (64, 48)),
        ("a.mkv", 5, "25/2", (32, 32)),
        ("a.avi", 9, "30", (48, 64)),
        ("a.mov", 1, "24", (16, 16)),
    ],
)
async def test_videos(make_video: MakeVideo, name: str, frames: int, fps: str, size: tuple[int, int]) -> None:
    found = await _probe(make_video(name, frames=frames, fps=fps, size=size))
    rate = eval(fps)  # a fraction written in this test
    assert (found.kind, found.frames, found.width, found.height) == ("Video", frames, *size)
    assert found.fps == pytest.approx(rate, abs=0.01)
    assert found.duration_seconds == pytest.approx(frames / rate, abs=0.02)
    assert (found.codec, found.pix_fmt, found.has_audio) == ("h264", "yuv420p", False)


async def test_proof(make_video: MakeVideo) -> None:
    path = make_video(frames=49)
    with path.open("rb") as file:
        proof = await child.prove(file)
    assert (proof.frames, proof.fps, proof.width, proof.height) == (49, 16, 64, 48)
    assert proof.duration_seconds == pytest.approx(49 / 16)
    assert proof.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert proof.bytes == path.stat().st_size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
async def test_pictures(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.mp4"  # the name says nothing
    Image.new("RGB", (30, 20), "red").save(path, format=kind)
    found = await _probe(path)
    assert (found.kind, found.width, found.height, found.frames, found.codec) == ("Image", 30, 20, 1, kind)


async def test_a_turned_picture_is_told_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    found = await _probe(tmp_path / "a.jpg")
    assert (found.width, found.height, found.rotation) == (20, 30, 90)


async def test_an_animation_is_a_video(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), (value, 0, 0)) for value in (0, 90, 180)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    found = await _probe(tmp_path / "a.gif")
    assert (found.kind, found.frames) == ("Video", 3)


def _bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format="PNG")
    return buffer.getvalue()


BAD = {
    "empty": (b"", "not a picture or video"),
    "text": (b"hello" * 100, "not a picture or video"),
    "bomb": (_bomb(), "pixels, at most"),
    "cut": (_png()[:200], "damaged"),
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "not a picture",
    ),
    "concat": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a picture"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "not a picture"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_files(tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    path = tmp_path / "secret.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=words) as caught:
        await _probe(path)
    assert "secret" not in str(caught.value)
    assert "/" not in str(caught.value).replace("/etc", "")


async def test_a_video_cut_off_has_no_index(make_video: MakeVideo) -> None:
    path = make_video()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MediaError):
        await _probe(path)


async def test_memory_is_bounded(tmp_path: Path) -> None:
    Image.new("RGB", (7000, 7000)).save(tmp_path / "a.png")
    small = Limits(data_bytes=150 * 1024 * 1024)
    with pytest.raises(MediaError):
        await _probe(tmp_path / "a.png", small)
    assert (await _probe(tmp_path / "a.png")).width == 7000


async def test_patience_is_bounded(make_video: MakeVideo) -> None:
    with pytest.raises(MediaError, match="not decoded within"):
        await _probe(make_video(), Limits(wall_seconds=0.01))


async def test_what_it_writes_is_bounded(tmp_path: Path) -> None:
    Image.effect_noise((400, 400), 90).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file, (tmp_path / "out.png").open("xb") as output:
        with pytest.raises(MediaError):
            await child.normalise_image(file, output, Limits(file_bytes=10_000))
        assert os.fstat(output.fileno()).st_size <= 10_000


async def test_a_child_that_cannot_start_is_our_fault(make_video: MakeVideo) -> None:
    with make_video().open("rb") as file:
        with pytest.raises(IsolationError):
            await run_isolated("no such function", file)
        with pytest.raises(IsolationError):
            await run_isolated("probe", file, limits=Limits(address_bytes=1024 * 1024))


async def test_it_inherits_nothing(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    fake = tmp_path / "python"
    fake.write_text(
        f"#!/bin/sh\nenv > {seen}; ls -l /proc/self/fd >> {seen}; pwd >> {seen}\n"
        "echo ready; echo '{\"result\": {}}'\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(fake))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with make_video().open("rb") as file, (tmp_path / "token").open("w"):
        assert await run_isolated("probe", file) == {}
    text = seen.read_text()
    assert "hunter2" not in text
    assert "token" not in text
    assert text.strip().endswith("/")


async def test_many_at_once_and_one_cancelled(make_video: MakeVideo) -> None:
    path = make_video()
    tasks = [asyncio.ensure_future(_probe(path)) for _ in range(4)]
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [item.frames for item in found[1:] if isinstance(item, MediaInfo)] == [17, 17, 17]
