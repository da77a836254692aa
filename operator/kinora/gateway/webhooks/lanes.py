"""Who is next: what is due waits in a lane of its host, lanes take turns, and none takes more than its share. Pure.

One dead receiver, with ten thousand jobs, holds as many places as its host may have, and no more; a namespace with a
thousand dead hosts gets every other turn while another one waits.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key waits."""

    namespace: str
    host: str


@dataclass
class Lanes:
    """Keys that wait, and how many of each host are out. `silent` hosts have one out at a time until they answer."""

    total: int
    per_host: int
    _waiting: dict[str, dict[str, deque[str]]] = field(default_factory=dict)  # both in the order of their turns
    _out: dict[str, Place] = field(default_factory=dict)
    _busy: Counter[str] = field(default_factory=Counter)
    _silent: dict[str, None] = field(default_factory=dict)

    def add(self, key: str, place: Place) -> None:
        """Let a key wait that neither waits nor is out."""
        self._waiting.setdefault(place.namespace, {}).setdefault(place.host, deque()).append(key)

    def next(self) -> str | None:
        """A key that may go out now; None: none may, until another comes back or is added."""
        if len(self._out) >= self.total:
            return None
        for namespace, hosts in list(self._waiting.items()):
            host = next((one for one in hosts if self._busy[one] < self._limit(one)), None)
            if host is not None:
                return self._send(namespace, host)
        return None

    def back(self, key: str, *, answered: bool | None = None) -> None:
        """A key that was out is back; whether its host answered (None: it was not asked)."""
        host = self._out.pop(key).host
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        if answered is False:
            self._silent[host] = None
            if len(self._silent) > _REMEMBERED:
                del self._silent[next(iter(self._silent))]
        elif answered:
            self._silent.pop(host, None)

    @property
    def out(self) -> int:
        """How many are out."""
        return len(self._out)

    def _limit(self, host: str) -> int:
        return 1 if host in self._silent else self.per_host

    def _send(self, namespace: str, host: str) -> str:
        """Take the first key of a lane; lane and namespace go to the end of their rows."""
        hosts = self._waiting.pop(namespace)
        lane = hosts.pop(host)
        key = lane.popleft()
        if lane:
            hosts[host] = lane
        if hosts:
            self._waiting[namespace] = hosts
        self._out[key] = Place(namespace, host)
        self._busy[host] += 1
        return key


_REMEMBERED = 10_000  # silent hosts
