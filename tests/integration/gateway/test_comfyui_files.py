"""The ComfyUI dialect's files: uploads under names of the tenant's own, masks, views."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import uuid
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from integration.conftest import free_port
from integration.gateway.comfyui import CLIP, PHOTO, entry, finished, graph, picture, prompted, uploaded
from integration.gateway.house import House
from kinora.gateway.comfyui import pictures
from unit.workflows.made import node

pytestmark = pytest.mark.integration
Object = dict[str, Any]


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


async def test_uploads_that_lead_elsewhere(user: httpx.AsyncClient) -> None:
    for name, fields in (
        ("../a.png", {}), ("a.png", {"subfolder": "../.."}), ("a.png", {"subfolder": "/etc"}), ("c:a.png", {}),
        ("a.png", {"type": "output"}), ("a.png", {"type": "nowhere"}),
    ):  # fmt: skip
        answer = await user.post("/upload/image", files={"image": (name, b"x")}, data=fields)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request"), (name, fields)
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


async def test_masks_for_nothing(user: httpx.AsyncClient) -> None:
    nothing = ('{"filename": "nothing.png", "type": "input"}', '{"filename": "../a", "type": "input"}')
    for ref in (None, "", "{", "[]", '{"filename": "a.png"}', *nothing):
        fields = {} if ref is None else {"original_ref": ref}
        answer = await user.post("/upload/mask", files={"image": ("mask.png", picture("red"))}, data=fields)
        assert answer.status_code == 400, ref
        assert "original_ref" in answer.json()["error"]["message"]


async def test_a_mask_of_another_size_and_one_that_is_no_picture(user: httpx.AsyncClient) -> None:
    await uploaded(user, picture("red"), "photo.png")
    fields = {"original_ref": json.dumps({"filename": "photo.png", "type": "input"})}
    small = await user.post("/upload/mask", files={"image": ("m.png", picture("red", (8, 8)))}, data=fields)
    assert (small.status_code, "8x8" in small.text) == (400, True)
    assert (await user.post("/upload/mask", files={"image": ("m.png", b"no picture")}, data=fields)).status_code == 400


async def pictured(house: House, user: httpx.AsyncClient, content: bytes, kind: str = "image/png") -> str:
    """The name of a picture that a job has made."""
    id_ = await prompted(user)
    sha256 = hashlib.sha256(content).hexdigest()
    await finished(house, id_, content, list="images", filename="x-32_00001_.png", contentType=kind, sha256=sha256)
    return str((await entry(user, id_))["outputs"]["32"]["images"][0]["filename"])


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


async def test_a_mask_is_put_on_a_picture_that_a_job_has_made(
    house: House, user: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    name = await pictured(house, user, picture("red"))
    ref = {"original_ref": json.dumps({"filename": name, "subfolder": "video", "type": "output"})}
    form = {"image": ("mask.png", picture("#00000000", mode="RGBA"))}
    made = (await user.post("/upload/mask", files=form, data=ref)).json()
    mask = opened(await user.get("/view", params={"filename": made["name"], "type": "input"}))
    assert mask.getpixel((0, 0)) == (255, 0, 0, 0)
    refused = await stranger.post("/upload/mask", files=form, data=ref)
    assert (refused.status_code, "which is no result of yours" in refused.text) == (400, True)
    video = await prompted(user)
    await finished(house, video)
    clip = (await entry(user, video))["outputs"]["32"]["gifs"][0]["filename"]
    ref = {"original_ref": json.dumps({"filename": clip})}  # of type output, where none is given
    wrong = await user.post("/upload/mask", files=form, data=ref)
    assert (wrong.status_code, "original_ref is a file that cannot be used" in wrong.text) == (400, True)


async def test_previews_and_channels_of_uploads_and_of_results(house: House, user: httpx.AsyncClient) -> None:
    content = picture("#ff000080", (64, 48), mode="RGBA")
    await uploaded(user, content, "a.png")
    name = await pictured(house, user, content)
    for place in ({"filename": "a.png", "type": "input"}, {"filename": name}):
        for query, kind, mode in (
            ({"preview": "webp;90"}, "WEBP", "RGBA"), ({"preview": "jpeg;40"}, "JPEG", "RGB"),
            ({"preview": "webp"}, "WEBP", "RGBA"), ({"preview": "nonsense;;0"}, "WEBP", "RGBA"),
            ({"preview": "webp;90", "channel": "rgb"}, "WEBP", "RGB"),
            ({"preview": "jpeg", "channel": "a"}, "WEBP", "RGBA"),
            ({"channel": "rgb"}, "PNG", "RGB"), ({"channel": "a"}, "PNG", "RGBA"),
        ):  # fmt: skip
            answer = await user.get("/view", params={**place, **query})
            found = opened(answer)
            assert (found.format, found.mode, found.size) == (kind, mode, (64, 48)), query
            assert answer.headers["content-type"] == f"image/{kind.lower()}"
            assert answer.headers["x-content-type-options"] == "nosniff"
            known = {"If-None-Match": answer.headers["etag"]}
            assert (await user.get("/view", params={**place, **query}, headers=known)).status_code == 304
        whole = await user.get("/view", params={**place, "channel": "rgba"})
        assert whole.content == content
    other = {"filename": name, "preview": "jpeg;41"}
    assert (await user.get("/view", params=other, headers=known)).status_code == 200


async def test_a_video_is_shown_as_it_is_whatever_is_asked_for(house: House, user: httpx.AsyncClient) -> None:
    id_ = await prompted(user)
    await finished(house, id_)
    name = (await entry(user, id_))["outputs"]["32"]["gifs"][0]["filename"]
    await uploaded(user, CLIP, "b.mp4")
    for place in ({"filename": name}, {"filename": "b.mp4", "type": "input"}):
        for query in ({"preview": "webp;90"}, {"channel": "a"}):
            answer = await user.get("/view", params={**place, **query})
            assert (answer.status_code, answer.content) == (200, CLIP)


async def test_a_picture_that_would_take_too_much_is_refused(house: House, user: httpx.AsyncClient) -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, format="PNG")
    await uploaded(user, bomb.getvalue(), "bomb.png")
    name = await pictured(house, user, bomb.getvalue())
    for place in ({"filename": "bomb.png", "type": "input"}, {"filename": name}):
        answer = await user.get("/view", params={**place, "preview": "webp;90"})
        assert (answer.status_code, "20000x20000" in answer.text) == (400, True)
    broken = await pictured(house, user, b"\x89PNG\r\n\x1a\n but not really")
    answer = await user.get("/view", params={"filename": broken, "channel": "rgb"})
    assert (answer.status_code, "the file has no channel rgb" in answer.text) == (400, True)


async def test_only_so_many_pictures_wait_to_be_worked_on(
    user: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_MOST_WAITING", 4)
    await uploaded(user, picture("red", (2000, 2000)), "a.png")
    place = {"filename": "a.png", "type": "input", "preview": "webp;90"}
    answers = await asyncio.gather(*(user.get("/view", params=place) for _ in range(16)))
    told = [answer.status_code for answer in answers]
    assert set(told) == {200, 503}
    assert told.count(200) >= 4
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
    assert (await user.get("/view", params=place)).status_code == 200


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
    assert {file["name"] for file in files} == {"杯子.jpg", f"{result} [output]"}
    by_name = {file["name"]: file for file in files}
    assert by_name["杯子.jpg"]["source"]["upload"].endswith(by_name["杯子.jpg"]["sha256"])
    artifact = by_name[f"{result} [output]"]["source"]["artifact"]
    assert artifact == {"videoJobName": (await house.job(earlier))["metadata"]["name"], "index": 0}
    missing = graph(n17={"reference_image": ["50", 0]}) | {"50": node("LoadImage", image="nothing.png")}
    wrong = await user.post("/prompt", json={"prompt": missing})
    assert wrong.json()["node_errors"]["50"]["errors"][0]["details"] == "image - Invalid image file: nothing.png"


async def test_views_of_nothing(user: httpx.AsyncClient) -> None:
    for query, status in (
        ("", 404), ("filename=", 404), ("filename=a.mp4", 404), ("filename=../a", 400), ("filename=/etc/passwd", 400),
        ("filename=a&subfolder=../..", 403), ("filename=a&type=elsewhere", 400), ("filename=a&type=input", 404),
        (f"filename=v_{uuid.uuid4()}_00001.mp4", 404), ("filename=" + "x" * 2000 + "&type=input", 404),
    ):  # fmt: skip
        assert (await user.get(f"/view?{query}")).status_code == status, query


async def test_what_is_no_picture_is_saved_and_not_shown(user: httpx.AsyncClient) -> None:
    await uploaded(user, b"<html><script>alert(1)</script></html>", "page.png")
    answer = await user.get("/view?filename=page.png&type=input")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_heads_of_views(user: httpx.AsyncClient) -> None:
    await uploaded(user, PHOTO, "cup.jpg")
    head = await user.head("/view?filename=cup.jpg&type=input")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(PHOTO)), b"")


async def test_without_the_store_only_what_needs_it_fails(closed_house: House) -> None:
    closed_house.values["storeUrl"] = f"http://127.0.0.1:{free_port()}"
    await closed_house.open(free_port(), free_port())
    async with closed_house.client(await closed_house.key("user")) as user:
        assert (await user.get("/object_info/LoadImage")).status_code == 200
        assert (await user.post("/prompt", json={"prompt": graph()})).status_code == 200
        reads = graph(n17={"reference_image": ["50", 0]}) | {"50": node("LoadImage", image="cup.jpg")}
        away = await user.post("/prompt", json={"prompt": reads})
        assert (away.status_code, away.json()["error"]["type"]) == (503, "unavailable")
        assert "retry-after" in away.headers
        assert (await user.post("/upload/image", files={"image": ("a.png", b"x")})).status_code == 503
