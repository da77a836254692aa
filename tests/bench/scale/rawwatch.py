"""A watch whose events are counted by their type and thrown away: load on the API server, little on the reader."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import aiohttp

from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import Resource

_TYPE = re.compile(rb'\{"type":"([A-Z]+)","object"')


class RawWatch:
    """One selection of one kind; ``counts`` grows by ADDED, MODIFIED, DELETED from the moment that ``open`` is set."""

    def __init__(self, client: KubeClient, resource: Resource, namespace: str, selector: str | None = None) -> None:
        self._client = client
        self._url = client.connection.host + resource.path(namespace)
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self.counts: Counter[str] = Counter()
        self.open = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                page = await self._client.list_page(
                    self._resource, self._namespace, field_selector=self._selector, limit=1
                )
                await self._read(page["metadata"]["resourceVersion"])
            except (ApiError, UnreachableError, aiohttp.ClientError, OSError):
                await asyncio.sleep(0.5)

    async def _read(self, version: str) -> None:
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": "3000"}
        if self._selector:
            query["fieldSelector"] = self._selector
        headers = {"Accept": "application/json"}
        authorization = self._client.connection.authorization()
        if authorization:
            headers["Authorization"] = authorization
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        tls = self._client.connection.tls
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls or False)) as session,
            session.get(self._url, params=query, headers=headers, timeout=timeout) as response,
        ):
            response.raise_for_status()
            self.open.set()
            rest = b""
            async for chunk in response.content.iter_any():
                text = rest + chunk
                last = text.rfind(b"\n")
                self.counts.update(found.decode() for found in _TYPE.findall(text[: last + 1]))
                rest = text[last + 1 :]
