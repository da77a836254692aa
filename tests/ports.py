"""Ports of the loopback for whoever has to be told one before it listens."""

from __future__ import annotations

import socket
from collections import deque
from typing import Final

_KEPT: Final = 128
_taken: deque[socket.socket] = deque()


def free_port() -> int:
    """A port that nobody else is given, in this process or in another, until its server listens there.

    It stays bound here, without listening: so it is in no list of free ports, connections to it are refused, and a
    server that sets SO_REUSEADDR, as asyncio's, uvicorn's and Go's do, can have it.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _taken.append(probe)
    while len(_taken) > _KEPT:  # whose server has come and gone long ago
        _taken.popleft().close()
    return int(probe.getsockname()[1])
