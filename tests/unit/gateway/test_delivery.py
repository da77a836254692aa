"""What a file is called and shown as when it goes out."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from integration.gateway.storehouse import serving
from kinora.gateway.delivery import Place, Shown, delivered, disposition, safe_name
from kinora.gateway.errors import NotFound
from kinora.gateway.stores import Stores, split
from kinora.storage.service.client import StoreClient
from kinora.storage.service.model import Elsewhere
from kinora.storage.uploads import PvcContent, PvcFiles

ARTIFACT = "films/job/0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55/1/0-video.mp4"


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


class Presigned(PvcFiles):
    """A store whose objects have addresses of their own."""

    async def open(
        self, key: str, *, redirect: bool = False, content_type: str = "", disposition: str = ""
    ) -> PvcContent | Elsewhere:
        """Where the object is, as it was asked for."""
        if redirect:
            return Elsewhere(f"https://bucket.example/{key}?type={content_type}&as={disposition.partition(';')[0]}")
        return await super().open(key)


class Reached(Stores):
    """Stores that are reached already."""

    def __init__(self, client: StoreClient) -> None:
        self._reached = client

    async def client(self, namespace: str, root: str, *, anew: bool = False) -> StoreClient:
        """The one that there is."""
        return self._reached


async def test_a_store_with_addresses_is_answered_by_a_redirect_and_head_by_the_gateway(tmp_path: Path) -> None:
    """A presigned URL is good for GET alone; a HEAD that was sent there would be refused."""
    place = Place("films", "pvc://artifacts/", ARTIFACT)
    (tmp_path / ARTIFACT).parent.mkdir(parents=True)
    (tmp_path / ARTIFACT).write_bytes(b"film")
    async with serving(Presigned(tmp_path, "artifacts", "films"), [bytes(32)]) as (_, store):

        async def answer(request: Request) -> Response:
            shown = Shown("video.mp4", "video/mp4", "0" * 64, redirect=request.url.path == "/artifact")
            return await delivered(Reached(store), request, place, shown)

        app = Starlette(routes=[Route("/{what}", answer, methods=["GET", "HEAD"])])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            sent = await client.get("/artifact", headers={"Range": "bytes=0-1"})
            head = await client.head("/artifact")
            streamed = await client.get("/upload")
    assert sent.status_code == 302
    assert sent.headers["location"] == f"https://bucket.example/{ARTIFACT}?type=video/mp4&as=inline"
    assert sent.headers["cache-control"] == "no-store"
    assert (head.status_code, head.headers["content-length"]) == (200, "4")
    assert (streamed.status_code, streamed.content) == (200, b"film")
