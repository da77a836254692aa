"""The store service over a bucket, asked by the gateway's own client."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from integration.gateway.storehouse import KEY, serving
from kinora.s3.client import Pace, S3Client
from kinora.storage.keys import KeyRefused
from kinora.storage.s3 import S3Store
from kinora.storage.s3_files import S3Files
from kinora.storage.service.client import StoreClient
from kinora.storage.service.model import Name, NameTaken, OverLimit, Upload
from kinora.storage.store import NotStoredError, StoreError
from s3proxy import S3Proxy
from s3server import S3Server

pytestmark = pytest.mark.integration
MiB = 1 << 20
TENANT = "0123456789"
ARTIFACT = "films/cup/0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55/1/0-cup.mp4"
CONTENT = os.urandom(6 * MiB + 5)
SHA = hashlib.sha256(CONTENT).hexdigest()
UPLOADS = f"out/uploads/films/{TENANT}"


@pytest.fixture
async def files(server: S3Server, proxy: S3Proxy, tmp_path: Path) -> AsyncIterator[S3Files]:
    bucket = server.bucket(port=proxy.port, prefix="out/", public=server.endpoint)
    pace = Pace(first_pause=0.01, longest_pause=0.05, part_bytes=5 * MiB)
    (tmp_path / "scratch").mkdir()
    async with S3Client(bucket, lambda: server.credentials, pace=pace) as client:
        yield S3Files(S3Store(client, scratch=tmp_path / "scratch"), "films", scratch=tmp_path / "scratch")


@pytest.fixture
async def store(files: S3Files) -> AsyncIterator[StoreClient]:
    """The gateway's client of the service."""
    async with serving(files, [KEY]) as (_, client):
        yield client


async def sent(content: bytes, *, broken: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), MiB):
        yield content[start : start + MiB]
    if broken:
        raise ConnectionError("the user went away")


async def uploaded(store: StoreClient, content: bytes = CONTENT) -> Upload:
    return await store.upload(TENANT, sent(content), max_bytes=16 * MiB, quota=32 * MiB)


def aged(server: S3Server, *keys: str) -> None:
    """As if they had been written two hours ago."""
    for key in keys:
        os.utime(server.path(key), (time.time() - 7200, time.time() - 7200))


async def whole(store: StoreClient, key: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    async with store.read(key, headers=headers) as reading:
        return reading.status, b"".join([chunk async for chunk in reading.chunks])


async def test_an_upload_is_an_object_by_its_content_once(server: S3Server, store: StoreClient) -> None:
    made, again = await uploaded(store), await uploaded(store)
    assert (made.sha256, made.bytes, made.created, again.created) == (SHA, len(CONTENT), True, False)
    assert server.path(f"{UPLOADS}/{SHA}").read_bytes() == CONTENT
    assert await store.renew(TENANT, SHA) == len(CONTENT)
    usage = await store.usage(TENANT)
    assert (usage.bytes, usage.files) == (len(CONTENT), 1), "what notes its use is no upload"
    assert await whole(store, f"uploads/films/{TENANT}/{SHA}") == (200, CONTENT)
    assert await store.remove(TENANT, SHA)
    assert not await store.remove(TENANT, SHA)
    assert server.objects() == []


async def test_what_is_cut_or_too_large_leaves_nothing(server: S3Server, store: StoreClient, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        await store.upload(TENANT, sent(CONTENT, broken=True), max_bytes=16 * MiB, quota=32 * MiB)
    for limits in ({"max_bytes": 5 * MiB, "quota": 32 * MiB}, {"max_bytes": 16 * MiB, "quota": 5 * MiB}):
        with pytest.raises(OverLimit):
            await store.upload(TENANT, sent(CONTENT), **limits)
    assert server.objects() == []
    assert os.listdir(tmp_path / "scratch") == []


async def test_names_point_at_uploads_and_are_taken_while_those_are_there(server: S3Server, store: StoreClient) -> None:
    cup, photo = await uploaded(store, b"a cup"), await uploaded(store, b"a photo")
    name = Name("cup of tea.jpg", {"sha256": cup.sha256, "bytes": cup.bytes})
    other = Name(name.name, {"sha256": photo.sha256, "bytes": photo.bytes})
    await store.put_name(TENANT, "inputs", name, create=True)
    await store.put_name(TENANT, "inputs", name, create=True)
    with pytest.raises(NameTaken) as taken:
        await store.put_name(TENANT, "inputs", other, create=True)
    assert taken.value.value == name.value
    assert await store.get_name(TENANT, "inputs", name.name) == name
    await store.put_name(TENANT, "inputs", Name("a", other.value))
    assert [one.name for one in await store.names(TENANT, "inputs")] == ["a", "cup of tea.jpg"]
    await store.remove(TENANT, cup.sha256)
    await store.put_name(TENANT, "inputs", other, create=True)
    assert (await store.get_name(TENANT, "inputs", name.name)).value == other.value, "the one before led nowhere"
    assert await store.remove_name(TENANT, "inputs", "a")
    assert not await store.remove_name(TENANT, "inputs", "a")
    with pytest.raises(NotStoredError):
        await store.get_name(TENANT, "inputs", "a")
    assert await store.names(TENANT, "masks") == []


async def test_an_artifact_is_streamed_whole_and_in_ranges(server: S3Server, store: StoreClient) -> None:
    path = server.path(f"out/{ARTIFACT}")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert await whole(store, ARTIFACT) == (200, CONTENT)
    assert await whole(store, ARTIFACT, {"Range": "bytes=5-14"}) == (206, CONTENT[5:15])
    assert await whole(store, ARTIFACT, {"Range": "bytes=-7"}) == (206, CONTENT[-7:])
    async with store.read(ARTIFACT, headers={"Range": "bytes=99999999-"}) as reading:
        assert reading.status == 416
    path.write_bytes(b"")
    assert await whole(store, ARTIFACT) == (200, b"")


async def test_a_stream_that_the_bucket_cuts_goes_on(server: S3Server, store: StoreClient, proxy: S3Proxy) -> None:
    path = server.path(f"out/{ARTIFACT}")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    long = len(CONTENT) - 1

    def is_stream(request: web.Request) -> bool:
        return request.method == "GET" and request.headers.get("Range", "").endswith(f"-{long}")

    proxy.fail(is_stream, "truncate", times=2, after=MiB)
    proxy.fail(is_stream, "refuse", times=2)
    assert await whole(store, ARTIFACT) == (200, CONTENT)
    proxy.fail(is_stream, "refuse", times=99, status=403, code="AccessDenied")
    with pytest.raises(StoreError):
        await whole(store, ARTIFACT)


async def test_who_may_have_a_url_is_sent_to_the_bucket(server: S3Server, store: StoreClient) -> None:
    path = server.path(f"out/{ARTIFACT}")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    shown = {"content_type": "video/mp4", "disposition": 'inline; filename="cup.mp4"'}
    async with store.read(ARTIFACT, redirect=True, **shown) as reading:
        assert (reading.status, reading.location.startswith(f"{server.endpoint}/films/out/films/cup/")) == (302, True)
        url = reading.location
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert (answer.status, await answer.read()) == (200, CONTENT)
        assert answer.headers["Content-Disposition"] == shown["disposition"]
        assert answer.headers["Content-Type"] == "video/mp4"
    with pytest.raises(NotStoredError):
        async with store.read(ARTIFACT.replace("/1/", "/2/"), redirect=True):
            pass


async def test_nothing_else_of_the_bucket_is_handed_out(server: S3Server, store: StoreClient) -> None:
    for key in ("intake/films/uid/image.json", f"inputs/{SHA}", f"uploads/others/{TENANT}/{SHA}", "others/a/b/1/0-c"):
        path = server.path(f"out/{key}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"secret")
        for redirect in (False, True):
            with pytest.raises(KeyRefused):
                async with store.read(key, redirect=redirect):
                    pass


async def test_unused_uploads_end_with_their_names(server: S3Server, store: StoreClient, files: S3Files) -> None:
    made = {word: await uploaded(store, word.encode()) for word in ("old", "renewed", "asked", "fresh")}
    for word, upload in made.items():
        await store.put_name(TENANT, "inputs", Name(word, {"sha256": upload.sha256, "bytes": upload.bytes}))
    by_hand = server.path("out/uploads/films/photos/cup.jpg")
    by_hand.parent.mkdir()
    by_hand.write_bytes(b"cup")
    keys = [f"{UPLOADS}/{made[word].sha256}" for word in ("old", "renewed", "asked")]
    aged(server, *keys, "out/uploads/films/photos/cup.jpg", *(key for key in server.objects() if "/names/" in key))
    await store.renew(TENANT, made["renewed"].sha256)
    removed = await files.sweep_uploads(3600, lambda source: source == f"{TENANT}/{made['asked'].sha256}")
    assert removed == 1
    assert [one.name for one in await store.names(TENANT, "inputs")] == ["asked", "fresh", "renewed"]
    with pytest.raises(NotStoredError):
        await store.renew(TENANT, made["old"].sha256)
    assert by_hand.exists(), "what nobody uploaded through the service is not its to remove"
    assert await files.sweep_uploads(3600, lambda _: True) == 0


async def test_many_names_are_read_side_by_side(store: StoreClient) -> None:
    cup = await uploaded(store, b"a cup")
    value = {"sha256": cup.sha256, "bytes": cup.bytes}
    names = [f"cup {number:02}" for number in range(40)]
    await asyncio.gather(*(store.put_name(TENANT, "inputs", Name(name, value)) for name in names))
    assert [one.name for one in await store.names(TENANT, "inputs")] == names
