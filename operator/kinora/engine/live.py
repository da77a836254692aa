"""What is told of a prompt while it renders, from an agent to gateways: events, the sum of them, lines of JSON. Pure.

    {"cached": ["10"]}                       these nodes need not run
    {"node": "24"}                           this one has begun
    {"node": "24", "value": 3, "max": 20}    so many of its steps are done
    {"now": 1}                               what had happened before has been told
    {"end": 1}                               the engine has done with the prompt, however it ended
    {"left": 1}                              the agent follows it no more, and has not heard how it ended
    {}                                       nothing: whoever reads knows that the line is not dead

No more than that is told: no file, no picture, no text of a node. How a prompt ended, and what it made, is told by the
job's status alone. Whoever reads rebuilds ComfyUI's messages from it; wire.py has their words.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kinora.engine import base

MAX_NODES: Final = 8192  # of one prompt; a graph has 65,536 characters at most
MAX_ID: Final = 256  # characters of a node's id
MAX_STEP: Final = 2**53  # what every JSON reader takes for a whole number
BACKLOG: Final = 64  # events that a listener may be behind before steps in between are left out


class Garbled(ValueError):  # noqa: N818 - a verdict
    """A line that is none of those above."""


@dataclass(frozen=True, slots=True)
class Cached:
    """These nodes need not run."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entered:
    """A node has begun."""

    node: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """`value` of `max` steps of a node are done."""

    node: str
    value: int
    max: int


@dataclass(frozen=True, slots=True)
class Caught:
    """What had happened before the listener came has been told."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The engine has done with the prompt."""


@dataclass(frozen=True, slots=True)
class Left:
    """The agent follows the prompt no more, and has not heard how it ended."""


LiveEvent: TypeAlias = Cached | Entered | Stepped | Caught | Ended | Left


def live_event(event: base.PromptEvent) -> LiveEvent | None:
    """What is told of an engine's event; None: nothing."""
    match event:
        case base.NodesCached(nodes=nodes):
            return Cached(nodes)
        case base.NodeStarted(node=node):
            return Entered(node)
        case base.Progress(node=node, value=value, max=maximum):
            return Stepped(node, value, maximum)
        case base.ExecutionSuccess() | base.ExecutionError() | base.ExecutionInterrupted():
            return Ended()
    return None


class Course:
    """What has happened to one prompt so far."""

    def __init__(self) -> None:
        self.cached: tuple[str, ...] | None = None
        self.entered: dict[str, None] = {}
        self.ended = False
        self._last: Stepped | None = None
        self._node: str | None = None

    def note(self, event: LiveEvent) -> bool:
        """Take in one event; False where it says nothing new: a node runs once, and the last one alone has steps."""
        match event:
            case Cached(nodes=nodes):
                if self.cached is None and len(nodes) <= MAX_NODES:
                    self.cached = nodes
                    return True
            case Entered(node=node):
                if node not in self.entered and len(self.entered) < MAX_NODES and len(node) <= MAX_ID:
                    self.entered[node] = None
                    self._node, self._last = node, None
                    return True
            case Stepped(node=node):
                self.note(Entered(node))  # whoever came late may not have heard of it
                if node == self._node and event != self._last:
                    self._last = event
                    return True
            case Ended():
                before, self.ended = self.ended, True
                return not before
        return False

    def story(self) -> list[LiveEvent]:
        """All of it but its end, in order, to one who hears of it for the first time; of steps the last."""
        story: list[LiveEvent] = [] if self.cached is None else [Cached(self.cached)]
        story += [Entered(node) for node in self.entered]
        return [*story, self._last] if self._last is not None else story

    def present(self) -> list[LiveEvent]:
        """Where it is: the last part of its story."""
        where: list[LiveEvent] = [] if self._node is None else [Entered(self._node)]
        return [*where, self._last] if self._last is not None else where


class Backlog:
    """Events that wait for one listener. While it is behind, of a node's steps only the latest waits."""

    def __init__(self, events: Iterable[LiveEvent] = ()) -> None:
        self._events: deque[LiveEvent] = deque(events)

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: LiveEvent) -> bool:
        """Add one; False where it took an older one's place."""
        if len(self._events) >= BACKLOG and isinstance(event, Stepped):
            last = self._events[-1]
            if isinstance(last, Stepped) and last.node == event.node:
                self._events[-1] = event
                return False
        self._events.append(event)
        return True

    def take(self) -> list[LiveEvent]:
        """All that wait."""
        taken = list(self._events)
        self._events.clear()
        return taken


NOTHING: Final = b"{}\n"


def line(event: LiveEvent) -> bytes:
    """An event as it goes over the wire."""
    match event:
        case Cached(nodes=nodes):
            said: dict[str, Any] = {"cached": list(nodes)}
        case Entered(node=node):
            said = {"node": node}
        case Stepped(node=node, value=value, max=maximum):
            said = {"node": node, "value": value, "max": maximum}
        case Caught():
            said = {"now": 1}
        case Ended():
            said = {"end": 1}
        case Left():
            said = {"left": 1}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def parsed(text: bytes) -> LiveEvent | None:
    """The event of a line; None for one that tells nothing (of a newer agent, too). Garbled.

    What is sent may come from anybody who runs pods in the namespace: it is held against these shapes and sizes.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise Garbled("no JSON") from None
    if not isinstance(said, dict):
        raise Garbled("no object")
    if "cached" in said:
        nodes = said["cached"]
        if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
            raise Garbled("cached is no list of nodes")
        return Cached(tuple(_node(node) for node in nodes))
    if "node" in said:
        node = _node(said["node"])
        if "value" not in said and "max" not in said:
            return Entered(node)
        return Stepped(node, _count(said.get("value")), _count(said.get("max")))
    if "now" in said:
        return Caught()
    if "end" in said:
        return Ended()
    return Left() if "left" in said else None


def _node(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise Garbled("a node's id is no text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_STEP:
        raise Garbled("a step is no whole number")
    return value
