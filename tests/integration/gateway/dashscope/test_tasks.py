"""Tasks over plain HTTP: cancelling, lists, limits, repeats, and what is ignored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from integration.gateway.dashscope.speaking import (
    ASYNC,
    SYNTHESIS,
    fetched,
    repainting,
    submit,
)
from integration.gateway.house import House
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import VIDEOJOB, Resource
from unit.gateway.dashscope.asked import ONE_OF_EACH
from waiting import DEADLINE, video_job

pytestmark = pytest.mark.integration


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


POLICY, BINDING = (
    Resource("admissionregistration.k8s.io", "v1", plural, kind, namespaced=False)
    for plural, kind in (
        ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
        ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
    )
)


@asynccontextmanager
async def refusing(kube: KubeClient, namespace: str, prompt: str) -> AsyncIterator[None]:
    """The API server lets no VideoJob with this prompt into the namespace."""
    name = f"no-such-prompt-{namespace}"
    rule = {"apiGroups": ["kinora.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["videojobs"]}
    validation = {"expression": f"object.spec.prompt != '{prompt}'", "message": "nobody renders that"}
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation], "failurePolicy": "Fail"}
    await kube.create(POLICY, None, {"metadata": {"name": name}, "spec": spec})
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": where}
    await kube.create(BINDING, None, {"metadata": {"name": name}, "spec": bound})
    try:
        async with asyncio.timeout(DEADLINE):
            while await _taken(kube, namespace, prompt):  # until the API server has taken the policy up
                pass
        yield
    finally:
        await kube.delete(BINDING, None, name)
        await kube.delete(POLICY, None, name)


async def _taken(kube: KubeClient, namespace: str, prompt: str) -> bool:
    spec = {"model": "wan2.1-vace-14b", "task": "TextToVideo", "prompt": prompt}
    try:
        await kube.create(VIDEOJOB, namespace, {**video_job("probe"), "spec": spec}, dry_run=True)
    except ApiError as error:
        return "nobody renders that" not in error.message  # a refusal of another kind says nothing of the policy
    return True


async def test_what_the_api_server_refuses_is_not_to_be_tried_again(house: House) -> None:
    async with house.client(await house.key()) as client, refusing(house.kube, house.namespace, "nothing good"):
        response = await client.post(SYNTHESIS, json=repainting(input={"prompt": "nothing good"}), headers=ASYNC)
        assert (response.status_code, response.json()["code"]) == (400, "InvalidParameter")
        assert "nobody renders that" in response.json()["message"]
        assert response.headers["x-should-retry"] == "false"
        assert await house.jobs() == []


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
