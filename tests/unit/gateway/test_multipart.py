"""Multipart bodies as they come: any cut of the bytes gives the same parts; nothing grows without a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.errors import InvalidInput, TooLarge
from kinora.gateway.multipart import MAX_PARTS, parts

FILE = bytes(range(256)) * 40
REQUEST = httpx.Request(
    "POST",
    "http://x/",
    data={"key": "a/b", "empty": "", "ü": "ü"},
    files={"file": ("my film ü.mp4", FILE, "video/mp4")},
)
KIND, BODY = REQUEST.headers["content-type"], REQUEST.read()


async def cut(body: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    start = 0
    for size in sizes:
        yield body[start : start + size]
        start += size
    yield body[start:]


async def whole(body: bytes, sizes: list[int], kind: str = KIND) -> list[tuple[str, str | None, str, bytes]]:
    found = []
    async for part in parts(kind, cut(body, sizes)):
        content = b"".join([chunk async for chunk in part.chunks()])
        found.append((part.name, part.filename, part.content_type, content))
    return found


async def texts(body: bytes, kind: str) -> list[str]:
    return [await part.text() async for part in parts(kind, cut(body, []))]


EXPECTED = [
    ("key", None, "", b"a/b"),
    ("empty", None, "", b""),
    ("ü", None, "", "ü".encode()),
    ("file", "my film ü.mp4", "video/mp4", FILE),
]


@given(st.lists(st.integers(0, 700), max_size=60))
async def test_any_cut_gives_the_same_parts(sizes: list[int]) -> None:
    assert await whole(BODY, sizes) == EXPECTED


async def test_a_part_that_nobody_reads_is_skipped() -> None:
    assert [part.name async for part in parts(KIND, cut(BODY, [100]))] == ["key", "empty", "ü", "file"]


async def test_the_file_is_there_before_the_body_is() -> None:
    """Its bytes are handed on as they come: the sender is not read ahead of."""
    sent = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, len(BODY), 100):
            sent += 1
            yield BODY[start : start + 100]

    async for part in parts(KIND, slowly()):
        if part.name == "file":
            assert await anext(part.chunks())
            assert sent < len(BODY) / 100 / 2
            break


@pytest.mark.parametrize("end", [1, 50, 200, len(BODY) // 2, len(BODY) - 60])
async def test_a_body_that_ends_early_is_refused(end: int) -> None:
    cut_short = BODY[:end]
    try:
        found = await whole(cut_short, [])
    except InvalidInput:
        return
    assert found == EXPECTED[: len(found)], "parts that were whole"
    assert len(found) < len(EXPECTED)


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=a", "multipart/form-data; boundary="],
)
async def test_what_is_no_form_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInput, match="form"):
        await whole(BODY, [], kind)


@given(st.binary(max_size=300))
async def test_any_bytes_are_parts_or_are_refused(body: bytes) -> None:
    with suppress(InvalidInput, TooLarge):
        await whole(body, [10, 10], "multipart/form-data; boundary=b")


async def test_fields_headers_and_parts_are_bounded() -> None:
    form = httpx.Request("POST", "http://x/", data={"a": "x" * 70_000}, files={"f": b""})
    with pytest.raises(TooLarge, match="65536"):
        await texts(form.read(), form.headers["content-type"])
    many = httpx.Request("POST", "http://x/", files=[("f", b"x")] * (MAX_PARTS + 1))
    with pytest.raises(InvalidInput, match="64 parts"):
        await whole(many.read(), [], many.headers["content-type"])
    header = b'--b\r\nContent-Disposition: form-data; name="' + b"x" * 10_000 + b'"\r\n\r\n\r\n--b--\r\n'
    with pytest.raises((TooLarge, InvalidInput)):
        await whole(header, [], "multipart/form-data; boundary=b")


async def test_a_field_that_is_no_text_is_refused() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\xfe\r\n--b--\r\n'
    with pytest.raises(InvalidInput, match="UTF-8"):
        await texts(body, "multipart/form-data; boundary=b")
