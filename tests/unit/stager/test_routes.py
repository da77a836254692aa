"""The store service over real HTTP on a real folder: what is signed, bounded, cut, ranged, and never handed out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from yarl import URL

from integration.gateway.storehouse import KEY, StoreHouse, storehouse
from kinora.stager.metrics import Metrics
from kinora.stager.receive import Receiver
from kinora.stager.routes import service
from kinora.storage.keys import KeyRefused
from kinora.storage.service import signing
from kinora.storage.service.client import StoreAway, StoreClient, StoreRefused
from kinora.storage.service.model import Name, NameTaken, NotDrawable, OverLimit, PreviewKind, Usage
from kinora.storage.store import NotStoredError
from kinora.storage.uploads import PvcFiles
from kinora_cluster import ROOT
from waiting import until

TENANT, OTHER = "0123456789", "abcdef0123"
CONTENT = bytes(range(256)) * 4000  # about a MB
SHA = hashlib.sha256(CONTENT).hexdigest()
ARTIFACT = "films/job/0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55/1/0-video.mp4"
PLENTY: dict[str, int] = {"max_bytes": 1 << 30, "quota": 1 << 30}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[StoreHouse]:
    async with storehouse(tmp_path) as made:
        yield made


async def sent(content: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def signed(house: StoreHouse, method: str, target: str, **limits: int) -> str:
    request = signing.Request(method, target, f"pvc://{house.claim}/", **limits)
    return signing.sign(KEY, request, time.time())


async def raw(house: StoreHouse, text: bytes, *, end: bool = False, cut: bool = False) -> bytes:
    """Send these bytes, then nothing (`end`: and say so; `cut`: and break the connection); what is answered."""
    where = URL(house.url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        writer.write(text)
        await writer.drain()
        if cut:
            async with asyncio.timeout(20):
                while not house.drafts():  # noqa: ASYNC110 - until it is being written
                    await asyncio.sleep(0.01)
            writer.transport.abort()
            return b""
        if end:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def upload_head(house: StoreHouse, *headers: str, max_bytes: int = 10_000, quota: int = 1 << 30) -> bytes:
    target = f"/v1/uploads/{TENANT}"
    lines = [
        f"POST {target} HTTP/1.1",
        "Host: store",
        "Connection: close",
        f"Authorization: {signed(house, 'POST', target, max_bytes=max_bytes, quota=quota)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


# --- what is counted


async def test_requests_are_counted_by_operation_and_code_and_bytes_by_direction(tmp_path: Path) -> None:
    files, metrics = PvcFiles(tmp_path, "artifacts", "films"), Metrics()

    async def keys(_anew: bool) -> list[bytes]:
        return [KEY]

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, labels) or 0.0

    def requests(operation: str, code: int) -> float:
        return value("kinora_store_requests_total", operation=operation, code=str(code))

    async with TestServer(service(files, keys, metrics)) as server, aiohttp.ClientSession() as session:
        client = StoreClient(session, f"http://127.0.0.1:{server.port}", "pvc://artifacts/", KEY)
        stranger = StoreClient(session, f"http://127.0.0.1:{server.port}", "pvc://artifacts/", bytes(32))
        made = await client.upload(TENANT, sent(CONTENT), **PLENTY)
        with pytest.raises(OverLimit):
            await client.upload(TENANT, sent(CONTENT), max_bytes=10, quota=1 << 30)
        async with client.read(f"uploads/films/{made.key}", headers={"Range": "bytes=0-99"}) as reading:
            assert len(b"".join([chunk async for chunk in reading.chunks])) == 100
        with pytest.raises(NotStoredError):
            await client.get_name(TENANT, "inputs", "none")
        with pytest.raises(StoreRefused):
            await stranger.usage(TENANT)
        assert (await session.get(f"http://127.0.0.1:{server.port}/favicon.ico")).status in (401, 404)
    told = [("upload", 201), ("upload", 413), ("read", 206), ("get_name", 404), ("usage", 401)]
    assert [requests(*one) for one in told] == [1] * 5
    assert requests("other", 401) + requests("other", 404) == 1
    assert value("kinora_store_request_seconds_count", operation="upload") == 2
    assert value("kinora_store_bytes_total", direction="in") >= len(CONTENT)
    assert value("kinora_store_bytes_total", direction="out") == 100


# --- uploads


async def test_the_same_content_twice_is_one_upload_and_told_so(house: StoreHouse) -> None:
    first = await house.client.upload(TENANT, sent(CONTENT), **PLENTY)
    second = await house.client.upload(TENANT, sent(CONTENT, 999), **PLENTY)
    assert (first.sha256, first.bytes, first.created) == (SHA, len(CONTENT), True)
    assert (second.sha256, second.created) == (SHA, False)
    assert [path.read_bytes() == CONTENT for path in house.uploads()] == [True]
    await until(lambda: not house.drafts())


async def test_two_writers_at_once_make_one_upload(house: StoreHouse) -> None:
    made = await asyncio.gather(*(house.client.upload(TENANT, sent(CONTENT), **PLENTY) for _ in range(6)))
    assert {one.sha256 for one in made} == {SHA}
    assert len(house.uploads()) == 1
    await until(lambda: not house.drafts())


async def test_an_empty_file_is_a_file(house: StoreHouse) -> None:
    made = await house.client.upload(TENANT, sent(b""), **PLENTY)
    assert (made.bytes, made.sha256) == (0, hashlib.sha256(b"").hexdigest())
    async with house.client.read(f"uploads/films/{made.key}") as reading:
        assert [chunk async for chunk in reading.chunks] == []


async def test_too_much_is_refused_while_it_comes_and_nothing_of_it_stays(house: StoreHouse) -> None:
    with pytest.raises(OverLimit, match="more than 1000 bytes"):
        await house.client.upload(TENANT, sent(CONTENT), max_bytes=1000, quota=1 << 30)
    with pytest.raises(OverLimit, match="more than 600000 bytes in all"):
        await house.client.upload(TENANT, sent(CONTENT), max_bytes=1 << 30, quota=600_000)
    await until(lambda: not house.drafts())
    assert house.uploads() == []


async def test_the_quota_counts_what_is_there_and_what_is_coming(house: StoreHouse) -> None:
    quota, sizes = 1_500_000, [700_000, 700_001, 700_002, 700_003]
    tried = await asyncio.gather(
        *(house.client.upload(TENANT, sent(bytes(size)), max_bytes=1 << 30, quota=quota) for size in sizes),
        return_exceptions=True,
    )
    kept = [one for one in tried if not isinstance(one, BaseException)]
    assert 1 <= len(kept) <= 2
    assert all(isinstance(one, OverLimit) for one in tried if isinstance(one, BaseException))
    assert (await house.client.usage(TENANT)).bytes <= quota
    await house.client.upload(OTHER, sent(bytes(700_000)), max_bytes=1 << 30, quota=quota)
    for one in kept:
        assert await house.client.remove(TENANT, one.sha256)
    assert await house.client.usage(TENANT) == Usage(0, 0)
    await house.client.upload(TENANT, sent(bytes(1_400_000)), max_bytes=1 << 30, quota=quota)


async def test_an_upload_counts_what_became_one_after_it_began(tmp_path: Path) -> None:
    receiver, began, other = Receiver(PvcFiles(tmp_path, "artifacts", "films")), asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(1_100_000)
        began.set()
        await other.wait()
        yield bytes(300_000)

    first = asyncio.create_task(receiver.take(TENANT, slow(), max_bytes=1 << 30, quota=2_000_000))
    await asyncio.wait_for(began.wait(), 20)
    await receiver.take(TENANT, sent(b"x" * 800_000), max_bytes=1 << 30, quota=2_000_000)
    other.set()
    with pytest.raises(OverLimit, match="2000000 bytes in all"):
        await first


async def test_what_is_removed_while_the_store_is_asked_is_not_counted_for_long(tmp_path: Path) -> None:
    class Slow(PvcFiles):
        asked, removed = asyncio.Event(), asyncio.Event()

        async def usage(self, tenant: str) -> Usage:
            found = await super().usage(tenant)
            self.asked.set()
            await self.removed.wait()
            return found

    files = Slow(tmp_path, "artifacts", "films")
    await Receiver(PvcFiles(tmp_path, "artifacts", "films")).take(TENANT, sent(bytes(900)), max_bytes=1000, quota=9000)
    receiver = Receiver(files)
    first = asyncio.create_task(receiver.take(TENANT, sent(b"x" * 900), max_bytes=1000, quota=9000))
    await asyncio.wait_for(files.asked.wait(), 20)
    assert await files.remove(TENANT, hashlib.sha256(bytes(900)).hexdigest())
    receiver.forget(TENANT)
    files.removed.set()
    await first
    assert (await receiver.take(TENANT, sent(b"y" * 900), max_bytes=1000, quota=9000)).created


async def test_an_upload_that_is_refused_while_it_comes_in_is_told_why(house: StoreHouse) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        with pytest.raises(OverLimit, match="1048576 bytes in all"):
            await house.client.upload(TENANT, slow(), max_bytes=1 << 30, quota=1 << 20)
        house.keys[:] = [bytes(32)]
        with pytest.raises(StoreRefused):
            await house.client.upload(TENANT, slow(), max_bytes=1 << 30, quota=1 << 30)


async def test_a_length_that_is_announced_too_large_is_refused_before_a_byte_is_taken(house: StoreHouse) -> None:
    answer = await raw(house, upload_head(house, "Content-Length: 10001"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["limit"] == 10_000
    assert house.uploads() == house.drafts() == []


async def test_chunks_without_a_length_are_bounded_all_the_same(house: StoreHouse) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (4000, bytes(4000)) for _ in range(5)) + b"0\r\n\r\n"
    answer = await raw(house, upload_head(house, "Transfer-Encoding: chunked") + body)
    assert answer.startswith(b"HTTP/1.1 413")
    await until(lambda: not house.drafts())
    assert house.uploads() == []


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Length: 9000", bytes(5000)),
        ("Transfer-Encoding: chunked", b"1388\r\n" + bytes(5000) + b"\r\n"),
        ("Transfer-Encoding: chunked", b"ffff\r\n" + bytes(5000)),
    ],
    ids=["less than its length", "no last chunk", "half a chunk"],
)
async def test_a_body_that_ends_early_leaves_nothing(house: StoreHouse, header: str, body: bytes) -> None:
    answer = await raw(house, upload_head(house, header) + body, end=True)
    assert not answer.startswith(b"HTTP/1.1 20")
    await raw(house, upload_head(house, header) + body, cut=True)
    await until(lambda: not house.drafts())
    assert house.uploads() == []


async def test_bytes_beyond_the_length_are_not_taken(house: StoreHouse) -> None:
    answer = await raw(house, upload_head(house, "Content-Length: 10") + b"0123456789" + b"more")
    assert b" 400 " in answer, "a request that lies about its length is refused as a whole"
    assert house.uploads() == []


async def test_what_the_sender_fails_with_comes_through(house: StoreHouse) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ValueError("the disk")

    with pytest.raises(ValueError, match="the disk"):
        await house.client.upload(TENANT, broken(), **PLENTY)
    await until(lambda: not house.drafts())
    assert house.uploads() == []


# --- who may


async def test_without_a_good_signature_nothing_is_told_not_even_what_is_there(house: StoreHouse) -> None:
    made = await house.client.upload(TENANT, sent(CONTENT), **PLENTY)
    good = f"/v1/objects/uploads/films/{made.key}"
    wrong = {
        "none": "",
        "of another method": signed(house, "HEAD", good),
        "of another path": signed(house, "GET", f"/v1/uploads/{TENANT}"),
        "of another key": signing.sign(bytes(32), signing.Request("GET", good, "pvc://artifacts/"), time.time()),
        "expired": signing.sign(KEY, signing.Request("GET", good, "pvc://artifacts/"), time.time() - 3600),
        "a bearer": "Bearer abc",
    }
    async with aiohttp.ClientSession() as session:
        for what, header in wrong.items():
            for target in (good, "/v1/objects/nothing", "/nowhere", "/v1/uploads/0123456789"):
                async with session.get(house.url + target, headers={"Authorization": header}) as answer:
                    expected = 200 if (what, target) == ("of another path", f"/v1/uploads/{TENANT}") else 401
                    assert answer.status == expected, (what, target)
                    assert SHA not in await answer.text()


async def test_limits_are_signed_and_cannot_be_raised(house: StoreHouse) -> None:
    head = upload_head(house, "Content-Length: 20").replace(b"max=10000", b"max=99999")
    assert (await raw(house, head + bytes(20))).startswith(b"HTTP/1.1 401")
    stranger = StoreClient(house.client._session, house.url, "pvc://artifacts/", bytes(32))
    with pytest.raises(StoreRefused):
        await stranger.upload(TENANT, sent(b"x"), **PLENTY)
    assert house.uploads() == []


@pytest.mark.parametrize(
    "path",
    [
        f"uploads/films/{TENANT}/../{OTHER}/{SHA}",
        "uploads/films/..%2f..%2f..%2fetc%2fpasswd",
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "..%5c..%5cetc",
        f"uploads/other/{TENANT}/{SHA}",
        f"inputs/{SHA}",
        f"intake/films/{TENANT}/image.json",
        f"names/films/{TENANT}/inputs/{SHA}",
        f"uploads/films/{TENANT}/.{SHA}.draft",
        "uploads/films/%00/x",
        "a" * 2000,
    ],
)
async def test_no_path_leads_out_of_what_is_handed_out(house: StoreHouse, path: str) -> None:
    await house.client.upload(OTHER, sent(CONTENT), **PLENTY)
    (house.root / "inputs").mkdir()
    (house.root / "inputs" / SHA).write_bytes(CONTENT)
    target = f"/v1/objects/{path}"
    lines = [f"GET {target} HTTP/1.1", "Host: s", "Connection: close"]
    text = "\r\n".join([*lines, f"Authorization: {signed(house, 'GET', target)}", "", ""])
    status = int((await raw(house, text.encode())).split(b" ")[1])
    assert status in (400, 401, 404)


async def test_a_link_in_the_store_is_not_followed(house: StoreHouse, tmp_path: Path) -> None:
    secret = tmp_path.parent / f"{tmp_path.name}.secret"
    secret.write_text("secret")
    house.artifact(ARTIFACT, b"x")
    (house.root / ARTIFACT).unlink()
    (house.root / ARTIFACT).symlink_to(secret)
    with pytest.raises(Exception, match="not a regular file"):
        async with house.client.read(ARTIFACT):
            pass


@pytest.mark.parametrize("tenant", ["..", "UPPERCASE0", "0123456789abc", "films"])
async def test_only_a_digest_is_a_tenant(house: StoreHouse, tenant: str) -> None:
    target = f"/v1/uploads/{tenant}"
    headers = {"Authorization": signed(house, "POST", target, max_bytes=100, quota=100)}
    async with aiohttp.ClientSession() as session:
        url = URL(house.url + target, encoded=True)
        async with session.post(url, data=b"x", headers=headers) as answer:
            assert answer.status in (400, 401, 404, 405)
    assert house.uploads() == []


# --- reading


async def read(house: StoreHouse, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with house.client.read(ARTIFACT, method=method, headers=named) as reading:
        return reading.status, dict(reading.headers), b"".join([chunk async for chunk in reading.chunks])


async def test_ranges_of_an_artifact(house: StoreHouse) -> None:
    house.artifact(ARTIFACT, CONTENT)
    status, headers, body = await read(house)
    assert (status, body, headers["Accept-Ranges"]) == (200, CONTENT, "bytes")
    etag = headers["Etag"]
    status, headers, body = await read(house, Range="bytes=100-299")
    assert (status, body, headers["Content-Length"]) == (206, CONTENT[100:300], "200")
    assert headers["Content-Range"] == f"bytes 100-299/{len(CONTENT)}"
    assert (await read(house, Range="bytes=-1"))[2] == CONTENT[-1:]
    status, headers, body = await read(house, Range=f"bytes={len(CONTENT)}-")
    assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{len(CONTENT)}")
    assert (await read(house, Range="bytes=0-1", If_Range=etag))[0] == 206
    assert (await read(house, Range="bytes=0-1", If_Range='"other"'))[0] == 200
    status, headers, body = await read(house, "HEAD", Range="bytes=0-1")
    assert (status, headers["Content-Length"], body) == (206, "2", b"")


async def test_the_type_is_that_of_the_first_bytes_in_every_range(house: StoreHouse) -> None:
    house.artifact(ARTIFACT, b"\x89PNG\r\n\x1a\n" + CONTENT)
    for wanted in ({}, {"Range": "bytes=500-600"}):
        assert (await read(house, **wanted))[1]["Content-Type"] == "image/png"
    house.artifact(ARTIFACT, b"<html>")
    assert (await read(house))[1]["Content-Type"] == "application/octet-stream"


async def test_a_reader_that_stops_in_the_middle_holds_nothing_open(house: StoreHouse) -> None:
    house.artifact(ARTIFACT, bytes(64 << 20))
    async with house.client.read(ARTIFACT) as reading:
        assert await anext(aiter(reading.chunks))
    assert (await read(house, Range="bytes=0-9"))[2] == bytes(10)


async def test_a_file_that_shrinks_while_it_is_sent_cuts_the_answer(house: StoreHouse) -> None:
    house.artifact(ARTIFACT, bytes(64 << 20))
    async with house.client.read(ARTIFACT) as reading:
        chunks = aiter(reading.chunks)
        await anext(chunks)
        with (house.root / ARTIFACT).open("r+b") as file:
            file.truncate(1 << 20)
        with pytest.raises(StoreAway, match="ended early"):
            [chunk async for chunk in chunks]


# --- names


async def test_names_are_kept_moved_and_listed(house: StoreHouse) -> None:
    made = await house.client.upload(TENANT, sent(CONTENT), **PLENTY)
    value: dict[str, Any] = {"sha256": made.sha256, "bytes": made.bytes, "contentType": "image/png"}
    await house.client.put_name(TENANT, "inputs", Name("../ü/a b.png", value), create=True)
    assert await house.client.get_name(TENANT, "inputs", "../ü/a b.png") == Name("../ü/a b.png", value)
    with pytest.raises(NameTaken):
        await house.client.put_name(TENANT, "inputs", Name("../ü/a b.png", {"sha256": "0" * 64}), create=True)
    assert [one.name for one in await house.client.names(TENANT, "inputs")] == ["../ü/a b.png"]
    assert await house.client.names(OTHER, "inputs") == []
    assert await house.client.remove_name(TENANT, "inputs", "../ü/a b.png")
    assert not await house.client.remove_name(TENANT, "inputs", "../ü/a b.png")
    with pytest.raises(NotStoredError):
        await house.client.get_name(TENANT, "inputs", "../ü/a b.png")


async def test_a_name_that_says_too_much_or_another_than_its_path_is_refused(house: StoreHouse) -> None:
    with pytest.raises(KeyRefused, match="4096"):
        await house.client.put_name(TENANT, "inputs", Name("a", {"x": "y" * 5000}))
    target = f"/v1/names/{TENANT}/inputs/{'0' * 64}"
    async with aiohttp.ClientSession() as session:
        for body in (b'{"name":"a","value":{}}', b"[]", b"{", b'{"name":"a"}', b'{"name":"a","value":7}', b"\xff"):
            headers = {"Authorization": signed(house, "PUT", target)}
            async with session.put(house.url + target, data=body, headers=headers) as answer:
                assert answer.status == 400, body


async def test_a_service_that_is_not_there_is_away(house: StoreHouse) -> None:
    gone = StoreClient(house.client._session, "http://127.0.0.1:9", "pvc://artifacts/", KEY)
    for ask in (gone.usage(TENANT), gone.upload(TENANT, sent(CONTENT), **PLENTY)):
        with pytest.raises(StoreAway):
            await ask


# --- previews


async def test_previews_are_drawn_of_what_can_be_read_alone(house: StoreHouse) -> None:
    house.artifact(ARTIFACT, (ROOT / "examples/inputs/bunny.mp4").read_bytes())
    made = await house.client.preview(TENANT, PreviewKind.THUMBNAIL, ARTIFACT, **PLENTY)
    assert (made.created, (await house.client.usage(TENANT)).files) == (True, 1)
    again = await house.client.preview(TENANT, PreviewKind.THUMBNAIL, ARTIFACT, **PLENTY)
    assert (again.sha256, again.created) == (made.sha256, False)
    for key, error in (
        ("films/job/none/1/0-video.mp4", NotStoredError), ("inputs/" + "0" * 64, KeyRefused),
        ("other/job/x/1/0-video.mp4", KeyRefused), ("films/../x/y/1/0-video.mp4", KeyRefused),
    ):  # fmt: skip
        with pytest.raises(error):
            await house.client.preview(TENANT, PreviewKind.SPRITESHEET, key, **PLENTY)
    with pytest.raises(OverLimit) as caught:
        await house.client.preview(OTHER, PreviewKind.THUMBNAIL, ARTIFACT, max_bytes=100, quota=1 << 30)
    assert (caught.value.what, caught.value.limit) == ("bytes", 100)
    house.artifact(ARTIFACT.replace("0-", "1-"), CONTENT)
    with pytest.raises(NotDrawable, match="the thumbnail cannot be drawn: "):
        await house.client.preview(TENANT, PreviewKind.THUMBNAIL, ARTIFACT.replace("0-", "1-"), **PLENTY)
    assert house.drafts() == []
    target = f"/v1/previews/{TENANT}/poster/{ARTIFACT}"
    async with aiohttp.ClientSession(headers={"Authorization": signed(house, "POST", target)}) as session:
        async with session.post(house.url + target) as answer:
            assert (answer.status, (await answer.json())["message"]) == (
                400, "a preview is one of thumbnail, spritesheet",
            )  # fmt: skip
        async with session.post(house.url + target.replace("poster", "thumbnail")) as answer:
            assert answer.status == 401  # signed for another one
