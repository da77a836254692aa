"""RunComfy's dialect by plain HTTP, as its document's curl lines; the test plays the agent."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from integration.conftest import free_port
from integration.gateway.hosted import CLIP, deliver
from integration.gateway.house import House, artifact_of
from kinora.gateway.jobs import job_of
from kinora.gateway.runcomfy.sample import picture
from kinora.gateway.tenants import Tenant
from kinora.kube.client import KubeClient, Object
from kinora.kube.resources import MODELSERVER
from unit.gateway.hosted import printed_bodies
from waiting import model_server

pytestmark = pytest.mark.integration
SUBMIT = "/v1/models/community/wan-2-2/vace-fun"
INPUT = {"56_text": "a lone figure in the ruins", "118_image": "https://media.example.com/figure.png"}


@pytest.fixture
async def house(closed_house: House, kube: KubeClient, namespace: str) -> House:
    """A gateway in whose namespace the document's model is served too."""
    await kube.create(MODELSERVER, namespace, model_server("vace-fun", "wan2.2-vace-fun-a14b"))
    await closed_house.open(free_port(), free_port())
    return closed_house


async def test_a_request_from_submit_to_result(house: House) -> None:
    async with house.client(await house.key()) as http:
        made = await http.post(SUBMIT, json={**INPUT, "4_valuex3_value": "540x960 (9:16)", "38_value": 24})
        assert made.status_code == 200
        told = made.json()
        id_ = told["request_id"]
        base = f"{house.url}/v1/requests/{id_}"
        assert told == {
            "request_id": id_,
            "status_url": f"{base}/status",
            "result_url": f"{base}/result",
            "cancel_url": f"{base}/cancel",
        }
        spec = (await house.job(id_))["spec"]
        assert (spec["model"], spec["task"]) == ("wan2.2-vace-fun-a14b", "ReferenceToVideo")
        assert (spec["output"]["width"], spec["output"]["height"]) == (540, 960)
        assert {name: spec["parameters"][name] for name in ("frames", "fps", "seed")} == {
            "frames": 81,
            "fps": 24,
            "seed": 96860978,
        }

        queued = (await http.get(told["status_url"])).json()
        assert (queued["status"], queued["queue_position"]) == ("in_queue", 0)
        await house.run(id_, 30)
        assert (await http.get(told["status_url"])).json()["status"] == "in_progress"
        early = (await http.get(told["result_url"])).json()
        assert early["status"] == "in_progress"
        assert "output" not in early
        await deliver(house, id_)
        assert (await http.get(told["status_url"])).json()["status"] == "completed"
        done = (await http.get(told["result_url"])).json()
        assert (done["status"], list(done["output"])) == ("completed", ["video"])
        async with house.client() as nobody:
            assert (await nobody.get(done["output"]["video"])).content == CLIP
        assert done["created_at"] <= done["finished_at"]


async def test_the_documents_own_call_takes_the_sample_picture_from_the_store(house: House) -> None:
    async with house.client(await house.key()) as http:
        for body in printed_bodies("002"):
            id_ = (await http.post(SUBMIT, json=body)).json()["request_id"]
            spec = (await house.job(id_))["spec"]
            (reference,) = spec["inputs"]["references"]
            assert spec["prompt"] == body["56_text"]
            assert reference["source"]["upload"].endswith(hashlib.sha256(picture()).hexdigest())
    (held,) = house.store.uploads()
    assert held.read_bytes() == picture()


async def test_several_outputs_are_all_told(house: House) -> None:
    async with house.client(await house.key()) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["request_id"]
        job = await house.job(id_)
        await house.succeed(id_, [artifact_of(job), artifact_of(job), artifact_of(job, contentType="image/png")])
        output = (await http.get(f"/v1/requests/{id_}/result")).json()["output"]
    assert set(output) == {"video", "videos", "image"}
    assert len(output["videos"]) == 2


async def test_a_failure_is_cancelled_with_an_error_and_never_completed(house: House) -> None:
    async with house.client(await house.key()) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["request_id"]
        await house.fail(id_, "InvalidInput", "spec.inputs.references[0] is a file of kind Video; allowed: one image")
        for what in ("status", "result"):
            told = (await http.get(f"/v1/requests/{id_}/{what}")).json()
            assert told["status"] == "cancelled"
            assert told["error"] == "118_image is a file of kind Video; allowed: one image"
            assert "output" not in told


async def test_only_what_is_in_the_queue_is_cancelled(house: House) -> None:
    async with house.client(await house.key()) as http:
        first, second = [(await http.post(SUBMIT, json=INPUT)).json()["request_id"] for _ in range(2)]
        answer = await http.post(f"/v1/requests/{first}/cancel")
        assert answer.status_code == 200
        assert answer.json() == {"request_id": first, "status": "cancelled", "outcome": "cancelled"}
        assert (await house.job(first))["spec"]["cancel"] is True
        await house.cancelled(first)
        told = (await http.get(f"/v1/requests/{first}/status")).json()
        assert told["status"] == "cancelled"
        assert "error" not in told
        assert (await http.post(f"/v1/requests/{first}/cancel")).json()["outcome"] == "cancelled"

        await house.run(second)
        refused = await http.post(f"/v1/requests/{second}/cancel")
        assert (refused.status_code, refused.json()["outcome"]) == (409, "not_cancellable")
        assert "cancel" not in {name for name, value in (await house.job(second))["spec"].items() if value is True}


@pytest.mark.parametrize("path", ["/v1/requests/{}/cancel", "/api/v1/tasks/{}/cancel"], ids=["RunComfy", "DashScope"])
async def test_a_request_that_begins_while_it_is_cancelled_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    assert house.gateway is not None
    service = house.gateway.service
    whole, begun = service.whole, []

    async def begins(tenant: Tenant, id_: str) -> Object:
        """The job as it was read; then it begins, and the cache is told of it too late."""
        read = await whole(tenant, id_)
        if not begun:
            begun.append(await house.run(id_))
            monkeypatch.setattr(service._jobs, "apply", job_of)
        return read

    async with house.client(await house.key()) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["request_id"]
        monkeypatch.setattr(service, "whole", begins)
        refused = await http.post(path.format(id_))
    assert refused.status_code in {400, 409}, refused.text
    assert not (await house.job(id_))["spec"].get("cancel")


async def test_the_queue_position_is_the_schedulers_where_it_is_known(house: House) -> None:
    async with house.client(await house.key()) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["request_id"]
        job = await house.job(id_)
        await house._write(job, {"queue": {"position": 4}})
        assert (await http.get(f"/v1/requests/{id_}/status")).json()["queue_position"] == 3


async def test_what_is_refused_is_told_with_the_numbered_key_and_makes_no_job(house: House) -> None:
    async with house.client(await house.key()) as http:
        for body, field in (
            ({"56_text": "a"}, "118_image"),
            ({"118_image": "https://h/a.png"}, "56_text"),
            ({**INPUT, "25_value": 80}, "25_value"),
            ({**INPUT, "118_image": "other.png"}, "118_image"),
            ({**INPUT, "118_image": "file:///etc/passwd"}, "118_image"),
        ):
            answer = await http.post(SUBMIT, json=body)
            assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
        other = await http.post("/v1/models/community/other", json=INPUT)
        assert (other.status_code, other.json()["field"]) == (400, "model_id")
        assert (await http.get(f"/v1/requests/{house.namespace}/status")).status_code == 404
        assert "error" in (await http.get("/v1/requests/none/nothing")).json()
    assert await house.jobs() == []


async def test_one_tenant_sees_nothing_of_another(house: House) -> None:
    ours, theirs = await house.key("ours"), await house.key("theirs")
    async with house.client(ours) as mine, house.client(theirs) as other, house.client() as nobody:
        id_ = (await mine.post(SUBMIT, json=INPUT)).json()["request_id"]
        for method, what in (("GET", "status"), ("GET", "result"), ("POST", "cancel")):
            path = f"/v1/requests/{id_}/{what}"
            assert (await other.request(method, path)).status_code == 404
            closed: Any = await nobody.request(method, path)
            assert (closed.status_code, set(closed.json())) == (401, {"error"})
        assert "cancel" not in {name for name, value in (await house.job(id_))["spec"].items() if value is True}


async def test_an_administrators_mapping_of_the_hosted_name_is_followed(closed_house: House) -> None:
    from integration.gateway import house as module

    aliases = {**module.ALIASES, "wan-2-2-vace-fun": "wan2.1-vace-14b"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ALIASES", aliases)
        await closed_house.open(free_port(), free_port())
    async with closed_house.client(await closed_house.key()) as http:
        id_ = (await http.post(SUBMIT, json=INPUT)).json()["request_id"]
    assert (await closed_house.job(id_))["spec"]["model"] == "wan-2-2-vace-fun"
