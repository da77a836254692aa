"""OpenAI's /v1/videos by its own package, over the real API server; the test plays the agent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import warnings
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from PIL import Image

from integration.gateway.hosted import CLIP, PHOTO, deliver, jobs
from integration.gateway.house import House, artifact_of
from kinora.media import child
from waiting import DEADLINE, until

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
MODEL = "wan2.1-vace-14b"


@pytest.fixture
async def client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official package for one tenant."""
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=await house.key(), max_retries=0) as found:
        yield found


async def made(client: openai.AsyncOpenAI, **more: Any) -> Any:
    return await client.videos.create(prompt="a fox runs", model=MODEL, **more)


async def test_a_video_from_create_to_completed(house: House, client: openai.AsyncOpenAI) -> None:
    created = await client.videos.create(
        prompt="a fox runs",
        model=MODEL,
        seconds="4",
        size="1280x720",
        extra_body={"num_inference_steps": 12, "guidance_scale": 4.5, "seed": 7, "negative_prompt": "blurred"},
    )
    assert (created.object, created.status, created.progress) == ("video", "queued", 0)
    assert (created.model, created.seconds, created.size, created.prompt) == (MODEL, "4", "1280x720", "a fox runs")
    spec = (await house.job(created.id))["spec"]
    assert (spec["task"], spec["negativePrompt"]) == ("TextToVideo", "blurred")
    asked = {name: spec["parameters"][name] for name in ("durationSeconds", "steps", "guidance", "seed")}
    assert asked == {"durationSeconds": 4, "steps": 12, "guidance": 4.5, "seed": 7}

    await house.run(created.id, 40)
    running = await client.videos.retrieve(created.id)
    assert (running.status, running.progress) == ("in_progress", 40)
    await house.succeed(created.id)
    done = await client.videos.retrieve(created.id)
    assert (done.status, done.progress, done.size, done.seconds) == ("completed", 100, "832x480", "4")
    assert done.completed_at is not None
    assert done.completed_at >= done.created_at
    assert done.expires_at == done.completed_at + 7 * 24 * 3600


async def test_create_and_poll_waits_for_the_end_as_the_server_says(house: House, client: openai.AsyncOpenAI) -> None:
    waiting = asyncio.create_task(
        client.videos.create_and_poll(prompt="a fox", model=MODEL, poll_interval_ms=20, seconds="4")
    )
    await until(lambda: len(jobs(house)) == 1)
    (job,) = jobs(house)
    await house.run(job.id, 10)
    await house.succeed(job.id)
    assert (await waiting).status == "completed"
    raw = await client.videos.with_raw_response.retrieve(job.id)
    assert int(raw.headers["openai-poll-after-ms"]) >= 1000


async def test_a_failed_and_a_cancelled_video_tell_why(house: House, client: openai.AsyncOpenAI) -> None:
    failed, cancelled = await made(client), await made(client, seconds="5")
    await house.fail(failed.id, "OutOfMemory", "node KSampler ran out of memory")
    await house.cancelled(cancelled.id)
    first, second = await client.videos.retrieve(failed.id), await client.videos.retrieve(cancelled.id)
    assert (first.status, first.error.code if first.error else "") == ("failed", "out_of_memory")
    assert (second.status, second.error.code if second.error else "") == ("failed", "cancelled")


async def test_a_list_is_paged_by_the_package_itself(house: House, client: openai.AsyncOpenAI) -> None:
    ids = [(await made(client, seconds=str(count))).id for count in (4, 5, 6, 7, 8)]
    for order in ("asc", "desc"):
        page = await client.videos.list(limit=2, order=order)  # type: ignore[arg-type]
        assert (len(page.data), page.has_more, page.last_id) == (2, True, page.data[-1].id)
        found = [video.id async for video in client.videos.list(limit=2, order=order)]  # type: ignore[arg-type]
        assert len(found) == len(set(found)) == 5
        assert set(found) == set(ids)
    assert (await client.videos.list(limit=0)).data == []
    with pytest.raises(openai.BadRequestError) as caught:
        await client.videos.list(after="nothing")
    assert caught.value.param == "after"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.videos.list(limit=101)
    assert caught.value.param == "limit"


async def test_a_deleted_video_is_gone(house: House, client: openai.AsyncOpenAI) -> None:
    created = await made(client)
    gone = await client.videos.delete(created.id)
    assert (gone.id, gone.deleted, gone.object) == (created.id, True, "video.deleted")
    for call in (client.videos.retrieve, client.videos.delete, client.videos.download_content):
        with pytest.raises(openai.NotFoundError) as caught:
            await call(created.id)
        assert caught.value.code == "not_found"
    assert await house.jobs() == []


async def test_a_remix_is_a_new_job_of_the_same_request_with_another_prompt(
    house: House, client: openai.AsyncOpenAI
) -> None:
    first = await made(client, seconds="5", size="832x480", extra_body={"seed": 11})
    with pytest.raises(openai.BadRequestError, match="allowed: one that is completed"):
        await client.videos.remix(first.id, prompt="a wolf runs")
    await house.succeed(first.id)
    second = await client.videos.remix(first.id, prompt="a wolf runs")
    assert (second.remixed_from_video_id, second.status, second.size) == (first.id, "queued", "832x480")
    before, after = (await house.job(first.id))["spec"], (await house.job(second.id))["spec"]
    assert after["prompt"] == "a wolf runs"
    assert {**after, "prompt": ""} == {**before, "prompt": ""}
    assert (await client.videos.retrieve(second.id)).remixed_from_video_id == first.id


async def test_an_edit_and_an_extension_of_a_finished_video_take_it_from_the_store(
    house: House, client: openai.AsyncOpenAI
) -> None:
    first = await made(client)
    async with house.client(client.api_key) as http:
        early = await http.post("/v1/videos/edits", json={"prompt": "in winter", "video": {"id": first.id}})
        assert (early.status_code, early.json()["error"]["param"]) == (400, "video")
        job = await house.succeed(first.id)
        edit = (await http.post("/v1/videos/edits", json={"prompt": "in winter", "video": {"id": first.id}})).json()
        spec = (await house.job(edit["id"]))["spec"]
        assert (spec["task"], spec["model"]) == ("Edit", MODEL)
        assert spec["inputs"]["video"] == {"artifact": {"videoJobName": job["metadata"]["name"], "index": 0}}
        assert (edit["seconds"], edit["size"]) == ("auto", "auto")

        body = {"prompt": "it runs on", "video": {"id": first.id}, "seconds": "4", "model": MODEL}
        more = (await http.post("/v1/videos/extensions", json=body)).json()
        spec = (await house.job(more["id"]))["spec"]
        assert spec["task"] == "Extend"
        assert spec["parameters"]["frames"] == 81  # 17 of them lead over from the clip of 81
        assert more["seconds"] == f"{(81 + 64) / 16:g}"
        long = await http.post("/v1/videos/extensions", json={**body, "seconds": "30"})
        assert (long.status_code, long.json()["error"]["param"]) == (400, "seconds")


async def test_the_video_is_downloaded_by_the_package(house: House, client: openai.AsyncOpenAI) -> None:
    video = await made(client)
    await deliver(house, video.id)
    content = await client.videos.download_content(video.id)
    assert content.response.headers["content-type"] == "video/mp4"
    assert content.read() == CLIP
    async with house.client(client.api_key) as http:
        head = await http.head(f"/v1/videos/{video.id}/content")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(CLIP)), b"")
    part = await client.videos.download_content(video.id, extra_headers={"Range": "bytes=0-9"})
    assert (part.response.status_code, part.read()) == (206, CLIP[:10])


async def test_an_input_reference_is_the_first_frame_as_file_as_data_url_and_as_url(
    house: House, client: openai.AsyncOpenAI
) -> None:
    digest = hashlib.sha256(PHOTO).hexdigest()
    video = await made(client, input_reference=("coffee.jpg", PHOTO, "image/jpeg"), seconds="5")
    spec = (await house.job(video.id))["spec"]
    assert spec["task"] == "ImageToVideo"
    assert spec["inputs"]["image"]["upload"].endswith(digest)
    async with house.client(client.api_key) as http:
        data = f"data:image/jpeg;base64,{base64.b64encode(PHOTO).decode()}"
        for given in ({"image_url": data}, data):
            told = (await http.post("/v1/videos", json={"prompt": "a", "input_reference": given})).json()
            assert (await house.job(told["id"]))["spec"]["inputs"] == spec["inputs"]
        link = "https://media.example.com/coffee.jpg"
        told = (await http.post("/v1/videos", json={"prompt": "a", "input_reference": {"image_url": link}})).json()
        assert (await house.job(told["id"]))["spec"]["inputs"] == {"image": {"url": link}}
        for given in ({"file_id": "file-1"}, "data:image/png;base64,!!", "data:,", {"image_url": 7}):
            answer = await http.post("/v1/videos", json={"prompt": "a", "input_reference": given})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_reference")
    assert len(house.store.uploads()) == 1


async def test_a_file_of_another_kind_a_second_file_and_an_empty_one_are_refused(
    house: House, client: openai.AsyncOpenAI
) -> None:
    with pytest.raises(openai.BadRequestError, match="file of type video/mp4; allowed: one image"):
        await made(client, input_reference=("a.png", CLIP, "image/png"))
    with pytest.raises(openai.BadRequestError, match="file of type image/jpeg; allowed: one video"):
        await client.videos.edit(prompt="in winter", video=("a.mp4", PHOTO, "video/mp4"))
    with pytest.raises(openai.BadRequestError, match="an empty file"):
        await client.videos.edit(prompt="in winter", video=("a.mp4", b"", "video/mp4"))
    async with house.client(client.api_key) as http:
        for files in ([("mask", PHOTO)], [("input_reference", PHOTO), ("input_reference", PHOTO)]):
            form = [(name, ("a.jpg", content, "image/jpeg")) for name, content in files]
            answer = await http.post("/v1/videos", data={"prompt": "a"}, files=form)
            assert answer.status_code == 400, answer.text
    assert await house.jobs() == []


async def test_an_edit_and_an_extension_of_a_file_by_the_package(house: House, client: openai.AsyncOpenAI) -> None:
    digest = hashlib.sha256(CLIP).hexdigest()
    edited = await client.videos.edit(prompt="in winter", video=("bunny.mp4", CLIP, "video/mp4"))
    spec = (await house.job(edited.id))["spec"]
    assert (spec["task"], spec["model"]) == ("Edit", MODEL)
    assert spec["inputs"]["video"]["upload"].endswith(digest)
    longer = await client.videos.extend(prompt="it runs on", seconds="4", video=("bunny.mp4", CLIP, "video/mp4"))
    spec = (await house.job(longer.id))["spec"]
    assert (spec["task"], spec["parameters"]["frames"]) == ("Extend", 81)
    assert spec["inputs"]["firstClip"]["upload"].endswith(digest)
    assert longer.seconds == "auto"
    await deliver(house, longer.id, durationSeconds=7.5)
    assert (await client.videos.retrieve(longer.id)).seconds == "7.5"


async def test_a_retry_after_a_lost_answer_makes_no_second_job(house: House) -> None:
    """The package sends the form again with another boundary, and says that it is a retry."""
    import httpx2

    lost: list[str] = []

    class Losing(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            if request.method == "POST" and len(lost) < 2:
                lost.append(request.headers["x-stainless-retry-count"])
                await response.aclose()
                raise httpx2.ReadError("the connection broke", request=request)
            return response

    async with (
        httpx2.AsyncClient(transport=Losing()) as http,
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=await house.key(), http_client=http) as client,
    ):
        video = await made(client, seconds="6", input_reference=("coffee.jpg", PHOTO, "image/jpeg"))
    assert lost == ["0", "1"]
    (job,) = await house.jobs()
    assert job["metadata"]["name"].endswith(video.id)


async def test_errors_have_the_packages_classes_and_fields(house: House, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await made(client, size="853x480")  # type: ignore[arg-type]
    assert (caught.value.param, caught.value.type) == ("size", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.videos.create(prompt="a", model="sora-9")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        await made(client, extra_body={"num_frames": 80})
    assert caught.value.param == "num_frames"
    with pytest.raises(openai.AuthenticationError) as wrong:
        await made(client.with_options(api_key="kn-nobodys-key-at-all-1234567890"))
    assert wrong.value.code == "invalid_api_key"
    assert await house.jobs() == []


async def test_a_model_need_not_be_named_where_one_is_served(house: House, client: openai.AsyncOpenAI) -> None:
    assert (await client.videos.create(prompt="a fox")).model == MODEL


async def test_the_models_are_those_that_are_served_and_runcomfys_path_beside_them_is_its_own(
    house: House, client: openai.AsyncOpenAI
) -> None:
    assert [one.id async for one in client.models.list()] == [MODEL, "wan2.1-vace-plus", "wan2.7-videoedit"]
    async with house.client() as nobody:
        assert "type" in (await nobody.get("/v1/models")).json()["error"]
        assert isinstance((await nobody.post("/v1/models/community/x", json={})).json()["error"], str)


async def test_one_tenant_sees_nothing_of_another(house: House, client: openai.AsyncOpenAI) -> None:
    video = await made(client)
    await house.succeed(video.id)
    other = client.with_options(api_key=await house.key("other"))
    assert [one async for one in other.videos.list()] == []
    for call in (
        other.videos.retrieve(video.id),
        other.videos.delete(video.id),
        other.videos.download_content(video.id),
        other.videos.remix(video.id, prompt="mine"),
    ):
        with pytest.raises(openai.NotFoundError):
            await call
    async with house.client(other.api_key) as http:
        taken = await http.post("/v1/videos/edits", json={"prompt": "mine", "video": {"id": video.id}})
        assert taken.status_code == 404
    assert (await client.videos.retrieve(video.id)).status == "completed"


async def test_a_job_of_another_dialect_is_a_video_too(house: House, client: openai.AsyncOpenAI) -> None:
    async with house.client(client.api_key) as http:
        body = {"prompt": "a fox", "size": "480*832"}
        id_ = (await http.post("/api/v3/wavespeed-ai/wan-2.1-14b-vace", json=body)).json()["data"]["id"]
    job = await house.job(id_)
    await house.succeed(id_, [artifact_of(job, width=480, height=832)])
    found = await client.videos.retrieve(id_)
    assert (found.status, found.size, found.seconds) == ("completed", "480x832", "5.0625")
    assert [video.id async for video in client.videos.list()] == [id_]


async def test_what_is_not_there_yet_and_variants_that_are_none_are_refused_clearly(
    house: House, client: openai.AsyncOpenAI
) -> None:
    video = await made(client)
    for variant in ("video", "thumbnail"):
        with pytest.raises(openai.BadRequestError, match="allowed: one that is completed"):
            await client.videos.download_content(video.id, variant=variant)  # type: ignore[arg-type]
    await house.succeed(video.id)
    with pytest.raises(openai.BadRequestError, match="allowed: video, thumbnail, spritesheet") as caught:
        await client.videos.download_content(video.id, variant="poster")  # type: ignore[arg-type]
    assert caught.value.param == "variant"
    with pytest.raises(openai.NotFoundError):
        await client.videos.download_content(video.id, variant="thumbnail")  # its file is gone


async def test_thumbnails_and_spritesheets_are_drawn_once_and_kept(house: House, client: openai.AsyncOpenAI) -> None:
    video = await made(client)
    await deliver(house, video.id)
    for variant, kind, most in (("thumbnail", "WEBP", 640), ("spritesheet", "JPEG", 5 * 240)):
        content = await client.videos.download_content(video.id, variant=variant)  # type: ignore[arg-type]
        picture = Image.open(io.BytesIO(content.read()))
        assert content.response.headers["content-type"] == f"image/{kind.lower()}"
        assert picture.format == kind
        assert 0 < picture.width <= most
        [kept] = [path for path in house.store.uploads() if path.name == content.response.headers["etag"].strip('"')]
        written = kept.stat().st_ino
        again = await client.videos.download_content(video.id, variant=variant)  # type: ignore[arg-type]
        assert again.read() == kept.read_bytes()
        assert kept.stat().st_ino == written
        kept.unlink()  # as when it has expired: it is drawn anew
        assert (await client.videos.download_content(video.id, variant=variant)).read()  # type: ignore[arg-type]
    assert len(house.store.uploads()) == 2
    assert house.store.drafts() == []


async def test_a_preview_counts_against_the_quota_and_is_of_the_tenants_own_videos_alone(
    house: House, client: openai.AsyncOpenAI
) -> None:
    video = await made(client)
    await deliver(house, video.id)
    stranger = await house.key("stranger")
    async with house.client(stranger) as http:
        assert (await http.get(f"/v1/videos/{video.id}/content?variant=thumbnail")).status_code == 404
    poor = openai.AsyncOpenAI(
        base_url=f"{house.url}/v1", api_key=await house.key("poor", limits={"uploadQuotaBytes": 10}), max_retries=0
    )
    mine = await made(poor)
    await deliver(house, mine.id)
    with pytest.raises(openai.APIStatusError) as caught:
        await poor.videos.download_content(mine.id, variant="thumbnail")
    assert caught.value.status_code == 413
    assert house.store.uploads() == []


async def test_a_video_that_cannot_be_decoded_has_no_thumbnail(house: House, client: openai.AsyncOpenAI) -> None:
    video = await made(client)
    await deliver(house, video.id, b"\x00\x00\x00\x18ftypmp42 and nothing else")
    with pytest.raises(openai.BadRequestError, match="the thumbnail cannot be drawn"):
        await client.videos.download_content(video.id, variant="thumbnail")


async def test_only_so_many_previews_are_waited_for(
    house: House, client: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, draw = asyncio.Event(), child.thumbnail

    async def later(*args: Any) -> None:
        await refused.wait()
        await draw(*args)

    monkeypatch.setattr(child, "thumbnail", later)
    videos = [await made(client) for _ in range(8)]
    for index, video in enumerate(videos):  # each of its own content, so that each is drawn
        await deliver(house, video.id, CLIP + b"\x00\x00\x00\x0cfree" + index.to_bytes(4))
    async with house.client(client.api_key) as http:
        http.timeout = 6 * DEADLINE  # they are drawn one after the other
        places = [f"/v1/videos/{video.id}/content?variant=thumbnail" for video in videos]
        asked = [asyncio.create_task(http.get(place)) for place in places]
        await until(lambda: sum(one.done() for one in asked) == 4)
        refused.set()
        told = [answer.status_code for answer in await asyncio.gather(*asked)]
        assert (told.count(200), told.count(503)) == (4, 4)
        assert (await http.get(places[told.index(503)])).status_code == 200


async def test_json_and_forms_are_the_same_request(house: House, client: openai.AsyncOpenAI) -> None:
    async with house.client(client.api_key) as http:
        body = {"prompt": "a fox", "model": MODEL, "num_frames": 81, "fps": 16, "width": 832, "height": 480}
        first = (await http.post("/v1/videos", json=body)).json()
        second = (await http.post("/v1/videos", data={name: str(value) for name, value in body.items()})).json()
        third = (await http.post("/v1/videos", files={name: (None, str(value)) for name, value in body.items()})).json()
    assert (first["seconds"], first["size"]) == ("5.0625", "832x480")
    assert "error" in second  # urlencoded forms are not of this API
    specs = [(await house.job(one["id"]))["spec"] for one in (first, third)]
    assert specs[0] == specs[1]


async def test_bodies_that_are_broken_or_too_large_are_refused(house: House, client: openai.AsyncOpenAI) -> None:
    small = await house.key("small", limits={"uploadBytes": 1000})
    async with house.client(small) as http:
        for content in (b"{", b"[]", b"\xff"):
            answer = await http.post("/v1/videos", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 400
        broken = await http.post(
            "/v1/videos", content=b"--x\r\nbroken", headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert broken.status_code == 400
        for size in (2000, 3 << 20):
            files = {"input_reference": ("a.jpg", PHOTO[:1].ljust(size, b"x"), "image/jpeg")}
            answer = await http.post("/v1/videos", data={"prompt": "a"}, files=files)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large"), answer.text
        for path in ("/v1/videos", f"/v1/videos/{house.namespace}/remix", "/v1/videos/edits"):
            large = await http.post(path, json={"prompt": "a" * (5 << 20)})
            assert large.status_code == 413
    assert await house.jobs() == []


def test_the_package_warns_that_its_own_server_is_gone() -> None:
    """Why the warnings are ignored above: every method of client.videos says so."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(openai.APIConnectionError):
            openai.OpenAI(base_url="http://127.0.0.1:9", api_key="x", max_retries=0).videos.list()
    assert any(issubclass(one.category, DeprecationWarning) for one in told)
