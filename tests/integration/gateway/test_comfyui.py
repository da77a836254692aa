"""The ComfyUI dialect over the real API server and a real store; the agent's writes are played by the house."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from integration.conftest import free_port
from integration.gateway.comfyui import (
    CLIP,
    PHOTO,
    UNET,
    cancelled,
    entry,
    finished,
    graph,
    long,
    picture,
    prompted,
    tenant_of,
    uploaded,
)
from integration.gateway.house import House
from integration.test_metrics import count, scraped
from integration.test_operator import make_ready
from kinora.gateway.service import Submission
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from kinora.stager.metrics import Metrics
from kinora.stager.upkeep import Retention, Upkeep
from kinora.storage.objects import PvcObjects
from kinora.storage.uploads import PvcFiles
from unit.workflows.made import node, sound
from waiting import model_server, phase, until, wait_for, wait_for_pods

pytestmark = pytest.mark.integration
Object = dict[str, Any]


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_prompt_from_submit_to_video(house: House, user: httpx.AsyncClient, prefix: str) -> None:
    user.base_url = httpx.URL(house.url + prefix)
    id_ = await prompted(user, client_id="me")
    job = await house.job(id_)
    assert job["spec"]["modelServerName"] == "vace"
    assert json.loads(job["spec"]["workflow"]["inline"]) == graph()
    waiting = (await user.get("/queue")).json()
    assert waiting["queue_running"] == []
    [[_, *item]] = waiting["queue_pending"]
    assert item == [id_, graph(), {"client_id": "me"}, ["32"]]
    assert (await user.get(f"/history/{id_}")).json() == {}
    assert (await user.get("/prompt")).json() == {"exec_info": {"queue_remaining": 1}}
    await house.run(id_)
    assert [one[1] for one in (await user.get("/queue")).json()["queue_running"]] == [id_]
    await finished(house, id_)
    assert (await user.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
    [file] = (await entry(user, id_))["outputs"]["32"]["gifs"]
    video = await user.get("/view", params={"filename": file["filename"]})
    assert (video.status_code, video.content, video.headers["content-type"]) == (200, CLIP, "video/mp4")
    assert video.headers["x-content-type-options"] == "nosniff"
    same = await user.get("/view", params={name: file[name] for name in ("filename", "subfolder", "type")})
    assert same.content == CLIP
    part = await user.get("/view", params={"filename": file["filename"]}, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, CLIP[10:20])


async def test_a_prompt_is_validated_before_anything_is_made(house: House, user: httpx.AsyncClient) -> None:
    wrong = graph(n24={"sampler_name": "magic"})
    answer = await user.post("/prompt", json={"prompt": wrong})
    assert answer.status_code == 400
    assert answer.json()["node_errors"]["24"]["errors"][0]["type"] == "value_not_in_list"
    assert (await user.post("/prompt", content=b"{")).status_code == 400
    assert (await user.post("/prompt", json={"prompt": {"1": node("NoSuchNode")}})).status_code == 400
    wrong = await user.post("/prompt", json={"prompt": long(graph(n17={"width": 72}))})
    assert wrong.json()["node_errors"]["17"]["errors"][0]["extra_info"] == {"input_name": "width"}
    assert await house.jobs() == []
    assert house.store.uploads() == []  # of what is refused nothing is kept


async def test_a_long_graph_lies_in_the_tenants_store_while_its_job_is_unfinished(
    house: House, user: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    sent, id_ = long(), str(uuid.uuid4())
    assert await prompted(user, sent, prompt_id=id_) == id_
    assert await prompted(user, sent, prompt_id=id_) == id_  # asked again
    job = await house.job(id_)
    [kept] = house.store.uploads()
    upload = job["spec"]["workflow"]["upload"]
    assert job["spec"]["workflow"] == {"upload": {"key": "/".join(kept.parts[-2:]), "sha256": kept.name}}
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == upload["sha256"]
    shown = (await user.get("/queue")).json()["queue_pending"][0][2]
    assert shown == sent == json.loads(kept.read_bytes())
    assert (await stranger.get("/queue")).json()["queue_pending"] == []
    os.utime(kept, (0, 0))
    files, objects = PvcFiles(house.store.root, "artifacts", house.namespace), PvcObjects(house.store.root, "artifacts")
    sweeping = Upkeep(house.kube, files, objects, Retention(uploads=60), every_seconds=9, metrics=Metrics())
    assert await sweeping.sweep_uploads() == 0
    await house.close()  # another gateway, which has seen nothing of it
    await house.open(free_port(), free_port())
    again = httpx.AsyncClient(base_url=house.url, headers=user.headers)
    async with again:
        assert (await again.get("/queue")).json()["queue_pending"][0][2] == sent
        await finished(house, id_)
        assert (await entry(again, id_))["prompt"][2] == sent
        os.utime(kept, (0, 0))
        assert await sweeping.sweep_uploads() == 1
        await house.close()
        await house.open(free_port(), free_port())
    async with httpx.AsyncClient(base_url=house.url, headers=user.headers) as last:
        done = await entry(last, id_)
        assert (done["prompt"][2], done["status"]["status_str"]) == ({}, "success")
        [file] = done["outputs"]["32"]["gifs"]
        assert (await last.get("/view", params={"filename": file["filename"]})).content == CLIP


async def test_a_long_graph_over_the_quota_is_refused_and_makes_nothing(house: House) -> None:
    async with house.client(await house.key("small", limits={"uploadQuotaBytes": 50_000})) as small:
        answer = await small.post("/prompt", json={"prompt": long()})
    assert answer.status_code == 413
    assert "the tenant's uploads would have more than 50000 bytes" in answer.json()["error"]["message"]
    assert await house.jobs() == []
    assert house.store.uploads() == house.store.drafts() == []


@pytest.mark.usefixtures("claims")
async def test_a_prompt_that_goes_to_the_front_is_bound_before_the_tenants_others(
    house: House, user: httpx.AsyncClient, start_operator: Callable[..., Awaitable[Any]]
) -> None:
    port = free_port()
    await start_operator(http_port=port)
    pods = await wait_for_pods(house.kube, house.namespace, lambda pods: len(pods) == 1)
    first, second = await prompted(user), await prompted(user)
    ahead = await prompted(user, front=True)
    before = await prompted(user, number=-(2**50))
    waiting = (await user.get("/queue")).json()["queue_pending"]
    assert [one[1] for one in waiting] == [before, ahead, *sorted((first, second), key=[first, second].index)]
    await scraped(port, lambda found: count(found, "kinora_videojobs", phase="Queued") == 4)
    await make_ready(house.kube, house.namespace, pods[0])
    names = {(await house.job(id_))["metadata"]["name"]: id_ for id_ in (first, second, ahead, before)}
    bound = await wait_for(
        house.kube, VIDEOJOB, house.namespace, (await house.job(before))["metadata"]["name"], phase("Scheduled")
    )
    assert bound["status"]["attempt"] == 1
    phases = {names[job["metadata"]["name"]]: job["status"]["phase"] for job in await house.jobs()}
    assert phases[first] != "Scheduled"
    assert phases[second] != "Scheduled"


async def test_a_client_may_choose_the_id_and_ask_again(house: House, user: httpx.AsyncClient) -> None:
    id_ = str(uuid.uuid4())
    body = {"prompt": graph(), "prompt_id": id_}
    first, again = await user.post("/prompt", json=body), await user.post("/prompt", json=body)
    assert first.json() == again.json()
    assert len(await house.jobs()) == 1
    other = await user.post("/prompt", json={**body, "prompt": graph(n24={"seed": 8})})
    assert (other.status_code, other.json()["error"]["type"]) == (422, "prompt_id_reused")
    assert (await user.post("/prompt", json={**body, "prompt_id": "1"})).json()["error"]["type"] == "invalid_prompt_id"


async def test_a_gateway_that_is_killed_loses_nothing(house: House, user: httpx.AsyncClient) -> None:
    id_ = await prompted(user, client_id="me")
    name = (await uploaded(user, PHOTO, "cup.jpg"))["name"]
    await house.close()
    await house.open(free_port(), free_port())
    user.base_url = httpx.URL(house.url)
    assert [item[1] for item in (await user.get("/queue")).json()["queue_pending"]] == [id_]
    await finished(house, id_)
    [file] = (await entry(user, id_))["outputs"]["32"]["gifs"]
    assert (await user.get("/view", params={"filename": file["filename"]})).content == CLIP
    assert (await user.get("/view", params={"filename": name, "type": "input"})).content == PHOTO


async def test_failures_are_failures(house: House, user: httpx.AsyncClient) -> None:
    id_ = await prompted(user)
    await house.run(id_)
    await house.fail(id_, "EngineError", "out of memory")
    found = await entry(user, id_)
    assert (found["status"]["status_str"], found["status"]["completed"], found["outputs"]) == ("error", False, {})
    kind, told = found["status"]["messages"][-1]
    assert (kind, told["exception_message"], told["exception_type"]) == (
        "execution_error", "out of memory", "EngineError",
    )  # fmt: skip


async def test_without_a_key_there_is_no_answer(house: House) -> None:
    async with house.client() as nobody:
        for method, path in (("GET", "/queue"), ("POST", "/prompt"), ("GET", "/api/view?filename=a"), ("GET", "/ws")):
            answer = await nobody.request(method, path)
            assert answer.status_code in (401, 404), path
        refused = await nobody.get("/history")
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "unauthorized")
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{house.url.replace('http', 'ws')}/ws"):
                pass
        assert caught.value.response.status_code == 401


# --- which server -----------------------------------------------------------------------------------------------------


async def test_a_graph_goes_to_the_server_whose_weights_it_names(house: House, user: httpx.AsyncClient) -> None:
    await house.kube.create(MODELSERVER, house.namespace, model_server("small"))
    await until(lambda: len(house.gateway.service.servers(tenant_of(house))) == 2)  # type: ignore[union-attr]
    id_ = await prompted(user, sound())
    assert (await house.job(id_))["spec"]["modelServerName"] == "small"
    assert (await house.job(await prompted(user)))["spec"]["modelServerName"] == "vace"
    wrong = await user.post("/prompt", json={"prompt": sound(n11={"unet_name": "sdxl.safetensors"})})
    [error] = wrong.json()["node_errors"]["11"]["errors"]
    assert error["type"] == "value_not_in_list"
    assert UNET in error["details"]
    assert "wan21_vace_1_3_b.safetensors" in error["details"]
    loader = (await user.get("/object_info/UNETLoader")).json()["UNETLoader"]
    assert set(loader["input"]["required"]["unet_name"][0]) == {UNET, "wan21_vace_1_3_b.safetensors"}
    assert (await user.get("/models/diffusion_models")).json() == sorted([UNET, "wan21_vace_1_3_b.safetensors"])
    assert "vae" in (await user.get("/models")).json()
    assert (await user.get("/models/../../etc")).status_code == 404
    assert [one["name"].split()[0] for one in (await user.get("/system_stats")).json()["devices"]] == ["small", "vace"]


# --- queue, history, interrupt ----------------------------------------------------------------------------------------


async def test_delete_clear_and_interrupt(house: House, user: httpx.AsyncClient) -> None:
    running, second, third = [await prompted(user, number=index) for index in (1, 2, 3)]
    await house.run(running)
    deleted = await user.post("/queue", json={"delete": [second, running, "x", str(uuid.uuid4())]})
    assert (deleted.status_code, deleted.content) == (200, b"")
    left = (await user.get("/queue")).json()
    assert [[one[1] for one in part] for part in left.values()] == [[running], [third]]
    await house.cancelled(second)
    assert (await user.get(f"/history/{second}")).json() == {}
    await user.post("/queue", json={"clear": True})
    assert (await user.get("/queue")).json()["queue_pending"] == []
    assert (await user.post("/interrupt", json={"prompt_id": third})).status_code == 200
    assert not (await house.job(running))["spec"]["cancel"]
    assert (await user.post("/interrupt")).status_code == 200
    assert (await house.job(running))["spec"]["cancel"]
    await house.stopped(running)
    assert (await entry(user, running))["status"]["messages"][-1][0] == "execution_interrupted"


async def test_an_interrupt_names_one_of_several(house: House, user: httpx.AsyncClient) -> None:
    first, second = await prompted(user), await prompted(user)
    for id_ in (first, second):
        await house.run(id_)
    await user.post("/interrupt", json={"prompt_id": second})
    assert await cancelled(house, first, second) == [False, True]


async def test_history_in_order_in_part_and_forgotten(house: House, user: httpx.AsyncClient) -> None:
    ids = [await prompted(user) for _ in range(3)]
    for id_ in ids:
        await house.run(id_)
        await house.fail(id_)
    listed = list((await user.get("/history")).json())
    assert set(listed) == set(ids)
    assert list((await user.get("/history?max_items=2")).json()) == listed[1:]
    assert list((await user.get("/history?max_items=1&offset=1")).json()) == listed[1:2]
    assert (await user.get("/history?max_items=x")).status_code == 400
    await user.post("/history", json={"delete": [ids[0]]})
    assert set((await user.get("/history")).json()) == set(ids[1:])
    await user.post("/history", json={"clear": True})
    assert (await user.get("/history")).json() == {}
    assert (await user.get(f"/history/{ids[1]}")).json() == {}
    assert len(await house.jobs()) == 3  # the jobs are not ComfyUI's alone


async def test_jobs_of_other_dialects_are_listed_and_not_stopped_by_what_names_nobody(
    house: House, user: httpx.AsyncClient
) -> None:
    assert house.gateway is not None
    spec = {"model": "wan2.1-vace-14b", "task": "TextToVideo", "prompt": "a fox"}
    made = [
        await house.gateway.service.submit(tenant_of(house), Submission(dialect="wavespeed", spec=spec))
        for _ in range(2)
    ]
    await house.run(made[0].id)
    listed = (await user.get("/queue")).json()
    assert listed["queue_running"][0][1:] == [made[0].id, {}, {}, []]
    assert [item[1] for item in listed["queue_pending"]] == [made[1].id]
    await user.post("/queue", json={"clear": True})
    await user.post("/interrupt")
    assert await cancelled(house, *(one.id for one in made)) == [False, False]
    await finished(house, made[0].id)
    found = await entry(user, made[0].id)
    [file] = found["outputs"]["32"]["gifs"]
    assert (await user.get("/view", params={"filename": file["filename"]})).content == CLIP
    await user.post("/queue", json={"delete": [made[1].id]})
    assert (await house.job(made[1].id))["spec"]["cancel"]


# --- two tenants ------------------------------------------------------------------------------------------------------


async def test_tenants_share_names_and_see_nothing_of_each_other(
    house: House, user: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    red, blue = picture("red"), picture("blue")
    assert (await uploaded(user, red))["name"] == (await uploaded(stranger, blue))["name"] == "a.png"
    assert (await user.get("/view?filename=a.png&type=input")).content == red
    assert (await stranger.get("/view?filename=a.png&type=input")).content == blue
    running, waiting, done = [await prompted(user) for _ in range(3)]
    await house.run(running)
    await finished(house, done)
    name = (await entry(user, done))["outputs"]["32"]["gifs"][0]["filename"]
    assert (await stranger.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
    assert (await stranger.get("/history")).json() == {}
    assert (await stranger.get(f"/history/{done}")).json() == {}
    assert (await stranger.get("/view", params={"filename": name})).status_code == 404
    for path, body in (
        ("/queue", {"delete": [waiting]}), ("/queue", {"clear": True}), ("/interrupt", {"prompt_id": running}),
        ("/interrupt", {}), ("/history", {"delete": [done]}), ("/history", {"clear": True}),
    ):  # fmt: skip
        assert (await stranger.post(path, json=body)).status_code == 200
    assert await cancelled(house, running, waiting) == [False, False]
    assert list((await user.get("/history")).json()) == [done]
    theirs = await prompted(stranger, prompt_id=done)  # the same id is another job
    assert len([job for job in await house.jobs() if job["metadata"]["name"].endswith(theirs)]) == 2
    reads = graph(n17={"reference_image": ["50", 0]}) | {"50": node("LoadImage", image=f"{name} [output]")}
    assert (await stranger.post("/prompt", json={"prompt": reads})).status_code == 400
