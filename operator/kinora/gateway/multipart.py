"""Multipart bodies as they come: the parts in order, each streamed, none held in memory. Knows no dialect.

A part has to be read, or is skipped, before the next one begins; what is read of the body waits for whoever takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from kinora.gateway.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS: Final = 64
MAX_FIELD_BYTES: Final = 64 * 1024
_MAX_HEADER_BYTES: Final = 8 * 1024  # of one part


@dataclass
class Part:
    """One part. `filename` is None for a plain field; nothing that the client says of it is to be believed."""

    name: str
    filename: str | None
    content_type: str
    _body: AsyncIterator[bytes] = field(repr=False)

    def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes, once."""
        return self._body

    async def text(self, max_bytes: int = MAX_FIELD_BYTES) -> str:
        """All of it as UTF-8. TooLarge, InvalidInput."""
        data = bytearray()
        async for chunk in self._body:
            data += chunk
            if len(data) > max_bytes:
                raise TooLarge(f"the form's field {self.name[:80]} is over {max_bytes} bytes, which is what is allowed")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise InvalidInput(self.name[:80], f"the form's field {self.name[:80]} is no UTF-8 text") from None


class _Events:
    """What the parser has told and nobody has taken: ("header", name, value), ("begin",), ("data", bytes), ("end",)."""

    def __init__(self, boundary: bytes) -> None:
        self.queue: deque[tuple[Any, ...]] = deque()
        self._name, self._value, self._header_bytes = b"", b"", 0
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part,
            "on_header_field": self._field,
            "on_header_value": self._said,
            "on_header_end": self._header,
            "on_headers_finished": lambda: self.queue.append(("begin",)),
            "on_part_data": lambda data, start, end: self.queue.append(("data", data[start:end])),
            "on_part_end": lambda: self.queue.append(("end",)),
        }
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, chunk: bytes) -> None:
        """Parse some more. InvalidInput."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidInput("", "the body is no multipart form, or is damaged") from None

    def _part(self) -> None:
        self._header_bytes = 0

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += self._bounded(data[start:end])

    def _said(self, data: bytes, start: int, end: int) -> None:
        self._value += self._bounded(data[start:end])

    def _bounded(self, data: bytes) -> bytes:
        self._header_bytes += len(data)
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise TooLarge(f"the headers of a part are over {_MAX_HEADER_BYTES} bytes, which is what is allowed")
        return data

    def _header(self) -> None:
        self.queue.append(("header", self._name.lower(), self._value))
        self._name = self._value = b""


async def parts(content_type: str, body: AsyncIterator[bytes]) -> AsyncIterator[Part]:
    """The parts of a `multipart/form-data` body. InvalidInput, TooLarge; what `body` raises."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        raise InvalidInput("", "the body is no form; allowed: multipart/form-data with a boundary")
    events = _Events(boundary)
    told = _told(events, body)
    headers: dict[bytes, bytes] = {}
    count = 0
    async for event in told:
        if event[0] == "header":
            headers[event[1]] = event[2]
        elif event[0] == "begin":
            count += 1
            if count > MAX_PARTS:
                raise InvalidInput("", f"the form has more than {MAX_PARTS} parts, which is what is allowed")
            content = _content(told)
            yield _part(headers, content)
            headers = {}
            async for _ in content:  # what nobody wanted
                pass


async def _told(events: _Events, body: AsyncIterator[bytes]) -> AsyncIterator[tuple[Any, ...]]:
    async for chunk in body:
        events.feed(chunk)
        while events.queue:
            yield events.queue.popleft()


async def _content(told: AsyncIterator[tuple[Any, ...]]) -> AsyncIterator[bytes]:
    async for event in told:
        if event[0] == "end":
            return
        yield event[1]
    raise InvalidInput("", "the body ends in the middle of a part")


def _part(headers: dict[bytes, bytes], content: AsyncIterator[bytes]) -> Part:
    _, options = parse_options_header(headers.get(b"content-disposition", b""))
    filename = options.get(b"filename")
    return Part(
        name=options.get(b"name", b"").decode("utf-8", "replace"),
        filename=None if filename is None else filename.decode("utf-8", "replace"),
        content_type=headers.get(b"content-type", b"").decode("latin-1"),
        _body=content,
    )
