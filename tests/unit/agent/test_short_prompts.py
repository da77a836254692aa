"""Many prompts that end as soon as they begin, on the stand-in over real sockets: no end is found late.

An engine says that a prompt succeeded before it has put the result into its history. Asked in that moment it answers
that the prompt runs; the next look must not be seconds away.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import graphs
from contract.harness import Standin, prepare, running_standin
from kinora.agent.drive import Drive, Ticket
from kinora.agent.events import EventPump
from kinora.agent.follow import Follow
from kinora.agent.metrics import Metrics
from kinora.agent.settings import Times
from kinora.agent.stop import StopSignal
from kinora.engine.client import ComfyClient
from unit.agent.made import job
from unit.agent.test_drive import Notes, StillHealth

PROMPTS = 150
POLL = 30.0  # seconds between looks where nothing was told: an end that waits for one shows
DEADLINE = 240.0


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    root: Path = tmp_path_factory.mktemp("standin")
    prepare(root)
    with running_standin(root) as running:
        yield running


async def rendered(engine: ComfyClient, pump: EventPump, graph: dict[str, Any]) -> float:
    """One prompt from its submission to its outputs: how long after its last event they were there."""
    loop = asyncio.get_running_loop()
    follow = Follow(graph, 100, loop.time())
    ticket = Ticket(str(uuid.uuid4()), "client", graph, job(), False, 60, lambda: None)
    drive = Drive(
        ticket,
        follow,
        Notes(),  # type: ignore[arg-type]
        StopSignal(),
        engine=engine,
        health=StillHealth(),  # type: ignore[arg-type]
        pump=pump,
        times=Times(outcome=POLL),
        metrics=Metrics(),
    )
    outputs = await drive.run()
    assert outputs
    assert follow.ended_at is not None
    return loop.time() - follow.ended_at


async def test_every_end_is_found_at_once(standin: Standin) -> None:
    async with ComfyClient(standin.url) as engine, asyncio.timeout(DEADLINE):
        pump = EventPump(engine, "client")
        pumping = asyncio.create_task(pump.run())
        try:
            late = [await rendered(engine, pump, graphs.still(prefix=f"short/{one}")) for one in range(PROMPTS)]
        finally:
            pumping.cancel()
    assert max(late) < POLL / 2
