"""List, then watch, for ever: a reflector that survives every break and never misses a deletion.

Each full list replaces what was known (``on_replace``), so that objects deleted during a gap vanish; events after it
arrive one by one (``on_event``). Reads only; what the objects mean is the caller's affair.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from kinora.kube.client import ApiError, KubeClient, Object, UnreachableError
from kinora.kube.resources import Resource

log = logging.getLogger(__name__)

_BACKOFF_LIMIT = 10.0  # seconds between attempts while the API server does not answer


@dataclass
class Reflector:
    """Follows one selection of one kind.

    ``on_replace(objects)`` is called with the full list, ``on_event(type, object)`` with ADDED, MODIFIED, DELETED.
    Both are plain functions that must not block. ``synced`` is set after the first list. ``trim`` makes of each object
    what the two are given of it.
    """

    client: KubeClient
    resource: Resource
    on_replace: Callable[[list[Object]], None]
    on_event: Callable[[str, Object], None]
    namespace: str | None = None
    label_selector: str | None = None
    field_selector: str | None = None
    relist_seconds: float | None = None
    trim: Callable[[Object], Object] | None = None
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    listed_version: int = 0  # of the list that `on_replace` is called with: what is newer was not to be in it

    async def run(self) -> None:
        """Follow until cancelled."""
        delay = 0.1
        while True:
            try:
                version = await self._list()
                delay = 0.1
                await self._watch_from(version)
            except ApiError as error:
                level = logging.DEBUG if error.is_gone else logging.WARNING
                log.log(level, "watch of %s: %s", self.resource.plural, error)
                if error.is_gone:
                    continue
            except (UnreachableError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("watch of %s: %r; trying again in %.1f s", self.resource.plural, error, delay)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - spreads reconnects, no secret
            delay = min(delay * 2, _BACKOFF_LIMIT)

    async def _list(self) -> str:
        items, version = await self.client.list(
            self.resource,
            self.namespace,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            trim=self.trim,
        )
        self.listed_version = int(version) if version.isdigit() else 0
        self.on_replace(items)
        self.synced.set()
        return version

    async def _watch_from(self, version: str) -> None:
        """Watch until a gap forces a new list; a clean close by the server only reconnects."""
        deadline = asyncio.get_running_loop().time() + self.relist_seconds if self.relist_seconds else None
        while True:
            started = asyncio.get_running_loop().time()
            async for event in self.client.stream(
                self.resource,
                self.namespace,
                resource_version=version,
                label_selector=self.label_selector,
                field_selector=self.field_selector,
            ):
                item = event["object"]
                version = item["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self.on_event(event["type"], self.trim(item) if self.trim else item)
                if deadline and asyncio.get_running_loop().time() > deadline:
                    return
            if asyncio.get_running_loop().time() - started < 1:
                await asyncio.sleep(0.5)  # a server that closes at once must not be hammered
