"""A web server that answers raw bytes, also wrong ones, slow ones and half ones; for whatever fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
#: Like Answer, for one that reads the request's body.
Exchange = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers by path, and remembers the heads of the requests as they came."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Answer] = {}
        self.with_body: dict[str, Exchange] = {}
        self.requests: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            path = head.split(" ")[1].partition("?")[0]
            if path in self.with_body:
                await self.with_body[path](head, reader, writer)
                return
            answer = self.answers[path]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        """Answer a path with a redirect."""
        self.answers[path] = f"HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@asynccontextmanager
async def listening(server: Server | None = None) -> AsyncIterator[Server]:
    """The server on a free port of the loopback."""
    made = server or Server()
    socket = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = socket.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        socket.close()


def file_answer(content: bytes, kind: str) -> bytes:
    """A whole file."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
