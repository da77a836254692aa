"""The DashScope dialect over plain HTTP: every route, field and error, on the real gateway over the real API server."""

from __future__ import annotations

import base64
import logging
import re
from typing import Any

import httpx
import pytest
from aiohttp import web

from integration.conftest import free_port
from integration.gateway import house as houses
from integration.gateway.dashscope.speaking import (
    ASYNC,
    SYNTHESIS,
    VIDEO,
    fetched,
    rendered,
    repainting,
    submit,
)
from integration.gateway.house import House
from kinora.gateway.dashscope.request import Function
from unit.gateway.dashscope.asked import ONE_OF_EACH, printed

pytestmark = pytest.mark.integration
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}")
UUID = "00000000-0000-4000-8000-000000000000"
KINDS = ["ReferenceToVideo", "VideoToVideo", "Inpaint", "Extend", "Outpaint", "Edit"]


async def test_every_request_of_the_document_is_a_task_and_a_videojob(house: House) -> None:
    async with house.client(await house.key()) as client:
        for body in [*printed(), *ONE_OF_EACH.values()]:
            response = await client.post(SYNTHESIS, json=body, headers=ASYNC)
            assert response.status_code == 200
            answer = response.json()
            assert set(answer) == {"request_id", "output"}
            assert set(answer["output"]) == {"task_id", "task_status"}
            assert answer["output"]["task_status"] == "PENDING"
            assert response.headers["x-request-id"] == answer["request_id"]
            spec = (await house.job(answer["output"]["task_id"]))["spec"]
            assert spec["prompt"] == body["input"]["prompt"]
            assert (spec["model"], spec["output"]["fps"]) == (body["model"], 30)
    assert sorted({job["spec"]["task"] for job in await house.jobs()}) == sorted(KINDS)


async def test_a_task_from_submit_to_video(house: House) -> None:
    async with house.client(await house.key()) as client:
        id_ = await submit(client)
        pending = (await fetched(client, id_))["output"]
        assert set(pending) == {"task_id", "task_status", "submit_time"}
        await house.run(id_, 40)
        running = (await fetched(client, id_))["output"]
        assert (running["task_status"], set(running) - set(pending)) == ("RUNNING", {"scheduled_time"})
        await rendered(house, id_)
        done = await fetched(client, id_)
        assert done["usage"] == {"video_duration": 5, "video_ratio": "standard", "video_count": 1}
        output = done["output"]
        assert output["task_status"] == "SUCCEEDED"
        assert all(STAMP.fullmatch(output[name]) for name in ("submit_time", "scheduled_time", "end_time"))
        assert output["orig_prompt"] == "As a watercolour"
        assert {"code", "message", "actual_prompt"}.isdisjoint(output)
        assert "code" not in done
    async with house.client() as anybody:
        assert (await anybody.get(output["video_url"])).content == VIDEO
        part = await anybody.get(output["video_url"], headers={"Range": "bytes=4-11"})
        assert (part.status_code, part.content) == (206, VIDEO[4:12])


async def test_a_failed_task_is_http_200_without_a_code_at_the_top_and_without_usage(house: House) -> None:
    async with house.client(await house.key()) as client:
        id_ = await submit(client)
        await house.fail(id_, "InvalidInput", "spec.inputs.video is a file of kind Image; allowed: one video")
        answer = await fetched(client, id_)
        assert set(answer) == {"request_id", "output"}
        assert answer["output"]["task_status"] == "FAILED"
        assert answer["output"]["code"] == "InvalidParameter"
        assert answer["output"]["message"] == "input.video_url is a file of kind Image; allowed: one video"


async def test_every_route_stands_with_and_without_a_slash(house: House) -> None:
    async with house.client(await house.key()) as client:
        made = await client.post(f"{SYNTHESIS}/", json=repainting(), headers=ASYNC)
        id_ = made.json()["output"]["task_id"]
        paths = ("/tasks", "/tasks/", f"/tasks/{id_}", f"/tasks/{id_}/", "/uploads?action=getPolicy")
        for path in (*paths, "/uploads/?action=getPolicy", f"/tasks/{id_}/?resolution=720P"):
            assert (await client.get(f"/api/v1{path}")).status_code == 200, path
        assert (await client.post(f"/api/v1/tasks/{id_}/cancel/", json={"model": ""})).status_code == 200


async def test_nobody_is_answered_without_a_key(house: House) -> None:
    paths = [("POST", SYNTHESIS), ("GET", f"/api/v1/tasks/{UUID}"), ("POST", f"/api/v1/tasks/{UUID}/cancel")]
    paths += [("GET", "/api/v1/tasks?page_no=x"), ("GET", "/api/v1/uploads?action=getPolicy")]
    for headers in ({}, {"Authorization": "Bearer sk-not-a-key-of-this-house"}):
        async with house.client() as client:
            for method, path in paths:
                response = await client.request(method, path, headers={**headers, **ASYNC}, content=b"{")
                assert (response.status_code, response.json()["code"]) == (401, "InvalidApiKey"), path
                assert set(response.json()) == {"request_id", "code", "message"}


async def test_a_key_for_other_apis_does_not_open_this_one(house: House) -> None:
    async with house.client(await house.key(dialects=["wavespeed"])) as client:
        response = await client.post(SYNTHESIS, json=repainting(), headers=ASYNC)
        assert (response.status_code, response.json()["code"]) == (403, "AccessDenied")


@pytest.mark.parametrize("headers", [{}, {"X-DashScope-Async": "disable"}])
async def test_only_asynchronous_calls_are_taken(house: House, headers: dict[str, str]) -> None:
    async with house.client(await house.key()) as client:
        response = await client.post(SYNTHESIS, json=repainting(), headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "AccessDenied")
        assert response.json()["message"] == "current user api does not support synchronous calls."


async def test_what_is_wrong_is_told_in_the_fields_of_the_request_and_makes_nothing(house: House) -> None:
    wrong: list[tuple[Any, int, str, str]] = [
        (repainting(parameters={"strength": 2}), 400, "InvalidParameter", "parameters.strength"),
        (repainting(input={"video_url": "ftp://a/b"}), 400, "InvalidParameter", "input.video_url"),
        (repainting(input={"video_url": "https://user:pass@a.b/c"}), 400, "InvalidParameter", "input.video_url"),
        (
            repainting(input={"video_url": "oss://kinora/0000000000/x/y.mp4"}),
            400,
            "InvalidParameter",
            "input.video_url",
        ),
        (repainting(input={"video_url": "/tmp/a.mp4"}), 400, "InvalidParameter", "input.video_url"),
        (repainting(input={"prompt": None}), 400, "InvalidParameter", "input.prompt"),
        (repainting(input={"function": "video_painting"}), 400, "InvalidParameter", "input.function"),
        (repainting(model="wan2.2-kf2v-flash"), 404, "Model.NotExist", "wan2.2-kf2v-flash"),
        (repainting(model="wan2.1-vace-1.3b"), 404, "Model.NotExist", "not served here"),
        ({"model": "wan2.1-vace-plus"}, 400, "InvalidParameter", "input"),
        ([], 400, "InvalidParameter", ""),
        ("{", 400, "InvalidParameter", ""),
    ]
    async with house.client(await house.key()) as client:
        for body, status, code, words in wrong:
            text = {"content": body} if isinstance(body, str) else {"json": body}
            response = await client.post(SYNTHESIS, headers=ASYNC, **text)
            found = response.json()
            assert (response.status_code, found["code"]) == (status, code), found
            assert words in found["message"]
            assert "spec." not in found["message"]
            assert response.headers["x-request-id"] == found["request_id"]
    assert await house.jobs() == []


async def test_a_hosted_name_that_nobody_mapped_does_not_exist(
    closed_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(houses, "ALIASES", {})
    await closed_house.open(free_port(), free_port())
    async with closed_house.client(await closed_house.key()) as client:
        for body in (repainting(), ONE_OF_EACH[list(ONE_OF_EACH)[-1]]):
            response = await client.post(SYNTHESIS, json=body, headers=ASYNC)
            assert (response.status_code, response.json()["code"]) == (404, "Model.NotExist")
            assert body["model"] in response.json()["message"]


async def test_models_of_first_and_last_frames_are_told_where_they_are_not(house: House) -> None:
    path = "/api/v1/services/aigc/image2video/video-synthesis"
    async with house.client(await house.key()) as client:
        unknown = await client.post(path, json=repainting(model="wanx2.1-kf2v-plus"), headers=ASYNC)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "Model.NotExist")
        known = await client.post(path, json=repainting(), headers=ASYNC)
        assert (known.status_code, known.json()["code"]) == (400, "InvalidParameter")
        assert "url error, please check url!" in known.json()["message"]


async def test_what_is_not_there_is_unknown_and_never_an_error_to_who_polls(house: House) -> None:
    async with house.client(await house.key()) as client:
        for id_ in (UUID, "no-uuid", UUID.upper(), "%2e%2e", "x" * 300):
            answer = await client.get(f"/api/v1/tasks/{id_}")
            assert answer.status_code == 200
            assert answer.json()["output"]["task_status"] == "UNKNOWN"
        cancel = await client.post(f"/api/v1/tasks/{UUID}/cancel")
        assert (cancel.status_code, cancel.json()["code"]) == (404, "NotFound")
        other = await client.get("/api/v1/services")
        assert (other.status_code, other.json()["code"]) == (404, "NotFound")
        method = await client.put(f"/api/v1/tasks/{UUID}")
        assert (method.status_code, method.json()["code"]) == (405, "InvalidParameter")


async def test_two_tenants_know_nothing_of_each_other(house: House) -> None:
    async with house.client(await house.key("ann")) as ann, house.client(await house.key("bob")) as bob:
        id_ = await submit(ann)
        assert (await fetched(bob, id_))["output"] == {"task_id": id_, "task_status": "UNKNOWN"}
        assert (await bob.post(f"/api/v1/tasks/{id_}/cancel")).status_code == 404
        assert (await bob.get("/api/v1/tasks")).json()["total"] == 0
        assert (await bob.get("/api/v1/tasks", params={"task_id": id_, "api_key_id": "ann"})).json()["data"] == []
        key = await _uploaded(ann, b"\x89PNG\r\n\x1a\n" + b"0" * 50)
        body = repainting(input={"ref_images_url": [key]})
        stolen = await bob.post(SYNTHESIS, json=body, headers=ASYNC)
        assert (stolen.status_code, stolen.json()["code"]) == (400, "InvalidParameter")
        assert stolen.json()["message"].startswith("input.ref_images_url[0]: ")
        assert (await fetched(ann, id_))["output"]["task_status"] == "PENDING"
        assert await submit(ann, body) != id_


# --- cancel, lists ----------------------------------------------------------------------------------------------------


async def test_a_pending_task_is_cancelled_and_no_other(house: House) -> None:
    async with house.client(await house.key()) as client:
        id_, running, done = [await submit(client) for _ in range(3)]
        answer = await client.post(f"/api/v1/tasks/{id_}/cancel")
        assert answer.status_code == 200
        assert set(answer.json()) == {"request_id"}
        assert (await house.job(id_))["spec"]["cancel"] is True
        await house.cancelled(id_)
        assert (await fetched(client, id_))["output"]["task_status"] == "CANCELED"
        await house.run(running)
        await house.succeed(done)
        for other in (id_, running, done):
            refused = await client.post(f"/api/v1/tasks/{other}/cancel")
            assert (refused.status_code, refused.json()["code"]) == (400, "UnsupportedOperation")
            words = "Failed to cancel the task, please confirm if the task is in PENDING status."
            assert refused.json()["message"] == words
        assert "cancel" not in (await house.job(running))["spec"] or not (await house.job(running))["spec"]["cancel"]


async def test_tasks_are_listed_with_filters_and_pages(house: House) -> None:
    async with house.client(await house.key("studio")) as client:
        ids = [await submit(client) for _ in range(3)]
        edit = await submit(client, ONE_OF_EACH[list(ONE_OF_EACH)[-1]])
        await house.run(ids[1])

        async def listed(**params: Any) -> list[str]:
            response = await client.get("/api/v1/tasks", params=params)
            assert response.status_code == 200
            answer = response.json()
            assert [one["task_id"] for one in answer["data"]] == [one["task_id"] for one in answer["tasks"]]
            return sorted(one["task_id"] for one in answer["data"])

        assert await listed() == sorted([*ids, edit])
        assert await listed(status="RUNNING") == [ids[1]]
        assert await listed(model_name="wan2.7-videoedit") == [edit]
        assert await listed(task_id=ids[0]) == [ids[0]]
        pages = [await listed(page_no=page, page_size=3) for page in (1, 2, 3)]
        assert ([len(page) for page in pages], sorted(one for page in pages for one in page)) == (
            [3, 1, 0],
            sorted([*ids, edit]),
        )
        assert await listed(end_time="20200101000000") == []
        for params in ({"page_no": 0}, {"page_size": 101}, {"status": "GONE"}, {"start_time": "today"}):
            refused = await client.get("/api/v1/tasks", params=params)
            assert (refused.status_code, refused.json()["code"]) == (400, "InvalidParameter"), params
        [entry] = (await client.get("/api/v1/tasks", params={"task_id": ids[0]})).json()["data"]
        assert (entry["api_key_id"], entry["status"], entry["model_name"]) == ("studio", "PENDING", "wan2.1-vace-plus")
        assert entry["request_id"]


# --- limits, repeats --------------------------------------------------------------------------------------------------


async def test_submits_are_limited_and_polling_never(house: House) -> None:
    limits = {"submitsPerMinute": 1, "burst": 1}
    async with house.client(await house.key(limits=limits)) as client:
        id_ = await submit(client)
        refused = await client.post(SYNTHESIS, json=repainting(), headers=ASYNC)
        assert (refused.status_code, refused.json()["code"]) == (429, "Throttling.RateQuota")
        assert refused.json()["message"].startswith("Requests rate limit exceeded, please try again later.")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers.get("x-should-retry") != "false"
        answers = [await client.get(f"/api/v1/tasks/{id_}") for _ in range(80)]
        answers += [await client.get("/api/v1/tasks") for _ in range(20)]
        assert {one.status_code for one in answers} == {200}
        assert (await client.post(f"/api/v1/tasks/{id_}/cancel")).status_code == 200


async def test_unfinished_tasks_are_limited_by_a_quota(house: House) -> None:
    async with house.client(await house.key(limits={"concurrent": 1})) as client:
        id_ = await submit(client)
        refused = await client.post(SYNTHESIS, json=repainting(), headers=ASYNC)
        assert (refused.status_code, refused.json()["code"]) == (429, "Throttling.AllocationQuota")
        await house.succeed(id_)
        assert await submit(client) != id_


async def test_a_repeated_request_is_one_task(house: House) -> None:
    async with house.client(await house.key()) as client:
        first = await submit(client, **{"x-stainless-retry-count": "0"})
        assert await submit(client, **{"x-stainless-retry-count": "1"}) == first
        assert await submit(client, **{"x-stainless-retry-count": "0"}) != first
        keyed = await submit(client, **{"Idempotency-Key": "one"})
        assert await submit(client, **{"Idempotency-Key": "one"}) == keyed
        other = await client.post(
            SYNTHESIS, json=repainting(input={"prompt": "other"}), headers={**ASYNC, "Idempotency-Key": "one"}
        )
        assert (other.status_code, other.json()["code"]) == (422, "InvalidParameter")
    assert len(await house.jobs()) == 3


async def test_what_the_api_server_refuses_is_not_to_be_tried_again(house: House) -> None:
    async with house.client(await house.key(queue="Not_A_Queue" + "x" * 40)) as client:
        response = await client.post(SYNTHESIS, json=repainting(), headers=ASYNC)
        if response.status_code != 200:
            assert response.headers["x-should-retry"] == "false"


async def test_any_text_is_a_prompt(house: House) -> None:
    prompt = "a\x00b\x7f\u202e 😀 \ufeff" + "狐" * 4900
    async with house.client(await house.key()) as client:
        id_ = await submit(client, repainting(input={"prompt": prompt}))
        await house.succeed(id_)
        assert (await fetched(client, id_))["output"]["orig_prompt"] == prompt


async def test_unknown_keys_are_ignored_and_logged_by_name(house: House, caplog: pytest.LogCaptureFixture) -> None:
    body = repainting(
        input={"audio_url": "https://secret.example.com/x"}, parameters={"shot_type": "multi", "size": "1*1"}
    )
    with caplog.at_level(logging.INFO, "kinora.gateway.dashscope"):
        async with house.client(await house.key()) as client:
            await submit(client, body)
    told = [one.getMessage() for one in caplog.records if "ignored" in one.getMessage()]
    assert len(told) == 1
    assert "input.audio_url, parameters.shot_type, parameters.size" in told[0]
    assert "secret" not in told[0]


# --- uploads ----------------------------------------------------------------------------------------------------------


async def _uploaded(client: httpx.AsyncClient, content: bytes, name: str = "a.png") -> str:
    policy = (await client.get("/api/v1/uploads", params={"action": "getPolicy", "model": "m"})).json()["data"]
    form = {
        "OSSAccessKeyId": policy["oss_access_key_id"],
        "Signature": policy["signature"],
        "policy": policy["policy"],
        "key": f"{policy['upload_dir']}/{name}",
        "x-oss-object-acl": policy["x_oss_object_acl"],
        "x-oss-forbid-overwrite": policy["x_oss_forbid_overwrite"],
        "success_action_status": "200",
    }
    async with httpx.AsyncClient() as nobody:
        response = await nobody.post(policy["upload_host"], data=form, files={"file": (name, content)})
    assert response.status_code == 200, response.text
    return f"oss://{form['key']}"


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
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}/v1"


async def _extended(house: House, prompt: str = "a fox") -> dict[str, Any]:
    async with house.client(await house.key()) as client:
        id_ = await submit(client, repainting(input={"prompt": prompt}, parameters={"prompt_extend": True}))
        spec = (await house.job(id_))["spec"]
        await house.succeed(id_)
        output: dict[str, Any] = (await fetched(client, id_))["output"]
        assert output["actual_prompt"] == spec["prompt"]
        return output


async def test_a_prompt_is_rewritten_where_there_is_an_endpoint(closed_house: House) -> None:
    async def answer(request: web.Request) -> web.Response:
        asked = (await request.json())["messages"][-1]["content"]
        return web.json_response({"choices": [{"message": {"content": f"{asked}, in golden light"}}]})

    runner, url = await _rewriter(answer)
    closed_house.values["promptExtend"] = {"url": url, "model": "small"}
    await closed_house.open(free_port(), free_port())
    try:
        output = await _extended(closed_house)
        assert (output["orig_prompt"], output["actual_prompt"]) == ("a fox", "a fox, in golden light")
        assert output["prompt_extend"] == "the prompt was rewritten"
        long = await _extended(closed_house, "狐" * 1000)
        assert long["orig_prompt"] == long["actual_prompt"]
    finally:
        await runner.cleanup()


async def test_an_endpoint_that_fails_leaves_the_prompt_and_it_is_told_and_counted(closed_house: House) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=500)

    runner, url = await _rewriter(answer)
    closed_house.values["promptExtend"] = {"url": url, "model": "small"}
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
