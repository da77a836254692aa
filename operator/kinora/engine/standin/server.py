"""ComfyUI's HTTP routes and websocket, over the queue and the executor. Every route is also served under /api.

Handlers parse and answer; what a prompt does is decided in executor.py, which runs in a thread of its own, so that the
loop answers while pictures are painted.
"""

import asyncio
import logging
import os
import platform
import sys
import threading
import uuid
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from kinora.engine import wire
from kinora.engine.contract import validate
from kinora.engine.objectinfo import object_info
from kinora.engine.standin import STANDIN_NAME, files, nodes
from kinora.engine.standin.executor import Executor
from kinora.engine.standin.folders import BadName, Folders
from kinora.engine.standin.pace import Pace
from kinora.engine.standin.prompts import PromptQueue, QueuedPrompt
from kinora.engine.standin.registry import NODES
from kinora.engine.standin.sockets import Sockets

log = logging.getLogger("kinora.standin")

COMFYUI_VERSION = "0.3.64+kinora.standin"
MAX_UPLOAD = 100 * 2**20  # bytes; ComfyUI's --max-upload-size


class Server:
    """One engine: queue, worker thread, sockets and routes."""

    def __init__(self, folders: Folders, pace: Pace, *, metadata: bool = True) -> None:
        nodes.load()
        self._folders = folders
        self._pace = pace
        self._sockets = Sockets()
        self._queue = PromptQueue(self._announce)
        self._executor = Executor(folders, pace, self._sockets.send, metadata=metadata)
        self._number = 0

    def application(self) -> web.Application:
        """The aiohttp application; its worker starts and its sockets stop with it."""
        app = web.Application(client_max_size=MAX_UPLOAD)
        for prefix in ("", "/api"):
            app.add_routes(self._routes(prefix))
        app.cleanup_ctx.append(self._background)
        return app

    def _routes(self, prefix: str) -> list[web.RouteDef]:
        return [
            web.get(f"{prefix}/ws", self._ws),
            web.get(f"{prefix}/prompt", self._get_prompt),
            web.post(f"{prefix}/prompt", self._post_prompt),
            web.get(f"{prefix}/queue", self._get_queue),
            web.post(f"{prefix}/queue", self._post_queue),
            web.get(f"{prefix}/history", self._get_history),
            web.get(f"{prefix}/history/{{prompt_id}}", self._get_history_of),
            web.post(f"{prefix}/history", self._post_history),
            web.post(f"{prefix}/interrupt", self._interrupt),
            web.post(f"{prefix}/free", self._free),
            web.get(f"{prefix}/object_info", self._object_info),
            web.get(f"{prefix}/object_info/{{name}}", self._object_info),
            web.get(f"{prefix}/system_stats", self._system_stats),
            web.get(f"{prefix}/view", self._view),
            web.post(f"{prefix}/upload/image", self._upload),
        ]

    async def _background(self, _app: web.Application) -> AsyncIterator[None]:
        delivery = self._sockets.start()
        threading.Thread(target=self._work, name="worker", daemon=True).start()
        yield
        delivery.cancel()

    def _work(self) -> None:
        while True:
            prompt = self._queue.take()
            if prompt is not None:
                log.info("got prompt %s", prompt.prompt_id)
                self._queue.done(self._executor.execute(prompt))
                self._executor.finished(prompt)
            if self._queue.take_free().get("free_memory"):
                self._executor.reset()

    def _announce(self, remaining: int) -> None:
        self._sockets.send(*wire.status(remaining), None)

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        return await self._sockets.serve(request, client_id, self._greeting)

    def _greeting(self, client_id: str) -> list[wire.Message]:
        messages = [wire.status(self._queue.remaining(), client_id)]
        node = self._executor.current_node
        if node is not None and self._executor.client_id == client_id:
            messages.append(wire.executing_now(node))
        return messages

    async def _get_prompt(self, _request: web.Request) -> web.Response:
        return web.json_response(wire.queue_info(self._queue.remaining()))

    async def _post_prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        number = float(body["number"]) if "number" in body else self._next_number(bool(body.get("front")))
        if "prompt" not in body:
            error = {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided"}
            return web.json_response({"error": {**error, "extra_info": {}}, "node_errors": {}}, status=400)
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        extra_data = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        checked = validate(body["prompt"], files.known(self._folders, body["prompt"]))
        if checked.refusal is not None:
            log.warning("invalid prompt: %s", checked.refusal.message)
            return web.json_response(checked.refusal.body(), status=400)
        self._queue.put(QueuedPrompt(number, prompt_id, checked.graph, extra_data, checked.outputs))
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": checked.node_errors})

    def _next_number(self, front: bool) -> int:
        number = self._number
        self._number += 1
        return -number if front else number

    async def _get_queue(self, _request: web.Request) -> web.Response:
        return web.json_response(self._queue.listing())

    async def _post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.wipe()
        for prompt_id in body.get("delete", []):
            self._queue.delete(prompt_id)
        return web.Response(status=200)

    async def _get_history(self, request: web.Request) -> web.Response:
        max_items = request.query.get("max_items")
        offset = int(request.query.get("offset", "-1"))
        return web.json_response(self._queue.history(int(max_items) if max_items else None, offset))

    async def _get_history_of(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue.history_of(request.match_info["prompt_id"]))

    async def _post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._queue.forget()
        for prompt_id in body.get("delete", []):
            self._queue.forget(prompt_id)
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self._queue.is_running(prompt_id):
            self._pace.interrupt()
        return web.Response(status=200)

    async def _free(self, request: web.Request) -> web.Response:
        body = await request.json()
        for name in ("unload_models", "free_memory"):
            if body.get(name):
                self._queue.set_free(name)
        return web.Response(status=200)

    async def _object_info(self, request: web.Request) -> web.Response:
        only = request.match_info.get("name")
        return web.json_response(object_info(NODES, self._folders.files(), only, category="stand-in"))

    async def _system_stats(self, _request: web.Request) -> web.Response:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
        device: dict[str, Any] = {"name": f"cpu ({STANDIN_NAME})", "type": "cpu", "index": None}
        device |= {"vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": COMFYUI_VERSION,
            "engine": STANDIN_NAME,
            "required_frontend_version": "",
            "installed_templates_version": "",
            "required_templates_version": "",
            "python_version": platform.python_version(),
            "pytorch_version": "none",
            "embedded_python": False,
            "argv": sys.argv,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def _view(self, request: web.Request) -> web.StreamResponse:
        try:
            path = files.viewed(self._folders, request.query)
        except BadName:
            return web.Response(status=400)
        if path is None:
            return web.Response(status=404)
        return web.FileResponse(path, headers={"Content-Disposition": f'filename="{path.name}"'})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form.get("image")
        if not isinstance(image, web.FileField) or not image.filename:
            return web.Response(status=400)
        try:
            stored = await asyncio.to_thread(
                files.store_upload,
                self._folders,
                image,
                kind=str(form.get("type", "input")),
                subfolder=str(form.get("subfolder", "")),
                overwrite=str(form.get("overwrite", "")).lower() in ("true", "1"),
            )
        except BadName:
            return web.Response(status=400)
        return web.json_response(stored)


def serve(host: str, port: int, server: Server) -> None:
    """Serves on `host`:`port` (0: a free port, which is printed) until the process is ended."""
    asyncio.run(_serve(host, port, server))


async def _serve(host: str, port: int, server: Server) -> None:
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    for address in runner.addresses:
        print(f"listening on http://{address[0]}:{address[1]}", flush=True)
    await asyncio.Event().wait()
