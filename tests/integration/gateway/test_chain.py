"""From a hosted API's request to inputs that are ready: the real gateway, its store, and a real stager, which looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import wavespeed

from integration.conftest import free_port
from integration.gateway.hosted import CLIP, PHOTO, beside, jobs
from integration.gateway.house import House
from integration.stager.bench import StagerBench
from kinora.api.intake import inputs_condition
from kinora.api.names import STORE_SECRET
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, SECRET, VIDEOJOB
from rawserver import Server, listening
from unit.gateway.hosted import printed_bodies
from waiting import Object, model_server, until, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
WAVESPEED = "/api/v3/wavespeed-ai/wan-2.1-14b-vace"


@pytest.fixture
async def web() -> AsyncIterator[Server]:
    async with listening() as server:
        yield server


@pytest.fixture
async def bench(
    kube: KubeClient, connection: Connection, namespace: str, web: Server, tmp_path: Path
) -> AsyncIterator[StagerBench]:
    """A stager of the claim `artifacts`, whose store the gateway's files go to."""
    made = StagerBench(kube, connection, namespace, web, tmp_path)
    await made.prepare(with_server=False)
    for name, model in (("vace", "wan2.1-vace-14b"), ("vace-fun", "wan2.2-vace-fun-a14b")):
        await kube.create(MODELSERVER, namespace, model_server(name, model))
    await made.start()
    await wait_for(kube, SECRET, namespace, STORE_SECRET, lambda found: found is not None)
    yield made
    await made.close()


@pytest.fixture
async def house(kube: KubeClient, connection: Connection, namespace: str, bench: StagerBench) -> AsyncIterator[House]:
    """A gateway over the stager's own store service."""
    made = House(kube, connection, namespace, store=None)  # type: ignore[arg-type]
    made.values["storeUrl"] = f"http://127.0.0.1:{bench.store_ports[0]}"
    await made.open(free_port(), free_port())
    yield made
    await made.close()


async def looked_at(house: House, id_: str, status: str = "True") -> Object:
    """The job, once the stager has looked at its inputs."""
    name = (await house.job(id_))["metadata"]["name"]
    return await wait_for(
        house.kube,
        VIDEOJOB,
        house.namespace,
        name,
        lambda job: job is not None and inputs_condition(job).get("status") == status,
        60,
    )


async def posted(http: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def failed(house: House, http: httpx.AsyncClient, id_: str) -> Any:
    """The prediction, once the stager has refused its inputs, and the job failed with its words."""
    verdict = inputs_condition(await looked_at(house, id_, "False"))
    await house.fail(id_, verdict["reason"], verdict["message"])
    return (await http.get(f"/api/v3/predictions/{id_}")).json()["data"]


async def test_runcomfys_own_call_has_its_sample_picture_looked_at(house: House) -> None:
    async with house.client(await house.key()) as http:
        made = await posted(http, "/v1/models/community/wan-2-2/vace-fun", printed_bodies("002")[0])
        status = (await looked_at(house, made["request_id"]))["status"]
        (found,) = status["inputs"]
        assert (found["name"], found["width"], found["height"]) == ("references[0]", 480, 640)
        assert (status["resolved"]["width"], status["resolved"]["height"], status["resolved"]["seed"]) == (
            1024,
            576,
            96860978,
        )


async def test_files_that_the_wavespeed_package_uploads_are_what_the_stager_finds(house: House, tmp_path: Path) -> None:
    client = wavespeed.Client(api_key=await house.key(), base_url=house.url, retry_interval=0.01)
    for name, content in (("coffee.jpg", PHOTO), ("bunny.mp4", CLIP)):
        (tmp_path / name).write_bytes(content)
    picture, clip = [await asyncio.to_thread(client.upload, str(tmp_path / n)) for n in ("coffee.jpg", "bunny.mp4")]
    asked = {"prompt": "a fox", "images": [picture], "video": clip, "task": "depth"}
    waits = {"poll_interval": 0.05, "timeout": 60}
    call, job = await beside(house, client.run, "wavespeed-ai/wan-2.1-14b-vace", asked, **waits)
    found = {one["name"]: one for one in (await looked_at(house, job.id))["status"]["inputs"]}
    assert (found["video"]["frames"], found["video"]["width"]) == (81, 640)
    assert set(found) == {"video", "references[0]"}
    await house.succeed(job.id)
    assert len((await call)["outputs"]) == 1

    async with house.client(client.api_key) as http:
        id_ = (await posted(http, WAVESPEED, {**asked, "duration": 10}))["data"]["id"]
        error = await failed(house, http, id_)
        assert error["error"].startswith("video is a video of 81 frames"), error
        assert "spec." not in error["error"]


async def test_a_url_that_leads_inside_fails_the_prediction_as_a_url_that_cannot_be_read(house: House) -> None:
    async with house.client(await house.key()) as http:
        body = {"prompt": "a fox", "images": ["http://10.0.0.1/a.png"]}
        id_ = (await posted(http, WAVESPEED, body))["data"]["id"]
        data = await failed(house, http, id_)
        assert (data["status"], data["code"]) == ("failed", 1402)
        assert data["error"].startswith("images[0]"), data["error"]


async def test_an_edit_has_the_length_and_size_of_its_file_once_it_was_looked_at(house: House) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=await house.key(), max_retries=0) as client:
        edited = await client.videos.edit(prompt="in winter", video=("bunny.mp4", CLIP, "video/mp4"))
        job = await looked_at(house, edited.id)
        resolved = job["status"]["resolved"]
        await until(lambda: bool(jobs(house)[0].resolved))
        found = await client.videos.retrieve(edited.id)
        assert found.size == f"{resolved['outputWidth']}x{resolved['outputHeight']}"
        assert found.seconds == f"{resolved['frames'] / resolved['fps']:g}"
