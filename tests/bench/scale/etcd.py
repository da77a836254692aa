"""Many objects at once, straight into the etcd of the harness's own control plane: what a restored backup would be.

Filling a cluster with finished jobs through the API server costs two writes each, and minutes for what is only the
scenery of a measurement. Custom resources lie in etcd as JSON. Speaks etcd's JSON gateway (v3, kv/txn, kv/deleterange).
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

Object = dict[str, Any]
_OPERATIONS = 64  # a transaction; etcd allows 128 operations, and 1.5 MiB
_SIDE_BY_SIDE = 4


def key_of(job: Object) -> str:
    """Where the API server keeps a VideoJob."""
    metadata = job["metadata"]
    return f"/registry/kinora.dev/videojobs/{metadata['namespace']}/{metadata['name']}"


class Etcd:
    """One connection to the dev cluster's etcd; use as an async context manager."""

    def __init__(self, state: Path) -> None:
        """``state``: the dev cluster's folder, with cluster.json and pki."""
        self._host = f"https://127.0.0.1:{json.loads((state / 'cluster.json').read_text())['etcd_port']}"
        self._tls = ssl.create_default_context(cafile=str(state / "pki/ca.crt"))
        self._tls.load_cert_chain(state / "pki/apiserver.crt", state / "pki/apiserver.key")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def put(self, jobs: Iterable[Object]) -> int:
        """Write VideoJobs as the API server would have; how many."""
        batches = _batches(iter(jobs))
        count = 0

        async def worker() -> None:
            nonlocal count
            for batch in batches:
                operations = [
                    {"requestPut": {"key": _b64(key_of(job)), "value": _b64(json.dumps(job, separators=(",", ":")))}}
                    for job in batch
                ]
                await self._post("kv/txn", {"success": operations})
                count += len(batch)

        async with asyncio.TaskGroup() as group:
            for _ in range(_SIDE_BY_SIDE):
                group.create_task(worker())
        return count

    async def delete_jobs(self, namespace: str) -> int:
        """Remove every VideoJob of a namespace in one operation; how many there were."""
        prefix = f"/registry/kinora.dev/videojobs/{namespace}/"
        end = prefix[:-1] + chr(ord("/") + 1)
        answer = await self._post("kv/deleterange", {"key": _b64(prefix), "range_end": _b64(end)})
        return int(answer.get("deleted", 0))

    async def _post(self, path: str, body: Object) -> Object:
        assert self._session is not None
        async with self._session.post(f"{self._host}/v3/{path}", json=body) as response:
            answer: Object = await response.json(content_type=None)
            if response.status != 200:
                raise RuntimeError(f"etcd {path}: {response.status} {answer}")
            return answer


def _batches(jobs: Iterator[Object]) -> Iterator[list[Object]]:
    while batch := list(islice(jobs, _OPERATIONS)):
        yield batch


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
