"""The gateway's account, and replicas of its webhooks on this loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
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
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection


@pytest.fixture
async def gateway(kube: KubeClient, connection: Connection, namespace: str) -> AsyncIterator[KubeClient]:
    """A client that is the gateway."""
    async with KubeClient(as_token(connection, await token(kube, SYSTEM, ACCOUNT)), lean=True) as client:
        await until_authorised(client, namespace)
        yield client


@pytest.fixture
async def start(gateway: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
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
                namespace=SYSTEM,
                instance=name,
                namespaces=(namespace,),
                values=WebhookValues.model_validate({"shards": SHARDS, "timeoutSeconds": 2, "allow": allow, **values}),
                resolve=resolve,
                turn_seconds=turn_seconds,
            )
            replica = Replica(Webhooks(wiring))
            stack.push_async_callback(replica.stop)
            return replica

        yield begin
