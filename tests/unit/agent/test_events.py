"""The event pump: a stream that is opened anew, and its end while an old stream is still closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kinora.agent.events import EventPump
from kinora.engine import base
from waiting import DEADLINE, until


class SlowToClose:
    """Streams of an engine that is deaf: each stands at once, and is closed when the test says so."""

    def __init__(self) -> None:
        self.opened = 0
        self.closing, self.closed = asyncio.Event(), asyncio.Event()

    async def events(self, client_id: str) -> AsyncIterator[base.EngineEvent]:
        self.opened += 1
        try:
            yield base.Connected()
            await asyncio.Event().wait()
        finally:
            self.closing.set()
            await self.closed.wait()


async def test_a_stream_is_opened_anew_and_until_then_there_is_none() -> None:
    engine = SlowToClose()
    pump = EventPump(engine, "client")  # type: ignore[arg-type]
    running = asyncio.create_task(pump.run())
    async with asyncio.timeout(DEADLINE):
        await pump.until_connected()
        pump.reconnect()
        waiting = asyncio.create_task(pump.until_connected())
        await engine.closing.wait()
        assert not waiting.done(), "the former one is not there any more"
        engine.closed.set()
        await waiting
    assert engine.opened >= 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_who_is_ended_while_an_old_stream_closes_ends() -> None:
    engine = SlowToClose()
    pump = EventPump(engine, "client")  # type: ignore[arg-type]
    running = asyncio.create_task(pump.run())
    async with asyncio.timeout(DEADLINE):
        await pump.until_connected()
        pump.reconnect()
        await engine.closing.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=DEADLINE)
    engine.closed.set()
    assert (running.cancelled(), engine.opened) == (True, 1)


async def test_what_a_listener_fails_with_ends_the_pump() -> None:
    pump = EventPump(SlowToClose(), "client")  # type: ignore[arg-type]

    def fails(_event: base.EngineEvent) -> None:
        raise RuntimeError("no")

    pump.follow("p", fails)
    engine = pump._engine
    engine.closed.set()  # type: ignore[attr-defined]
    running = asyncio.create_task(pump.run())
    await until(running.done)
    assert isinstance(running.exception(), RuntimeError)
