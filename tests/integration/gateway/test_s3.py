"""The gateway of a namespace whose videos are in a bucket: files go in through the store service, links lead there."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.conftest import free_port
from integration.gateway.comfyui import long, prompted
from integration.gateway.house import House, artifact_of
from integration.gateway.storehouse import KEY, StoreHouse, serving
from integration.gateway.test_files import CLIP, PHOTO, SPEC, files, request, tenant, ticket
from kinora.gateway.jobs import Job
from kinora.gateway.service import Submission
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, SECRET
from kinora.s3.client import S3Client
from kinora.storage.s3 import S3Store
from kinora.storage.s3_files import S3Files
from s3server import S3Server, s3_server
from waiting import model_server

pytestmark = pytest.mark.integration


@pytest.fixture
async def at(
    kube: KubeClient, connection: Connection, namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[House, S3Server]]:
    """A gateway whose one ModelServer has a bucket, and the bucket's server."""
    with s3_server(tmp_path / "s3") as server:
        s3 = {"bucket": "films", "prefix": "a/b", "endpoint": server.endpoint, "secretName": "films-bucket"}
        await kube.create(MODELSERVER, namespace, model_server(model="wan2.1-vace-14b", artifacts={"s3": s3}))
        async with (
            S3Client(server.bucket(prefix="a/b/"), lambda: server.credentials) as client,
            serving(S3Files(S3Store(client), namespace), [KEY]) as (url, store),
        ):
            kept = StoreHouse(server.folder, namespace, "", url, store, [KEY])
            await kube.create(SECRET, namespace, kept.secret)
            house = House(kube, connection, namespace, kept)
            house.values["storeUrl"] = url
            await house.open(free_port(), free_port())
            yield house, server
            await house.close()


async def finished(house: House, server: S3Server) -> Job:
    """A job of the tenant whose video an agent has put into the bucket."""
    assert house.gateway is not None
    job = await house.gateway.service.submit(tenant(house), Submission(dialect="wavespeed", spec=SPEC))
    await house.run(job.id)
    obj = await house.job(job.id)
    entry = artifact_of(obj, bytes=len(CLIP), sha256=hashlib.sha256(CLIP).hexdigest())
    key = f"a/b/{entry['uri'].removeprefix('pvc://artifacts/')}"
    server.path(key).parent.mkdir(parents=True)
    server.path(key).write_bytes(CLIP)
    await house.succeed(job.id, [{**entry, "uri": f"s3://films/{key}"}])
    found = job
    async with asyncio.timeout(20):
        while not found.artifacts:
            found = await house.gateway.service.job(tenant(house), job.id)
            await asyncio.sleep(0.01)
    return found


async def test_a_link_leads_to_the_bucket_and_an_upload_into_it(at: tuple[House, S3Server]) -> None:
    house, server = at
    job = await finished(house, server)
    link = files(house).link(request(house), tenant(house), job, 0)
    made = await ticket(house, size=len(PHOTO))
    async with house.client() as client:
        sent_on = await client.get(link)
        video = await client.get(link, follow_redirects=True, headers={"Range": "bytes=5-14"})
        head = await client.head(link)
        put = await client.put(made.put_url, content=PHOTO)
        back = await client.get(made.download_url)
    assert (sent_on.status_code, sent_on.headers["cache-control"]) == (302, "no-store")
    target = urlsplit(sent_on.headers["location"])
    assert f"{target.scheme}://{target.netloc}" == server.endpoint
    assert "X-Amz-Signature" in target.query
    assert (video.status_code, video.content == CLIP[5:15]) == (206, True)
    assert video.headers["content-disposition"] == 'inline; filename="video_00001_.mp4"'
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(CLIP)))
    assert put.status_code == 200
    assert (back.status_code, back.content == PHOTO, back.headers["content-type"]) == (200, True, "image/jpeg")
    digest = hashlib.sha256(PHOTO).hexdigest()
    upload = f"{tenant(house).digest}/{digest}"
    assert server.path(f"a/b/uploads/{house.namespace}/{upload}").read_bytes() == PHOTO
    assert await files(house).source(tenant(house), made.download_url) == {"upload": upload}
    assert await files(house).source(tenant(house), link) == {"artifact": {"videoJobName": job.name, "index": 0}}


async def test_previews_of_a_video_in_a_bucket_are_drawn_once_and_kept_there(at: tuple[House, S3Server]) -> None:
    house, server = at
    job = await finished(house, server)
    async with house.client(await house.key("a")) as user:
        for variant, kind in (("thumbnail", "webp"), ("spritesheet", "jpeg")):
            answer = await user.get(f"/v1/videos/{job.id}/content", params={"variant": variant})
            assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}"), answer.text
            kept = server.path(f"a/b/uploads/{house.namespace}/{tenant(house).digest}/{answer.headers['etag'][1:-1]}")
            assert kept.read_bytes() == answer.content
            again = await user.get(f"/v1/videos/{job.id}/content", params={"variant": variant})
            assert again.content == answer.content


async def test_a_long_graph_lies_in_the_bucket(at: tuple[House, S3Server]) -> None:
    house, server = at
    async with house.client(await house.key("user")) as user:
        id_ = await prompted(user, long())
        upload = (await house.job(id_))["spec"]["workflow"]["upload"]
        text = server.path(f"a/b/uploads/{house.namespace}/{upload['key']}").read_bytes()
        assert hashlib.sha256(text).hexdigest() == upload["sha256"]
        assert (await user.get("/queue")).json()["queue_pending"][0][2] == json.loads(text) == long()
