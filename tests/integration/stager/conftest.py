"""A stager as in its pod, a process with a token of the stagers' account; and a web server to fetch from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.stager.bench import StagerBench
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from rawserver import Server, listening


@pytest.fixture
async def web() -> AsyncIterator[Server]:
    async with listening() as server:
        yield server


@pytest.fixture
async def bench(
    kube: KubeClient, connection: Connection, namespace: str, web: Server, tmp_path: Path
) -> AsyncIterator[StagerBench]:
    made = StagerBench(kube, connection, namespace, web, tmp_path)
    await made.prepare()
    yield made
    await made.close()
