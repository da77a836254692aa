"""The artifact store on a real S3 server: whole or not at all, created once, proven by reading, whatever breaks."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import io
import json
import os
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import aiohttp
import pytest
from aiohttp import web

from integration.storage.signing import KEY, PACE, MiB, Signer, Stores, signing
from kinora.api.s3store import S3Store as S3Spec
from kinora.s3.address import Bucket
from kinora.s3.answers import open_uploads
from kinora.s3.client import Body, Call, S3Client
from kinora.s3.credentials import Credentials, anonymous
from kinora.s3.faults import S3Error
from kinora.storage.opened import opened_bucket
from kinora.storage.s3 import S3Store
from kinora.storage.store import NotStoredError, StoreError
from s3proxy import S3Proxy
from s3server import S3Server, s3_server

pytestmark = pytest.mark.integration
SMALL, LARGE = os.urandom(300_000), os.urandom(12 * MiB + 7)
SHA = {content: hashlib.sha256(content).hexdigest() for content in (SMALL, LARGE)}
CONTENTS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def server(module_server: S3Server) -> Iterator[S3Server]:
    """The server, empty."""
    yield module_server
    for key in module_server.objects():
        module_server.path(key).unlink()


@pytest.fixture(params=["keys"])
async def stores(server: S3Server, proxy: S3Proxy, request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        yield Stores(server, proxy, stack, brokered=request.param == "broker")


#: What holds however requests are signed.
EITHER_WAY = pytest.mark.parametrize("stores", ["keys", "broker"], indirect=True)


async def no_uploads(server: S3Server) -> bool:
    async with S3Client(server.bucket(), lambda: server.credentials) as owner:
        answer = await owner.ask(Call("GET", query=(("uploads", ""),)))
    return open_uploads(answer.body) == ()


def is_part(request: web.Request) -> bool:
    return request.method == "PUT" and ("partNumber" in request.query or "uploads" not in request.query)


def is_completion(request: web.Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def writes(request: web.Request) -> bool:
    """The request that makes the object appear."""
    return is_completion(request) or (request.method == "PUT" and "partNumber" not in request.query)


# --- storing ----------------------------------------------------------------------------------------------------------


@EITHER_WAY
@CONTENTS
async def test_an_object_is_what_was_put_with_its_type_and_hash(
    server: S3Server, stores: Stores, content: bytes
) -> None:
    store = await stores()
    stored = await store.put(KEY, io.BytesIO(content))
    assert (stored.uri, stored.bytes, stored.sha256, stored.created) == (
        f"s3://films/out/{KEY}", len(content), SHA[content], True,
    )  # fmt: skip
    assert server.path(f"out/{KEY}").read_bytes() == content
    found = await store.look(KEY)
    assert found is not None
    assert (found.bytes, found.sha256, found.content_type) == (len(content), SHA[content], "video/mp4")
    assert await store.read_back(KEY) == replace(stored, created=False)
    with await store.open_read(KEY) as file:
        assert file.read() == content
        assert file.seek(5) == 5, "a proof reads it anew"
    assert await no_uploads(server)


@EITHER_WAY
async def test_an_empty_file_is_an_object_too(stores: Stores) -> None:
    store = await stores()
    assert (await store.put(KEY, io.BytesIO())).bytes == 0
    assert await store.size(KEY) == 0


@EITHER_WAY
@CONTENTS
async def test_a_key_that_is_there_is_read_back_and_never_written(
    server: S3Server, stores: Stores, proxy: S3Proxy, content: bytes
) -> None:
    store = await stores()
    await store.put(KEY, io.BytesIO(b"first"))
    again = await store.put(KEY, io.BytesIO(content))
    assert (again.created, again.sha256) == (False, hashlib.sha256(b"first").hexdigest())
    assert await store.create(KEY, io.BytesIO(content)) is None, "another writer came between the look and the write"
    assert server.path(f"out/{KEY}").read_bytes() == b"first"
    assert await no_uploads(server)


@EITHER_WAY
@CONTENTS
async def test_of_many_writers_of_one_key_one_creates_it(server: S3Server, stores: Stores, content: bytes) -> None:
    store = await stores()
    made = await asyncio.gather(*(store.create(KEY, io.BytesIO(content)) for _ in range(4)))
    assert sum(one is not None for one in made) == 1
    assert server.path(f"out/{KEY}").read_bytes() == content
    assert await no_uploads(server)


@EITHER_WAY
@CONTENTS
@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
async def test_a_server_without_create_only_writes_is_looked_at_first(
    server: S3Server, stores: Stores, proxy: S3Proxy, content: bytes, status: int, code: str
) -> None:
    proxy.fail(lambda it: "If-None-Match" in it.headers, "refuse", times=9, status=status, code=code)
    store = await stores()
    assert await store.create(KEY, io.BytesIO(content)) is not None
    assert await store.create(KEY, io.BytesIO(b"other")) is None
    assert server.path(f"out/{KEY}").read_bytes() == content
    assert proxy.faults[0].times == 8, "it is asked once whether it knows them"
    assert await no_uploads(server)


# --- what breaks ------------------------------------------------------------------------------------------------------


@EITHER_WAY
@CONTENTS
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "refuse"},
        {"kind": "refuse", "status": 500, "code": "InternalError"},
        {"kind": "refuse", "status": 200, "code": "InternalError"},
        {"kind": "cut", "after": 1000},
        {"kind": "cut"},
    ],
    ids=["slow-down", "500", "error-after-200", "cut-in-the-middle", "cut"],
)
async def test_what_passes_is_tried_again(
    server: S3Server, stores: Stores, proxy: S3Proxy, content: bytes, fault: dict[str, Any]
) -> None:
    proxy.fail(is_part, **fault, times=2)
    proxy.fail(is_completion, **{**fault, "after": 0}, times=2)
    store = await stores()
    stored = await store.put(KEY, io.BytesIO(content))
    assert (stored.sha256, stored.created) == (SHA[content], True)
    assert server.path(f"out/{KEY}").read_bytes() == content
    assert await no_uploads(server)


@EITHER_WAY
@CONTENTS
@pytest.mark.parametrize("kind", ["lose", "twice"])
async def test_a_write_whose_answer_is_lost_or_that_comes_twice_is_one_object(
    server: S3Server, stores: Stores, proxy: S3Proxy, content: bytes, kind: str
) -> None:
    proxy.fail(writes, kind)
    store = await stores()
    stored = await store.put(KEY, io.BytesIO(content))
    assert (stored.bytes, stored.sha256) == (len(content), SHA[content])
    assert server.objects() == [f"out/{KEY}"]
    assert await no_uploads(server)


@EITHER_WAY
async def test_a_beginning_whose_answer_is_lost_leaves_no_upload(
    server: S3Server, stores: Stores, proxy: S3Proxy
) -> None:
    proxy.fail(lambda it: it.method == "POST" and "uploads" in it.query, "lose")
    store = await stores()
    await store.put(KEY, io.BytesIO(LARGE))
    assert await no_uploads(server)


@EITHER_WAY
async def test_the_upload_of_a_killed_process_goes_with_the_next_put(
    server: S3Server, stores: Stores, proxy: S3Proxy
) -> None:
    proxy.fail(is_completion, "hold")
    killed = await stores(replace(PACE, stall_seconds=600))  # it does nothing more
    hanging = asyncio.ensure_future(killed.put(KEY, io.BytesIO(LARGE)))
    await proxy.held.wait()
    store = await stores()
    assert not await no_uploads(server)
    assert (await store.put(KEY, io.BytesIO(LARGE))).sha256 == SHA[LARGE]
    assert await no_uploads(server)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


@EITHER_WAY
async def test_an_upload_that_is_given_up_is_aborted(server: S3Server, stores: Stores, proxy: S3Proxy) -> None:
    proxy.fail(lambda it: it.query.get("partNumber") == "2", "refuse", times=99)
    store = await stores()
    with pytest.raises(StoreError, match=r"out/films/cup/.*: the store answers 503 SlowDown"):
        await store.put(KEY, io.BytesIO(LARGE))
    assert await no_uploads(server)
    assert server.objects() == []


@EITHER_WAY
async def test_an_upload_that_is_cancelled_is_aborted(server: S3Server, stores: Stores, proxy: S3Proxy) -> None:
    proxy.fail(lambda it: it.query.get("partNumber") == "3", "hold")
    store = await stores()
    putting = asyncio.ensure_future(store.put(KEY, io.BytesIO(LARGE)))
    await proxy.held.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await no_uploads(server)


@EITHER_WAY
async def test_silence_is_a_fault_that_passes(stores: Stores, proxy: S3Proxy) -> None:
    proxy.fail(is_part, "hold")
    store = await stores(replace(PACE, stall_seconds=2))
    assert (await store.put(KEY, io.BytesIO(LARGE))).created
    lasting = await stores(replace(PACE, stall_seconds=0.2, tries=2))
    proxy.fail(lambda it: it.method == "GET", "hold", times=9)
    with pytest.raises(StoreError, match=r"no byte moved for 0\.2 s"):
        await lasting.read_back(KEY)


@EITHER_WAY
async def test_slow_is_not_silent(stores: Stores, proxy: S3Proxy) -> None:
    await (await stores()).put(KEY, io.BytesIO(SMALL))
    impatient = await stores(replace(PACE, stall_seconds=2, tries=1))
    proxy.fail(lambda it: it.method == "GET", "drip", after=len(SMALL) // 16)
    started = time.monotonic()
    assert (await impatient.read_back(KEY)).sha256 == SHA[SMALL]
    assert time.monotonic() - started > 2, "it took longer than silence may"


@EITHER_WAY
async def test_reading_goes_on_where_it_was_cut(stores: Stores, proxy: S3Proxy) -> None:
    store = await stores(replace(PACE, tries=2))
    await store.put(KEY, io.BytesIO(LARGE))
    proxy.fail(lambda it: it.method == "GET", "truncate", times=4, after=2 * MiB)
    assert (await store.read_back(KEY)).sha256 == SHA[LARGE], "more cuts than tries, and every time a piece more"
    assert proxy.count(f"GET /films/out/{KEY}") == 5


@EITHER_WAY
async def test_an_object_that_changes_while_it_is_read_is_no_object(
    server: S3Server, stores: Stores, proxy: S3Proxy
) -> None:
    store = await stores()
    await store.put(KEY, io.BytesIO(LARGE))

    def swapped(request: web.Request) -> bool:
        if request.method == "GET" and "Range" in request.headers:
            server.path(f"out/{KEY}").unlink()
            server.path(f"out/{KEY}").write_bytes(LARGE[::-1])
        return False

    proxy.fail(swapped, "refuse")
    proxy.fail(lambda it: it.method == "GET", "truncate", after=2 * MiB)
    with pytest.raises(StoreError, match="changed while it was read"):
        await store.read_back(KEY)


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_told_from_what_is_wrong(server: S3Server, stores: Stores) -> None:
    store = await stores()
    assert await store.size(KEY) is None
    for read in (store.read_back, store.open_read):
        with pytest.raises(NotStoredError, match="not in the store"):
            await read(KEY)
    elsewhere = await stores(bucket=replace(server.bucket(), name="nowhere"))
    with pytest.raises(StoreError, match=r"404 NoSuchBucket; check artifacts\.s3\.bucket"):
        await elsewhere.put(KEY, io.BytesIO(b"x"))
    with pytest.raises(StoreError, match="cannot connect"):
        await (await stores(replace(PACE, tries=2), replace(server.bucket(), endpoint="http://127.0.0.1:1"))).size(KEY)


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (lambda: Credentials("AKIAKINORA", "x"), "SignatureDoesNotMatch; check secretAccessKey in the Secret"),
        (anonymous, "AccessDenied; the credentials may not do that"),
    ],
)
async def test_credentials_that_will_not_do_are_told_without_trying_again(
    stores: Stores, proxy: S3Proxy, credentials: Any, words: str
) -> None:
    store = await stores(credentials=credentials)
    with pytest.raises(StoreError, match=words):
        await store.put(KEY, io.BytesIO(b"x"))
    assert len(proxy.asked) <= 3


async def test_credentials_that_were_renewed_meanwhile_are_taken(server: S3Server, stores: Stores) -> None:
    current = Credentials("old", "pair")

    def renewed() -> Credentials:
        nonlocal current
        found, current = current, server.credentials
        return found

    store = await stores(credentials=renewed)
    assert (await store.client.ask(Call("GET", query=(("uploads", ""),)))).status == 200


@EITHER_WAY
async def test_an_object_above_the_limit_is_not_read_into_a_file(stores: Stores, tmp_path: Path) -> None:
    store = await stores(max_read_bytes=1000, scratch=tmp_path)
    await store.put(KEY, io.BytesIO(SMALL))
    with pytest.raises(StoreError, match="it has 300000 bytes; at most 1000 are read"):
        await store.open_read(KEY)
    assert os.listdir(tmp_path) == []


# --- addresses and signatures -----------------------------------------------------------------------------------------


@CONTENTS
async def test_a_bucket_in_the_host_is_signed_and_served(tmp_path: Path, content: bytes) -> None:
    with s3_server(tmp_path, domain="s3.localhost") as server:
        at = Bucket("films", f"http://s3.localhost:{server.port}", "us-east-1", True, "", "")
        client = S3Client(at, lambda: server.credentials, pace=PACE)
        async with client:
            client._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Loopback()))
            store = S3Store(client)
            assert (await store.put("a/b_c.mp4", io.BytesIO(content))).created
            assert server.objects() == ["a/b_c.mp4"]
            await client._session.close()
        async with (
            signing(server, at) as (url, token),
            Signer(url, at, token) as signer,
            S3Client(at, pace=PACE, signer=signer) as client,
        ):
            client._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Loopback()))
            store = S3Store(client)
            assert (await store.put(KEY, io.BytesIO(content))).created
            assert (await store.read_back(KEY)).sha256 == SHA[content]
            assert server.objects() == ["a/b_c.mp4", KEY]
            await client._session.close()


class _Loopback(aiohttp.abc.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """Nothing to close."""


async def fetched(url: str) -> tuple[int, bytes, dict[str, str]]:
    def get() -> tuple[int, bytes, dict[str, str]]:
        try:
            with urllib.request.urlopen(url) as answer:
                return answer.status, answer.read(), dict(answer.headers.items())
        except HTTPError as error:
            return error.code, b"", {}

    return await asyncio.to_thread(get)


async def test_a_link_reads_one_object_for_a_while_from_the_public_endpoint(server: S3Server, stores: Stores) -> None:
    bucket = server.bucket(port=1, prefix="out/", public=server.endpoint)  # nobody but the cluster reaches port 1
    inside, outside = await stores(), await stores(bucket=bucket)
    await inside.put(KEY, io.BytesIO(SMALL))
    link = outside.link(KEY, 60, disposition='attachment; filename="a cup.mp4"', content_type="video/x-cup")
    status, content, headers = await fetched(link)
    assert (status, content) == (200, SMALL)
    assert headers["Content-Disposition"] == 'attachment; filename="a cup.mp4"'
    assert headers["Content-Type"] == "video/x-cup"
    assert (await fetched(link.replace("cup.mp4?", "cup.mp5?")))[0] in (403, 404)
    assert (await fetched(re.sub(r"Expires=60", "Expires=600", link)))[0] == 403
    assert server.secret not in link
    with pytest.raises(StoreError, match="allowed: 1 to 604800"):
        outside.link(KEY, 8 * 24 * 3600)


async def test_a_link_ends(server: S3Server) -> None:
    an_hour_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    async with S3Client(server.bucket(), lambda: server.credentials, now=lambda: an_hour_ago) as client:
        store = S3Store(client)
        server.path("a.mp4").write_bytes(b"x")
        assert (await fetched(store.link("a.mp4", 7200)))[0] == 200
        assert (await fetched(store.link("a.mp4", 60)))[0] == 403


async def test_a_public_bucket_is_used_without_a_secret(server: S3Server, stores: Stores) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": ["arn:aws:s3:::films/*", "arn:aws:s3:::films"],
            }
        ],
    }
    owner = await stores()
    await owner.client.ask(Call("PUT", query=(("policy", ""),), body=Body.of(json.dumps(policy).encode())))
    try:
        spec = S3Spec.model_validate({"bucket": "films", "endpoint": server.endpoint})
        async with opened_bucket(spec, pace=PACE) as store:
            assert (await store.put("a.mp4", io.BytesIO(LARGE))).created
            assert (await store.read_back("a.mp4")).sha256 == SHA[LARGE]
            assert (await fetched(store.link("a.mp4", 60)))[0] == 200
            assert "Signature" not in store.link("a.mp4", 60)
    finally:
        await owner.client.ask(Call("DELETE", query=(("policy", ""),)))


async def test_a_refusal_says_nothing_of_the_credentials(server: S3Server, stores: Stores) -> None:
    store = await stores(credentials=lambda: Credentials("AKIAKINORA", "wrong-secret", "session"))
    with pytest.raises(StoreError) as caught:
        await store.put(KEY, io.BytesIO(b"x"))
    for word in ("wrong-secret", "session", "AKIAKINORA", "http://", "Signature="):
        assert word not in str(caught.value)
    assert not isinstance(caught.value.__cause__, S3Error)


@pytest.mark.parametrize("stores", ["broker"], indirect=True)
async def test_a_refusal_says_nothing_of_a_signed_url(stores: Stores, proxy: S3Proxy) -> None:
    proxy.fail(lambda request: request.method == "PUT", "refuse", times=9, status=403, code="AccessDenied")
    store = await stores()
    with pytest.raises(StoreError, match="403 AccessDenied") as caught:
        await store.put(KEY, io.BytesIO(b"x"))
    assert "X-Amz" not in str(caught.value)
    assert "http://" not in str(caught.value)
    assert proxy.count("PUT ") == 2, "a URL may have ended: once, and no more, another one is asked for"


async def test_a_body_that_was_damaged_on_its_way_is_sent_again(
    server: S3Server, stores: Stores, proxy: S3Proxy
) -> None:
    proxy.fail(lambda request: request.method == "PUT", "refuse", times=2, status=400, code="BadDigest")
    store = await stores()
    assert (await store.put(KEY, io.BytesIO(SMALL))).created
    assert proxy.count("PUT ") == 3
    assert server.path(f"out/{KEY}").read_bytes() == SMALL
