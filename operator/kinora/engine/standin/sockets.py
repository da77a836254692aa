"""The websockets: who listens under which client id, and how messages from the worker's thread reach them.

What the messages say is the executor's business.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

STALLED_SECONDS = 5.0

Greeting = Callable[[str], list[tuple[str, dict[str, Any]]]]


class Sockets:
    """The open websockets. `send` may be called from any thread; order is kept."""

    def __init__(self) -> None:
        self._sockets: dict[str, tuple[web.WebSocketResponse, web.Request]] = {}
        self._messages: asyncio.Queue[tuple[str | None, str]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> asyncio.Task[None]:
        """Begins to deliver, in the running loop; cancel the task to stop."""
        self._loop = asyncio.get_running_loop()
        return asyncio.create_task(self._deliver(), name="sockets")

    def send(self, kind: str, data: dict[str, Any], client_id: str | None) -> None:
        """Queues a message for one client id, or for everybody."""
        if self._loop is None:
            raise RuntimeError("not started")
        text = json.dumps({"type": kind, "data": data})
        try:
            self._loop.call_soon_threadsafe(self._messages.put_nowait, (client_id, text))
        except RuntimeError:
            return  # the loop is closed: the server is ending

    async def serve(self, request: web.Request, client_id: str, greeting: Greeting) -> web.WebSocketResponse:
        """Holds one websocket open. A second one of the same client id takes the first one's place."""
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self._sockets[client_id] = (socket, request)
        try:
            for kind, data in greeting(client_id):
                await socket.send_str(json.dumps({"type": kind, "data": data}))
            async for message in socket:
                if message.type == WSMsgType.ERROR:
                    break
        finally:
            if self._sockets.get(client_id, (None,))[0] is socket:
                del self._sockets[client_id]
        return socket

    async def _deliver(self) -> None:
        while True:
            client_id, text = await self._messages.get()
            targets = list(self._sockets.values()) if client_id is None else [self._sockets.get(client_id)]
            for target in targets:
                if target is not None and not target[0].closed:
                    await _sent(*target, text)


async def _sent(socket: web.WebSocketResponse, request: web.Request, text: str) -> None:
    """Sends, unless the client is gone or does not read: then it loses its socket, and nobody waits for it."""
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            await socket.send_str(text)
    except ConnectionError:
        return  # its handler removes it
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
