"""The ComfyUI dialect over the real API server and a real store; the agent's writes are played by the house."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from integration.conftest import free_port
from integration.gateway.house import House, artifact_of
from kinora.catalogue.load import load_catalogue
from kinora.kube.resources import MODELSERVER
from kinora_cluster import ROOT
from unit.workflows.made import node, sound
from waiting import DEADLINE, model_server

pytestmark = pytest.mark.integration
Object = dict[str, Any]
CLIP = (ROOT / "examples/inputs/bunny.mp4").read_bytes()
PHOTO = (ROOT / "examples/inputs/coffee.jpg").read_bytes()


def weight(role: str) -> str:
    model = load_catalogue().get("wan2.1-vace-14b")
    assert model is not None
    return next(one.name for one in model.weights if one.role == role)


UNET = weight("diffusion")


def graph(**changes: Any) -> Object:
    """Text to video with the 14B model's own files."""
    made = sound(n11={"unet_name": UNET}, n13={"clip_name": weight("textEncoder")}, n14={"vae_name": weight("vae")})
    for name, inputs in changes.items():
        made[name.removeprefix("n")]["inputs"] |= inputs
    return made


def picture(colour: str, size: tuple[int, int] = (32, 24), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
async def user(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.client(await house.key("user")) as client:
        yield client


@pytest.fixture
async def stranger(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.client(await house.key("stranger")) as client:
        yield client


async def prompted(client: httpx.AsyncClient, sent: Object | None = None, **more: Any) -> str:
    answer = await client.post("/prompt", json={"prompt": sent or graph(), **more})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["prompt_id", "number", "node_errors"]
    return str(answer.json()["prompt_id"])


async def uploaded(client: httpx.AsyncClient, content: bytes, name: str = "a.png", **fields: str) -> Object:
    answer = await client.post("/upload/image", files={"image": (name, content)}, data=fields)
    assert answer.status_code == 200, answer.text
    found: Object = answer.json()
    return found


async def finished(house: House, id_: str, content: bytes = CLIP) -> None:
    """The agent has rendered it, and its video is in the store."""
    await house.run(id_)
    entry = artifact_of(await house.job(id_), node="32", list="gifs", filename="x-32_00001.mp4", bytes=len(content))
    key = entry["uri"].removeprefix("pvc://artifacts/")
    house.store.artifact(key, content)
    await house.succeed(id_, [entry])


async def cancelled(house: House, *ids: str) -> list[bool]:
    return [bool((await house.job(id_))["spec"]["cancel"]) for id_ in ids]


async def entry(client: httpx.AsyncClient, id_: str) -> Object:
    found: Object = (await client.get(f"/history/{id_}")).json()
    return found[id_]


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
    huge = graph(n15={"text": "x" * 19_999})
    for index in range(4):
        huge[f"t{index}"] = node("CLIPTextEncode", text=f"{index}" * 19_999, clip=["13", 0])
        huge[f"s{index}"] = {**huge["24"], "inputs": {**huge["24"]["inputs"], "negative": [f"t{index}", 0]}}
        huge[f"v{index}"] = node("VAEDecode", samples=[f"s{index}", 0], vae=["14", 0])
        huge[f"o{index}"] = node("PreviewImage", images=[f"v{index}", 0])
    assert (await user.post("/prompt", json={"prompt": huge})).json()["error"]["type"] == "prompt_too_large"
    assert await house.jobs() == []


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
    await house.until(lambda: len(house.gateway.service.servers(tenant_of(house))) == 2)  # type: ignore[union-attr]
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


def tenant_of(house: House, name: str = "user") -> Any:
    from kinora.gateway.tenants import Tenant

    return Tenant(name, house.namespace)


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
    from kinora.gateway.service import Submission

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


# --- files ------------------------------------------------------------------------------------------------------------


async def test_uploads_are_named_as_comfyui_names_them(user: httpx.AsyncClient) -> None:
    red, blue = picture("red"), picture("blue")
    assert await uploaded(user, red) == {"name": "a.png", "subfolder": "", "type": "input"}
    assert (await uploaded(user, red))["name"] == "a.png"
    assert (await uploaded(user, blue))["name"] == "a (1).png"
    assert (await uploaded(user, blue))["name"] == "a (1).png"
    assert await uploaded(user, blue, subfolder="x/y") == {"name": "a.png", "subfolder": "x/y", "type": "input"}
    assert (await uploaded(user, blue, type="temp"))["type"] == "temp"
    assert (await user.get("/view?filename=a.png&type=input")).content == red
    assert (await uploaded(user, blue, overwrite="true"))["name"] == "a.png"
    assert (await user.get("/view?filename=a.png&type=input")).content == blue
    assert (await user.get("/view?filename=a.png&subfolder=x/y&type=input")).content == blue
    names = (await user.get("/object_info/LoadImage")).json()["LoadImage"]["input"]["required"]["image"][0]
    assert names == ["a (1).png", "a.png", "x/y/a.png"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [("../a.png", {}), ("a.png", {"subfolder": "../.."}), ("a.png", {"subfolder": "/etc"}), ("c:a.png", {}),
     ("a.png", {"type": "output"}), ("a.png", {"type": "nowhere"})],
)  # fmt: skip
async def test_uploads_that_lead_elsewhere(house: House, user: httpx.AsyncClient, name: str, fields: Object) -> None:
    answer = await user.post("/upload/image", files={"image": (name, b"x")}, data=fields)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")
    assert "Traceback" not in answer.text


async def test_forms_that_are_none(user: httpx.AsyncClient) -> None:
    assert (await user.post("/upload/image", json={})).status_code == 400
    assert (await user.post("/upload/image", data={"type": "input"}, files={"other": b"x"})).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=b"}
    half = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx'
    assert (await user.post("/upload/image", content=half, headers=broken)).status_code == 400


async def test_uploads_are_bounded_while_they_come(house: House) -> None:
    key = await house.key("small", limits={"uploadBytes": 1000})
    async with house.client(key) as client:
        answer = await client.post("/upload/image", files={"image": ("a.png", b"x" * 1001)})
        assert answer.status_code == 413
    assert house.store.uploads() == []


async def test_a_mask_is_put_on_the_picture_that_it_was_painted_for(user: httpx.AsyncClient) -> None:
    await uploaded(user, picture("red"), "photo.png")
    mask = io.BytesIO()
    alpha = np.zeros((24, 32, 4), np.uint8)
    alpha[:, 16:, 3] = 255
    Image.fromarray(alpha).save(mask, format="PNG")
    fields = {"original_ref": json.dumps({"filename": "photo.png", "type": "input"}), "subfolder": "clipspace"}
    answer = await user.post("/upload/mask", files={"image": ("mask.png", mask.getvalue())}, data=fields)
    assert answer.json() == {"name": "mask.png", "subfolder": "clipspace", "type": "input"}
    place = "/view?filename=mask.png&subfolder=clipspace&type=input"
    made = Image.open(io.BytesIO((await user.get(place)).content))
    assert (made.mode, made.getpixel((0, 0)), made.getpixel((31, 0))) == ("RGBA", (255, 0, 0, 0), (255, 0, 0, 255))
    colours = Image.open(io.BytesIO((await user.get(f"{place}&channel=rgb")).content))
    assert (colours.mode, colours.getpixel((0, 0))) == ("RGB", (255, 0, 0))
    alone = Image.open(io.BytesIO((await user.get(f"{place}&channel=a")).content))
    assert (alone.getpixel((0, 0)), alone.getpixel((31, 0))) == ((0, 0, 0, 0), (0, 0, 0, 255))


@pytest.mark.parametrize(
    "ref",
    [None, "", "{", "[]", '{"filename": "nothing.png", "type": "input"}', '{"filename": "../a", "type": "input"}',
     '{"filename": "a.png"}'],
)  # fmt: skip
async def test_masks_for_nothing(user: httpx.AsyncClient, ref: str | None) -> None:
    fields = {} if ref is None else {"original_ref": ref}
    answer = await user.post("/upload/mask", files={"image": ("mask.png", picture("red"))}, data=fields)
    assert answer.status_code == 400
    assert "original_ref" in answer.json()["error"]["message"]


async def test_a_mask_of_another_size_and_one_that_is_no_picture(user: httpx.AsyncClient) -> None:
    await uploaded(user, picture("red"), "photo.png")
    fields = {"original_ref": json.dumps({"filename": "photo.png", "type": "input"})}
    small = await user.post("/upload/mask", files={"image": ("m.png", picture("red", (8, 8)))}, data=fields)
    assert (small.status_code, "8x8" in small.text) == (400, True)
    assert (await user.post("/upload/mask", files={"image": ("m.png", b"no picture")}, data=fields)).status_code == 400


async def test_a_graph_reads_uploads_pinned_by_hash_and_results_of_jobs(house: House, user: httpx.AsyncClient) -> None:
    await uploaded(user, PHOTO, "杯子.jpg")
    earlier = await prompted(user)
    await finished(house, earlier)
    result = (await entry(user, earlier))["outputs"]["32"]["gifs"][0]["filename"]
    reads = graph(n17={"reference_image": ["50", 0], "control_video": ["52", 0]})
    reads["50"] = node("LoadImage", image="杯子.jpg", upload="image")
    reads["51"] = node("LoadVideo", file=f"{result} [output]")
    reads["52"] = node("GetVideoComponents", video=["51", 0])
    id_ = await prompted(user, reads)
    files = (await house.job(id_))["spec"]["workflow"]["files"]
    assert {file["name"] for file in files} == {"杯子.jpg", f"output/{result}"}
    by_name = {file["name"]: file for file in files}
    assert by_name["杯子.jpg"]["source"]["upload"].endswith(by_name["杯子.jpg"]["sha256"])
    artifact = by_name[f"output/{result}"]["source"]["artifact"]
    assert artifact == {"videoJobName": (await house.job(earlier))["metadata"]["name"], "index": 0}
    missing = graph(n17={"reference_image": ["50", 0]}) | {"50": node("LoadImage", image="nothing.png")}
    wrong = await user.post("/prompt", json={"prompt": missing})
    assert wrong.json()["node_errors"]["50"]["errors"][0]["details"] == "image - Invalid image file: nothing.png"


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 404), ("filename=", 404), ("filename=a.mp4", 404), ("filename=../a", 400), ("filename=/etc/passwd", 400),
     ("filename=a&subfolder=../..", 403), ("filename=a&type=elsewhere", 400), ("filename=a&type=input", 404),
     (f"filename=v_{uuid.uuid4()}_00001.mp4", 404), ("filename=" + "x" * 2000 + "&type=input", 404)],
)  # fmt: skip
async def test_views_of_nothing(user: httpx.AsyncClient, query: str, status: int) -> None:
    assert (await user.get(f"/view?{query}")).status_code == status


async def test_what_is_no_picture_is_saved_and_not_shown(user: httpx.AsyncClient) -> None:
    await uploaded(user, b"<html><script>alert(1)</script></html>", "page.png")
    answer = await user.get("/view?filename=page.png&type=input")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


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


# --- websockets -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(house: House, client: httpx.AsyncClient, client_id: str = "me") -> AsyncIterator[ClientConnection]:
    url = f"{house.url.replace('http', 'ws')}/ws?clientId={client_id}"
    headers = {"Authorization": client.headers["authorization"]}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


async def heard(socket: ClientConnection, until: str, **data: Any) -> list[Object]:
    """Messages up to the one of this type with these data."""
    messages: list[Object] = []
    async with asyncio.timeout(DEADLINE):
        while not messages or messages[-1]["type"] != until or not data.items() <= messages[-1]["data"].items():
            messages.append(json.loads(await socket.recv()))
    return messages


async def test_a_client_follows_its_prompt(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket, listening(house, user, "other") as other:
        [hello] = await heard(socket, "status")
        assert hello["data"] == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"}
        await heard(other, "status")
        id_ = await prompted(user, client_id="me")
        await house.run(id_, stage="Sample", step=1, steps=20)
        [*begun, progress] = await heard(socket, "progress")
        kinds = [one["type"] for one in begun if one["type"] not in ("status", "progress_state")]
        assert kinds[:2] == ["execution_start", "execution_cached"]
        assert begun[-2]["data"] == {"node": "24", "display_node": "24", "prompt_id": id_}
        assert progress["data"] == {"value": 1, "max": 20, "prompt_id": id_, "node": "24"}
        await finished(house, id_)
        told = await heard(socket, "executing", node=None)
        [executed] = [one["data"] for one in told if one["type"] == "executed"]
        assert executed["output"] == (await entry(user, id_))["outputs"]["32"]
        assert [one["type"] for one in told[-3:]] == ["execution_success", "status", "executing"]
        counts = [one["data"] for one in await heard(other, "status", status={"exec_info": {"queue_remaining": 0}})]
        assert all(list(one) == ["status"] for one in counts)


async def test_a_client_that_reconnects_goes_on_from_there(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket:
        id_ = await prompted(user, client_id="me")
        await house.run(id_, stage="Sample")
        await heard(socket, "executing")
    async with listening(house, user) as socket:
        messages = await heard(socket, "executing")
        assert messages[-1]["data"] == {"node": "24"}
        await house.fail(id_)
        assert [one["type"] for one in await heard(socket, "executing", node=None)][-3:] == [
            "execution_error", "status", "executing",
        ]  # fmt: skip


async def test_a_second_socket_takes_the_place_of_the_first(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as first:
        await heard(first, "status")
        async with listening(house, user) as second:
            await heard(second, "status")
            with pytest.raises(ConnectionClosed):
                await heard(first, "execution_start")


async def test_client_ids_are_a_tenants_own(house: House, user: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    async with listening(house, user) as mine, listening(house, stranger) as theirs:
        for socket in (mine, theirs):
            await heard(socket, "status")
        id_ = await prompted(user, client_id="me")
        await house.run(id_)
        await heard(mine, "execution_start")
        other = await prompted(stranger, client_id="me")
        await house.run(other)
        [*_, start] = await heard(theirs, "execution_start")
        assert start["data"]["prompt_id"] == other


async def test_a_socket_hears_of_an_interrupt_and_answers_feature_flags(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket:
        await socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        await socket.send(b"\x00\x01")
        await socket.send("no json")
        [*_, flags] = await heard(socket, "feature_flags")
        assert flags["data"] == (await user.get("/features")).json()
        id_ = await prompted(user, client_id="me")
        await house.run(id_)
        await user.post("/interrupt")
        await house.stopped(id_)
        assert [one["type"] for one in await heard(socket, "executing", node=None)][-3:] == [
            "execution_interrupted", "status", "executing",
        ]  # fmt: skip
