"""Jobs of a ModelServer with a bucket whose agents have no keys: a stager signs for them, or is away meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from integration.agent.bench import Bench
from integration.agent.test_agent import ENDED, PHOTO, in_phase, ready, wrote
from integration.agent.test_s3 import ROOT, credentials, proven
from integration.stager.bench import StagerBench
from integration.tokens import token
from kinora.api.names import STORE_AUDIENCE
from kinora.storage.broker.asks import PATH
from ports import free_port
from rawserver import listening
from s3proxy import S3Proxy
from s3server import ACCESS_KEY, S3Server
from waiting import video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]


@dataclass
class Signer:
    """The stager of the bucket, as a process that can be away."""

    bench: StagerBench
    spec: Object
    port: int

    async def start(self) -> None:
        """It answers when this returns."""
        await self.bench.start(s3=self.spec, store_port=self.port)
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.post(f"http://127.0.0.1:{self.port}{PATH}"):
                        return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """As when its node is lost."""
        process = self.bench.processes[-1]
        process.kill()
        await process.wait()


@pytest.fixture
async def signer(bench: Bench, server: S3Server, proxy: S3Proxy, tmp_path: Path) -> AsyncIterator[Signer]:
    """A stager with the keys; the agent's pod has a token."""
    folder = tmp_path / "stager"
    folder.mkdir()
    async with listening() as web:
        stager = StagerBench(bench.kube, bench.connection, bench.namespace, web, folder)
        await stager.prepare(with_server=False)
        secret = stager.store() / "secret"
        secret.mkdir()
        (secret / "accessKeyID").write_text(ACCESS_KEY)
        (secret / "secretAccessKey").write_text(server.secret)
        bench.bucket = {
            "bucket": "films", "endpoint": f"http://127.0.0.1:{proxy.port}", "prefix": "department",
            "secretName": "films-bucket",
        }  # fmt: skip
        made = Signer(stager, bench.bucket, free_port())
        bench.broker = f"http://127.0.0.1:{made.port}"
        shown = await token(bench.kube, bench.namespace, "kinora-agent", bench.pod, audience=STORE_AUDIENCE)
        (bench.root / "store-token").write_text(shown)
        shutil.rmtree(bench.root / "artifacts")  # no claim is mounted
        yield made
        await stager.close()


async def test_a_job_is_rendered_and_published_by_an_agent_without_keys(
    bench: Bench, signer: Signer, server: S3Server, proxy: S3Proxy
) -> None:
    await signer.start()
    await ready(bench)
    await bench.bind(video_job("quick"))
    path = await proven(server, await bench.status_when("quick", ENDED))
    videos = [key for key in server.objects() if key.endswith(".mp4")]
    assert videos == [str(path.relative_to(server.folder / "films"))]
    await wrote(bench, Running=1, Succeeded=1)
    assert not (bench.root / "secret").exists()
    source = {"artifact": {"videoJobName": "quick", "index": 0}}
    await bench.bind(video_job("again", task="VideoToVideo", inputs={"video": source}))
    await proven(server, await bench.status_when("again", ENDED))


async def test_what_a_stager_stored_is_rendered_and_what_it_stored_for_others_is_not_read(
    bench: Bench, signer: Signer, server: S3Server
) -> None:
    await signer.start()
    sha256 = hashlib.sha256(PHOTO.read_bytes()).hexdigest()
    path = server.path(f"department/inputs/{sha256}")
    path.parent.mkdir(parents=True)
    shutil.copy(PHOTO, path)
    await ready(bench)
    inputs = {"image": {"url": "https://photos.example/cup.jpg?Signature=secret"}}
    told: Object = {"inputStore": ROOT, "inputs": [{"name": "image", "sha256": sha256, "width": 600}]}
    await bench.bind(video_job("cup", task="ImageToVideo", inputs=inputs), told)
    await proven(server, await bench.status_when("cup", ENDED))
    gone = {**told, "inputs": [{"name": "image", "sha256": "0" * 64, "width": 600}]}
    await bench.bind(video_job("gone", task="ImageToVideo", inputs=inputs), gone)
    ended = await bench.status_when("gone", in_phase("Failed"))
    assert "is no longer in the store" in ended["message"]


async def test_a_stager_that_is_away_is_told_of_and_costs_no_retry(
    bench: Bench, signer: Signer, server: S3Server
) -> None:
    await ready(bench)
    await bench.bind(video_job("patient"))

    def waits(status: Object) -> bool:
        return status["phase"] == "Finalizing" and "waits to be published" in status.get("message", "")

    status = await bench.status_when("patient", waits)
    assert "the store's stager does not answer" in status["message"]
    assert "127.0.0.1" not in status["message"]
    assert not status.get("failures")
    await bench.bind(video_job("next"))  # the engine is free meanwhile
    await bench.status_when("next", waits)
    await signer.start()
    for name in ("patient", "next"):
        status = await bench.status_when(name, ENDED)
        await proven(server, status)
        assert (status.get("failures"), status["attempt"]) in ((None, 1), (0, 1))


async def test_an_agent_that_is_killed_while_it_waits_publishes_once_when_the_stager_is_back(
    bench: Bench, signer: Signer, server: S3Server
) -> None:
    await ready(bench)
    await bench.bind(video_job("killed"))
    await bench.status_when("killed", lambda status: "waits to be published" in status.get("message", ""))
    await bench.kill_agent()
    await signer.start()
    await bench.start_agent()
    path = await proven(server, await bench.status_when("killed", ENDED))
    assert [key for key in server.objects() if key.endswith(".mp4")] == [str(path.relative_to(server.folder / "films"))]


async def test_an_older_pod_with_the_secret_goes_on_without_a_stager(
    bench: Bench, signer: Signer, server: S3Server
) -> None:
    bench.broker = ""
    credentials(bench, server.secret)
    await ready(bench)
    await bench.bind(video_job("older"))
    await proven(server, await bench.status_when("older", ENDED))
