"""The agent's end of the supervisor's socket: typed state, commands, and a watch that survives a lost supervisor.

It says what the engine's process did, never what that means for a job (kinora.agent decides that).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from kinora.engine.supervisor import LINE_LIMIT

_RECONNECT_FIRST = 0.05
_RECONNECT_LIMIT = 1.0


class SupervisorUnavailable(Exception):  # noqa: N818 - it reads as a state
    """Nobody answers on the socket: the engine's container is starting, or has died."""


@dataclass(frozen=True)
class EngineExit:
    """How one incarnation of the engine ended."""

    incarnation: int
    exit_code: int | None
    signal: int | None
    oom_kills: int
    requested: bool
    uptime_seconds: float


@dataclass(frozen=True)
class EngineProcess:
    """The engine's process as the supervisor sees it. Another `boot` is another supervisor: the container died."""

    boot: str
    phase: str
    held: bool
    incarnation: int
    pid: int | None
    uptime_seconds: float | None
    memory_bytes: int | None
    memory_limit: int | None
    exits: tuple[EngineExit, ...] = field(default=())

    @property
    def is_running(self) -> bool:
        """Whether a process of the engine lives and was not told to end."""
        return self.phase == "Running"

    @property
    def identity(self) -> tuple[str, int]:
        """Which engine process this is: never the same for two of them."""
        return self.boot, self.incarnation

    def exit_of(self, identity: tuple[str, int]) -> EngineExit | None:
        """How that process ended, if this supervisor saw it end."""
        boot, incarnation = identity
        if boot != self.boot:
            return None
        return next((ended for ended in self.exits if ended.incarnation == incarnation), None)


def parse_state(message: dict[str, Any]) -> EngineProcess:
    """An answer of the supervisor as a value."""
    memory = message.get("memory") or {}
    return EngineProcess(
        boot=str(message["boot"]),
        phase=str(message["phase"]),
        held=bool(message["held"]),
        incarnation=int(message["incarnation"]),
        pid=message.get("pid"),
        uptime_seconds=message.get("uptimeSeconds"),
        memory_bytes=memory.get("currentBytes"),
        memory_limit=memory.get("limitBytes"),
        exits=tuple(
            EngineExit(
                incarnation=int(ended["incarnation"]),
                exit_code=ended.get("exitCode"),
                signal=ended.get("signal"),
                oom_kills=int(ended.get("oomKills") or 0),
                requested=bool(ended.get("requested")),
                uptime_seconds=float(ended.get("uptimeSeconds") or 0),
            )
            for ended in message.get("exits") or []
        ),
    )


class SupervisorClient:
    """Commands on short connections, one long connection for `watch`."""

    def __init__(self, path: str, timeout: float = 5.0) -> None:
        self.path = path
        self._timeout = timeout
        self._ids = itertools.count(1)

    async def stats(self) -> EngineProcess:
        """The state of the moment. Raises SupervisorUnavailable."""
        return await self._command("stats")

    async def start(self) -> EngineProcess:
        """Run the engine; undoes a stop. Raises SupervisorUnavailable."""
        return await self._command("start")

    async def stop(self) -> EngineProcess:
        """End the engine and hold it. Raises SupervisorUnavailable."""
        return await self._command("stop")

    async def restart(self) -> EngineProcess:
        """End the engine and start it again; returns while it ends. Raises SupervisorUnavailable."""
        return await self._command("restart")

    async def watch(self) -> AsyncIterator[EngineProcess | None]:
        """The state now and after every start and exit, for ever; None while nobody answers (once per silence)."""
        delay = _RECONNECT_FIRST
        lost = False
        while True:
            try:
                async for state in self._watch_once():
                    delay, lost = _RECONNECT_FIRST, False
                    yield state
            except SupervisorUnavailable:
                pass
            if not lost:
                lost = True
                yield None
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RECONNECT_LIMIT)

    async def _watch_once(self) -> AsyncIterator[EngineProcess]:
        reader, writer = await self._connect()
        try:
            yield await self._ask(reader, writer, "watch")
            while True:
                yield parse_state(await _line(reader))
        finally:
            writer.close()

    async def _command(self, name: str) -> EngineProcess:
        reader, writer = await self._connect()
        try:
            return await self._ask(reader, writer, name)
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.open_unix_connection(self.path, limit=4 * LINE_LIMIT)
        except (OSError, TimeoutError) as error:
            raise SupervisorUnavailable(f"{self.path}: {error!r}") from None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> EngineProcess:
        ident = next(self._ids)
        try:
            async with asyncio.timeout(self._timeout):
                writer.write(json.dumps({"command": name, "id": ident}).encode() + b"\n")
                await writer.drain()
                while (answer := await _line(reader)).get("id") != ident:
                    pass  # a watcher's announcement that was on its way
        except (OSError, TimeoutError) as error:
            raise SupervisorUnavailable(f"{self.path}: {error!r}") from None
        if not answer.get("ok"):
            raise SupervisorUnavailable(f"{self.path}: {answer.get('error')}")
        return parse_state(answer)


async def _line(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise SupervisorUnavailable("the supervisor closed the connection")
        message: dict[str, Any] = json.loads(line)
        return message
    except (OSError, ValueError) as error:
        raise SupervisorUnavailable(f"no answer of the supervisor: {error!r}") from None
