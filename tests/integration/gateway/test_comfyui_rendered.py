"""Prompts through everything that is real: what a client sees of renders by the agent and the stand-in."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.gateway.comfyui import PHOTO, entry, heard, listening, long, prompted, uploaded
from integration.gateway.house import House
from integration.gateway.rendering import rendering
from unit.workflows.made import node, sound

pytestmark = pytest.mark.integration
Object = dict[str, Any]
SECONDS = 120.0  # for a small render, on a machine that does other things too
STEP = 0.2


def small(steps: int) -> Object:
    """A video of nine small frames that begins with an uploaded picture."""
    graph = sound(n17={"width": 64, "height": 64, "length": 9, "reference_image": ["50", 0]}, n24={"steps": steps})
    return graph | {"50": node("LoadImage", image="cup.jpg", upload="image")}


@pytest.mark.usefixtures("claims")
async def test_a_client_follows_a_render_fetches_it_and_stops_the_next(
    house: House, user: httpx.AsyncClient, start_operator: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    async with rendering(house, start_operator, "wan2.1-vace-1.3b", tmp_path / "pod", step_seconds=STEP) as bench:
        await uploaded(user, PHOTO, "cup.jpg")
        async with listening(house, user) as socket:
            await heard(socket, "status")
            first = await prompted(user, small(3), client_id="me")
            messages = await heard(socket, "executing", seconds=SECONDS, node=None)
            await is_told_and_fetched(user, first, messages)
            bench.hold(1)
            second = await prompted(user, small(100), client_id="me")
            await heard(socket, "execution_start", seconds=SECONDS, prompt_id=second)
            assert (await user.post("/interrupt")).status_code == 200
            messages = await heard(socket, "executing", seconds=SECONDS, node=None)
            assert [one["type"] for one in messages][-3:] == ["execution_interrupted", "status", "executing"]
        stopped = await entry(user, second)
        assert (stopped["status"]["status_str"], stopped["outputs"]) == ("error", {})
        assert (await user.get("/queue")).json() == {"queue_running": [], "queue_pending": []}


async def is_told_and_fetched(user: httpx.AsyncClient, id_: str, messages: list[Object]) -> None:
    kinds = [one["type"] for one in messages]
    order = ["execution_start", "execution_cached", "executed", "execution_success", "executing"]
    places = [kinds.index(kind) for kind in order[:-1]] + [len(kinds) - 1]
    assert places == sorted(places), kinds
    assert all(one["data"]["prompt_id"] == id_ for one in messages if one["type"] != "status")
    done = await entry(user, id_)
    [executed] = [one["data"] for one in messages if one["type"] == "executed"]
    assert done["outputs"] == {executed["node"]: executed["output"]}
    [file] = executed["output"]["gifs"]
    video = await user.get("/view", params={"filename": file["filename"]})
    with io.BytesIO(video.content) as content:
        assert len(content.getbuffer()) == int(video.headers["content-length"])
    assert hashlib.sha256(video.content).hexdigest() == video.headers["etag"].strip('"')


@pytest.mark.usefixtures("claims")
async def test_a_graph_that_is_longer_than_a_job_is_judged_by_the_stager_and_rendered(
    house: House, user: httpx.AsyncClient, start_operator: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    sent = long(small(1))
    async with rendering(house, start_operator, "wan2.1-vace-1.3b", tmp_path / "pod"):
        await uploaded(user, PHOTO, "cup.jpg")
        async with listening(house, user) as socket:
            id_ = await prompted(user, sent, client_id="me")
            await heard(socket, "executing", seconds=SECONDS, node=None)
    job = await house.job(id_)
    done = await entry(user, id_)
    assert done["status"]["status_str"] == "success", job["status"]
    assert job["status"]["resolved"]["workflowSha256"] == job["spec"]["workflow"]["upload"]["sha256"]
    assert done["prompt"][2] == sent
    assert list(done["outputs"]) == ["32"]
