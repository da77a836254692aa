"""A running stand-in for the tests of this folder, and a client of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contract.harness import Standin, prepare, running_standin
from kinora.engine.client import ComfyClient


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    """As fast as it can; shared by the tests of a module, so each uses prompt ids and prefixes of its own."""
    root = tmp_path_factory.mktemp("standin")
    prepare(root)
    with running_standin(root) as running:
        yield running


@pytest.fixture
def slow_standin(tmp_path: Path) -> Iterator[Standin]:
    """Each sampling step takes 0.05 s: time to do something in the middle."""
    prepare(tmp_path)
    with running_standin(tmp_path, "--step-seconds", "0.05") as running:
        yield running


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[ComfyClient]:
    async with ComfyClient(standin.url) as engine:
        yield engine


@pytest.fixture
async def slow_client(slow_standin: Standin) -> AsyncIterator[ComfyClient]:
    async with ComfyClient(slow_standin.url) as engine:
        yield engine
