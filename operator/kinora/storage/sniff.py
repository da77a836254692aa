"""What a file is by its first bytes: the few types that a browser may show. Pure; what users say is not believed.

Whatever is not known here (HTML, SVG and scripts above all) is `application/octet-stream`, to be saved and not shown.
"""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "application/octet-stream"
HEAD_BYTES: Final = 64
_STARTS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_BRANDS: Final = {b"qt  ": "video/quicktime", b"avif": "image/avif", b"M4A ": "audio/mp4"}


def content_type(head: bytes) -> str:
    """The type of a file that begins so; UNKNOWN for what is none of the known ones."""
    for start, found in _STARTS:
        if head.startswith(start):
            return found
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    return UNKNOWN


def is_shown(content_type: str) -> bool:
    """Whether a browser may show it in place; anything else is an attachment."""
    kind, _, name = content_type.partition("/")
    return kind in ("image", "video", "audio") and "svg" not in name
