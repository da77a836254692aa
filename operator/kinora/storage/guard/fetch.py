"""The guarded fetcher: one URL of a user into an open file, within limits, never to an address that policy refuses.

Each redirect is a new URL and is checked as such; how one request is sent is connect.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, replace
from ssl import SSLContext
from typing import BinaryIO
from urllib.parse import urljoin

import aiohttp

from kinora.recipes.faults import Fault
from kinora.storage.guard.connect import GuardedClient, NotReached, Patience, Resolve, resolve_by_system
from kinora.storage.guard.policy import Policy
from kinora.storage.guard.urls import Target, UrlRefused, parse_url

_CHUNK = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_TYPE = re.compile(r"[-!#$&^_.+a-z0-9]{1,100}/[-!#$&^_.+a-z0-9]{1,100}")
MEDIA_TYPES = ("image/", "video/", "application/octet-stream", "binary/octet-stream", "application/mp4")


class FetchError(Exception):
    """The fetch failed for a reason that may pass: name resolution, connection, timeout, an overloaded server."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up. Bytes are bytes received; seconds are of the whole fetch, of silence, and of connecting."""

    max_bytes: int
    total_seconds: float = 600
    idle_seconds: float = 20
    connect_seconds: float = 10
    redirects: int = 3
    content_types: tuple[str, ...] = MEDIA_TYPES
    "Types, or beginnings of types that end in /. An answer without a type passes: its bytes are probed anyway."


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written. `url` is where it came from in the end, without its query."""

    url: str
    bytes: int
    sha256: str
    content_type: str
    redirects: int


class GuardedFetcher:
    """Fetches URLs of users. One for a process; it holds no connection between fetches."""

    def __init__(
        self, policy: Policy, *, resolve: Resolve = resolve_by_system, ssl: SSLContext | None = None, agent: str = ""
    ) -> None:
        """`ssl`: a context other than the system's; `agent`: the User-Agent."""
        self._client = GuardedClient(policy, resolve=resolve, ssl=ssl, agent=agent)

    async def fetch(self, url: str, sink: BinaryIO, limits: Limits, *, field: str = "url") -> Fetched:
        """Write what `url` holds to `sink`, from its position on. `field` names the URL in messages.

        UrlRefused: it will never be fetched as it is. FetchError: it may be, later. Both leave part of it in `sink`.
        """
        try:
            async with asyncio.timeout(limits.total_seconds):
                return await self._fetch(url, sink, limits, field)
        except TimeoutError:
            allowed = f"{limits.total_seconds:g} s in all, {limits.idle_seconds:g} s without a byte"
            raise FetchError(f"{field}: timed out; allowed: {allowed}") from None
        except aiohttp.ClientPayloadError:
            raise FetchError(f"{field}: the server closed the connection before the end of the file") from None
        except NotReached as error:
            raise FetchError(str(error)) from None
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: what the server sent is no HTTP
            raise FetchError(f"{field}: {type(error).__name__} while fetching") from None

    async def _fetch(self, url: str, sink: BinaryIO, limits: Limits, field: str) -> Fetched:
        target = parse_url(url, field)
        patience = Patience(limits.idle_seconds, limits.connect_seconds)
        for hop in range(limits.redirects + 1):
            async with self._client.request("GET", target, field, patience) as response:
                if response.status not in _REDIRECTS:
                    return replace(await _receive(response, target, sink, limits, field), redirects=hop)
                target = _next(target, response, field)
            field = f"{field.removesuffix(' (redirected)')} (redirected)"
        raise UrlRefused(Fault(field, f"redirected {limits.redirects + 1} times", f"at most {limits.redirects}"))


def _next(target: Target, response: aiohttp.ClientResponse, field: str) -> Target:
    """The target of a redirect."""
    redirected = f"{field.removesuffix(' (redirected)')} (redirected)"
    places = response.headers.getall("Location", [])
    if len(places) != 1:
        raise UrlRefused(Fault(redirected, f"{len(places)} Location headers", "one"))
    place = places[0]
    if any(char <= " " or char in "\\\x7f" for char in place):
        raise UrlRefused(Fault(redirected, "a Location with spaces, control characters or backslashes", "a plain URL"))
    found = parse_url(urljoin(target.url, place), redirected)
    if target.scheme == "https" and found.scheme == "http":
        raise UrlRefused(Fault(redirected, found.shown, "https, where the first URL is https"))
    return found


async def _receive(
    response: aiohttp.ClientResponse, target: Target, sink: BinaryIO, limits: Limits, field: str
) -> Fetched:
    kind = _check_head(response, limits, field)
    digest, size = hashlib.sha256(), 0
    pending = bytearray()

    def write() -> None:
        digest.update(pending)
        sink.write(pending)
        pending.clear()

    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limits.max_bytes:
            raise UrlRefused(Fault(field, f"more than {limits.max_bytes} bytes", f"at most {limits.max_bytes} bytes"))
        pending += chunk
        if len(pending) >= _CHUNK:
            await asyncio.to_thread(write)
    await asyncio.to_thread(write)
    if response.content_length is not None and size != response.content_length:
        raise FetchError(f"{field}: {size} bytes came, {response.content_length} were declared")
    if size == 0:
        raise UrlRefused(Fault(field, "an empty file", "an image or a video"))
    return Fetched(target.shown, size, digest.hexdigest(), kind, 0)


def _check_head(response: aiohttp.ClientResponse, limits: Limits, field: str) -> str:
    """Status, length, encoding and type, before a byte of the body is read. Returns the type."""
    if response.status in _LATER:
        raise FetchError(f"{field}: the server answered {response.status}")
    if response.status != 200:
        raise UrlRefused(Fault(field, f"a URL that the server answers with {response.status}", "one answered with 200"))
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise UrlRefused(Fault(field, f"a file sent with Content-Encoding {encoding[:40]}", "files sent as they are"))
    length = response.content_length
    if length is not None and length > limits.max_bytes:
        raise UrlRefused(Fault(field, f"{length} bytes", f"at most {limits.max_bytes} bytes"))
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    fits = any(kind.startswith(item) if item.endswith("/") else kind == item for item in limits.content_types)
    if kind and not (fits and _TYPE.fullmatch(kind)):
        allowed = ", ".join(f"{item}*" if item.endswith("/") else item for item in limits.content_types)
        raise UrlRefused(Fault(field, f"a file of type {kind[:80]}", allowed))
    return kind
