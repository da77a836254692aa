"""What is written beside a render ends with its attempt, also when the agent is ended in the middle of a write."""

from __future__ import annotations

import asyncio
from typing import Any

from kinora.agent.follow import View
from kinora.agent.jobs import Key
from kinora.agent.reporter import Reporter
from kinora.agent.settings import Times
from unit.agent.made import NOW


class DeafWriter:
    """Its API server never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.given_up = False

    async def write(self, key: Key, kind: str, build: Any, *, persist: bool = True) -> bool:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up = True
        return False


def reporter(writer: Any) -> Reporter:
    return Reporter(Key("uid", 1), writer, now=lambda: NOW, times=Times(), inputs=[], resolved={}, on_lost=lambda: None)


async def test_a_write_that_gets_no_answer_is_given_up_when_the_agent_ends() -> None:
    writer = DeafWriter()
    one = reporter(writer)
    one.started()
    one.progress(View(10, "Sample"))
    async with asyncio.timeout(10):
        await writer.asked.wait()
        await one.abandon()
    assert writer.given_up, "else it would use a client that is closed"
    await one.abandon()


async def test_one_that_never_began_has_nothing_to_give_up() -> None:
    await reporter(DeafWriter()).abandon()
