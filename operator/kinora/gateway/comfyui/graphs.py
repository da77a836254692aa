"""The graphs of jobs, read from the cluster when they are asked for. A graph never changes, so the last ones are kept.

The caches of watches hold none (they are texts of up to 64 KiB, with prompts); what is kept here is bounded. A graph
that is longer lies in the tenant's store, as an upload without a name.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from kinora.gateway.errors import NotFound, TooLarge
from kinora.gateway.files import Files
from kinora.gateway.jobs import Job
from kinora.gateway.service import Service
from kinora.gateway.tenants import Tenant
from kinora.workflows.parse import MAX_BYTES

Graph = Mapping[str, Any]
_MOST_CHARACTERS: Final = 4 * 1024**2  # of all texts that are kept
_AT_ONCE: Final = 8


class Graphs:
    """Reads graphs for all tenants; whether a job is the tenant's own is the service's to say."""

    def __init__(self, service: Service, files: Files) -> None:
        self._service, self._files = service, files
        self._kept: OrderedDict[str, tuple[Graph, int]] = OrderedDict()
        self._characters = 0

    async def of(self, tenant: Tenant, job: Job) -> Graph:
        """The job's graph; {} for one that has none (it came in by another dialect), or whose record is gone.

        Unavailable, where it lies in a store that does not answer.
        """
        if job.task is not None:
            return {}
        if job.uid in self._kept:
            self._kept.move_to_end(job.uid)
            return self._kept[job.uid][0]
        try:
            whole = await self._service.whole(tenant, job.id)
        except NotFound:
            return {}
        workflow = (whole.get("spec") or {}).get("workflow") or {}
        text = workflow.get("inline") or await self._stored(tenant, workflow.get("upload") or {})
        graph = _graph(text)
        self._keep(job.uid, graph, len(text))
        return graph

    async def store(self, tenant: Tenant, text: str) -> None:
        """Put the text of a graph where its job will name it. TooLarge, Unavailable."""

        async def chunks() -> AsyncIterator[bytes]:
            yield text.encode()

        await self._files.put(tenant, chunks(), max_bytes=MAX_BYTES)

    async def _stored(self, tenant: Tenant, upload: Mapping[str, Any]) -> str:
        """A text out of the store; an empty graph where it has expired, or is no text."""
        try:
            content = await self._files.read(tenant, str(upload.get("key")), max_bytes=MAX_BYTES)
            return content.decode()
        except (NotFound, TooLarge, UnicodeDecodeError):
            return "{}"

    async def all_of(self, tenant: Tenant, jobs: Iterable[Job]) -> dict[str, Graph]:
        """Those of several jobs, by id."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(job: Job) -> tuple[str, Graph]:
            async with turns:
                return job.id, await self.of(tenant, job)

        return dict(await asyncio.gather(*(one(job) for job in jobs)))

    def _keep(self, uid: str, graph: Graph, characters: int) -> None:
        if uid not in self._kept:
            self._kept[uid] = (graph, characters)
            self._characters += characters
        while self._characters > _MOST_CHARACTERS:
            _, (_, freed) = self._kept.popitem(last=False)
            self._characters -= freed


def _graph(text: str) -> Graph:
    """What this dialect wrote; anything else, which a user with kubectl may have made, counts as none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict) or not all(_is_node(node) for node in found.values()):
        return {}
    return found


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
