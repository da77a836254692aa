"""The REST client: raw JSON over aiohttp, one method a verb, one error type. Knows no kind's meaning.

Merge patches of a status carry the resourceVersion that was read: a stale one is answered 409, and the caller reads
again and decides again (api.md). Retries of reads and of throttled or broken requests are here; retries of decisions
are not.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from kinora.kube.config import Connection
from kinora.kube.resources import Resource

Object = dict[str, Any]
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
_RETRIED_STATUS: Final = frozenset({429, 502, 503, 504})
_ATTEMPTS: Final = 5
_MAX_LINE: Final = 64 * 1024 * 1024  # one watch event: an object is at most 1.5 MiB in etcd; JSON escapes grow it

# What a metrics module wants of each request: verb, plural, status (0: no answer), seconds.
Observer = Callable[[str, str, int, float], None]


def _ignore(_verb: str, _plural: str, _status: int, _seconds: float) -> None:
    """Observe nothing."""


class ApiError(Exception):
    """The API server's refusal: HTTP status, Kubernetes reason, its message."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_not_found(self) -> bool:
        """404: the object (or the kind) does not exist."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """409 for a stale resourceVersion."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def already_exists(self) -> bool:
        """409 for a create: seen before."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def is_gone(self) -> bool:
        """410: the resourceVersion is too old; list again."""
        return self.status == 410


class UnreachableError(Exception):
    """No answer from the API server after every retry."""


class WriteRefusedError(UnreachableError):
    """The write was not sent: this process may not write now (``KubeClient.permit``)."""


def _permit() -> None:
    """Anybody may write."""


class KubeClient:
    """One session to one API server; use as an async context manager."""

    def __init__(
        self,
        connection: Connection,
        *,
        user_agent: str = "kinora",
        lean: bool = False,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        """A client of one identity.

        Args:
            connection: the API server, and the login.
            user_agent: what the API server's audit log calls this client.
            lean: leave managedFields out of every list, page by page: they are most of what a queued job weighs.
            connector: a pool of connections that several clients share and none of them closes.
        """
        self.connection = connection
        self.namespace = connection.namespace
        self.observe: Observer = _ignore  # a process with metrics sets its own
        # Asked before each attempt of each write; raises WriteRefusedError where only a leader may write.
        self.permit: Callable[[], None] = _permit
        self._user_agent = user_agent
        self._lean = lean
        self._shared = connector
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = self._shared or aiohttp.TCPConnector(
            ssl=self.connection.tls or False, limit=100, keepalive_timeout=75
        )
        self._session = aiohttp.ClientSession(
            connector=connector, connector_owner=self._shared is None, headers={"User-Agent": self._user_agent}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object. Raises ApiError (404 when absent)."""
        return await self._call("GET", "get", resource, resource.path(namespace, name))

    async def find(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """Read one object, or None when it does not exist."""
        try:
            return await self.get(resource, namespace, name)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        continue_token: str | None = None,
    ) -> Object:
        """One page of a list, as the List object (``items``, ``metadata.resourceVersion``, ``metadata.continue``)."""
        query = {"limit": str(limit)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        if continue_token:
            query["continue"] = continue_token
        page = await self._call("GET", "list", resource, resource.path(namespace), query=query)
        if self._lean:
            for item in page.get("items") or []:
                item["metadata"].pop("managedFields", None)
        return page

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        trim: Callable[[Object], Object] | None = None,
    ) -> tuple[list[Object], str]:
        """Every object that matches, page by page, and the resourceVersion to watch from.

        An expired continue token (410) starts the list anew once. ``trim`` makes of each object what is kept of it: a
        long list never stands in memory whole.
        """
        for attempt in (1, 2):
            items: list[Object] = []
            token: str | None = None
            try:
                while True:
                    page = await self.list_page(
                        resource,
                        namespace,
                        label_selector=label_selector,
                        field_selector=field_selector,
                        continue_token=token,
                    )
                    found = page.get("items") or []
                    items += found if trim is None else map(trim, found)
                    token = page["metadata"].get("continue")
                    if not token:
                        return items, page["metadata"]["resourceVersion"]
            except ApiError as error:
                if not error.is_gone or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        """Create one object. Raises ApiError (already_exists when it is there)."""
        query = {"dryRun": "All"} if dry_run else None
        return await self._call("POST", "create", resource, resource.path(namespace), body=body, query=query)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str | None = None,
        content_type: str = MERGE,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Patch one object or subresource (merge patch unless told otherwise)."""
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", "patch", resource, path, body=body, content_type=content_type, query=query)

    async def apply(self, resource: Resource, body: Object, *, manager: str) -> Object:
        """Server-side apply of one whole object: made, or its fields of this manager set and nothing else."""
        metadata = body["metadata"]
        query = {"fieldManager": manager, "force": "true"}
        return await self.patch(
            resource, metadata["namespace"], metadata["name"], body, content_type=APPLY, query=query
        )

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: Object) -> Object:
        """PUT the whole object; with a resourceVersion inside it is a compare-and-set."""
        return await self._call("PUT", "update", resource, resource.path(namespace, name), body=body)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete one object (only if it has this UID); False when it was gone already."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", "delete", resource, resource.path(namespace, name), body=options)
        except ApiError as error:
            if error.is_not_found or (uid and error.status == 409):
                return False
            raise
        return True

    async def stream(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 290,
    ) -> AsyncIterator[Object]:
        """One watch request: ``{"type", "object"}`` dicts until the server closes it. Raises ApiError (410: relist).

        Silence of 60 s beyond a bookmark's pace (about one a minute) counts as a broken connection.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=150)
        url = self.connection.host + resource.path(namespace)
        async with self._open().get(url, params=query, headers=self._headers(), timeout=timeout) as response:
            self.observe("watch", resource.plural, response.status, 0.0)
            if response.status != 200:
                raise await _error(response)
            async for line in _lines(response.content):
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(int(status.get("code", 500)), status.get("reason", ""), status.get("message", ""))
                yield event

    async def download(
        self, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> AsyncIterator[bytes]:
        """The answer of any path (a pod's proxy) in chunks: to GET, or to POST of `body`. Raises ApiError."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        url, all_headers = self.connection.host + path, self._headers() | {"Accept": "*/*"} | dict(headers or {})
        method = "GET" if body is None else "POST"
        async with self._open().request(method, url, headers=all_headers, data=body, timeout=timeout) as response:
            self.observe("proxy", "pods", response.status, 0.0)
            if response.status != 200:
                raise await _error(response)
            async for chunk in response.content.iter_any():
                yield chunk

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("KubeClient is used outside its context manager; write `async with KubeClient(...)`")
        return self._session

    def _headers(self, content_type: str | None = None) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        authorization = self.connection.authorization()
        if authorization:
            headers["Authorization"] = authorization
        return headers

    async def _call(
        self,
        method: str,
        verb: str,
        resource: Resource,
        path: str,
        *,
        body: Object | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Send, retrying what the server did not take in (429, 502 to 504, no connection), with growing pauses."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        delay = 0.1
        last: Exception | None = None
        for _ in range(_ATTEMPTS):
            if method != "GET":
                self.permit()
            started = time.monotonic()
            try:
                async with self._open().request(
                    method,
                    self.connection.host + path,
                    data=data,
                    params=query,
                    headers=self._headers(content_type if data is not None else None),
                    timeout=aiohttp.ClientTimeout(total=30, sock_connect=10),
                ) as response:
                    self.observe(verb, resource.plural, response.status, time.monotonic() - started)
                    if response.status < 300:
                        answer: Object = json.loads(await response.read())
                        return answer
                    error = await _error(response)
            except (aiohttp.ClientError, TimeoutError) as broken:
                self.observe(verb, resource.plural, 0, time.monotonic() - started)
                last = broken
            else:
                if error.status not in _RETRIED_STATUS:
                    raise error
                last = error
                delay = max(delay, error.retry_after or 0)
            await asyncio.sleep(delay)
            delay = min(delay * 3, 3.0)
        if isinstance(last, ApiError):
            raise last
        raise UnreachableError(f"{method} {path}: no answer from {self.connection.host} ({last!r})") from last


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own readline refuses lines over its buffer's limit."""
    rest = b""
    async for chunk in stream.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                if line:
                    yield line
        if len(rest) > _MAX_LINE:
            raise ApiError(500, "TooLarge", f"a watch event of over {_MAX_LINE} bytes")


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.text(errors="replace")
    retry_after = response.headers.get("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdigit() else None
    try:
        status = json.loads(text)
        return ApiError(response.status, status.get("reason", ""), status.get("message", text), seconds)
    except (ValueError, AttributeError):
        return ApiError(response.status, response.reason or "", text[:1000], seconds)
