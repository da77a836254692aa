"""The gateway's account, and replicas of its webhooks on this loop.

Their Leases are in the test's own namespace, where the account has the same rights as in its own: tests run side by
side on one API server, and replicas of two tests that contend for the same shards take them from one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from integration.gateway.receivers import Receiver
from integration.gateway.webhooks.jobs import (
    ACCOUNT,
    SHARDS,
    SYSTEM,
    Replica,
    Start,
)
from integration.tokens import as_token, token, until_authorised
from kinora.api.webhooks import WebhookValues
from kinora.gateway.webhooks import decide, secrets
from kinora.gateway.webhooks.service import Webhooks, Wiring
from kinora.gateway.webhooks.shards import lease_name
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import LEASE, ROLE_BINDING, Resource
from waiting import DEADLINE

ROLE = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")


@pytest.fixture
async def gateway(kube: KubeClient, connection: Connection, namespace: str) -> AsyncIterator[KubeClient]:
    """A client that is the gateway."""
    async with KubeClient(as_token(connection, await token(kube, SYSTEM, ACCOUNT)), lean=True) as client:
        await until_authorised(client, namespace)
        yield client


@pytest.fixture
async def leases(kube: KubeClient, gateway: KubeClient, namespace: str) -> str:
    """The namespace of the Leases, once the account may use them there as the chart lets it use its own."""
    role = await kube.get(ROLE, SYSTEM, f"{ACCOUNT}-webhooks")
    await kube.create(ROLE, namespace, {"metadata": {"name": "leases"}, "rules": role["rules"]})
    told = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases"}
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}]
    await kube.create(ROLE_BINDING, namespace, {"metadata": {"name": "leases"}, "roleRef": told, "subjects": subjects})
    async with asyncio.timeout(DEADLINE):
        while True:
            with suppress(ApiError):  # a RoleBinding is known to the authoriser a moment after it was made
                await gateway.find(LEASE, namespace, lease_name(0))
                return namespace


@pytest.fixture
async def start(
    gateway: KubeClient, namespace: str, leases: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    """``replica = await start(ports, setting=...)``: destinations on the loopback, at these ports alone."""
    monkeypatch.setattr(decide, "PAUSES", (0.2,) * 4)
    monkeypatch.setattr(decide, "SECRET_SECONDS", 0.2)
    monkeypatch.setattr(secrets, "_SECONDS", 0.1)
    async with AsyncExitStack() as stack:

        async def resolve(host: str, _port: int) -> Sequence[str]:
            if not host.endswith(".test"):
                raise OSError("no such name")
            return ["127.0.0.1"]

        async def begin(
            *receivers: Receiver, name: str = "gateway-a", turn_seconds: float = 300, **values: Any
        ) -> Replica:
            ports = [receiver.port for receiver in receivers]
            allow = {"networks": ["127.0.0.1/32"], "ports": ports or [443], "http": True}
            wiring = Wiring(
                client=gateway,
                lease_client=gateway,
                namespace=leases,
                instance=name,
                namespaces=(namespace,),
                values=WebhookValues.model_validate({"shards": SHARDS, "allow": allow, **values}),
                resolve=resolve,
                turn_seconds=turn_seconds,
            )
            replica = Replica(Webhooks(wiring))
            stack.push_async_callback(replica.stop)
            return replica

        yield begin


@pytest.fixture
def patience(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second attempt comes so late that the first one's word stays: to be asked for where that word is looked at."""
    monkeypatch.setattr(decide, "PAUSES", (600.0,))
