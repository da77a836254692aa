"""What the API server leaves out for those who deliver, and what the gateway's account may write: by real tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from integration.gateway.webhooks.jobs import (
    Object,
    end,
    finished,
    webhook_of,
)
from kinora.api.webhooks import UNDELIVERED
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import SECRET, VIDEOJOB
from waiting import DEADLINE, job_status, video_job

pytestmark = pytest.mark.integration


# --- what the API server leaves out, and what the fence forbids


async def test_settled_and_unfinished_jobs_are_in_no_list_of_those_who_deliver(
    kube: KubeClient, namespace: str, gateway: KubeClient
) -> None:
    await kube.create(VIDEOJOB, namespace, video_job("plain"))
    await end(kube, namespace, "plain")
    await kube.create(VIDEOJOB, namespace, video_job("running", webhook={"url": "https://x.example/"}))
    for state in ("Delivered", "Failed"):
        await finished(kube, namespace, "https://x.example/", state.lower(), webhook={"state": state})
    await finished(kube, namespace, "https://x.example/", "pending", webhook={"state": "Pending"})
    await finished(kube, namespace, "https://x.example/", "new")
    found, version = await gateway.list(VIDEOJOB, namespace, field_selector=UNDELIVERED)
    assert {job["metadata"]["name"] for job in found} == {"pending", "new"}
    await job_status(kube, namespace, "new", {"webhook": {"state": "Delivered"}})
    await end(kube, namespace, "running")
    changes: dict[str, str] = {}
    async with asyncio.timeout(DEADLINE):
        async for event in gateway.stream(VIDEOJOB, namespace, resource_version=version, field_selector=UNDELIVERED):
            changes[event["object"]["metadata"]["name"]] = event["type"]
            if len(changes) == 2:
                break
    assert changes == {"new": "DELETED", "running": "ADDED"}


async def test_the_gateway_writes_status_webhook_of_finished_jobs_and_nothing_else(
    kube: KubeClient, namespace: str, gateway: KubeClient
) -> None:
    async def write(name: str, status: Object) -> Object:
        return await gateway.patch(VIDEOJOB, namespace, name, {"status": status}, subresource="status")

    async def forbidden(name: str, status: Object, words: str) -> None:
        with pytest.raises(ApiError) as refused:
            await write(name, status)
        assert refused.value.status == 403
        assert words in refused.value.message

    job = await finished(kube, namespace, "https://x.example/", "ended", attempt=1)
    assert webhook_of(await write("ended", {"webhook": {"state": "Pending", "attempts": 1}}))["attempts"] == 1
    assert webhook_of(await write("ended", {"webhook": {"state": "Delivered", "attempts": 2}}))["attempts"] == 2
    changes: dict[str, Any] = {
        "message": "x", "reason": "x", "attempt": 2, "completionTime": None, "artifacts": [], "gpuSeconds": 1,
        "resolved": {"seed": 1}, "conditions": [], "observedGeneration": 9, "inputStore": "pvc://other/",
        "assignment": {"podName": "p", "podUID": "u"},
    }  # fmt: skip
    for name, value in changes.items():
        await forbidden("ended", {name: value}, f"may not change status.{name}")
        await forbidden("ended", {name: value, "webhook": {"state": "Failed"}}, f"may not change status.{name}")
    await kube.create(VIDEOJOB, namespace, video_job("waiting", webhook={"url": "https://x.example/"}))
    await forbidden("waiting", {"webhook": {"state": "Delivered"}}, "jobs that have ended")
    await forbidden("waiting", {"phase": "Succeeded"}, "jobs that have ended")
    other = await kube.get(VIDEOJOB, namespace, "ended")
    assert other["status"]["conditions"] == job["status"]["conditions"]
    with pytest.raises(ApiError, match="403"):
        await gateway.list(SECRET, namespace)
    with pytest.raises(ApiError, match="403"):
        await gateway.get(SECRET, namespace, "hooks")


async def test_a_stale_write_is_a_conflict_and_not_a_refusal(
    kube: KubeClient, namespace: str, gateway: KubeClient
) -> None:
    job = await finished(kube, namespace, "https://x.example/")
    await job_status(kube, namespace, "job", {"message": "meanwhile"})
    body = {
        "metadata": {"resourceVersion": job["metadata"]["resourceVersion"]},
        "status": {"webhook": {"state": "Failed"}},
    }
    with pytest.raises(ApiError) as stale:
        await gateway.patch(VIDEOJOB, namespace, "job", body, subresource="status")
    assert stale.value.is_conflict
