"""What the tests of the DashScope dialect share: requests, and the agent's part of a task's life."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from integration.gateway.house import House, artifact_of
from waiting import DEADLINE

Object = dict[str, Any]
SYNTHESIS = "/api/v1/services/aigc/video-generation/video-synthesis"
ASYNC = {"X-DashScope-Async": "enable"}
VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 40  # as much of an MP4 as a link needs


def repainting(**more: Any) -> Object:
    """A request of wan2.1-vace-plus; `input` and `parameters` are added to."""
    return {
        "model": more.get("model", "wan2.1-vace-plus"),
        "input": {
            "function": "video_repainting",
            "prompt": "As a watercolour",
            "video_url": "https://media.example.com/a.mp4",
            **more.get("input", {}),
        },
        "parameters": {"control_condition": "depth", "prompt_extend": False, **more.get("parameters", {})},
    }


async def submit(client: httpx.AsyncClient, body: Object | None = None, **headers: str) -> str:
    """A new task; its id."""
    response = await client.post(SYNTHESIS, json=body or repainting(), headers={**ASYNC, **headers})
    assert response.status_code == 200, response.text
    task_id: str = response.json()["output"]["task_id"]
    return task_id


async def fetched(client: httpx.AsyncClient, task_id: str) -> Object:
    """The answer about a task."""
    response = await client.get(f"/api/v1/tasks/{task_id}")
    assert response.status_code == 200, response.text
    answer: Object = response.json()
    return answer


async def rendered(house: House, task_id: str, **more: Any) -> None:
    """The task succeeds, with a video that is in the store."""
    job = await house.job(task_id)
    entry = artifact_of(job, frames=152, fps=30, durationSeconds=5.0667, **{"bytes": len(VIDEO), **more})
    house.store.artifact(entry["uri"].partition("://")[2].partition("/")[2], VIDEO)
    await house.succeed(task_id, [entry])


async def next_task(house: House, known: int = 0) -> str:
    """The id of the task that comes after so many."""
    async with asyncio.timeout(DEADLINE):
        while True:
            jobs = await house.jobs()
            if len(jobs) > known:
                name: str = jobs[known]["metadata"]["name"]
                return name.split("-", 2)[2]
            await asyncio.sleep(0.02)  # another client's request, in a thread


async def uploaded(client: httpx.AsyncClient, content: bytes, name: str = "a.png") -> str:
    """A local file, sent as the clients do; its oss:// address."""
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
    async with httpx.AsyncClient(timeout=DEADLINE) as nobody:
        response = await nobody.post(policy["upload_host"], data=form, files={"file": (name, content)})
    assert response.status_code == 200, response.text
    return f"oss://{form['key']}"
