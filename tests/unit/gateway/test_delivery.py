"""What a file is called and shown as when it goes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.delivery import disposition, safe_name
from kinora.gateway.errors import NotFound
from kinora.gateway.stores import split


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("video_00001_.mp4", 'inline; filename="video_00001_.mp4"'),
        ("../../etc/passwd", 'inline; filename="passwd"'),
        ("C:\\films\\a b.mp4", 'inline; filename="a b.mp4"'),
        (
            'a"; filename="b.exe',
            "inline; filename=\"a__ filename__b.exe\"; filename*=UTF-8''a%22%3B%20filename%3D%22b.exe",
        ),
        ("雨.mp4", "inline; filename=\"_.mp4\"; filename*=UTF-8''%E9%9B%A8.mp4"),
        ("a\r\nSet-Cookie: x.mp4", "inline; filename=\"aSet-Cookie_ x.mp4\"; filename*=UTF-8''aSet-Cookie%3A%20x.mp4"),
        ("", 'inline; filename="file"'),
        ("..", 'inline; filename="file"'),
    ],
)
def test_a_name_is_the_last_part_and_breaks_no_header(name: str, expected: str) -> None:
    assert disposition("video/mp4", name) == expected


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/octet-stream", "text/plain"])
def test_what_may_hold_a_script_is_an_attachment(content_type: str) -> None:
    assert disposition(content_type, "a.html").startswith("attachment; ")


@given(st.text(max_size=400))
def test_any_name_makes_a_header_that_can_be_sent(name: str) -> None:
    header = disposition("image/png", name)
    header.encode("latin-1")
    assert not any(char in header for char in "\r\n\0")
    assert header.count('"') == 2
    assert 1 <= len(safe_name(name)) <= 200
    assert "/" not in safe_name(name)


def test_the_store_of_an_artifact_is_that_of_its_uri() -> None:
    assert split("pvc://videos/films/job/u/1/0-a.mp4") == ("pvc://videos/", "films/job/u/1/0-a.mp4")
    for uri in ("", "pvc://", "pvc://videos", "pvc://videos/", "videos/a", "pvc:///a"):
        with pytest.raises(NotFound, match="store"):
            split(uri)
