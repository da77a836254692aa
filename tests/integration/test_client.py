"""The API client against the real API server: what a lean one leaves out, and a pool of connections that is shared."""

from __future__ import annotations

import aiohttp

from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import VIDEOJOB
from waiting import video_job


async def test_a_lean_client_lists_without_managed_fields(
    kube: KubeClient, connection: Connection, namespace: str
) -> None:
    made = await kube.create(VIDEOJOB, namespace, video_job())
    assert made["metadata"]["managedFields"]
    async with KubeClient(connection, lean=True) as lean:
        (listed,), _ = await lean.list(VIDEOJOB, namespace)
        page = await lean.list_page(VIDEOJOB, namespace)
    for job in (listed, page["items"][0]):
        assert "managedFields" not in job["metadata"]
        assert job["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_clients_that_share_a_pool_do_not_close_it(connection: Connection, namespace: str) -> None:
    async with aiohttp.TCPConnector(ssl=connection.tls or False) as pool:
        async with KubeClient(connection, connector=pool) as first:
            await first.list(VIDEOJOB, namespace)
        assert not pool.closed
        async with KubeClient(connection, connector=pool) as second:
            await second.list(VIDEOJOB, namespace)
