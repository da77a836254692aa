"""Files in and out of the gateway: uploads by ticket, links, ranges, who sees what, and a store that goes away."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.requests import Request

from integration.conftest import free_port
from integration.gateway.house import House, artifact_of
from integration.gateway.storehouse import two_stores
from integration.stager.bench import StagerBench
from kinora.gateway.errors import Conflict, InvalidInput, NotFound, TooLarge, Unavailable
from kinora.gateway.files import Files, Ticket, Upload
from kinora.gateway.jobs import Job
from kinora.gateway.service import Submission
from kinora.gateway.tenants import Limits, Tenant
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, SECRET
from kinora_cluster import ROOT
from rawserver import listening
from waiting import DEADLINE, model_server, until

pytestmark = pytest.mark.integration
PHOTO = (ROOT / "examples/inputs/coffee.jpg").read_bytes()
CLIP = (ROOT / "examples/inputs/bunny.mp4").read_bytes()
SPEC = {
    "model": "wan2.1-vace-14b",
    "task": "TextToVideo",
    "prompt": "a lighthouse at dusk",
    "parameters": {"width": 832, "height": 480, "frames": 81},
}


def files(house: House) -> Files:
    assert house.gateway is not None
    return house.gateway.files


def tenant(house: House, name: str = "a", **limits: Any) -> Tenant:
    return Tenant(name, house.namespace, limits=Limits(**limits), account=True)  # no key of the Secret is asked for


def request(house: House) -> Request:
    host, port = house.url.removeprefix("http://").split(":")
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": [], "query_string": b""}
    return Request({**scope, "server": (host, int(port))})


async def sent(content: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def ticket(house: House, name: str = "a", **asked: Any) -> Ticket:
    return await files(house).ticket(request(house), tenant(house, name), **{"filename": "photo.jpg", **asked})


def form(made: Ticket, key: str | None = None, **fields: str) -> dict[str, str]:
    """The form as the dashscope package sends it."""
    return {
        "OSSAccessKeyId": "id",
        "Signature": made.signature,
        "policy": made.policy,
        "key": key or made.key,
        "x-oss-object-acl": "private",
        "x-oss-forbid-overwrite": "true",
        "success_action_status": "200",
        "x-oss-content-type": "image/jpeg",
        **fields,
    }


async def video(house: House, name: str = "a", content: bytes = CLIP, **more: Any) -> Job:
    """A job of the tenant that has succeeded, whose video is in the store."""
    assert house.gateway is not None
    service = house.gateway.service
    job = await service.submit(tenant(house, name), Submission(dialect="wavespeed", spec=SPEC))
    await house.run(job.id)
    obj = await house.job(job.id)
    entry = artifact_of(obj, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), **more)
    house.store.artifact(entry["uri"].removeprefix("pvc://artifacts/"), content)
    await house.succeed(job.id, [entry])
    found = job
    async with asyncio.timeout(20):
        while not found.artifacts:
            found = await service.job(tenant(house, name), job.id)
            await asyncio.sleep(0.01)
    return found


# --- tickets ----------------------------------------------------------------------------------------------------------


async def test_a_file_by_put_is_kept_by_its_content_and_its_url_is_taken_as_that_upload(house: House) -> None:
    made = await ticket(house, size=len(PHOTO))
    async with house.client() as client:
        early = await client.get(made.download_url)
        answer = await client.put(made.put_url, content=PHOTO)
        back = await client.get(made.download_url)
    assert early.status_code == 404
    assert answer.status_code == 200
    assert (back.status_code, back.content == PHOTO) == (200, True)
    digest = hashlib.sha256(PHOTO).hexdigest()
    assert [path.name for path in house.store.uploads()] == [digest]
    source = await files(house).source(tenant(house), made.download_url)
    assert source == {"upload": f"{tenant(house).digest}/{digest}"}


async def test_a_file_by_the_form_of_oss_is_answered_200_and_its_oss_key_is_taken(house: House) -> None:
    made = await ticket(house)
    key = f"{made.upload_dir}/my photo (1).jpg"
    async with house.client() as client:
        answer = await client.post(made.post_url, data=form(made, key), files={"file": ("x", PHOTO, "image/jpeg")})
        again = await client.post(made.post_url, data=form(made, key), files={"file": ("x", PHOTO, "image/jpeg")})
        other = await client.post(made.post_url, data=form(made, key), files={"file": ("x", CLIP, "image/jpeg")})
        beside = await client.post(made.post_url, data=form(made), files={"file": ("x", CLIP, "video/mp4")})
    assert [one.status_code for one in (answer, again, other, beside)] == [200, 200, 409, 200]
    source = await files(house).source(tenant(house), f"oss://{key}")
    assert source == {"upload": f"{tenant(house).digest}/{hashlib.sha256(PHOTO).hexdigest()}"}


async def test_other_content_under_a_ticket_is_refused_and_the_first_stays(house: House) -> None:
    made = await ticket(house)
    async with house.client() as client:
        answers = [(await client.put(made.put_url, content=content)).status_code for content in (PHOTO, PHOTO, CLIP)]
        back = await client.get(made.download_url)
    assert answers == [200, 200, 409]
    assert back.content == PHOTO


async def test_a_ticket_bounds_what_comes_announced_or_not_and_nothing_of_it_stays(house: House) -> None:
    made = await ticket(house, size=1000)

    async def unannounced() -> AsyncIterator[bytes]:
        async for chunk in sent(PHOTO, 400):
            yield chunk

    async with house.client() as client:
        announced = await client.put(made.put_url, content=PHOTO)
        chunked = await client.put(made.put_url, content=unannounced())
        by_form = await client.post(made.post_url, data=form(made), files={"file": ("x", PHOTO)})
        exact = await client.put(made.put_url, content=PHOTO[:1000])
    assert [one.status_code for one in (announced, chunked, by_form, exact)] == [413, 413, 413, 200]
    assert "1000" in announced.json()["error"]["message"]
    await until(lambda: house.store.drafts() == [])
    assert len(house.store.uploads()) == 1


async def test_the_quota_of_a_tenant_is_over_all_its_files_and_nobody_elses(house: House) -> None:
    small, quota = tenant(house, "a", upload_quota_bytes=100_000), files(house)
    await quota.put(small, sent(bytes(60_000)))
    with pytest.raises(TooLarge, match="100000 bytes in all"):
        await quota.put(small, sent(b"x" * 60_000))
    await quota.put(tenant(house, "b", upload_quota_bytes=100_000), sent(b"x" * 60_000))
    await quota.remove(small, f"{small.digest}/{hashlib.sha256(bytes(60_000)).hexdigest()}")
    await quota.put(small, sent(b"x" * 60_000))


async def test_a_quota_that_is_over_is_told_while_the_file_still_comes(house: House) -> None:
    made = await files(house).ticket(request(house), tenant(house, upload_quota_bytes=1 << 20))
    parts = urlsplit(made.put_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 << 20}\r\n\r\n"
    writer.write(head.encode() + bytes(2 << 20))
    async with asyncio.timeout(DEADLINE):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_form_that_lies_is_refused(house: House) -> None:
    made, foreign = await ticket(house), await ticket(house, "b")
    photo = {"file": ("x", PHOTO)}
    wrong = {
        "another tenant's folder": form(made, foreign.key),
        "a folder above": form(made, made.key.replace(made.upload_dir, "kinora")),
        "deeper": form(made, f"{made.upload_dir}/a/b"),
        "no name": form(made, f"{made.upload_dir}/"),
        "another's signature": form(made, Signature=foreign.signature),
        "a policy of its own": form(made, policy=foreign.policy),
    }
    async with house.client() as client:
        for what, fields in wrong.items():
            assert (await client.post(made.post_url, data=fields, files=photo)).status_code == 403, what
        assert (await client.post(made.post_url, data={}, files=photo)).status_code == 400
        assert (await client.post(made.post_url, data=form(made))).status_code == 400
        assert (await client.post(made.post_url, content=b"no form")).status_code == 400
    assert house.store.uploads() == []


async def test_an_upload_that_is_cut_leaves_nothing_and_can_be_sent_again(house: House) -> None:
    made = await ticket(house)
    parts = urlsplit(made.put_url)
    _reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
    writer.write(head.encode() + PHOTO[:-1])
    await writer.drain()
    await until(lambda: len(house.store.drafts()) == 1)
    writer.transport.abort()
    await until(lambda: house.store.drafts() == [])
    assert house.store.uploads() == []
    async with house.client() as client:
        assert (await client.put(made.put_url, content=PHOTO)).status_code == 200
    assert len(house.store.uploads()) == 1


# --- links ------------------------------------------------------------------------------------------------------------


async def test_a_link_opens_the_video_without_a_key_whole_or_in_ranges(house: House) -> None:
    job = await video(house)
    link = files(house).link(request(house), tenant(house), job, 0)
    etag = f'"{job.artifacts[0].sha256}"'
    async with house.client() as client:
        whole = await client.get(link)
        head = await client.head(link)
        part = await client.get(link, headers={"Range": "bytes=100-199"})
        tail = await client.get(link, headers={"Range": "bytes=-50"})
        rest = await client.get(link, headers={"Range": f"bytes={len(CLIP) - 7}-"})
        beyond = await client.get(link, headers={"Range": f"bytes={len(CLIP)}-"})
        same = await client.get(link, headers={"Range": "bytes=0-9", "If-Range": etag})
        other = await client.get(link, headers={"Range": "bytes=0-9", "If-Range": '"0"'})
        known = await client.get(link, headers={"If-None-Match": etag})
    assert (whole.status_code, whole.content == CLIP, whole.headers["etag"]) == (200, True, etag)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-disposition"] == 'inline; filename="video_00001_.mp4"'
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(CLIP)), b"")
    assert (part.status_code, part.content == CLIP[100:200]) == (206, True)
    assert part.headers["content-range"] == f"bytes 100-199/{len(CLIP)}"
    assert (tail.content, rest.content) == (CLIP[-50:], CLIP[-7:])
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(CLIP)}")
    assert (same.status_code, other.status_code, known.status_code) == (206, 200, 304)


async def test_a_link_that_was_changed_or_has_expired_opens_nothing(house: House) -> None:
    job = await video(house)
    good = files(house).link(request(house), tenant(house), job, 0)
    expired = files(house).link(request(house), tenant(house), job, 0, seconds=-1)
    made = await ticket(house)
    token = parse_qs(urlsplit(good).query)["token"][0]
    upload = parse_qs(urlsplit(made.put_url).query)["token"][0]
    base = good.partition("?")[0]
    changed = [
        token[:5] + ("A" if token[5] != "A" else "B") + token[6:],
        token[:-2] + "AA",
        token + "A",
        "",
        "a.b",
        upload,
    ]
    async with house.client() as client:
        for text in changed:
            assert (await client.get(f"{base}?token={text}")).status_code == 403, text
        late = await client.get(expired)
        as_put = await client.put(f"{house.url}/files/uploads/x?token={token}", content=b"x")
    assert late.status_code == 410
    assert "expired" in late.json()["error"]["message"]
    assert as_put.status_code == 403
    assert house.store.uploads() == []


async def test_a_link_of_a_job_that_was_deleted_opens_nothing_any_more(house: House) -> None:
    assert house.gateway is not None
    job = await video(house)
    link = files(house).link(request(house), tenant(house), job, 0)
    await house.gateway.service.delete(tenant(house), job.id)
    async with house.client() as client:
        assert (await client.get(link)).status_code == 404


async def test_what_is_no_picture_or_video_is_an_attachment_whatever_its_sender_says(house: House) -> None:
    page = b"<html><script>alert(1)</script></html>"
    made = await ticket(house, filename="page.html", content_type="text/html")
    job = await video(house, content=page, contentType="text/html", filename='p"age.html')
    async with house.client() as client:
        await client.put(made.put_url, content=page, headers={"Content-Type": "text/html"})
        uploaded = await client.get(made.download_url)
        artifact = await client.get(files(house).link(request(house), tenant(house), job, 0))
    for answer in (uploaded, artifact):
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == page


# --- sources ----------------------------------------------------------------------------------------------------------


async def test_our_own_links_become_sources_and_are_never_fetched(house: House) -> None:
    job = await video(house)
    link = files(house).link(request(house), tenant(house), job, 0, seconds=-1)
    expected = {"artifact": {"videoJobName": job.name, "index": 0}}
    assert await files(house).source(tenant(house), link) == expected, "an expired one too: its owner asks"
    elsewhere = link.replace(house.url, "https://videos.example/prefix")
    assert await files(house).source(tenant(house), elsewhere) == expected
    url = "https://example.com/files/artifacts/a.mp4?token=none"
    assert await files(house).source(tenant(house), url) == {"url": url}


async def test_another_tenants_links_and_keys_are_refused_and_tell_nothing(house: House) -> None:
    job = await video(house, "b")
    link = files(house).link(request(house), tenant(house, "b"), job, 0)
    made = await ticket(house, "b")
    async with house.client() as client:
        await client.put(made.put_url, content=PHOTO)
    for text in (link, made.download_url, f"oss://{made.key}", "oss://bucket/key", "oss://"):
        with pytest.raises(InvalidInput, match="yours"):
            await files(house).source(tenant(house), text)
    theirs = await files(house).source(tenant(house, "b"), f"oss://{made.key}")
    with pytest.raises(NotFound):
        await files(house).read(tenant(house), theirs["upload"], max_bytes=1 << 30)
    with pytest.raises(NotFound):
        await files(house).upload_response(request(house), tenant(house), theirs["upload"], filename="x")
    assert await files(house).read(tenant(house, "b"), theirs["upload"], max_bytes=1 << 30) == PHOTO


async def test_a_ticket_that_nothing_came_for_is_no_source(house: House) -> None:
    made = await ticket(house)
    with pytest.raises(InvalidInput, match="not uploaded"):
        await files(house).source(tenant(house), made.download_url)


# --- what dialects use ------------------------------------------------------------------------------------------------


async def test_names_point_at_content_and_can_be_moved_only_where_asked(house: House) -> None:
    mine, store = tenant(house), files(house)
    first = await store.put(mine, sent(PHOTO), name="input/a/photo.jpg")
    second = await store.put(mine, sent(CLIP))
    assert (first.content_type, second.content_type) == ("image/jpeg", "video/mp4")
    with pytest.raises(Conflict):
        await store.put_name(mine, "input/a/photo.jpg", second, overwrite=False)
    assert await store.get_name(mine, "input/a/photo.jpg") == first
    await store.put_name(mine, "input/a/photo.jpg", second)
    await store.put_name(mine, "../../ü\n.png", first)
    assert await store.names(mine) == {"input/a/photo.jpg": second, "../../ü\n.png": first}
    assert await store.names(tenant(house, "b")) == {}
    assert await store.remove_name(mine, "../../ü\n.png")
    with pytest.raises(NotFound):
        await store.get_name(mine, "../../ü\n.png")
    with pytest.raises(InvalidInput, match="1024"):
        await store.put_name(mine, "x" * 1025, first)


async def test_what_goes_wrong_with_the_sender_comes_through_and_leaves_nothing(house: House) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield PHOTO
        raise ConnectionError("the sender")

    with pytest.raises(ConnectionError, match="the sender"):
        await files(house).put(tenant(house), broken())
    await until(lambda: house.store.drafts() == [])
    assert house.store.uploads() == []


async def test_a_store_that_is_away_is_told_as_503_with_a_pause(closed_house: House) -> None:
    house = closed_house
    house.values["storeUrl"] = "http://127.0.0.1:9"
    await house.open(free_port(), free_port())
    with pytest.raises(Unavailable, match="stager"):
        await files(house).put(tenant(house), sent(PHOTO))
    job = await video(house)
    async with house.client() as client:
        answer = await client.get(files(house).link(request(house), tenant(house), job, 0))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "127.0.0.1" not in answer.text


async def test_an_upload_becomes_the_input_of_a_job_that_a_stager_looks_at(
    closed_house: House, tmp_path: Path, connection: Connection
) -> None:
    """Gateway, stager and API server are the real ones; the file goes through both, and is probed before the queue."""
    house = closed_house
    async with listening() as web:
        bench = StagerBench(house.kube, connection, house.namespace, web, tmp_path)
        await bench.prepare(with_server=False)
        try:
            await bench.start()
            house.values["storeUrl"] = f"http://127.0.0.1:{bench.store_ports[0]}"
            await house.open(free_port(), free_port())
            key = await house.key()
            made = await ticket(house, "tenant")
            async with house.client() as client:
                await until_answered(client, made)
                assert (await client.put(made.put_url, content=PHOTO)).status_code == 200
            mine = tenant(house, "tenant")
            source = await files(house).source(mine, made.download_url)
            spec = {**SPEC, "task": "ImageToVideo", "inputs": {"image": source}}
            assert house.gateway is not None
            job = await house.gateway.service.submit(mine, Submission(dialect="wavespeed", spec=spec))
            told = await bench.told(job.name)
        finally:
            await bench.close()
    [found] = told["status"]["inputs"]
    assert (found["sha256"], found["width"]) == (hashlib.sha256(PHOTO).hexdigest(), 600)
    assert key


async def test_an_upload_is_in_every_store_that_a_job_may_take_it_from(closed_house: House, tmp_path: Path) -> None:
    house = closed_house
    await house.kube.create(MODELSERVER, house.namespace, model_server("second", artifacts={"claimName": "other"}))
    async with two_stores(tmp_path / "two", house.namespace, ("artifacts", "other")) as template:
        house.values["storeUrl"] = template
        await house.open(free_port(), free_port())
        made, mine = await ticket(house), tenant(house)
        async with house.client() as client:
            assert (await client.put(made.put_url, content=PHOTO)).status_code == 200
        first = list((tmp_path / "two").glob("*/uploads/*/*/*"))
        source = await files(house).source(mine, made.download_url)
        everywhere = list((tmp_path / "two").glob("*/uploads/*/*/*"))
        assert (len(first), len(everywhere)) == (1, 2)
        assert {path.read_bytes() == PHOTO for path in everywhere} == {True}
        assert [str(path).endswith(source["upload"]) for path in everywhere] == [True, True]
        await files(house).put(mine, sent(CLIP))
        assert len(list((tmp_path / "two").glob("*/uploads/*/*/*"))) == 4
        first[0].unlink()  # as if it had expired in one store and not in the other
        assert await files(house).read(mine, source["upload"], max_bytes=1 << 20) == PHOTO
        assert await files(house).source(mine, made.download_url) == source
        assert first[0].read_bytes() == PHOTO


async def until_answered(client: httpx.AsyncClient, made: Ticket) -> None:
    """Wait for a stager that is starting: until then the store is away."""
    async with asyncio.timeout(30):
        while (await client.get(made.download_url)).status_code == 503:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)


async def test_another_key_in_the_secret_is_found_out(house: House) -> None:
    await files(house).put(tenant(house), sent(PHOTO))
    house.store.keys[:] = [secrets.token_bytes(32)]
    await house.kube.patch(SECRET, house.namespace, "kinora-store", {"data": house.store.secret["data"]})
    keys = files(house).stores._keys[house.namespace]
    keys._read -= 60  # as if a minute had passed since it was read
    assert await files(house).names(tenant(house)) == {}
    assert isinstance(await files(house).put(tenant(house), sent(PHOTO)), Upload)
