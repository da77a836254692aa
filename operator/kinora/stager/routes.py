"""The store service over HTTP: signed requests of gateways in, answers of the store out. Decides nothing by itself.

POST   /v1/uploads/{tenant}                a new upload: its bytes stream; 201, or 200 where it was there already
GET    /v1/uploads/{tenant}                what the tenant's uploads take
POST   /v1/uploads/{tenant}/{sha256}       it is used again
DELETE /v1/uploads/{tenant}/{sha256}
GET    /v1/objects/{key}                   an artifact or upload: whole or a range; 302 where the store says so
POST   /v1/previews/{tenant}/{kind}/{key}  draw a thumbnail or spritesheet of a video, as an upload of the tenant
GET    /v1/names/{tenant}/{scope}          all names of a scope
PUT    /v1/names/{tenant}/{scope}/{digest} point a name somewhere; ?create=1: only a new one
GET, DELETE of the same
POST   /v1/agents/urls                     agents, with their own tokens: kinora.stager.broker's
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from kinora.stager.metrics import Metrics
from kinora.stager.previews import Previews
from kinora.stager.receive import Receiver
from kinora.storage import sniff
from kinora.storage.broker import asks
from kinora.storage.keys import KeyRefused
from kinora.storage.service import signing
from kinora.storage.service.model import (
    MAX_VALUE,
    Busy,
    Content,
    Elsewhere,
    FileStore,
    Name,
    NameTaken,
    NotDrawable,
    OverLimit,
    PreviewKind,
    Upload,
    checked_tenant,
    name_digest,
)
from kinora.storage.service.ranges import Span, Unsatisfiable, span
from kinora.storage.store import NotStoredError, StoreError

log = logging.getLogger(__name__)

#: The keys of the moment; `anew`: read them again, since a signature was of none of those.
Keys = Callable[[bool], Awaitable[list[bytes]]]
_CHUNK: Final = 1 << 18
_MAX_BODY: Final = 4 * MAX_VALUE
_OPERATIONS: Final = (
    *("upload", "usage", "renew", "remove", "read", "preview"),
    *("names", "put_name", "get_name", "remove_name"),
    "urls",  # the broker's
)
_REQUEST: Final = web.RequestKey("kinora.signed", signing.Request)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class _Traffic:
    """Bytes of files of one request."""

    received: int = 0
    sent: int = 0


_TRAFFIC: Final = web.RequestKey("kinora.traffic", _Traffic)


def service(
    store: FileStore, keys: Keys, metrics: Metrics | None = None, agents: Handler | None = None
) -> web.Application:
    """The application of one stager's store. `agents` answers those that show a token, and looks at it itself."""
    routes = _Routes(store, keys, agents)
    app = web.Application(middlewares=[_measured(metrics or Metrics()), routes.guarded], client_max_size=_MAX_BODY)
    uploads, names = "/v1/uploads/{tenant}", "/v1/names/{tenant}/{scope}"
    app.add_routes(
        [
            web.post(uploads, routes.upload),
            web.get(uploads, routes.usage),
            web.post(uploads + "/{sha256}", routes.renew),
            web.delete(uploads + "/{sha256}", routes.remove),
            web.get("/v1/objects/{key:.+}", routes.read),
            web.post("/v1/previews/{tenant}/{kind}/{key:.+}", routes.preview),
            web.get(names, routes.names),
            web.put(names + "/{digest}", routes.put_name),
            web.get(names + "/{digest}", routes.get_name, allow_head=False),
            web.delete(names + "/{digest}", routes.remove_name),
        ]
    )
    if agents is not None:
        app.router.add_post(asks.PATH, agents)
    return app


def _measured(metrics: Metrics) -> Middleware:
    """Counts each request by its operation, which is its handler's name; one that has none is `other`."""

    @web.middleware
    async def measured(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        name = getattr(request.match_info.handler, "__name__", "")
        operation = name if name in _OPERATIONS else "other"
        traffic = request[_TRAFFIC] = _Traffic()
        started, code = time.monotonic(), 0  # no answer: whoever asked is gone
        try:
            response = await handler(request)
            code = response.status
            return response
        except web.HTTPException as answer:
            code = answer.status
            raise
        finally:
            metrics.store_requests.labels(operation, str(code)).inc()
            metrics.store_seconds.labels(operation).observe(time.monotonic() - started)
            metrics.store_bytes.labels("in").inc(traffic.received)
            metrics.store_bytes.labels("out").inc(traffic.sent)

    return measured


class _Routes:
    def __init__(self, store: FileStore, keys: Keys, agents: Handler | None) -> None:
        self._store, self._keys, self._receiver, self._agents = store, keys, Receiver(store), agents
        self._previews = Previews(store, self._receiver)

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing is done, not even looked for, without a good signature, or by the agents' handler, a good token."""
        if self._agents is not None and request.match_info.handler == self._agents:
            return await handler(request)
        try:
            request[_REQUEST] = await self._verified(request)
            return await handler(request)
        except signing.BadSignature as bad:
            return _refusal(401, "BadSignature", str(bad))
        except KeyRefused as refused:
            return _refusal(400, "KeyRefused", str(refused))
        except NotStoredError:
            return _refusal(404, "NotStored", "not in the store")
        except OverLimit as over:
            return _refusal(413, "OverLimit", str(over), what=over.what, limit=over.limit)
        except NameTaken as taken:
            return _refusal(409, "NameTaken", str(taken), value=taken.value)
        except Busy as busy:
            return _refusal(429, "Busy", str(busy))
        except NotDrawable as fault:
            return _refusal(422, "NotDrawable", str(fault))
        except StoreError as error:
            log.warning("%s %s: %s", request.method, request.path, error)
            return _refusal(507, "StoreFailed", str(error))
        except ConnectionResetError:  # whoever asked is gone, and nothing is kept of what had come
            return _refusal(400, "Cut", "the connection was cut")

    async def _verified(self, request: web.Request) -> signing.Request:
        header = request.headers.get("Authorization", "")
        asked = signing.Request(request.method, request.raw_path, self._store.root)
        try:
            return signing.verify(await self._keys(False), header, asked, time.time())
        except signing.BadSignature:
            return signing.verify(await self._keys(True), header, asked, time.time())

    # --- uploads ------------------------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        """Its bytes, to the end; a connection that is cut leaves nothing."""
        signed = request[_REQUEST]
        tenant = checked_tenant(request.match_info["tenant"])
        if request.content_length is not None and request.content_length > signed.max_bytes:
            raise OverLimit("bytes", signed.max_bytes)
        chunks = _body(request)
        try:
            made = await self._receiver.take(tenant, chunks, max_bytes=signed.max_bytes, quota=signed.quota)
        finally:
            await chunks.aclose()
        return _made(made)

    async def preview(self, request: web.Request) -> web.Response:
        """Drawn when it is asked for; whoever asks keeps a name for it."""
        signed, where = request[_REQUEST], request.match_info
        tenant = checked_tenant(where["tenant"])
        if where["kind"] not in list(PreviewKind):
            return _refusal(400, "Malformed", f"a preview is one of {', '.join(PreviewKind)}")
        kind, limits = PreviewKind(where["kind"]), {"max_bytes": signed.max_bytes, "quota": signed.quota}
        return _made(await self._previews.make(tenant, kind, where["key"], **limits))

    async def usage(self, request: web.Request) -> web.Response:
        found = await self._store.usage(request.match_info["tenant"])
        return web.json_response({"bytes": found.bytes, "files": found.files})

    async def renew(self, request: web.Request) -> web.Response:
        found = await self._store.renew(request.match_info["tenant"], request.match_info["sha256"])
        if found is None:
            raise NotStoredError("not in the store")
        return web.json_response({"bytes": found})

    async def remove(self, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        was_there = await self._store.remove(tenant, request.match_info["sha256"])
        self._receiver.forget(tenant)
        return web.Response(status=204 if was_there else 404)

    # --- objects ------------------------------------------------------------------------------------------------------

    async def read(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD. The type that is told is that of the first bytes."""
        query = request.query
        found = await self._store.open(
            request.match_info["key"],
            redirect=query.get("redirect") == "1",
            content_type=query.get("type", ""),
            disposition=query.get("disposition", ""),
        )
        if isinstance(found, Elsewhere):
            return web.Response(status=302, headers={"Location": found.url, "Cache-Control": "no-store"})
        try:
            return await _send(request, found)
        finally:
            await found.close()

    # --- names --------------------------------------------------------------------------------------------------------

    async def put_name(self, request: web.Request) -> web.Response:
        try:
            body: Any = await request.json()
            name = Name(str(body["name"]), dict(body["value"]))
        except (ValueError, KeyError, TypeError):
            return _refusal(400, "Malformed", "a name is told as {name, value}")
        if name_digest(name.name) != request.match_info["digest"]:
            return _refusal(400, "Malformed", "the name is not the one of the path")
        if len(json.dumps(dict(name.value))) > MAX_VALUE:
            return _refusal(400, "Malformed", f"the value has more than {MAX_VALUE} bytes")
        create = request.query.get("create") == "1"
        await self._store.put_name(request.match_info["tenant"], request.match_info["scope"], name, create=create)
        return web.Response(status=204)

    async def get_name(self, request: web.Request) -> web.Response:
        where = request.match_info
        found = await self._store.get_name(where["tenant"], where["scope"], where["digest"])
        return web.json_response({"name": found.name, "value": dict(found.value)})

    async def remove_name(self, request: web.Request) -> web.Response:
        where = request.match_info
        was_there = await self._store.remove_name(where["tenant"], where["scope"], where["digest"])
        return web.Response(status=204 if was_there else 404)

    async def names(self, request: web.Request) -> web.Response:
        found = await self._store.names(request.match_info["tenant"], request.match_info["scope"])
        return web.json_response({"names": [{"name": one.name, "value": dict(one.value)} for one in found]})


def _made(made: Upload) -> web.Response:
    body = {"sha256": made.sha256, "bytes": made.bytes, "created": made.created}
    return web.json_response(body, status=201 if made.created else 200)


async def _body(request: web.Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.content.iter_chunked(_CHUNK):
        request[_TRAFFIC].received += len(chunk)
        yield chunk


async def _send(request: web.Request, content: Content) -> web.StreamResponse:
    headers = {"ETag": f'"{content.etag}"', "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    try:
        wanted = span(content.size, request.headers.get("Range"), request.headers.get("If-Range"), content.etag)
    except Unsatisfiable:
        return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{content.size}"})
    headers["Content-Type"] = sniff.content_type(content.head)
    headers["Content-Length"] = str(wanted.length)
    if wanted.partial:
        headers["Content-Range"] = wanted.content_range(content.size)
    response = web.StreamResponse(status=206 if wanted.partial else 200, headers=headers)
    await response.prepare(request)
    if request.method != "HEAD":
        await _stream(request, response, content, wanted)
    await response.write_eof()
    return response


async def _stream(request: web.Request, response: web.StreamResponse, content: Content, wanted: Span) -> None:
    """The bytes, at the reader's pace. A store that fails in the middle cuts the connection: the length says so."""
    try:
        async for chunk in content.read(wanted.start, wanted.length):
            await response.write(chunk)
            request[_TRAFFIC].sent += len(chunk)
    except StoreError as error:
        log.warning("%s: %s", request.path, error)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError from None


def _refusal(status: int, code: str, message: str, **more: Any) -> web.Response:
    return web.json_response({"code": code, "message": message, **more}, status=status)
