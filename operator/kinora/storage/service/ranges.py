"""Which bytes of an object a request asks for (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):  # noqa: N818 - a verdict
    """416: no byte of the range is there."""


@dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes from `start`. `partial`: answered 206."""

    start: int
    length: int
    partial: bool

    def content_range(self, size: int) -> str:
        """The header of a 206."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def span(size: int, header: str | None, if_range: str | None, etag: str) -> Span:
    """What to send. Raises Unsatisfiable.

    A range that is none, several of them, and one for another version (`If-Range`) are answered with all of it, as
    RFC 9110 lets a server do. `etag` is without quotes.
    """
    whole = Span(0, size, partial=False)
    if header is None or (if_range is not None and if_range.strip() != f'"{etag}"'):
        return whole
    found = _ONE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return whole
    if not found[1]:
        length = min(int(found[2]), size)
        if length == 0:
            raise Unsatisfiable
        return Span(size - length, length, partial=True)
    start, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and last < start:
        return whole
    if start >= size:
        raise Unsatisfiable
    return Span(start, min(last, size - 1) - start + 1, partial=True)
