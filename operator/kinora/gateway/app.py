"""The ASGI application: the dialects' routes, their errors in their own shapes, OpenAPI documents. No own I/O."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kinora import __version__
from kinora.gateway.context import Dialect, Gateway
from kinora.gateway.edge import Edge
from kinora.gateway.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    InvalidInput,
    NotAllowed,
    NotFound,
    TooLarge,
    Unauthorized,
)

log = logging.getLogger(__name__)
_BY_STATUS: dict[int, type[GatewayError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: NotAllowed,
    409: Conflict,
    413: TooLarge,
}


def application(gateway: Gateway, dialects: Sequence[Dialect]) -> Edge:
    """The whole application over these parts."""
    routers = {dialect.name: dialect.router(gateway) for dialect in dialects}
    rest = _app(dialects)
    _documents(rest, gateway, routers)
    return Edge(
        _Places({name: _app(dialects, name, router) for name, router in routers.items()}, rest, dialects),
        metrics=gateway.metrics,
        max_body=gateway.settings.values.max_body_bytes,
        streamed=[prefix for dialect in dialects for prefix in dialect.streamed],
        dialect_of=lambda path: dialect.name if (dialect := dialect_of(path, dialects)) else "",
    )


def _app(dialects: Sequence[Dialect], name: str = "", router: APIRouter | None = None) -> FastAPI:
    """One dialect's routes, or none, and everybody's errors."""
    app = FastAPI(title="Kinora", version=__version__, openapi_url=None, docs_url=None, redoc_url=None)
    if router is not None:
        app.include_router(router, tags=[name])
    _errors(app, dialects)
    return app


class _Places:
    """Sends a request to the dialect that its path belongs to.

    One application for all would try the routes of all, one after the other: a tenth of what a submit cost.
    """

    def __init__(self, apps: Mapping[str, ASGIApp], rest: ASGIApp, dialects: Sequence[Dialect]) -> None:
        self._apps, self._rest, self._dialects = apps, rest, dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        dialect = dialect_of(scope.get("path", ""), self._dialects)
        await (self._apps[dialect.name] if dialect else self._rest)(scope, receive, send)


def dialect_of(path: str, dialects: Sequence[Dialect]) -> Dialect | None:
    """The dialect with the longest prefix of the path."""
    found = [(len(prefix), one) for one in dialects for prefix in one.prefixes if path.startswith(prefix)]
    return max(found, key=lambda item: item[0])[1] if found else None


def render(error: GatewayError, _request: Request) -> Response:
    """The shape of an error on a path that is no dialect's."""
    name = type(error).__name__
    content: dict[str, Any] = {"error": {"code": name, "message": error.message}}
    if isinstance(error, InvalidInput) and error.field:
        content["error"]["field"] = error.field
    return JSONResponse(content, status_code=error.status)


def _errors(app: FastAPI, dialects: Sequence[Dialect]) -> None:
    def told(error: GatewayError, request: Request) -> Response:
        dialect = dialect_of(request.url.path, dialects)
        response = (dialect.render if dialect else render)(error, request)
        if error.attempted:
            response.headers["x-should-retry"] = "false"
        if error.retry_after is not None and response.status_code in (429, 503):
            response.headers.setdefault("retry-after", str(max(1, math.ceil(error.retry_after))))
        if response.status_code == 401:
            response.headers.setdefault("www-authenticate", "Bearer")
        return response

    async def own(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return told(error, request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        made = _BY_STATUS.get(error.status_code)
        if made is None:
            return told(InvalidInput("", str(error.detail)), request)
        response = told(made(str(error.detail)), request)
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return told(invalid_input(error), request)

    async def gone(request: Request, _error: Exception) -> Response:
        return told(InvalidInput("", "the connection closed before the whole request was here"), request)

    async def failed(request: Request, error: Exception) -> Response:
        log.error("request %s", request.state.request_id, exc_info=error)
        return told(GatewayError("the gateway failed; its log has the request id"), request)

    app.add_exception_handler(GatewayError, own)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, failed)


def invalid_input(error: RequestValidationError) -> InvalidInput:
    """What FastAPI and pydantic found, in one sentence a fault; the first one's field."""
    faults = []
    for fault in error.errors()[:5]:
        steps = [str(step) for step in fault["loc"] if step not in ("body", "query", "path", "header")]
        faults.append((".".join(steps), str(fault["msg"])))
    field = faults[0][0] if faults else ""
    return InvalidInput(field, "; ".join(f"{name}: {text}" if name else text for name, text in faults))


def _documents(app: FastAPI, gateway: Gateway, routers: Mapping[str, APIRouter]) -> None:
    """OpenAPI: all of it at /openapi.json, one dialect's at /openapi/NAME.json."""
    made: dict[str, dict[str, Any]] = {}

    def document(name: str) -> dict[str, Any]:
        if name not in made:
            shown = FastAPI(openapi_url=None)
            for one in [name] if name else routers:
                shown.include_router(routers[one], tags=[one])
            title = f"Kinora: {name}" if name else "Kinora"
            made[name] = get_openapi(title=title, version=__version__, routes=shown.routes)
            schemes = made[name].setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["key"] = {"type": "http", "scheme": "bearer"}
            made[name]["security"] = [{"key": []}]
        return made[name]

    @app.get("/openapi.json", include_in_schema=False)
    async def whole(request: Request) -> Response:
        await gateway.tenant(request, None)
        return JSONResponse(document(""))

    @app.get("/openapi/{name}.json", include_in_schema=False)
    async def one(name: str, request: Request) -> Response:
        await gateway.tenant(request, None)
        if name not in routers:
            raise NotFound(f"no dialect {name[:32]}")
        return JSONResponse(document(name))
