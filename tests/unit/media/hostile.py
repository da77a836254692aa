"""Hostile and odd media, made on the spot: more than sixty files, each with what must become of it.

`refused`: the words of the error, or None where the file is sound and must be handled right.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

FRAMES, WIDTH, HEIGHT = 12, 64, 48


@dataclass(frozen=True)
class Case:
    """One file: `make` gives its bytes. `refused` says why it is none; `size` is that of a good one as it is shown."""

    name: str
    make: Callable[[Path], bytes]
    refused: str | None = None
    size: tuple[int, int] = (WIDTH, HEIGHT)


def picture(at: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A bright bar that moves over a gradient."""
    ramp = np.linspace(20, 200, width).astype(np.uint8)
    frame = np.stack([np.tile(ramp, (height, 1)), np.full((height, width), 90, np.uint8)], axis=-1)
    frame = np.concatenate([frame, np.full((height, width, 1), 60, np.uint8)], axis=-1)
    frame[:, at * 2 : at * 2 + 8] = 240
    return frame


def video(
    path: Path,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    frames: int = FRAMES,
    fps: str = "16",
    times: list[int] | None = None,
    rotate: int = 0,
    audio: bool = False,
    colour: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """The bytes of a video."""
    target = path / f"made.{container}"
    formats = {"mkv": "matroska", "ts": "mpegts", "wmv": "asf"}
    with av.open(str(target), "w", format=formats.get(container, container)) as output:
        stream: Any = output.add_stream(codec, rate=Fraction(fps), options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for name, value in (colour or {}).items():
            setattr(stream.codec_context, name, value)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream("aac", rate=8000) if audio else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24").reformat(format=pix_fmt)
            for name, value in (colour or {}).items():
                setattr(frame, name, value)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
            noise.sample_rate = 8000
            output.mux(sound.encode(noise))
            output.mux(sound.encode(None))
    content = target.read_bytes()
    return _rotated(content) if rotate else content


def _rotated(content: bytes) -> bytes:
    """An MP4 whose track header turns the picture by 90 degrees: the matrix of a phone held upright."""
    at = content.index(b"tkhd") + 4
    matrix = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000)
    start = at + 40
    return content[:start] + matrix + content[start + 36 :]


def still(kind: str, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> bytes:
    """The bytes of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture(3, *size)).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes = b"", *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says this size, whatever its data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return still("JPEG", exif=exif)


def _without(content: bytes, box: bytes) -> bytes:
    """The MP4 without one of its outer boxes."""
    at, kept = 0, b""
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big") or len(content) - at
        if content[at + 4 : at + 8] != box:
            kept += content[at : at + size]
        at += size
    return kept


def _overwritten(content: bytes, share: float, seed: int) -> bytes:
    numbers = np.random.default_rng(seed)
    raw = bytearray(content)
    for at in numbers.integers(0, len(raw), int(len(raw) * share)):
        raw[at] = int(numbers.integers(0, 256))
    return bytes(raw)


def _resized(content: bytes, width: int, height: int) -> bytes:
    """An MP4 whose sample entry claims another size than its stream has."""
    at = content.index(b"avc1") + 4 + 24
    return content[:at] + struct.pack(">HH", width, height) + content[at + 4 :]


NOT = "not a picture or video"


def _texts() -> Iterator[Case]:
    texts: dict[str, bytes] = {
        "empty": b"",
        "one-byte": b"\0",
        "zeros": bytes(4096),
        "text": b"hello " * 500,
        "html": b"<!doctype html><html><body>404</body></html>",
        "json": b'{"error": "not found"}',
        "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "m3u8-http": b"#EXTM3U\n#EXTINF:1,\nhttp://169.254.169.254/latest/meta-data\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>/etc/passwd</BaseURL></MPD>',
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
        "zip": b"PK\x03\x04" + bytes(100),
        "gzip-bomb": zlib.compress(bytes(1 << 22), 9),
        "elf": b"\x7fELF" + bytes(200),
        "ebml-only": b"\x1a\x45\xdf\xa3" + bytes(40),
        "riff-only": b"RIFF\xff\xff\xff\xffAVI LIST",
        "ftyp-only": b"\0\0\0\x14ftypisom\0\0\0\0isom",
        "png-signature": b"\x89PNG\r\n\x1a\n",
        "jpeg-signature": b"\xff\xd8\xff\xe0",
    }
    for name, content in texts.items():
        yield Case(name, lambda _path, content=content: content, "")


def _pictures() -> Iterator[Case]:
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        yield Case(f"{kind}-good", lambda _path, kind=kind: still(kind))
        yield Case(f"{kind}-cut", lambda _path, kind=kind: still(kind)[: len(still(kind)) // 2], "")
    for mode in ("L", "P", "RGBA", "1", "LA", "I;16"):
        yield Case(f"PNG-{mode}", lambda _path, mode=mode: _mode(mode))
    yield Case("JPEG-CMYK", lambda _path: still("JPEG", "CMYK"))
    for turn, size in ((3, (WIDTH, HEIGHT)), (6, (HEIGHT, WIDTH)), (8, (HEIGHT, WIDTH))):
        yield Case(f"JPEG-exif-{turn}", lambda _path, turn=turn: _exif(turn), None, size)
    yield Case("PNG-bomb", lambda _path: png(60000, 60000, bytes(9999)), "pixels, at most")
    yield Case("PNG-no-width", lambda _path: png(0, 10), "")
    yield Case("PNG-no-data", lambda _path: png(64, 48), "")
    yield Case("PNG-wide", lambda _path: png(2**31 - 1, 1), "")
    yield Case("PNG-odd", lambda _path: still("PNG", size=(63, 47)), None, (63, 47))
    yield Case("PNG-tiny", lambda _path: still("PNG", size=(1, 1)), None, (1, 1))
    yield Case("GIF-noise", lambda _path: b"GIF89a" + bytes(range(256)), "")


def _mode(mode: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(picture(3))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _videos() -> Iterator[Case]:
    for container, codec in (("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"),
                             ("avi", "mpeg4"), ("ts", "libx264"), ("flv", "flv")):  # fmt: skip
        yield Case(f"{container}-good", lambda path, c=container, k=codec: video(path, container=c, codec=k))
    yield Case("mp4-audio", lambda path: video(path, audio=True))
    yield Case("mp4-10bit", lambda path: video(path, pix_fmt="yuv420p10le"))
    yield Case("mp4-444", lambda path: video(path, pix_fmt="yuv444p"))
    yield Case("mov-alpha", lambda path: video(path, container="mov", codec="qtrle", pix_fmt="argb"))
    yield Case("mkv-grey", lambda path: video(path, container="mkv", codec="ffv1", pix_fmt="gray"))
    yield Case("mp4-odd", lambda path: video(path, pix_fmt="yuv444p", size=(63, 47)), None, (63, 47))
    yield Case("mp4-portrait", lambda path: video(path, rotate=90), None, (HEIGHT, WIDTH))
    yield Case("mp4-fast", lambda path: video(path, fps="120", frames=90))
    yield Case("mp4-ntsc", lambda path: video(path, fps="30000/1001", frames=24))
    uneven = [0, 20, 60, 160, 200, 330, 350, 420, 560, 610, 700, 740]
    yield Case("mkv-variable", lambda path: video(path, container="mkv", times=uneven))
    yield Case("mp4-one-frame", lambda path: video(path, frames=1), "short")
    for name, box in (("moov", b"moov"), ("mdat", b"mdat")):
        yield Case(f"mp4-no-{name}", lambda path, box=box: _without(video(path), box), "")
    for share in (0.1, 0.5, 0.9):
        yield Case(f"mp4-cut-{share}", lambda path, share=share: _share(video(path), share), "")
    yield Case("mkv-cut", lambda path: _share(video(path, container="mkv"), 0.3), "")
    yield Case("mp4-claims-another-size", lambda path: _resized(video(path), 16000, 16000), "either")
    yield Case("mp4-hdr-pq", lambda path: video(path, pix_fmt="yuv420p10le", colour=_hdr(16)), "HDR")
    yield Case("mp4-hdr-hlg", lambda path: video(path, pix_fmt="yuv420p10le", colour=_hdr(18)), "HDR")
    for seed in range(4):
        yield Case(f"mp4-noise-{seed}", lambda path, seed=seed: _overwritten(video(path), 0.02, seed), "either")
        yield Case(f"png-noise-{seed}", lambda _path, seed=seed: _overwritten(still("PNG"), 0.02, seed), "either")
    yield Case("audio-only", _audio_only, "")


def _hdr(transfer: int) -> dict[str, int]:
    return {"color_primaries": 9, "color_trc": transfer, "colorspace": 9}


def _share(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def _audio_only(path: Path) -> bytes:
    with av.open(str(path / "sound.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=8000)
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), format="fltp", layout="mono")
        noise.sample_rate = 8000
        output.mux(sound.encode(noise))
        output.mux(sound.encode(None))
    return (path / "sound.mp4").read_bytes()


CASES: list[Case] = [*_texts(), *_pictures(), *_videos()]
