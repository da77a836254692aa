"""How a file of a store goes out: headers that let a browser do it no harm, ranges, validators, bytes at its pace."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kinora.gateway.stores import Stores, watched
from kinora.storage import sniff
from kinora.storage.service.client import Reading, StoreClient

#: A file shows itself and nothing else: no script, no frame, no request to anybody.
_POLICY: Final = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
_TYPE = re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9.+-]{0,80}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._ ()\[\]-]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_FILENAME: Final = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file lies: the namespace, the root of one of its stores, and the key there."""

    namespace: str
    root: str
    key: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What a file is shown as; `content_type` empty: what its first bytes say. `redirect`: a URL of its store does."""

    filename: str
    content_type: str
    sha256: str
    redirect: bool = False


def safe_name(filename: str) -> str:
    """The last part of a file name, without what is no place in a header or a path."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if char.isprintable())[-MAX_FILENAME:].strip(" .")
    return name or "file"


def disposition(content_type: str, filename: str) -> str:
    """Content-Disposition (RFC 6266): a picture, video or sound is shown in place, anything else is saved."""
    name = safe_name(filename)
    plain = _UNSAFE.sub("_", name)
    kind = "inline" if sniff.is_shown(content_type) else "attachment"
    encoded = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{encoded}'


class Streamed(StreamingResponse):
    """A stream whose source is let go of at the end, whether it was read or not."""

    def __init__(
        self, opened: AsyncExitStack, content: AsyncIterator[bytes], status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(content, status_code=status, headers=headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opened:
            await super().__call__(scope, receive, send)


async def delivered(stores: Stores, request: Request, place: Place, shown: Shown) -> Response:
    """The answer to GET or HEAD of an object of a store. NotFound, Unavailable."""
    etag = f'"{shown.sha256}"' if _SHA256.fullmatch(shown.sha256) else ""
    if etag and etag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "private"})
    opened = AsyncExitStack()

    async def ask(store: StoreClient) -> Reading:
        content_type = _type(shown, "")
        reading = store.read(
            place.key,
            method=request.method,
            headers=_wanted(request, etag),
            redirect=shown.redirect and request.method == "GET",  # a URL that is signed for GET refuses HEAD
            content_type=content_type,
            disposition=disposition(content_type, shown.filename),
        )
        return await opened.enter_async_context(reading)

    reading = await stores.ask(place.namespace, place.root, ask)
    if reading.location:
        await opened.aclose()
        return RedirectResponse(reading.location, 302, headers={"Cache-Control": "no-store"})
    headers = _headers(reading, shown, etag)
    if request.method == "HEAD" or reading.status == 416:
        await opened.aclose()
        return Response(status_code=reading.status, headers=headers)
    return Streamed(opened, watched(place.namespace, reading.chunks), reading.status, headers)


def _wanted(request: Request, etag: str) -> dict[str, str]:
    """The range to ask the store for: none where the client's copy is of another file (If-Range)."""
    given = request.headers.get("range")
    unless = request.headers.get("if-range")
    return {"Range": given} if given and (unless is None or unless.strip() == etag) else {}


def _type(shown: Shown, found: str) -> str:
    for candidate in (shown.content_type, found):
        if _TYPE.fullmatch(candidate):
            return candidate
    return sniff.UNKNOWN


def _headers(reading: Reading, shown: Shown, etag: str) -> dict[str, str]:
    content_type = _type(shown, reading.headers.get("Content-Type", ""))
    headers = {
        "Content-Type": content_type if sniff.is_shown(content_type) else sniff.UNKNOWN,
        "Content-Disposition": disposition(content_type, shown.filename),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "private",
        "Accept-Ranges": "bytes",
    }
    if etag:
        headers["ETag"] = etag
    for name in ("Content-Length", "Content-Range"):
        if name in reading.headers:
            headers[name] = reading.headers[name]
    return headers
