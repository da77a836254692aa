"""The table of node classes that the stand-in executes. Modules in nodes/ register here; nothing else does."""

from collections.abc import Callable
from dataclasses import dataclass

from kinora.engine.standin.values import NodeFunction


@dataclass(frozen=True)
class Implementation:
    """A node's function, and whether it takes its inputs and gives its outputs as whole lists."""

    run: NodeFunction
    lists: bool = False


NODES: dict[str, Implementation] = {}


def node(name: str, *, lists: bool = False) -> Callable[[NodeFunction], NodeFunction]:
    """Registers `function(context, **inputs) -> Output` as node class `name`."""

    def register(function: NodeFunction) -> NodeFunction:
        NODES[name] = Implementation(function, lists)
        return function

    return register
