"""The ComfyUI dialect's websocket: one's own prompts in full, others counted; reconnects; the gateway's end."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from integration.conftest import free_port
from integration.gateway.comfyui import entry, finished, heard, listening, prompted
from integration.gateway.house import House
from kinora.gateway.comfyui.sockets import MAX_SOCKETS
from waiting import DEADLINE

pytestmark = pytest.mark.integration
Object = dict[str, Any]


async def test_a_client_follows_its_prompt(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket, listening(house, user, "other") as other:
        [hello] = await heard(socket, "status")
        assert hello["data"] == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"}
        await heard(other, "status")
        id_ = await prompted(user, client_id="me")
        await house.run(id_, stage="Sample", step=1, steps=20)
        [*begun, progress] = await heard(socket, "progress")
        kinds = [one["type"] for one in begun if one["type"] not in ("status", "progress_state")]
        assert kinds[:2] == ["execution_start", "execution_cached"]
        assert begun[-2]["data"] == {"node": "24", "display_node": "24", "prompt_id": id_}
        assert progress["data"] == {"value": 1, "max": 20, "prompt_id": id_, "node": "24"}
        await finished(house, id_)
        told = await heard(socket, "executing", node=None)
        [executed] = [one["data"] for one in told if one["type"] == "executed"]
        assert executed["output"] == (await entry(user, id_))["outputs"]["32"]
        assert [one["type"] for one in told[-3:]] == ["execution_success", "status", "executing"]
        counts = [one["data"] for one in await heard(other, "status", status={"exec_info": {"queue_remaining": 0}})]
        assert all(list(one) == ["status"] for one in counts)


async def test_a_client_that_reconnects_goes_on_from_there(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket:
        id_ = await prompted(user, client_id="me")
        await house.run(id_, stage="Sample")
        await heard(socket, "executing")
    async with listening(house, user) as socket:
        messages = await heard(socket, "executing")
        assert messages[-1]["data"] == {"node": "24"}
        await house.fail(id_)
        assert [one["type"] for one in await heard(socket, "executing", node=None)][-3:] == [
            "execution_error", "status", "executing",
        ]  # fmt: skip


async def test_a_second_socket_takes_the_place_of_the_first(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as first:
        await heard(first, "status")
        async with listening(house, user) as second:
            await heard(second, "status")
            with pytest.raises(ConnectionClosed):
                await heard(first, "execution_start")


async def test_client_ids_are_a_tenants_own(house: House, user: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    async with listening(house, user) as mine, listening(house, stranger) as theirs:
        for socket in (mine, theirs):
            await heard(socket, "status")
        id_ = await prompted(user, client_id="me")
        await house.run(id_)
        await heard(mine, "execution_start")
        other = await prompted(stranger, client_id="me")
        await house.run(other)
        [*_, start] = await heard(theirs, "execution_start")
        assert start["data"]["prompt_id"] == other


async def test_a_socket_hears_of_an_interrupt_and_answers_feature_flags(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket:
        await socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        await socket.send(b"\x00\x01")
        await socket.send("no json")
        [*_, flags] = await heard(socket, "feature_flags")
        assert flags["data"] == (await user.get("/features")).json()
        id_ = await prompted(user, client_id="me")
        await house.run(id_)
        await user.post("/interrupt")
        await house.stopped(id_)
        assert [one["type"] for one in await heard(socket, "executing", node=None)][-3:] == [
            "execution_interrupted", "status", "executing",
        ]  # fmt: skip


async def test_a_gateway_that_ends_ends_its_sockets(house: House, user: httpx.AsyncClient) -> None:
    async with listening(house, user) as socket:
        await heard(socket, "status")
        async with asyncio.timeout(DEADLINE):
            await house.close()
        with pytest.raises(ConnectionClosed):
            await heard(socket, "execution_start")


async def test_a_tenant_has_so_many_sockets(house: House, user: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        for index in range(MAX_SOCKETS):
            await stack.enter_async_context(listening(house, user, f"c{index}"))
        with pytest.raises(InvalidStatus) as caught:
            await stack.enter_async_context(listening(house, user, "one-more"))
        assert caught.value.response.status_code == 429
    async with asyncio.timeout(DEADLINE):
        while True:  # the server learns of an end a moment after the client
            try:
                async with listening(house, user) as socket:
                    await heard(socket, "status")
                    return
            except InvalidStatus:
                continue


async def test_a_socket_of_one_replica_hears_of_prompts_that_another_took(
    house: House, user: httpx.AsyncClient
) -> None:
    other = House(house.kube, house.connection, house.namespace, house.store, values=dict(house.values))
    await other.open(free_port(), free_port())
    try:
        async with listening(other, user) as socket:
            await heard(socket, "status")
            id_ = await prompted(user, client_id="me")
            await house.run(id_, stage="Sample")
            [*_, start] = await heard(socket, "execution_start")
            assert start["data"]["prompt_id"] == id_
            await house.fail(id_)
            await heard(socket, "executing", node=None)
        async with other.client(user.headers["authorization"].removeprefix("Bearer ")) as there:
            assert (await entry(there, id_))["status"]["status_str"] == "error"
    finally:
        await other.close()
