"""A gateway over the real API server, with one ModelServer of wan2.1-vace-14b in its namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from integration.conftest import free_port
from integration.gateway.house import House
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER
from waiting import model_server


@pytest.fixture
async def closed_house(kube: KubeClient, connection: Connection, namespace: str) -> AsyncIterator[House]:
    """The house before its gateway is started: set `values` (the chart's), then `open`."""
    await kube.create(MODELSERVER, namespace, model_server(model="wan2.1-vace-14b"))
    house = House(kube, connection, namespace)
    yield house
    await house.close()


@pytest.fixture
async def house(closed_house: House) -> House:
    """A gateway that takes requests."""
    await closed_house.open(free_port(), free_port())
    return closed_house
