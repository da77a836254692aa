"""Ports of servers that a test must tell theirs before they start."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from typing import Final

#: Below what Linux gives to connections (32768 up), and below a cluster's node ports (30000 up).
_FIRST: Final = 20_000
_SLICE: Final = 1_000  # of one worker of pytest
_SLICES: Final = 10


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SLICES
    first = random.randrange(_SLICE)
    return (_FIRST + worker * _SLICE + (first + step) % _SLICE for step in itertools.count())


_PORTS: Final = _candidates()


def free_port() -> int:
    """A loopback port that is free, and stays so until it is used.

    One that the kernel chooses (a bind to 0) is free for a moment only: any connection of any process may get it before
    the server has it. These are given to nobody who does not ask for them, and here to each once.
    """
    for port in itertools.islice(_PORTS, _SLICE):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
