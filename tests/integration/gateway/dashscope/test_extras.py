"""Files, rewritten prompts and the OpenAPI document of the DashScope dialect, over plain HTTP."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from aiohttp import web

from integration.conftest import free_port
from integration.gateway.dashscope.speaking import (
    ASYNC,
    SYNTHESIS,
    fetched,
    repainting,
    submit,
)
from integration.gateway.house import House
from kinora.gateway.dashscope.request import Function
from unit.gateway.dashscope.asked import ONE_OF_EACH
from waiting import DEADLINE

pytestmark = pytest.mark.integration


# --- uploads ----------------------------------------------------------------------------------------------------------


async def test_a_picture_within_the_request_is_an_upload(house: House) -> None:
    content = b"\x89PNG\r\n\x1a\n" + b"2" * 3000
    body = ONE_OF_EACH[Function.EDIT]
    picture = {"type": "reference_image", "url": f"data:image/png;base64,{base64.b64encode(content).decode()}"}
    body = {**body, "input": {**body["input"], "media": [body["input"]["media"][0], picture]}}
    async with house.client(await house.key()) as client:
        id_ = await submit(client, body)
        [reference] = (await house.job(id_))["spec"]["inputs"]["references"]
        assert reference["source"]["upload"]
        assert [path.read_bytes() for path in house.store.uploads()] == [content]
        picture["url"] = "data:image/png;base64,!"
        refused = await client.post(SYNTHESIS, json=body, headers=ASYNC)
        assert refused.json()["message"].startswith("input.media[1].url: ")


async def test_a_policy_has_every_field_that_a_client_reads(house: House) -> None:
    async with house.client(await house.key()) as client:
        answer = (await client.get("/api/v1/uploads", params={"action": "getPolicy", "model": "m"})).json()
        data = answer["data"]
        texts = ("policy", "signature", "upload_dir", "upload_host", "oss_access_key_id")
        assert all(isinstance(data[name], str) and data[name] for name in texts)
        assert (data["x_oss_object_acl"], data["x_oss_forbid_overwrite"]) == ("private", "true")
        assert all(data[name] > 0 for name in ("expire_in_seconds", "max_file_size_mb", "capacity_limit_mb"))
        assert data["upload_host"].startswith(house.url)
        other = await client.get("/api/v1/uploads", params={"action": "delete"})
        assert (other.status_code, other.json()["code"]) == (400, "InvalidParameter")


# --- prompt_extend ----------------------------------------------------------------------------------------------------


async def _rewriter(answer: Any) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


async def _extended(house: House, prompt: str = "a fox") -> dict[str, Any]:
    async with house.client(await house.key()) as client:
        id_ = await submit(client, repainting(input={"prompt": prompt}, parameters={"prompt_extend": True}))
        spec = (await house.job(id_))["spec"]
        await house.succeed(id_)
        output: dict[str, Any] = (await fetched(client, id_))["output"]
        assert output["actual_prompt"] == spec["prompt"]
        return output


async def test_a_prompt_is_rewritten_where_there_is_an_endpoint(closed_house: House) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((await request.json())["messages"][-1]["content"])
        return web.json_response({"choices": [{"message": {"content": f"{asked[-1]}, in golden light"}}]})

    runner, url = await _rewriter(answer)
    closed_house.values["promptExtend"] = {"url": url, "model": "small", "timeoutSeconds": DEADLINE}
    await closed_house.open(free_port(), free_port())
    try:
        output = await _extended(closed_house)
        assert (output["orig_prompt"], output["actual_prompt"]) == ("a fox", "a fox, in golden light")
        assert output["prompt_extend"] == "the prompt was rewritten"
        long = await _extended(closed_house, "狐" * 1000)
        assert long["orig_prompt"] == long["actual_prompt"]
        assert asked == ["a fox"]
        body = repainting(parameters={"prompt_extend": True})
        async with closed_house.client(
            await closed_house.key("b", limits={"submitsPerMinute": 1, "burst": 1})
        ) as client:
            first = await submit(client, body, **{"Idempotency-Key": "one"})
            assert await submit(client, body, **{"Idempotency-Key": "one"}) == first
            wrong = repainting(input={"video_url": "ftp://a/b"}, parameters={"prompt_extend": True})
            assert (await client.post(SYNTHESIS, json=wrong, headers=ASYNC)).status_code == 400
            assert (await client.post(SYNTHESIS, json=body, headers=ASYNC)).status_code == 429
        assert asked == ["a fox", "As a watercolour"]
    finally:
        await runner.cleanup()


async def test_an_endpoint_that_fails_leaves_the_prompt_and_it_is_told_and_counted(closed_house: House) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=500)

    runner, url = await _rewriter(answer)
    closed_house.values["promptExtend"] = {"url": url, "model": "small", "timeoutSeconds": DEADLINE}
    await closed_house.open(free_port(), free_port())
    try:
        output = await _extended(closed_house)
        assert output["orig_prompt"] == output["actual_prompt"] == "a fox"
        assert output["prompt_extend"].startswith("failed: ")
        assert closed_house.gateway is not None
        counted = closed_house.gateway.metrics.registry.get_sample_value
        assert counted("kinora_gateway_prompts_total", {"how": "failed"}) == 1
    finally:
        await runner.cleanup()


async def test_without_an_endpoint_it_is_off_and_said_so(house: House) -> None:
    output = await _extended(house)
    assert output["orig_prompt"] == output["actual_prompt"] == "a fox"
    assert output["prompt_extend"].startswith("off: ")


# --- documents --------------------------------------------------------------------------------------------------------


async def test_the_openapi_document_has_every_route_and_field(house: House) -> None:
    async with house.client(await house.key()) as client:
        document = (await client.get("/openapi/dashscope.json")).json()
    paths = document["paths"]
    assert set(paths) == {
        "/api/v1/services/aigc/video-generation/video-synthesis",
        "/api/v1/services/aigc/image2video/video-synthesis",
        "/api/v1/tasks/{task_id}",
        "/api/v1/tasks/{task_id}/cancel",
        "/api/v1/tasks",
        "/api/v1/uploads",
    }
    body = paths[SYNTHESIS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"ref_images_url", "media", "mask_frame_id"} <= set(body["properties"]["input"]["properties"])
    assert "$ref" not in str(body)
    assert {"SubmitAnswer", "TaskAnswer", "ListAnswer", "PolicyAnswer", "ErrorAnswer"} <= set(
        document["components"]["schemas"]
    )
