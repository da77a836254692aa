"""The official `dashscope` package with base URL and key changed alone: its 1.x classes, and its 2.x client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import dashscope
import pytest
from dashscope.aigc.video_synthesis import AioVideoSynthesis, VideoSynthesis
from dashscope.common.error import UploadFileException
from dashscope.v2.errors import (
    AuthenticationError,
    BadRequestError,
    DashScopeError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)

from integration.gateway.dashscope.speaking import VIDEO, next_task, rendered
from integration.gateway.house import House

pytestmark = pytest.mark.integration
T = TypeVar("T")
EDIT, VACE = "wan2.7-videoedit", "wan2.1-vace-plus"
MEDIA = [{"type": "video", "url": "https://media.example.com/a.mp4"}]
REPAINTING = {"function": "video_repainting", "video_url": "https://media.example.com/a.mp4"}


async def threaded(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """A blocking call of the package, while the gateway goes on in this loop."""
    return await asyncio.to_thread(call, *args, **kwargs)


@pytest.fixture
async def key(house: House, monkeypatch: pytest.MonkeyPatch) -> str:
    """A key, with the 1.x classes told the base URL."""
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{house.url}/api/v1")
    return await house.key()


@pytest.fixture
def client(house: House, key: str) -> dashscope.Client:
    """The 2.x client."""
    return dashscope.Client(api_key=key, base_url=f"{house.url}/api/v1")


# --- VideoSynthesis ---------------------------------------------------------------------------------------------------


async def test_1x_submit_fetch_wait(house: House, key: str) -> None:
    made = await threaded(
        VideoSynthesis.async_call,
        model=EDIT,
        api_key=key,
        prompt="In clay",
        negative_prompt="blur",
        media=MEDIA,
        resolution="720P",
        ratio="9:16",
        duration=4,
        audio_setting="origin",
        prompt_extend=False,
        watermark=True,
        seed=7,
    )
    assert made.status_code == HTTPStatus.OK, made
    assert made.output.task_status == "PENDING"
    assert made.request_id
    spec = (await house.job(made.output.task_id))["spec"]
    assert spec["parameters"] == {"seed": 7, "durationSeconds": 4}
    assert spec["output"] == {"fps": 30, "watermark": True, "width": 720, "height": 1280, "audio": "Source"} | {
        name: value for name, value in spec["output"].items() if name == "format"
    }
    assert spec["negativePrompt"] == "blur"
    await house.run(made.output.task_id)
    assert (await threaded(VideoSynthesis.fetch, made, api_key=key)).output.task_status == "RUNNING"
    await rendered(house, made.output.task_id)
    done = await threaded(VideoSynthesis.wait, made, api_key=key)
    assert (done.status_code, done.output.task_status) == (HTTPStatus.OK, "SUCCEEDED")
    assert done.output["orig_prompt"] == "In clay"
    assert done.usage["output_video_duration"] == done.usage["duration"] == 5.07
    assert (done.usage["SR"], done.usage.video_count) == (720, 1)
    async with house.client() as anybody:
        assert (await anybody.get(done.output.video_url)).content == VIDEO


async def test_1x_call_with_a_vace_function_waits_for_the_video(house: House, key: str) -> None:
    waiting = asyncio.create_task(
        threaded(
            VideoSynthesis.call,
            model=VACE,
            api_key=key,
            prompt="As a drawing",
            extra_input=REPAINTING,
            control_condition="scribble",
            strength=0.5,
            prompt_extend=True,
        )
    )
    id_ = await next_task(house)
    spec = (await house.job(id_))["spec"]
    assert spec["parameters"] == {"control": "Scribble", "controlStrength": 0.5}
    await rendered(house, id_)
    done = await waiting
    assert (done.status_code, done.output.task_status, done.output.task_id) == (HTTPStatus.OK, "SUCCEEDED", id_)
    assert done.output["actual_prompt"] == done.output["orig_prompt"] == "As a drawing"
    assert (done.usage.video_duration, done.usage.video_ratio, done.usage.video_count) == (5, "standard", 1)


async def test_1x_local_files_are_uploaded_each_under_a_place_of_its_own(
    house: House, key: str, tmp_path: Path
) -> None:
    video, picture = tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"
    picture.parent.mkdir()
    video.write_bytes(VIDEO)
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"1" * 100)
    media = [{"type": "video", "url": str(video)}, {"type": "reference_image", "url": f"file://{picture}"}]
    made = await threaded(VideoSynthesis.async_call, model=EDIT, api_key=key, prompt="In clay", media=media)
    assert made.status_code == HTTPStatus.OK, made
    inputs = (await house.job(made.output.task_id))["spec"]["inputs"]
    sources = [inputs["video"], inputs["references"][0]["source"]]
    contents = {path.name: path.read_bytes() for path in house.store.uploads()}
    assert [contents[one["upload"].rpartition("/")[2]] for one in sources] == [VIDEO, picture.read_bytes()]


async def test_1x_a_failure_is_a_result_with_code_and_message(house: House, key: str) -> None:
    made = await threaded(VideoSynthesis.async_call, model=EDIT, api_key=key, prompt="In clay", media=MEDIA)
    await house.fail(made.output.task_id, "NodeError", "node KSampler failed")
    done = await threaded(VideoSynthesis.wait, made, api_key=key)
    assert (done.status_code, done.output.task_status) == (HTTPStatus.OK, "FAILED")
    assert (done.output["code"], done.output["message"]) == ("InternalError", "node KSampler failed")


async def test_1x_cancel_and_list(house: House, key: str) -> None:
    made = await threaded(VideoSynthesis.async_call, model=EDIT, api_key=key, prompt="In clay", media=MEDIA)
    cancelled = await threaded(VideoSynthesis.cancel, made, api_key=key)
    assert cancelled.status_code == HTTPStatus.OK, cancelled
    await house.cancelled(made.output.task_id)
    ended = await threaded(VideoSynthesis.wait, made, api_key=key)
    assert ended.output.task_status == "CANCELED"
    again = await threaded(VideoSynthesis.cancel, made, api_key=key)
    assert (again.status_code, again.code) == (HTTPStatus.BAD_REQUEST, "UnsupportedOperation")
    listed = await threaded(VideoSynthesis.list, api_key=key, status="CANCELED", model_name=EDIT)
    assert listed.status_code == HTTPStatus.OK
    assert [one["task_id"] for one in listed.output["data"]] == [made.output.task_id]
    assert (listed.output["total"], listed.output["page_size"]) == (1, 10)


async def test_1x_a_refusal_is_a_result_with_its_code(house: House, key: str) -> None:
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"model": "wan2.7-nothing"}, 404, "Model.NotExist"),
        ({"media": None}, 400, "InvalidParameter"),
        ({"resolution": "480P"}, 400, "InvalidParameter"),
        ({"api_key": "sk-unknown"}, 401, "InvalidApiKey"),
    ]
    for asked, status, code in refused:
        given = {"model": EDIT, "api_key": key, "prompt": "In clay", "media": MEDIA, **asked}
        found = await threaded(VideoSynthesis.async_call, **given)
        assert (found.status_code, found.code) == (status, code)
        assert found.message
        assert found.request_id
    assert await house.jobs() == []


async def test_1x_an_unknown_task_ends_the_wait(key: str) -> None:
    found = await threaded(VideoSynthesis.wait, "00000000-0000-4000-8000-000000000000", api_key=key)
    assert (found.status_code, found.output.task_status) == (HTTPStatus.OK, "UNKNOWN")


# --- AioVideoSynthesis ------------------------------------------------------------------------------------------------


async def test_aio_call_with_its_slashes_and_queries(house: House, key: str) -> None:
    waiting = asyncio.create_task(
        AioVideoSynthesis.call(model=EDIT, api_key=key, prompt="In clay", media=MEDIA, resolution="720P")
    )
    id_ = await next_task(house)
    await rendered(house, id_)
    done = await waiting
    assert (done.status_code, done.output.task_status, done.output.task_id) == (HTTPStatus.OK, "SUCCEEDED", id_)


async def test_aio_submit_fetch_cancel_list(house: House, key: str) -> None:
    made = await AioVideoSynthesis.async_call(model=EDIT, api_key=key, prompt="In clay", media=MEDIA)
    assert made.status_code == HTTPStatus.OK, made
    assert (await AioVideoSynthesis.fetch(made, api_key=key)).output.task_status == "PENDING"
    assert (await AioVideoSynthesis.cancel(made, api_key=key)).status_code == HTTPStatus.OK
    await house.cancelled(made.output.task_id)
    assert (await AioVideoSynthesis.wait(made, api_key=key)).output.task_status == "CANCELED"
    listed = await AioVideoSynthesis.list(api_key=key)
    assert listed.status_code == HTTPStatus.OK
    assert [one["task_id"] for one in listed.output["data"]] == [made.output.task_id]


# --- the 2.x client ---------------------------------------------------------------------------------------------------


async def test_2x_create_fetch_wait(house: House, client: dashscope.Client) -> None:
    made = await threaded(
        client.videos.jobs.create,
        model=VACE,
        prompt="A fox in a wood",
        function="image_reference",
        extra_input={"ref_images_url": ["https://media.example.com/a.png", "https://media.example.com/b.png"]},
        size="720*1280",
        seed=7,
        prompt_extend=False,
        parameters={"obj_or_bg": ["obj", "bg"]},
    )
    assert made.status == "PENDING"
    spec = (await house.job(made.task_id))["spec"]
    assert [one["role"] for one in spec["inputs"]["references"]] == ["Object", "Background"]
    await house.run(made.task_id)
    running = await threaded(client.videos.jobs.fetch, made.task_id)
    assert (running.status, bool(running.submitted_at), bool(running.scheduled_at)) == ("RUNNING", True, True)
    await rendered(house, made.task_id)
    done = await threaded(client.videos.jobs.wait, made.task_id)
    assert done.succeeded
    assert done.finished_at
    assert done.output is not None
    assert done.output["orig_prompt"] == "A fox in a wood"
    async with house.client() as anybody:
        assert (await anybody.get(done.video_url)).content == VIDEO


async def test_2x_generate_waits_for_the_video(house: House, client: dashscope.Client) -> None:
    waiting = asyncio.create_task(
        threaded(client.videos.generate, model=EDIT, prompt="In clay", media=MEDIA, resolution="720P")
    )
    id_ = await next_task(house)
    await rendered(house, id_)
    done = await waiting
    assert (done.task_id, done.status) == (id_, "SUCCEEDED")


async def test_2x_local_files_are_uploaded_within_extra_input_too(
    house: House, client: dashscope.Client, tmp_path: Path
) -> None:
    video, mask = tmp_path / "a.mp4", tmp_path / "mask.png"
    video.write_bytes(VIDEO)
    mask.write_bytes(b"\x89PNG\r\n\x1a\n" + b"1" * 100)
    made = await threaded(
        client.videos.jobs.create,
        model=VACE,
        prompt="A lion sits there",
        function="video_edit",
        extra_input={"video_url": str(video), "mask_image_url": str(mask), "mask_frame_id": 1},
    )
    inputs = (await house.job(made.task_id))["spec"]["inputs"]
    contents = {path.name: path.read_bytes() for path in house.store.uploads()}
    sources = [inputs["video"], inputs["mask"]["source"]]
    assert [contents[one["upload"].rpartition("/")[2]] for one in sources] == [VIDEO, mask.read_bytes()]


async def test_2x_two_files_of_one_name_are_refused_and_not_mixed_up(
    house: House, client: dashscope.Client, tmp_path: Path
) -> None:
    one, other = tmp_path / "one" / "a.png", tmp_path / "other" / "a.png"
    for path in (one, other):
        path.parent.mkdir()
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + path.parent.name.encode() * 20)
    with pytest.raises(UploadFileException, match="failed"):
        await threaded(
            client.videos.jobs.create,
            model=VACE,
            prompt="Both",
            function="image_reference",
            extra_input={"ref_images_url": [str(one), str(other)]},
        )
    assert await house.jobs() == []


async def test_2x_a_failure_raises_with_code_and_message(house: House, client: dashscope.Client) -> None:
    made = await threaded(client.videos.jobs.create, model=EDIT, prompt="In clay", media=MEDIA)
    await house.fail(made.task_id, "NodeError", "node KSampler failed")
    with pytest.raises(InternalServerError, match="node KSampler failed") as caught:
        await threaded(client.videos.jobs.wait, made.task_id)
    assert caught.value.code == "InternalError"


async def test_2x_cancel_and_list(house: House, client: dashscope.Client) -> None:
    made = await threaded(client.videos.jobs.create, model=EDIT, prompt="In clay", media=MEDIA)
    other = await threaded(client.videos.jobs.create, model=EDIT, prompt="In wood", media=MEDIA)
    await house.fail(other.task_id)
    await threaded(client.videos.jobs.cancel, made.task_id)
    await house.cancelled(made.task_id)
    with pytest.raises(DashScopeError, match="canceled"):
        await threaded(client.videos.jobs.wait, made.task_id)
    with pytest.raises(BadRequestError, match="PENDING") as caught:
        await threaded(client.videos.jobs.cancel, made.task_id)
    assert caught.value.code == "UnsupportedOperation"
    listed = await threaded(client.videos.jobs.list, page_size=5)
    assert (listed.total, listed.page_no, listed.page_size) == (2, 1, 5)
    assert {one.task_id: one.status for one in listed.tasks} == {made.task_id: "CANCELED", other.task_id: "FAILED"}


async def test_2x_a_refusal_raises_its_class(house: House, client: dashscope.Client) -> None:
    refused: list[tuple[dict[str, Any], type[DashScopeError]]] = [
        ({"model": "wan2.7-nothing"}, NotFoundError),
        ({"resolution": "480P"}, BadRequestError),
        ({"api_key": "sk-unknown"}, AuthenticationError),
    ]
    for asked, error in refused:
        with pytest.raises(error) as caught:
            await threaded(client.videos.jobs.create, **{"model": EDIT, "prompt": "In clay", "media": MEDIA, **asked})
        assert caught.value.request_id
    assert await house.jobs() == []


async def test_2x_is_told_to_wait_where_it_submits_too_often(house: House) -> None:
    key = await house.key(limits={"submitsPerMinute": 1, "burst": 1})
    client = dashscope.Client(api_key=key, base_url=f"{house.url}/api/v1", max_retries=0)
    made = await threaded(client.videos.jobs.create, model=EDIT, prompt="In clay", media=MEDIA)
    with pytest.raises(RateLimitError) as caught:
        await threaded(client.videos.jobs.create, model=EDIT, prompt="In clay", media=MEDIA)
    assert caught.value.code == "Throttling.RateQuota"
    assert (await threaded(client.videos.jobs.fetch, made.task_id)).status == "PENDING"


async def test_2x_an_unknown_task_is_returned_as_unknown(client: dashscope.Client) -> None:
    found = await threaded(client.videos.jobs.wait, "00000000-0000-4000-8000-000000000000")
    assert found.status == "UNKNOWN"


async def test_the_asynchronous_2x_client(house: House, key: str) -> None:
    client = dashscope.AsyncClient(api_key=key, base_url=f"{house.url}/api/v1")
    made = await client.videos.jobs.create(model=EDIT, prompt="In clay", media=MEDIA)
    await rendered(house, made.task_id)
    done = await client.videos.jobs.wait(made.task_id)
    assert done.succeeded
    assert done.video_url
