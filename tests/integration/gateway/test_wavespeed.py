"""WaveSpeed's dialect by its own package and by plain HTTP, over the real API server; the test plays the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import wavespeed

from integration.gateway.hosted import CLIP, PHOTO, beside, deliver
from integration.gateway.house import House, artifact_of
from kinora.catalogue.load import load_catalogue
from kinora.gateway.wavespeed import routes
from unit.gateway.hosted import printed_bodies

pytestmark = pytest.mark.integration
MODEL = "wavespeed-ai/wan-2.1-14b-vace"
SUBMIT = f"/api/v3/{MODEL}"
INPUT = {"prompt": "a fox runs through snow", "size": "480*832", "seed": 7, "task": "none"}


def client(house: House, key: str, **more: Any) -> wavespeed.Client:
    return wavespeed.Client(api_key=key, base_url=house.url, retry_interval=0.01, **more)


async def test_the_package_renders_a_video(house: House) -> None:
    key = await house.key()
    call, job = await beside(house, client(house, key).run, MODEL, INPUT, poll_interval=0.02)
    await house.run(job.id, 40)
    await deliver(house, job.id)
    (link,) = (await call)["outputs"]
    async with house.client() as nobody:
        video = await nobody.get(link)
        assert (video.status_code, video.headers["content-type"], video.content) == (200, "video/mp4", CLIP)
        part = await nobody.get(link, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, CLIP[10:20])
    spec = (await house.job(job.id))["spec"]
    assert (spec["model"], spec["task"], spec["prompt"]) == ("wan2.1-vace-14b", "TextToVideo", INPUT["prompt"])
    assert spec["output"] == {**spec["output"], "width": 480, "height": 832}
    assert spec["parameters"]["seed"] == 7


async def test_a_lora_of_the_model_is_its_preset_and_another_is_refused(house: House) -> None:
    model = load_catalogue().get("wan2.1-vace-14b")
    assert model is not None
    weights = model.preset_weights("Fast")
    async with house.client(await house.key()) as http:
        given = {"prompt": "a fox runs", "loras": [{"path": one.name, "scale": 1} for one in weights]}
        answer = await http.post(SUBMIT, json=given)
        assert answer.status_code == 200, answer.text
        spec = (await house.job(answer.json()["data"]["id"]))["spec"]
        assert spec["parameters"]["preset"] == "Fast"
        assert not {"steps", "guidance", "shift"} & spec["parameters"].keys()
        foreign = {**given, "loras": [{"path": "https://x.example/style.safetensors?Signature=secret"}]}
        refused = await http.post(SUBMIT, json=foreign)
        assert (refused.status_code, refused.json()["code"]) == (400, 400)
        assert refused.json()["message"].startswith(f"loras[0].path is a URL; allowed: {weights[0].name}")
        assert "secret" not in refused.text
    assert len(await house.jobs()) == 1


async def test_the_package_uploads_files_and_takes_outputs_as_inputs(house: House, tmp_path: Path) -> None:
    key = await house.key()
    ours = client(house, key)
    picture, clip = tmp_path / "coffee.jpg", tmp_path / "bunny.mp4"
    picture.write_bytes(PHOTO)
    clip.write_bytes(CLIP)
    links = [await asyncio.to_thread(ours.upload, str(one)) for one in (picture, clip)]
    asked = {**INPUT, "images": [links[0]], "video": links[1], "task": "pose"}
    call, job = await beside(house, ours.run, MODEL, asked, poll_interval=0.02)
    inputs = (await house.job(job.id))["spec"]["inputs"]
    held = [inputs["references"][0]["source"]["upload"], inputs["video"]["upload"]]
    assert [one.name for one in house.store.uploads()] == sorted(key.rpartition("/")[2] for key in held)
    await deliver(house, job.id)
    (output,) = (await call)["outputs"]

    call, second = await beside(house, ours.run, MODEL, {**INPUT, "video": output}, poll_interval=0.02)
    source = (await house.job(second.id))["spec"]["inputs"]["video"]
    assert source == {"artifact": {"videoJobName": job.name, "index": 0}}
    await deliver(house, second.id)
    await call

    other = await house.key("other")
    async with house.client(other) as http:
        for link in (links[0], output):
            answer = await http.post(SUBMIT, json={**INPUT, "images": [link]})
            assert answer.status_code == 400
            assert answer.json()["message"].startswith("images[0] is refused: the link is not one of yours")


async def test_a_file_may_come_as_a_form_and_a_webhook_as_a_query(house: House) -> None:
    async with house.client(await house.key()) as http:
        sent = await http.post("/api/v3/media/upload/binary", files={"file": ("b.mp4", CLIP, "video/mp4")})
        data = sent.json()["data"]
        assert (data["type"], data["filename"], data["size"]) == ("video", "b.mp4", len(CLIP))
        async with house.client() as nobody:
            assert (await nobody.get(data["download_url"])).content == CLIP
        hook = "https://receiver.example/hook?a=1"
        made = await http.post(SUBMIT, json={**INPUT, "video": data["download_url"]}, params={"webhook": hook})
        spec = (await house.job(made.json()["data"]["id"]))["spec"]
        assert spec["webhook"] == {"url": hook}
        assert set(spec["inputs"]["video"]) == {"upload"}
        for wrong in ({"files": {"other": ("b", b"x")}}, {"json": {}}, {"data": {"file": "text"}}):
            answer = await http.post("/api/v3/media/upload/binary", **wrong)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["code"]) == (400, 400)
        assert (await http.post(SUBMIT, json=INPUT, params={"webhook": "ftp://x"})).status_code == 400


async def test_an_upload_without_its_declared_size_or_over_the_limit_is_refused(house: House) -> None:
    async with house.client(await house.key(limits={"uploadBytes": 1000})) as http:
        for body in ({"filename": "a.png"}, {"size": 10}, {"filename": "a.png", "size": -1}, {}):
            assert (await http.post("/api/v3/media/uploads", json=body)).status_code == 400
        large = await http.post("/api/v3/media/uploads", json={"filename": "a.mp4", "size": 1001})
        assert (large.status_code, large.json()["code"]) == (413, 413)
        assert set(large.json()) == {"code", "message"}


async def test_a_failure_whose_text_names_an_http_status_is_not_submitted_again(house: House) -> None:
    key = await house.key()
    call, job = await beside(house, client(house, key, max_retries=3).run, MODEL, INPUT, poll_interval=0.02)
    await house.fail(job.id, "InputFetchFailed", "the input's server answered HTTP 503 for too long")
    with pytest.raises(RuntimeError, match="answered status 503") as caught:
        await call
    assert job.id in str(caught.value)
    assert len(await house.jobs()) == 1


async def test_a_cancelled_prediction_ends_the_packages_waiting(house: House) -> None:
    key = await house.key()
    call, job = await beside(house, client(house, key).run, MODEL, INPUT, poll_interval=0.02)
    async with house.client(key) as http:
        answer = (await http.delete(f"/api/v3/predictions/{job.id}")).json()
    assert answer == {"code": 200, "message": "success", "data": {"id": job.id, "status": "deleted"}}
    assert (await house.job(job.id))["spec"]["cancel"] is True
    await house.cancelled(job.id)
    with pytest.raises(RuntimeError, match="the prediction was cancelled"):
        await call


async def test_sync_mode_stays_open_until_the_video_is_there(house: House) -> None:
    key = await house.key()
    call, job = await beside(house, client(house, key).run, MODEL, INPUT, enable_sync_mode=True)
    await house.run(job.id, 10)
    assert not call.done()
    await house.succeed(job.id)
    assert len((await call)["outputs"]) == 1
    call, job = await beside(house, client(house, key).run_no_throw, MODEL, INPUT, enable_sync_mode=True)
    await house.fail(job.id, "NodeError", "node KSampler failed")
    assert (await call)["status"] == "failed"


async def test_sync_mode_that_takes_too_long_says_where_to_go_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "SYNC_SECONDS", 0.1)
    key = await house.key()
    call, job = await beside(house, client(house, key).run_no_throw, MODEL, INPUT, enable_sync_mode=True)
    found = await call
    assert (found["status"], found["task_id"]) == ("processing", job.id)
    await house.succeed(job.id)
    assert client_result(await asyncio.to_thread(client(house, key).get_result, job.id)) == "completed"


async def test_a_gateway_that_drains_answers_what_it_keeps_open(house: House) -> None:
    key = await house.key()
    call, job = await beside(house, client(house, key).run_no_throw, MODEL, INPUT, enable_sync_mode=True)
    await house.close()
    found = await call
    assert (found["status"], found["task_id"]) == ("processing", job.id)


def client_result(answer: dict[str, Any]) -> str:
    return str(answer["data"]["status"])


async def test_every_documented_field_of_an_answer_at_every_stage(house: House) -> None:
    key = await house.key()
    async with house.client(key) as http:
        first = (await http.post(SUBMIT, json=INPUT)).json()
        assert (first["code"], first["message"]) == (200, "success")
        id_ = first["data"]["id"]
        url = f"{house.url}/api/v3/predictions/{id_}/result"
        assert first["data"] == {
            "id": id_,
            "model": MODEL,
            "outputs": [],
            "urls": {"get": url},
            "has_nsfw_contents": [],
            "status": "created",
            "created_at": first["data"]["created_at"],
            "error": "",
            "timings": {"inference": 0},
            "executionTime": 0,
        }
        assert first["data"]["created_at"].endswith("Z")
        await house.run(id_, 40)
        assert (await http.get(url)).json()["data"]["status"] == "processing"
        job = await house.job(id_)
        await house.succeed(id_, [artifact_of(job), artifact_of(job)])
        done = (await http.get(f"/api/v3/predictions/{id_}")).json()["data"]
        assert (done["status"], len(done["outputs"]), done["has_nsfw_contents"]) == ("completed", 2, [False, False])
        assert done["timings"] == {"inference": 2500}


async def test_the_documents_own_call_is_told_what_it_lacks(house: House) -> None:
    (body,) = printed_bodies("003")
    async with house.client(await house.key()) as http:
        answer = await http.post(SUBMIT, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, 400)
        assert answer.json()["message"].startswith("prompt is not set")
        made = (await http.post(SUBMIT, json={**body, "prompt": "a fox"})).json()["data"]
        assert made["notes"] == ["task depth has no video to work on: rendered as text-to-video"]
        again = (await http.get(made["urls"]["get"])).json()["data"]
        assert again["notes"] == made["notes"]


async def test_what_is_refused_is_told_with_the_requests_own_fields_and_makes_no_job(house: House) -> None:
    async with house.client(await house.key()) as http:
        for body, field in (
            ({**INPUT, "duration": 11}, "duration"),
            ({**INPUT, "video": "ftp://host/v.mp4"}, "video"),
            ({**INPUT, "images": ["http://user:secret@host/a.png"]}, "images[0]"),
        ):
            answer = await http.post(SUBMIT, json=body)
            assert answer.status_code == 400
            assert field in answer.json()["message"], answer.text
            assert "spec." not in answer.json()["message"]
            assert "secret" not in answer.text
        for content in (b"{", b"[]", b"nothing", b"\xff"):
            assert (await http.post(SUBMIT, content=content)).status_code == 400
        assert (await http.post("/api/v3/wavespeed-ai/other", json=INPUT)).status_code == 400
    assert await house.jobs() == []


async def test_a_model_of_the_catalogue_takes_the_same_parameters_under_its_own_name(house: House) -> None:
    async with house.client(await house.key()) as http:
        made = (await http.post("/api/v3/kinora/wan2.1-vace-14b/", json=INPUT)).json()["data"]
    assert made["model"] == "kinora/wan2.1-vace-14b"


async def test_an_idempotency_key_makes_one_job_and_without_it_each_submit_is_one(house: House) -> None:
    async with house.client(await house.key()) as http:
        ids = [
            (await http.post(SUBMIT, json=INPUT, headers={"Idempotency-Key": "k"})).json()["data"]["id"]
            for _ in range(2)
        ]
        assert ids[0] == ids[1]
        other = await http.post(SUBMIT, json={**INPUT, "seed": 8}, headers={"Idempotency-Key": "k"})
        assert (other.status_code, other.json()["code"]) == (422, 422)
        assert (await http.post(SUBMIT, json=INPUT)).json()["data"]["id"] != ids[0]


async def test_one_tenant_sees_nothing_of_another(house: House) -> None:
    ours, theirs = await house.key("ours"), await house.key("theirs")
    async with house.client(ours) as mine, house.client(theirs) as other:
        id_ = (await mine.post(SUBMIT, json=INPUT)).json()["data"]["id"]
        for answer in (
            await other.get(f"/api/v3/predictions/{id_}"),
            await other.get(f"/api/v3/predictions/{id_}/result"),
            await other.delete(f"/api/v3/predictions/{id_}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, 404)
        gone = (await other.post("/api/v3/predictions/delete", json={"ids": [id_]})).json()
        assert gone["data"] == {"deleted_count": 0}
        assert (await other.post("/api/v3/predictions", json={})).json()["data"]["items"] == []
        assert (await mine.get(f"/api/v3/predictions/{id_}")).status_code == 200
    async with house.client() as nobody:
        closed = await nobody.post(SUBMIT, json=INPUT)
        assert (closed.status_code, closed.json()["code"]) == (401, 401)


async def test_predictions_are_listed_by_pages_and_filters(house: House) -> None:
    async with house.client(await house.key()) as http:
        made = [(await http.post(SUBMIT, json={**INPUT, "seed": seed})).json()["data"]["id"] for seed in range(3)]
        await house.succeed(made[0])

        async def listed(**asked: Any) -> list[str]:
            data = (await http.post("/api/v3/predictions", json=asked)).json()["data"]
            return [item["id"] for item in data["items"]]

        assert set(await listed()) == set(made)
        assert await listed(status="completed") == [made[0]]
        pages = [await listed(page=page, page_size=2) for page in (1, 2, 3)]
        assert [len(page) for page in pages] == [2, 1, 0]
        assert set(pages[0] + pages[1]) == set(made)
        assert await listed(created_before="2020-01-01T00:00:00Z") == []
        query = (await http.get("/api/v3/predictions", params={"page_size": "1", "status": "completed"})).json()
        assert [item["id"] for item in query["data"]["items"]] == [made[0]]
        assert set(await listed(created_after="2020-01-01T00:00:00Z", model=MODEL)) == set(made)
        assert (await http.post("/api/v3/predictions", json={"page_size": 101})).status_code == 400


async def test_a_finished_prediction_that_is_deleted_is_gone(house: House) -> None:
    async with house.client(await house.key()) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["data"]["id"]
        await house.succeed(id_)
        gone = (await http.post("/api/v3/predictions/delete", json={"ids": [id_, id_, "nothing"]})).json()
        assert gone["data"] == {"deleted_count": 1}
        assert (await http.get(f"/api/v3/predictions/{id_}")).status_code == 404


async def test_submits_beyond_the_keys_rate_are_429_with_retry_after_and_polls_never_are(house: House) -> None:
    key = await house.key(limits={"submitsPerMinute": 1, "burst": 1})
    async with house.client(key) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["data"]["id"]
        limited = await http.post(SUBMIT, json=INPUT)
        assert (limited.status_code, limited.json()["code"]) == (429, 429)
        assert int(limited.headers["retry-after"]) >= 1
        assert all([(await http.get(f"/api/v3/predictions/{id_}/result")).status_code == 200 for _ in range(20)])
