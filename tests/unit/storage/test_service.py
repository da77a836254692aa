"""What gateway and stager agree on: signatures, ranges, types by first bytes, keys that are handed out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.storage import sniff
from kinora.storage.keys import KeyRefused, artifact_key, readable
from kinora.storage.service.model import checked_digest, checked_scope, checked_tenant, name_digest
from kinora.storage.service.ranges import Span, Unsatisfiable, span
from kinora.storage.service.signing import (
    LIFETIME_SECONDS,
    LONGEST_SECONDS,
    BadSignature,
    Request,
    sign,
    verify,
)

KEY, OTHER = bytes(range(32)), bytes(32)
NOW = 1_700_000_000.0
ASKED = Request("POST", "/v1/uploads/0123456789?a=b", "pvc://artifacts/", 1000, 2000)


def seen(request: Request) -> Request:
    """The request as the server sees it: the limits are in the header alone."""
    return replace(request, max_bytes=0, quota=0)


# --- signatures


def test_what_was_signed_is_what_is_verified_limits_too() -> None:
    assert verify([KEY], sign(KEY, ASKED, NOW), seen(ASKED), NOW) == ASKED


def test_each_of_several_keys_is_good_and_no_other() -> None:
    header = sign(OTHER, ASKED, NOW)
    assert verify([KEY, OTHER], header, seen(ASKED), NOW) == ASKED
    for keys in ([KEY], []):
        with pytest.raises(BadSignature):
            verify(keys, header, seen(ASKED), NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"method": "GET"},
        {"target": "/v1/uploads/0123456780?a=b"},
        {"target": "/v1/uploads/0123456789?a=c"},
        {"target": "/v1/uploads/0123456789"},
        {"store": "pvc://other/"},
    ],
    ids=str,
)
def test_another_request_is_not_what_was_signed(other: dict[str, str]) -> None:
    with pytest.raises(BadSignature):
        verify([KEY], sign(KEY, ASKED, NOW), replace(seen(ASKED), **other), NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("expires", "1700000061"), ("max", "1001"), ("quota", "2001")])
def test_no_field_of_the_header_can_be_changed(field: str, value: str) -> None:
    header = sign(KEY, ASKED, NOW)
    start = header.index(f"{field}=") + len(field) + 1
    end = header.index(",", start)
    with pytest.raises(BadSignature):
        verify([KEY], header[:start] + value + header[end:], seen(ASKED), NOW)


@given(st.integers(0, 63), st.sampled_from("0123456789abcdef"))
def test_no_digit_of_the_signature_can_be_changed(place: int, digit: str) -> None:
    header = sign(KEY, ASKED, NOW)
    at = len(header) - 64 + place
    changed = header[:at] + digit + header[at + 1 :]
    if changed != header:
        with pytest.raises(BadSignature):
            verify([KEY], changed, seen(ASKED), NOW)


@given(st.text(max_size=200))
def test_any_other_text_is_no_signature(text: str) -> None:
    with pytest.raises(BadSignature):
        verify([KEY], text, seen(ASKED), NOW)


def test_a_signature_lasts_a_minute_and_one_that_lasts_longer_is_refused() -> None:
    header = sign(KEY, ASKED, NOW)
    assert verify([KEY], header, seen(ASKED), NOW + LIFETIME_SECONDS)
    for now in (NOW + LIFETIME_SECONDS + 1, NOW - LONGEST_SECONDS):
        with pytest.raises(BadSignature, match="clocks"):
            verify([KEY], header, seen(ASKED), now)


# --- ranges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Span(0, 100, False)),
        ("bytes=0-", Span(0, 100, True)),
        ("bytes=0-0", Span(0, 1, True)),
        ("bytes=10-19", Span(10, 10, True)),
        ("Bytes = 10 - 19", Span(10, 10, True)),
        ("bytes=90-1000", Span(90, 10, True)),
        ("bytes=-10", Span(90, 10, True)),
        ("bytes=-1000", Span(0, 100, True)),
        ("bytes=20-10", Span(0, 100, False)),
        ("bytes=-", Span(0, 100, False)),
        ("bytes=0-1,5-6", Span(0, 100, False)),
        ("items=0-1", Span(0, 100, False)),
        ("bytes=a-b", Span(0, 100, False)),
        ("bytes=99999999999999999999-", Span(0, 100, False)),
    ],
)
def test_what_of_a_file_is_sent(header: str | None, expected: Span) -> None:
    assert span(100, header, None, "e") == expected


@pytest.mark.parametrize(("size", "header"), [(100, "bytes=100-"), (100, "bytes=-0"), (0, "bytes=0-"), (0, "bytes=-1")])
def test_a_range_without_a_byte_is_not_satisfiable(size: int, header: str) -> None:
    with pytest.raises(Unsatisfiable):
        span(size, header, None, "e")


def test_a_range_of_another_version_is_answered_with_all_of_it() -> None:
    assert span(100, "bytes=0-9", '"e"', "e").partial
    for other in ('"f"', 'W/"e"', "e", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert span(100, "bytes=0-9", other, "e") == Span(0, 100, False)


@given(st.integers(0, 1000), st.text("bytes=0123456789-, ", max_size=30))
def test_no_range_leads_out_of_the_file(size: int, header: str) -> None:
    try:
        found = span(size, header, None, "e")
    except Unsatisfiable:
        return
    assert found.start >= 0
    assert found.start + found.length <= size
    assert found.length > 0 or not found.partial


# --- types


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF....WEBPVP8 ", "image/webp"),
        (b"RIFF....AVI LIST", sniff.UNKNOWN),
        (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (b"\x1aE\xdf\xa3", "video/webm"),
        (b"<html><script>", sniff.UNKNOWN),
        (b'<?xml version="1.0"?><svg', sniff.UNKNOWN),
        (b"{}", sniff.UNKNOWN),
        (b"", sniff.UNKNOWN),
    ],
)
def test_a_file_is_what_its_first_bytes_say(head: bytes, expected: str) -> None:
    assert sniff.content_type(head) == expected
    assert sniff.is_shown(expected) == (expected != sniff.UNKNOWN)


@pytest.mark.parametrize("shown", ["text/html", "image/svg+xml", "application/json", "", "text/plain"])
def test_what_may_hold_a_script_is_not_shown(shown: str) -> None:
    assert not sniff.is_shown(shown)


# --- keys

UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"


def test_a_namespaces_artifacts_and_uploads_are_handed_out() -> None:
    parts = {"namespace": "films", "name": "job", "uid": UID, "attempt": 1, "filename": "v.mp4"}
    assert readable(artifact_key(**parts), "films")  # type: ignore[arg-type]
    assert readable(artifact_key(**parts, prefix="2026/summer/"), "films")  # type: ignore[arg-type]
    assert readable(f"uploads/films/0123456789/{'0' * 64}", "films")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "films",
        "uploads/other/0123456789/a",
        "uploads/films",
        f"other/job/{UID}/1/0-v.mp4",
        f"films/job/{UID}/1",
        f"films/job/{UID}/x/0-v.mp4",
        f"inputs/{'0' * 64}",
        f"intake/films/{UID}/image.json",
        f"names/films/0123456789/inputs/{'0' * 64}",
        f"../films/job/{UID}/1/0-v.mp4",
        f"/films/job/{UID}/1/0-v.mp4",
        f"films//job/{UID}/1/0-v.mp4",
        f"films/job/{UID}/1/.hidden",
        f"films/job/{UID}/1/..",
        f"films/job/{UID}/1/a\\b",
        f"films/job/{UID}/1/a%2fb",
    ],
)
def test_nothing_else_is_handed_out(key: str) -> None:
    assert not readable(key, "films")


@given(st.text(max_size=100))
def test_only_digests_and_scopes_become_parts_of_keys(text: str) -> None:
    for check in (checked_tenant, checked_digest, checked_scope):
        try:
            assert check(text) == text
        except KeyRefused:
            continue
        assert text.isalnum()
        assert text.isascii()


def test_any_name_has_a_digest_that_is_a_plain_word() -> None:
    for name in ("../../etc/passwd", "ü", "a\0b", "\ud800", "x" * 1024):
        assert checked_digest(name_digest(name))
    for name in ("", "x" * 1025):
        with pytest.raises(KeyRefused, match="1 to 1024"):
            name_digest(name)
