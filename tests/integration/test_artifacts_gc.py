"""`kinora artifacts gc` on a bucket: shows, removes what it showed, and nothing that a job needs by then."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
import time
from collections.abc import AsyncIterator

import pytest

from kinora.cli.artifacts import Asked, GcError, collect
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from kinora.s3.client import Pace, S3Client
from kinora.storage.keys import artifact_key
from kinora.storage.s3 import S3Store
from s3server import ACCESS_KEY, S3Server
from waiting import Object, job_status, model_server, video_job

pytestmark = pytest.mark.integration
PREFIX = "out/"


@pytest.fixture
async def store(
    server: S3Server, kube: KubeClient, connection: Connection, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[S3Store]:
    """The bucket of a ModelServer, and this process's own keys to it."""
    monkeypatch.setattr("kinora.cli.artifacts.connect", lambda **_: connection)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    spec = {"bucket": "films", "prefix": PREFIX, "endpoint": server.endpoint, "region": "us-east-1"}
    await kube.create(MODELSERVER, namespace, model_server(artifacts={"s3": spec}))
    async with S3Client(server.bucket(prefix=PREFIX), lambda: server.credentials, pace=Pace(tries=2)) as client:
        yield S3Store(client)


async def put(server: S3Server, store: S3Store, job: Object, attempt: int, days: float = 3) -> str:
    metadata = job["metadata"]
    key = artifact_key(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"], attempt=attempt, filename="cup.mp4"
    )
    await store.create(key, io.BytesIO(b"film"))
    os.utime(server.path(f"{PREFIX}{key}"), (time.time() - days * 86_400,) * 2)
    return key


async def gc(namespace: str, **options: object) -> list[str]:
    told: list[str] = []
    await collect(Asked(namespace=namespace, **options), told.append)  # type: ignore[arg-type]
    return told


async def test_it_shows_and_removes_lost_attempts_and_with_gone_what_deleted_jobs_left(
    server: S3Server, store: S3Store, kube: KubeClient, namespace: str
) -> None:
    finished, running, deleted = [
        await kube.create(VIDEOJOB, namespace, video_job(name)) for name in ("finished", "running", "deleted")
    ]
    lost, published = await put(server, store, finished, 1), await put(server, store, finished, 2)
    young = await put(server, store, finished, 3, days=0.5)
    needed, left = await put(server, store, running, 1), await put(server, store, deleted, 1)
    artifact = {"uri": store.uri(published), "contentType": "video/mp4", "bytes": 4, "sha256": "ab" * 32}
    await job_status(kube, namespace, "finished", {"phase": "Succeeded", "artifacts": [artifact]})
    await job_status(kube, namespace, "running", {"phase": "Running"})
    await kube.delete(VIDEOJOB, namespace, "deleted")

    everything = {f"{PREFIX}{key}" for key in (lost, published, young, needed, left)}
    (shown,) = await gc(namespace)
    assert lost in shown
    assert "lost attempt" in shown
    assert "besides, 1 objects (4 B) of VideoJobs that are gone: --gone takes them in" in shown
    assert not any(key in shown for key in (published, young, needed, left))
    (line,) = (await gc(namespace, as_json=True, gone=True, older_than="2d"))[0].splitlines()[:1]
    assert json.loads(line)["why"] in ("lost attempt", "job gone")
    assert set(server.objects()) == everything, "nothing was removed so far"

    _, removed = await gc(namespace, delete=True)
    assert removed == "removed 1 objects, 4 B"
    assert set(server.objects()) == everything - {f"{PREFIX}{lost}"}
    await gc(namespace, delete=True, gone=True)
    assert set(server.objects()) == {f"{PREFIX}{key}" for key in (published, young, needed)}
    (nothing,) = await gc(namespace, delete=True, gone=True)
    assert "nothing to remove" in nothing


async def test_what_a_status_names_by_the_second_look_stays(
    server: S3Server, store: S3Store, kube: KubeClient, connection: Connection, namespace: str
) -> None:
    """The table is told between the two looks: what is written in that moment is seen by the second."""
    job = await kube.create(VIDEOJOB, namespace, video_job("late"))
    named, other = await put(server, store, job, 1), await put(server, store, job, 2)
    await job_status(kube, namespace, "late", {"phase": "Failed"})
    artifact = {"uri": store.uri(named), "contentType": "video/mp4", "bytes": 4, "sha256": "ab" * 32}

    async def publish() -> None:
        async with KubeClient(connection) as another:
            await job_status(another, namespace, "late", {"artifacts": [artifact]})

    told: list[str] = []

    def tell(text: str) -> None:
        if not told:
            writer = threading.Thread(target=asyncio.run, args=(publish(),))
            writer.start()
            writer.join()
        told.append(text)

    await collect(Asked(namespace=namespace, delete=True), tell)
    assert named in told[0]
    assert told[1] == "removed 1 objects, 4 B; 1 were used meanwhile, or were gone"
    assert server.objects() == [f"{PREFIX}{named}"]
    assert other in told[0]


async def test_what_is_missing_is_said(
    server: S3Server, store: S3Store, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GcError, match="no ModelServer 'other' in namespace"):
        await gc(namespace, model_server="other")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(GcError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may list"):
        await gc(namespace)
    with pytest.raises(GcError, match="no ModelServer in namespace 'default' names an artifact store"):
        await gc("default")
