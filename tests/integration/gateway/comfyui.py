"""A plain client of the ComfyUI dialect, and what the tests of it share. The agent's writes are played by the house."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from integration.gateway.house import House, artifact_of
from kinora.catalogue.load import load_catalogue
from kinora.gateway.tenants import Tenant
from kinora_cluster import ROOT
from unit.workflows.made import node, sound
from waiting import DEADLINE

Object = dict[str, Any]
CLIP = (ROOT / "examples/inputs/bunny.mp4").read_bytes()
PHOTO = (ROOT / "examples/inputs/coffee.jpg").read_bytes()


def weight(role: str) -> str:
    model = load_catalogue().get("wan2.1-vace-14b")
    assert model is not None
    return next(one.name for one in model.weights if one.role == role)


UNET = weight("diffusion")


def graph(**changes: Any) -> Object:
    """Text to video with the 14B model's own files."""
    made = sound(n11={"unet_name": UNET}, n13={"clip_name": weight("textEncoder")}, n14={"vae_name": weight("vae")})
    for name, inputs in changes.items():
        made[name.removeprefix("n")]["inputs"] |= inputs
    return made


def long(made: Object | None = None) -> Object:
    """The graph with four outputs besides, each with a long text: more than a VideoJob's spec can hold."""
    made = made or graph()
    for index in range(4):
        made[f"t{index}"] = node("CLIPTextEncode", text=f"{index}" * 19_999, clip=["13", 0])
        made[f"s{index}"] = {**made["24"], "inputs": {**made["24"]["inputs"], "negative": [f"t{index}", 0]}}
        made[f"v{index}"] = node("VAEDecode", samples=[f"s{index}", 0], vae=["14", 0])
        made[f"o{index}"] = node("PreviewImage", images=[f"v{index}", 0])
    return made


def picture(colour: str, size: tuple[int, int] = (32, 24), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format="PNG")
    return file.getvalue()


async def prompted(client: httpx.AsyncClient, sent: Object | None = None, **more: Any) -> str:
    answer = await client.post("/prompt", json={"prompt": sent or graph(), **more})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["prompt_id", "number", "node_errors"]
    return str(answer.json()["prompt_id"])


async def uploaded(client: httpx.AsyncClient, content: bytes, name: str = "a.png", **fields: str) -> Object:
    answer = await client.post("/upload/image", files={"image": (name, content)}, data=fields)
    assert answer.status_code == 200, answer.text
    found: Object = answer.json()
    return found


async def finished(house: House, id_: str, content: bytes = CLIP, **more: Any) -> None:
    """The agent has rendered it, and its video is in the store. `more`: what its artifact is said to be."""
    await house.run(id_)
    told = {"node": "32", "list": "gifs", "filename": "x-32_00001.mp4", "bytes": len(content), **more}
    entry = artifact_of(await house.job(id_), **told)
    key = entry["uri"].removeprefix("pvc://artifacts/")
    house.store.artifact(key, content)
    await house.succeed(id_, [entry])


async def cancelled(house: House, *ids: str) -> list[bool]:
    return [bool((await house.job(id_))["spec"]["cancel"]) for id_ in ids]


async def entry(client: httpx.AsyncClient, id_: str) -> Object:
    found: Object = (await client.get(f"/history/{id_}")).json()
    return found[id_]


@asynccontextmanager
async def listening(house: House, client: httpx.AsyncClient, client_id: str = "me") -> AsyncIterator[ClientConnection]:
    """A websocket of the client's key."""
    url = f"{house.url.replace('http', 'ws')}/ws?clientId={client_id}"
    headers = {"Authorization": client.headers["authorization"]}
    async with connect(url, additional_headers=headers, proxy=None, open_timeout=DEADLINE) as socket:
        yield socket


async def heard(socket: ClientConnection, until: str, *, seconds: float = DEADLINE, **data: Any) -> list[Object]:
    """Messages up to the one of this type with these data."""
    messages: list[Object] = []
    async with asyncio.timeout(seconds):
        while not messages or messages[-1]["type"] != until or not data.items() <= messages[-1]["data"].items():
            messages.append(json.loads(await socket.recv()))
    return messages


def tenant_of(house: House, name: str = "user") -> Tenant:
    """The tenant of the key of that name."""
    return Tenant(name, house.namespace)
