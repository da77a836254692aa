"""The bench of the agent's tests: one server pod each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.agent.bench import Bench, make_folders, make_pod
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import POD
from ports import free_port


@pytest.fixture
async def bench(kube: KubeClient, connection: Connection, namespace: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """A pod with good weights; start its engine and its agent."""
    make_folders(tmp_path)
    one = Bench(kube, connection, namespace, tmp_path, await make_pod(kube, namespace), free_port())
    yield one
    await one.kill_agent()
    await one.stop_engine()
    await kube.delete(POD, namespace, one.pod["metadata"]["name"], grace_seconds=0)
