"""Jobs of a ModelServer whose artifacts are in a bucket: published once, proven from there, whatever breaks."""

from __future__ import annotations

import asyncio
import filecmp
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from integration.agent.bench import Bench
from integration.agent.test_agent import ENDED, PHOTO, in_phase, ready, released, wrote
from kinora.cli.fetch import FetchError, Request, fetch
from kinora.kube.resources import MODELSERVER
from kinora.media.child import prove
from s3proxy import S3Proxy
from s3server import ACCESS_KEY, S3Server
from waiting import model_server, video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]
ROOT = "s3://films/department/"


def credentials(bench: Bench, secret: str) -> None:
    """The Secret as the kubelet mounts it."""
    (bench.root / "secret").mkdir(exist_ok=True)
    (bench.root / "secret/accessKeyID").write_text(ACCESS_KEY)
    (bench.root / "secret/secretAccessKey").write_text(secret)


@pytest.fixture
def s3_bench(bench: Bench, server: S3Server, proxy: S3Proxy) -> Bench:
    """The pod of a ModelServer with a bucket."""
    credentials(bench, server.secret)
    endpoint = f"http://127.0.0.1:{proxy.port}"
    bench.bucket = {"bucket": "films", "endpoint": endpoint, "prefix": "department", "secretName": "films-bucket"}
    shutil.rmtree(bench.root / "artifacts")  # no claim is mounted
    return bench


def is_put(request: web.Request) -> bool:
    return request.method == "PUT"


async def proven(server: S3Server, status: Object) -> Path:
    """The one object of a job that succeeded, held against its status."""
    assert status["phase"] == "Succeeded", status
    [artifact] = status["artifacts"]
    assert artifact["uri"].startswith(ROOT)
    path = server.path(artifact["uri"].removeprefix("s3://films/"))
    content = path.read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (artifact["sha256"], artifact["bytes"])
    with path.open("rb") as file:
        proof = await prove(file)
    assert (proof.frames, proof.width, proof.height) == (artifact["frames"], artifact["width"], artifact["height"])
    return path


async def test_a_job_succeeds_with_its_video_in_the_bucket(
    s3_bench: Bench, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(s3_bench)
    await s3_bench.bind(video_job("quick"))
    path = await proven(server, await s3_bench.status_when("quick", ENDED))
    assert server.objects() == [str(path.relative_to(server.folder / "films"))]
    await wrote(s3_bench, Running=1, Succeeded=1)
    assert not list(s3_bench.root.glob("kinora-*")), "what was read for the proof is gone"
    await is_fetched(s3_bench, server, path, monkeypatch)
    source = {"artifact": {"videoJobName": "quick", "index": 0}}
    await s3_bench.bind(video_job("again", task="VideoToVideo", inputs={"video": source}))
    await proven(server, await s3_bench.status_when("again", ENDED))


async def is_fetched(bench: Bench, server: S3Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kinora fetch` brings it with the user's own keys, and says what is wrong without them."""
    monkeypatch.setattr("kinora.cli.fetch.connect", lambda **_: bench.connection)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    await bench.kube.create(MODELSERVER, bench.namespace, model_server(artifacts={"s3": bench.bucket}))
    request = Request("quick", bench.root / "here.mp4", bench.namespace)
    with pytest.raises(FetchError, match="the bucket is not public; set AWS_ACCESS_KEY_ID"):
        await fetch(request)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    written = await fetch(request)
    assert filecmp.cmp(written.path, path, shallow=False)
    with pytest.raises(FetchError, match="--endpoint is ftp://x; allowed"):
        await fetch(replace(request, endpoint="ftp://x"))
    with pytest.raises(FetchError, match="forward a port and give --endpoint"):
        await fetch(replace(request, endpoint="http://127.0.0.1:1"))
    assert (await fetch(replace(request, endpoint=server.endpoint))).sha256 == written.sha256


@pytest.mark.parametrize(
    "fault",
    [{"kind": "refuse", "times": 3}, {"kind": "lose"}],
    ids=lambda fault: fault["kind"],
)
async def test_a_store_that_stumbles_costs_no_retry(
    s3_bench: Bench, server: S3Server, proxy: S3Proxy, fault: Object
) -> None:
    proxy.fail(is_put, **fault)
    await ready(s3_bench)
    await s3_bench.bind(video_job("stumbling"))
    status = await s3_bench.status_when("stumbling", ENDED)
    await proven(server, status)
    assert not status.get("failures")
    assert len(server.objects()) == 1


async def test_an_agent_killed_between_the_upload_and_the_status_publishes_once(
    s3_bench: Bench, server: S3Server, proxy: S3Proxy
) -> None:
    proxy.fail(lambda request: request.method == "GET", "hold")  # the proof
    await ready(s3_bench)
    await s3_bench.bind(video_job("killed"))
    async with asyncio.timeout(60):
        await proxy.held.wait()
    await s3_bench.kill_agent()
    [key] = server.objects()
    before = server.path(key).stat()
    await s3_bench.start_agent()
    path = await proven(server, await s3_bench.status_when("killed", ENDED))
    assert server.objects() == [key]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "it was written again"
    assert proxy.count("PUT ") == 1


async def test_what_is_under_the_attempts_key_is_read_back_and_judged(
    s3_bench: Bench, server: S3Server, proxy: S3Proxy
) -> None:
    proxy.fail(is_put, "hold")
    await ready(s3_bench)
    await s3_bench.bind(video_job("taken", backoffLimit=0))
    async with asyncio.timeout(60):
        await proxy.held.wait()
    await s3_bench.kill_agent()
    key = next(line.split("/films/", 1)[1] for line in proxy.asked if line.startswith("PUT "))
    server.path(key).parent.mkdir(parents=True)
    server.path(key).write_bytes(b"not the video")
    await s3_bench.start_agent()
    status = await s3_bench.status_when("taken", ENDED)
    assert (status["phase"], status["lastFailure"]["reason"]) == ("Failed", "ProofFailed")
    assert server.path(key).read_bytes() == b"not the video", "keys are created, never replaced"
    assert not status.get("artifacts")


async def test_a_store_that_refuses_fails_the_attempt_in_its_words(s3_bench: Bench, server: S3Server) -> None:
    credentials(s3_bench, "changed-by-somebody")
    await ready(s3_bench)
    await s3_bench.bind(video_job("refused"))
    status = await s3_bench.status_when("refused", released)
    failure = status["lastFailure"]
    assert failure["reason"] == "StoreFailed"
    assert "403 SignatureDoesNotMatch; check secretAccessKey in the Secret" in failure["message"]
    assert "changed-by-somebody" not in str(status)
    credentials(s3_bench, server.secret)  # the same agent, a job later
    await s3_bench.bind(video_job("mended"))
    await proven(server, await s3_bench.status_when("mended", ENDED))


async def test_what_a_stager_stored_in_the_bucket_is_rendered(s3_bench: Bench, server: S3Server) -> None:
    sha256 = hashlib.sha256(PHOTO.read_bytes()).hexdigest()
    path = server.path(f"department/inputs/{sha256}")
    path.parent.mkdir(parents=True)
    shutil.copy(PHOTO, path)
    await ready(s3_bench)
    inputs = {"image": {"url": "https://photos.example/cup.jpg?Signature=secret"}}
    told: Object = {"inputStore": ROOT, "inputs": [{"name": "image", "sha256": sha256, "width": 600}]}
    gone = {**told, "inputs": [{"name": "image", "sha256": "0" * 64, "width": 600}]}
    elsewhere = {**told, "inputStore": "s3://films/other/"}
    await s3_bench.bind(video_job("cup", task="ImageToVideo", inputs=inputs), told)
    await proven(server, await s3_bench.status_when("cup", ENDED))
    for name, status, words in (
        ("gone", gone, "is no longer in the store"),
        ("elsewhere", elsewhere, f"is in the store s3://films/other/; allowed: {ROOT}"),
    ):
        await s3_bench.bind(video_job(name, task="ImageToVideo", inputs=inputs), status)
        ended = await s3_bench.status_when(name, in_phase("Failed"))
        assert words in ended["message"]
