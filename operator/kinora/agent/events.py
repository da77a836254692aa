"""One event stream from the engine for the whole agent, shared out by prompt id. It judges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kinora.agent.live import Live
from kinora.engine import base
from kinora.engine.base import Engine, EngineEvent

Listener = Callable[[EngineEvent], None]


class EventPump:
    """Keeps the stream up; listeners get the events of their prompt, and every Connected and Disconnected."""

    def __init__(self, engine: Engine, client_id: str, live: Live | None = None) -> None:
        self._engine = engine
        self._client_id = client_id
        self._live = Live() if live is None else live
        self._listeners: dict[str, Listener] = {}
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._connected = asyncio.Event()

    def follow(self, prompt_id: str, listener: Listener) -> None:
        """Tell this listener of that prompt."""
        self._listeners[prompt_id] = listener
        self._live.open(prompt_id)

    def leave(self, prompt_id: str) -> None:
        """No more."""
        self._listeners.pop(prompt_id, None)
        self._live.close(prompt_id)

    async def until_connected(self) -> None:
        """Wait for the stream. An engine that has just begun to answer is not left waiting for the next try."""
        if not self._connected.is_set():
            self.reconnect()
        await self._connected.wait()

    def reconnect(self) -> None:
        """Open the stream anew: one that says nothing may be dead without having ended."""
        if self._task is not None:
            self._again = True
            self._connected.clear()
            self._task.cancel()

    async def run(self) -> None:
        """Pump until cancelled."""
        while True:
            self._again = False
            self._task = asyncio.create_task(self._pump())
            try:
                await asyncio.wait({self._task})  # a stream takes seconds to close: who is cancelled meanwhile ends
            finally:
                self._task.cancel()
            if not self._again:
                return self._task.result()

    async def _pump(self) -> None:
        async for event in self._engine.events(self._client_id):
            if isinstance(event, base.Connected | base.Disconnected):
                (self._connected.set if isinstance(event, base.Connected) else self._connected.clear)()
                for listener in tuple(self._listeners.values()):
                    listener(event)
            else:
                listener_of = self._listeners.get(event.prompt_id)
                if listener_of is not None:
                    listener_of(event)
                    self._live.note(event)
