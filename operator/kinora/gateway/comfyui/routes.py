"""ComfyUI's routes, each also under /api, and its websocket. Handlers parse and answer; words are made elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from kinora.engine import wire
from kinora.gateway.comfyui import install, uploads
from kinora.gateway.comfyui.answer import number_of
from kinora.gateway.comfyui.errors import body_of
from kinora.gateway.comfyui.graphs import Graphs
from kinora.gateway.comfyui.judge import judge, of_faults
from kinora.gateway.comfyui.pictures import Pictures
from kinora.gateway.comfyui.queue import Queue
from kinora.gateway.comfyui.request import NAME, asked, file_names, json_object, submission
from kinora.gateway.comfyui.servers import Server, servers_of, weights_of
from kinora.gateway.comfyui.sockets import MAX_SOCKETS, Sockets
from kinora.gateway.comfyui.uploads import Uploads
from kinora.gateway.comfyui.view import View
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.errors import GatewayError, InvalidInput, Limited, NotFound, Unavailable
from kinora.gateway.tenants import Tenant

_PLACES: Final = (
    *("/prompt", "/queue", "/history", "/interrupt", "/free", "/upload/", "/view", "/object_info", "/system_stats"),
    *("/features", "/models", "/embeddings", "/ws"),
)
_MOST_IDS: Final = 1000  # in one request to delete


class Prompted(BaseModel):
    """What a prompt that was taken is called."""

    prompt_id: str
    number: float
    node_errors: dict[str, Any]


class Refusal(BaseModel):
    """Why a request was not answered."""

    error: dict[str, Any]
    node_errors: dict[str, Any]


class Uploaded(BaseModel):
    """Under which name a file lies."""

    name: str
    subfolder: str
    type: str


class Listing(BaseModel):
    """Prompts that run and that wait, each [number, id, graph, extra_data, output nodes]."""

    queue_running: list[list[Any]]
    queue_pending: list[list[Any]]


Answer = Callable[[Request, Tenant], Awaitable[Response]]


def answered(content: Any, status: int = 200) -> Response:
    """JSON in ASCII, as ComfyUI writes it: whatever text is quoted in it, it can be sent."""
    return Response(json.dumps(content).encode(), status_code=status, media_type="application/json")


def render(error: GatewayError, _request: Request) -> Response:
    """An error, in ComfyUI's shape."""
    return answered(body_of(error), error.status)


class _Routes:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._service = gateway, gateway.service
        self._graphs = Graphs(gateway.service, gateway.files)
        self._queue = Queue(gateway.service, self._graphs)
        pictures = Pictures()
        self._uploads = Uploads(gateway.files, gateway.service, pictures)
        self._view = View(gateway.files, self._uploads, pictures)
        self._sockets = Sockets(gateway.service, self._graphs, gateway.live)

    def router(self) -> APIRouter:
        """All routes, twice."""
        router = APIRouter()
        for prefix in ("", "/api"):
            for method, path, handler, said in self._table():
                self._add(router, method, prefix + path, handler, {**said, "include_in_schema": not prefix})
            self._add(router, "HEAD", f"{prefix}/view", self._view.response, {"include_in_schema": False})
            router.add_api_websocket_route(f"{prefix}/ws", self._ws)
        return router

    def _table(self) -> list[tuple[str, str, Answer, dict[str, Any]]]:
        text, asked_for = {"type": "string"}, {"type": "object"}
        fields = {"prompt": asked_for, "prompt_id": {**text, "format": "uuid"}, "client_id": text}
        prompt = {"type": "object", "required": ["prompt"], "properties": fields}
        chosen = {"clear": {"type": "boolean"}, "delete": {"type": "array", "items": {"type": "string"}}}
        choice, one = _body({"type": "object", "properties": chosen}), {"prompt_id": {"type": "string"}}
        form = {"response_model": Uploaded, "openapi_extra": uploads.document()}
        items = [_query("max_items", "integer"), _query("offset", "integer")]
        names = ("filename", "subfolder", "type", "channel", "preview")
        return [
            ("POST", "/prompt", self._post_prompt, {"response_model": Prompted, "openapi_extra": _body(prompt)}),
            ("GET", "/prompt", self._get_prompt, {}),
            ("GET", "/queue", self._get_queue, {"response_model": Listing}),
            ("POST", "/queue", self._post_queue, {"openapi_extra": choice}),
            ("GET", "/history", self._get_history, {"openapi_extra": {"parameters": items}}),
            ("GET", "/history/{prompt_id}", self._get_history_of, {"openapi_extra": _path("prompt_id")}),
            ("POST", "/history", self._post_history, {"openapi_extra": choice}),
            ("POST", "/interrupt", self._interrupt, {"openapi_extra": _body({"type": "object", "properties": one})}),
            ("POST", "/free", self._free, {}),
            ("POST", "/upload/image", self._upload_image, form),
            ("POST", "/upload/mask", self._upload_mask, form),
            ("GET", "/view", self._view.response, {"openapi_extra": {"parameters": [_query(one) for one in names]}}),
            ("GET", "/object_info", self._object_info, {}),
            ("GET", "/object_info/{name}", self._object_info, {"openapi_extra": _path("name")}),
            ("GET", "/system_stats", self._system_stats, {}),
            ("GET", "/features", self._features, {}),
            ("GET", "/models", self._models, {}),
            ("GET", "/models/{folder}", self._models_of, {"openapi_extra": _path("folder")}),
            ("GET", "/embeddings", self._embeddings, {}),
        ]

    def _add(self, router: APIRouter, method: str, path: str, handler: Answer, said: Mapping[str, Any]) -> None:
        async def route(request: Request) -> Response:
            return await handler(request, await self._gateway.tenant(request, NAME))

        route.__doc__ = handler.__doc__
        route.__name__ = f"{method}_{path}".lower()
        codes: dict[int | str, dict[str, Any]] = {
            code: {"model": Refusal} for code in (400, 401, 403, 404, 409, 413, 422, 429, 503)
        }
        router.add_api_route(path, route, methods=[method], responses=codes, **said)

    def _servers(self, tenant: Tenant) -> list[Server]:
        return servers_of(self._service.servers(tenant), self._gateway.catalogue)

    # --- prompts ------------------------------------------------------------------------------------------------------

    async def _post_prompt(self, request: Request, tenant: Tenant) -> Response:
        """Queue a graph. It is validated before anything is made; what is wrong is told by node."""
        body = await request.body()
        prompt = asked(body)
        files = await self._uploads.resolve(tenant, file_names(prompt.graph))
        judged = judge(prompt.graph, self._servers(tenant), files)
        now = int(time.time() * 1000)
        made, _ = submission(prompt, judged, files, owner=tenant.digest, now=now, body=body)
        if made.graph is not None:
            made = replace(made, store=partial(self._graphs.store, tenant, made.graph))
        try:
            job = await self._service.submit(tenant, made)
        except InvalidInput as error:
            raise of_faults(error.faults, judged.graph) if error.faults else error from None
        return answered({"prompt_id": job.id, "number": number_of(job), "node_errors": dict(judged.node_errors)})

    async def _get_prompt(self, _request: Request, tenant: Tenant) -> Response:
        """How many prompts run or wait."""
        return answered(wire.queue_info(self._queue.remaining(tenant)))

    async def _get_queue(self, _request: Request, tenant: Tenant) -> Response:
        """The prompts that run and that wait."""
        return answered(await self._queue.listing(tenant))

    async def _post_queue(self, request: Request, tenant: Tenant) -> Response:
        """Take prompts out of the queue: those named, or with `clear` all that wait and came in here."""
        clear, ids = _chosen(await request.body())
        if clear:
            await self._queue.clear(tenant)
        await self._queue.delete(tenant, ids)
        return Response()

    async def _interrupt(self, request: Request, tenant: Tenant) -> Response:
        """Stop a prompt that runs: the one named, or the oldest that came in here."""
        body = await request.body()
        prompt_id = json_object(body).get("prompt_id") if body.strip() else None
        await self._queue.interrupt(tenant, str(prompt_id) if prompt_id else None)
        return Response()

    async def _free(self, _request: Request, _tenant: Tenant) -> Response:
        """Nothing: the servers are not the caller's alone, and free their memory themselves."""
        return Response()

    # --- history ------------------------------------------------------------------------------------------------------

    async def _get_history(self, request: Request, tenant: Tenant) -> Response:
        """What became of prompts, in the order in which they ended."""
        query = request.query_params
        offset = _integer(query.get("offset"), "offset")
        return answered(
            await self._queue.history(
                tenant, _integer(query.get("max_items"), "max_items"), -1 if offset is None else offset
            )
        )

    async def _get_history_of(self, request: Request, tenant: Tenant) -> Response:
        """What became of one prompt; empty while it waits or runs, and for one that is unknown."""
        return answered(await self._queue.history_of(tenant, request.path_params["prompt_id"]))

    async def _post_history(self, request: Request, tenant: Tenant) -> Response:
        """Show prompts that have ended no more: those named, or with `clear` all."""
        clear, ids = _chosen(await request.body())
        await self._queue.forget(tenant, None if clear else ids)
        return Response()

    # --- files --------------------------------------------------------------------------------------------------------

    async def _upload_image(self, request: Request, tenant: Tenant) -> Response:
        """Store a picture or video; the answer says under which name."""
        return answered(await self._uploads.image(request, tenant))

    async def _upload_mask(self, request: Request, tenant: Tenant) -> Response:
        """Store the picture that `original_ref` names, with the alpha of the picture that comes."""
        return answered(await self._uploads.mask(request, tenant))

    # --- the installation ---------------------------------------------------------------------------------------------

    async def _object_info(self, request: Request, tenant: Tenant) -> Response:
        """The node classes that graphs may use, with the weights and uploads of the moment."""
        only = request.path_params.get("name")
        try:
            names = await self._uploads.names(tenant)
        except Unavailable:  # editors ask for this before anything else: uploads alone are not worth a refusal
            names = []
        return answered(install.classes(self._servers(tenant), names, only))

    async def _system_stats(self, _request: Request, tenant: Tenant) -> Response:
        """The ModelServers, as devices."""
        return answered(install.system_stats(self._servers(tenant)))

    async def _features(self, _request: Request, tenant: Tenant) -> Response:
        """What this server can do."""
        return answered(install.features(tenant.limits.upload_bytes))

    async def _models(self, _request: Request, tenant: Tenant) -> Response:
        """The folders of models."""
        return answered(list(weights_of(self._servers(tenant))))

    async def _models_of(self, request: Request, tenant: Tenant) -> Response:
        """The weight files of one folder."""
        found = weights_of(self._servers(tenant)).get(request.path_params["folder"])
        if found is None:
            raise NotFound("no such folder of models")
        return answered(found)

    async def _embeddings(self, _request: Request, _tenant: Tenant) -> Response:
        """None: texts that name one are refused, since it would be read from the server's disk."""
        return answered([])

    async def _ws(self, socket: WebSocket) -> None:
        try:
            tenant = await self._gateway.tenant(socket, NAME)
            if self._sockets.is_full(tenant):
                raise Limited(f"{MAX_SOCKETS} websockets are open, which is the limit of this key", 5.0)
        except GatewayError as error:
            await socket.send_denial_response(answered(body_of(error), error.status))
            return
        await self._sockets.serve(socket, tenant, socket.query_params.get("clientId", ""))


def _chosen(body: bytes) -> tuple[bool, list[str]]:
    """`clear`, and the ids of `delete`."""
    data = json_object(body)
    ids = data.get("delete") or []
    if not isinstance(ids, list) or len(ids) > _MOST_IDS:
        raise InvalidInput("delete", f"delete is no list of prompt ids; allowed: at most {_MOST_IDS}")
    return bool(data.get("clear")), [one for one in ids if isinstance(one, str)]


def _integer(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    try:
        return int(text[:20])
    except ValueError:
        raise InvalidInput(name, f"{name} is {text[:20]!r}; allowed: a whole number") from None


def _body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": dict(schema)}}}}


def _query(name: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": {"type": kind}}


def _path(name: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]}


def router(gateway: Gateway) -> APIRouter:
    """The dialect's routes."""
    return _Routes(gateway).router()


PREFIXES: Final = tuple(f"{prefix}{place}" for prefix in ("", "/api") for place in _PLACES)
DIALECT: Final = Dialect(
    NAME, PREFIXES, router, render, streamed=("/upload/image", "/upload/mask", "/api/upload/image", "/api/upload/mask")
)
