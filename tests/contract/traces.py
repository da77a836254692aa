"""Recorded exchanges with a real ComfyUI: reading them, replaying them, and what is levelled before comparing.

Levelled, because it differs from run to run of the same ComfyUI: timestamps, queue numbers, the five-digit counters in
file names, folder paths, sizes of files, the order of `current_outputs` (a set), the text of tracebacks, and objects
(tensors, models) printed in `current_inputs`. Of `input_config` only type and allowed values are compared: an extension
adds what it likes to the rest. Progress counts only by its first and last step, because the recordings are cut in the
middle; an interrupted run stops where it stops. Everything else must be equal: types, order, fields and values.
"""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from contract.harness import Standin

DEADLINE = 20.0
COUNTER = re.compile(r"_\d{5}")


def load(path: Path) -> list[dict[str, Any]]:
    """The items of a trace: {"ws": message} or {"http": exchange}."""
    items = [json.loads(line) for line in path.read_text().splitlines()]
    return [item for item in items if "ws" in item or "http" in item]


class Replay:
    """Sends a trace's requests to a stand-in, each when the messages recorded before it have come."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self.messages: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    async def run(self, items: list[dict[str, Any]]) -> None:
        """Replays; fails when an awaited message does not come."""
        client_id = items[0]["ws"]["data"]["sid"]
        url = f"ws{self._standin.url.removeprefix('http')}/ws?clientId={client_id}"
        async with connect(url, proxy=None) as socket, httpx.AsyncClient(base_url=self._standin.url) as http:
            awaited: list[dict[str, Any]] = []
            for item in items:
                if "ws" in item:
                    awaited.append(item["ws"])
                    continue
                await self._receive(socket, awaited)
                self.answers.append(await self._request(http, item["http"]))
            await self._receive(socket, awaited)

    async def _receive(self, socket: ClientConnection, awaited: list[dict[str, Any]]) -> None:
        """Reads until the message that matters most among those recorded so far is here."""
        wanted = next((message for message in reversed(awaited) if message["type"] not in ("status",)), awaited[0])
        async with asyncio.timeout(DEADLINE):
            while not any(_reached(message, wanted) for message in self.messages):
                text = await socket.recv()
                assert isinstance(text, str)
                self.messages.append(json.loads(text))

    async def _request(self, http: httpx.AsyncClient, exchange: dict[str, Any]) -> dict[str, Any]:
        body = exchange["request"]
        response = await http.request(exchange["method"], exchange["path"], json=body)
        if response.headers.get("content-type", "").startswith("application/json"):
            answer = response.json()
        else:
            headers = {name: response.headers[name] for name in exchange["response"].get("_headers", {})}
            kind = exchange["response"].get("_content_type")
            answer = {
                "_bytes": len(response.content),
                "_content_type": response.headers.get("content-type") if kind else None,
                "_headers": headers,
            }
        return {"path": exchange["path"], "status": response.status_code, "response": answer}


def _reached(message: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if message["type"] != wanted["type"]:
        return False
    if wanted["type"] == "progress":
        return bool(message["data"]["value"] >= min(wanted["data"]["value"], 5))
    return message["data"].get("node") == wanted["data"].get("node")


def recorded_messages(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The websocket messages of a trace, levelled."""
    return level_messages([item["ws"] for item in items if "ws" in item], Path("/output"))


def recorded_answers(items: list[dict[str, Any]]) -> list[Any]:
    """The HTTP answers of a trace, levelled."""
    exchanges = [item["http"] for item in items if "http" in item]
    kept = [{key: exchange[key] for key in ("path", "status", "response")} for exchange in exchanges]
    return [level(answer, Path("/output")) for answer in kept]


def level_messages(messages: list[dict[str, Any]], output: Path) -> list[dict[str, Any]]:
    """Messages without the middle of progress runs, levelled."""
    return [level(message, output) for message in messages if not is_middle(message)]


def is_middle(message: dict[str, Any]) -> bool:
    """Whether it is of the middle of a run of steps, which recordings leave out in part."""
    data = message["data"]
    if message["type"] == "progress":
        return data["value"] not in (1, data["max"])
    if message["type"] == "progress_state":
        running = [node for node in data["nodes"].values() if node["state"] == "running"]
        return any(node["value"] not in (0, 1, node["max"]) for node in running)
    return False


def level(value: Any, output: Path) -> Any:
    """A copy of JSON with what differs from run to run made equal."""
    if isinstance(value, list):
        return [level(entry, output) for entry in value]
    if isinstance(value, str):
        return COUNTER.sub("_#####", value.replace(str(output), "/output"))
    if not isinstance(value, dict):
        return value
    return {key: _levelled(key, entry, output) for key, entry in value.items()}


def _levelled(key: str, value: Any, output: Path) -> Any:
    levellers: dict[str, Callable[[Any], Any]] = {
        "timestamp": lambda _: "time",
        "number": lambda _: "number",
        "_bytes": lambda size: size > 0,
        "Content-Length": lambda size: int(size) > 0,
        "traceback": bool,
        "current_outputs": sorted,
        "current_inputs": _inputs,
        "input_config": lambda config: config and config[0],
        "prompt": lambda prompt: ["number", *prompt[1:]] if isinstance(prompt, list) else prompt,
        "queue_running": lambda listed: [["number", *item[1:]] for item in listed],
        "queue_pending": lambda listed: [["number", *item[1:]] for item in listed],
        "system": sorted,
        "devices": lambda devices: [sorted(device) for device in devices],
    }
    return level(levellers[key](value), output) if key in levellers else level(value, output)


def _inputs(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Plain values as they are; whatever was printed from an object is one."""
    return {
        name: ["object" if isinstance(entry, str) and entry[:1] in "[<{" else entry for entry in entries]
        for name, entries in inputs.items()
    }
