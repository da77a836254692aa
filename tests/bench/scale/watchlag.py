"""Watch lag: how long after the answer of a write its event reaches somebody else's watch, twice a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench.scale.load import job_body
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import VIDEOJOB

Object = dict[str, Any]
NAME = "watch-lag-probe"
INTERVAL = 0.5  # seconds


class WatchLag:
    """Patches an annotation of a suspended VideoJob, and watches that VideoJob."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._answered: dict[str, float] = {}
        self._arrived: dict[str, float] = {}
        self.writes = 0

    @property
    def seconds(self) -> list[float]:
        """Each lag; 0 where the event came before the answer."""
        both = self._answered.keys() & self._arrived.keys()
        return [max(0.0, self._arrived[one] - self._answered[one]) for one in both]

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Measure for as long as the context lasts."""
        body = job_body(NAME)
        body["spec"]["suspend"] = True
        job = await self._client.create(VIDEOJOB, self._namespace, body)
        tasks = [
            asyncio.create_task(self._watch(job["metadata"]["resourceVersion"])),
            asyncio.create_task(self._write()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(ApiError, UnreachableError):
                await self._client.delete(VIDEOJOB, self._namespace, NAME)

    async def _watch(self, version: str) -> None:
        selector = f"metadata.name={NAME}"
        async for event in self._client.stream(
            VIDEOJOB, self._namespace, resource_version=version, field_selector=selector, timeout_seconds=3000
        ):
            self._arrived[event["object"]["metadata"]["resourceVersion"]] = time.monotonic()

    async def _write(self) -> None:
        while True:
            patch = {"metadata": {"annotations": {"bench.kinora.dev/written": str(self.writes)}}}
            job = await self._client.patch(VIDEOJOB, self._namespace, NAME, patch)
            self._answered[job["metadata"]["resourceVersion"]] = time.monotonic()
            self.writes += 1
            await asyncio.sleep(INTERVAL)
