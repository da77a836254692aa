"""What stands around every request: its id, the bound of its body, the access log, the counters. Plain ASGI.

One JSON line a request, to the logger `kinora.access`; no query (it may hold a signature), no header, no body.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinora.gateway.metrics import Metrics

access = logging.getLogger("kinora.access")
log = logging.getLogger(__name__)

REQUEST_ID: Final = "x-request-id"
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Edge:
    """The outermost layer. `dialect_of`: path -> the dialect's name; `streamed`: paths whose body routes bound."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body: int,
        streamed: Iterable[str],
        dialect_of: Callable[[str], str],
    ) -> None:
        self._app, self._metrics, self._max_body = app, metrics, max_body
        self._streamed, self._dialect_of = tuple(streamed), dialect_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        state = scope.setdefault("state", {})
        state["request_id"] = given if _SAFE_ID.fullmatch(given) else str(uuid.uuid4())
        seen = _Seen(state["request_id"], send)
        bounded = receive if scope["path"].startswith(self._streamed) else self._bounded(scope, receive)
        started = time.perf_counter()
        try:
            await self._app(scope, bounded, seen.send)
        except Exception:
            log.exception("request %s", seen.id)
            if not seen.status:
                await _broken(seen.send)
        finally:
            self._tell(scope, seen, time.perf_counter() - started)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        limit = self._max_body
        length = Headers(scope=scope).get("content-length", "")
        announced = int(length) if length.isdigit() and len(length) < 20 else 0
        got = 0

        async def bounded() -> Message:
            nonlocal got
            if announced > limit:
                raise HTTPException(413, f"the body is {announced} bytes; allowed: {limit}")
            message = await receive()
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > limit:
                    raise HTTPException(413, f"the body is over {limit} bytes, which is what is allowed")
            return message

        return bounded

    def _tell(self, scope: Scope, seen: _Seen, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "other"
        dialect = self._dialect_of(scope["path"])
        method = scope.get("method", "WEBSOCKET")
        self._metrics.requests.labels(dialect, route, method, str(seen.status)).inc()
        if scope["type"] == "http":
            self._metrics.seconds.labels(dialect, route).observe(seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": seen.id,
            "client": (scope.get("client") or ("",))[0],
            "method": method,
            "path": scope["path"][:256],
            "route": route,
            "dialect": dialect,
            "tenant": scope["state"].get("tenant", ""),
            "status": seen.status,
            "bytes": seen.bytes,
            "ms": round(seconds * 1000, 1),
        }
        access.info("%s", json.dumps(line, separators=(",", ":")))


class _Seen:
    """What was sent, and the id on it."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.id, self._send = request_id, send
        self.status, self.bytes = 0, 0

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            self.status = message.get("status", 101)
            MutableHeaders(scope=message).setdefault(REQUEST_ID, self.id)
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)


async def _broken(send: Send) -> None:
    body = b'{"error":{"message":"the gateway failed; its log has the request id"}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
