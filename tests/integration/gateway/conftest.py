"""A gateway over the real API server, with one ModelServer of wan2.1-vace-14b in its namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from integration.conftest import free_port
from integration.gateway.house import House
from integration.gateway.storehouse import StoreHouse, storehouse
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, SECRET
from waiting import model_server


@pytest.fixture
async def store(kube: KubeClient, namespace: str, tmp_path: Path) -> AsyncIterator[StoreHouse]:
    """The store of the claim `artifacts`: a folder, served as its stager would, with the Secret that opens it."""
    (tmp_path / "artifacts").mkdir()
    async with storehouse(tmp_path / "artifacts", namespace) as made:
        await kube.create(SECRET, namespace, made.secret)
        yield made


@pytest.fixture
async def closed_house(
    kube: KubeClient, connection: Connection, namespace: str, store: StoreHouse
) -> AsyncIterator[House]:
    """The house before its gateway is started: set `values` (the chart's), then `open`."""
    await kube.create(MODELSERVER, namespace, model_server(model="wan2.1-vace-14b"))
    house = House(kube, connection, namespace, store)
    house.values["storeUrl"] = store.url
    yield house
    await house.close()


@pytest.fixture
async def house(closed_house: House) -> House:
    """A gateway that takes requests."""
    await closed_house.open(free_port(), free_port())
    return closed_house


@pytest.fixture
async def user(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key."""
    async with house.client(await house.key("user")) as client:
        yield client


@pytest.fixture
async def stranger(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """One of another tenant."""
    async with house.client(await house.key("stranger")) as client:
        yield client
