"""The DashScope dialect over plain HTTP: every route, field and error, on the real gateway over the real API server."""

from __future__ import annotations

import re
from typing import Any

import pytest

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
    uploaded,
)
from integration.gateway.house import House
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
        key = await uploaded(ann, b"\x89PNG\r\n\x1a\n" + b"0" * 50)
        body = repainting(input={"ref_images_url": [key]})
        stolen = await bob.post(SYNTHESIS, json=body, headers=ASYNC)
        assert (stolen.status_code, stolen.json()["code"]) == (400, "InvalidParameter")
        assert stolen.json()["message"].startswith("input.ref_images_url[0]: ")
        assert (await fetched(ann, id_))["output"]["task_status"] == "PENDING"
        assert await submit(ann, body) != id_
