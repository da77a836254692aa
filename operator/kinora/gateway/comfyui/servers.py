"""What the tenant's ModelServers have installed, and which of them a graph goes to. Pure.

To a ComfyUI client they are one installation: the classes and weights of all of them together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.engine.contract import node_specs
from kinora.recipes.graph import Graph
from kinora.workflows import allow

Files = dict[str, list[str]]


@dataclass(frozen=True)
class Server:
    """One ModelServer. `backlog` in seconds of work that waits."""

    name: str
    model: Model
    more_classes: tuple[str, ...] = ()
    ready: bool = False
    backlog: float = 0.0

    @cached_property
    def classes(self) -> frozenset[str]:
        """The node classes that a graph may use there."""
        return allow.allowed_classes(self.model.node_classes, self.more_classes)


def servers_of(objects: Iterable[Mapping[str, Any]], catalogue: Catalogue) -> list[Server]:
    """The ModelServers whose model is known, by name."""
    found = []
    for one in objects:
        spec, status = one.get("spec") or {}, one.get("status") or {}
        model = catalogue.get(spec.get("model"))
        if model is not None:
            found.append(
                Server(
                    name=str(one["metadata"]["name"]),
                    model=model,
                    more_classes=tuple(spec.get("allowedNodeClasses") or ()),
                    ready=bool(status.get("readyReplicas")),
                    backlog=float(status.get("backlogSeconds") or status.get("backlog") or 0),
                )
            )
    return sorted(found, key=lambda server: server.name)


def classes_of(servers: Iterable[Server]) -> frozenset[str]:
    """The classes that any of them has."""
    return frozenset[str]().union(*(server.classes for server in servers))


def weights_of(servers: Iterable[Server]) -> Files:
    """Every folder of models that the contract names, with the weight files of these servers, sorted."""
    found: dict[str, set[str]] = {folder: set() for folder in model_folders()}
    for server in servers:
        for weight in server.model.weights:
            found.setdefault(weight.folder, set()).add(weight.name)
    return {folder: sorted(names) for folder, names in found.items()}


def model_folders() -> tuple[str, ...]:
    """The folders of models that nodes read from, in the contract's order."""
    folders = [
        folder
        for spec in node_specs().values()
        for wanted in spec.inputs.values()
        for folder in allow.weight_folders(wanted)
    ]
    return tuple(dict.fromkeys(folders))


def choose(graph: Graph, servers: Sequence[Server]) -> Server:
    """The server that the graph goes to: the most of the weights that it names, ready, the least work waiting.

    `servers` are one at least.
    """
    wanted = _weights_in(graph, servers)

    def rank(server: Server) -> tuple[int, int, bool, float, str]:
        own = {(weight.folder, weight.name) for weight in server.model.weights}
        having = sum(any((folder, name) in own for folder in folders) for folders, name in wanted)
        foreign = sum(node["class_type"] not in server.classes for node in graph.values())
        return -having, foreign, not server.ready, server.backlog, server.name

    return min(servers, key=rank)


def _weights_in(graph: Graph, servers: Sequence[Server]) -> set[tuple[tuple[str, ...], str]]:
    """(folders, name) of every weight file that the graph names."""
    known = {weight.name: weight.folder for server in servers for weight in server.model.weights}
    found = set()
    for node in graph.values():
        spec = node_specs().get(node["class_type"])
        for name, value in node["inputs"].items():
            if not isinstance(value, str):
                continue
            folders = allow.weight_folders(spec.inputs.get(name)) if spec is not None else ()
            if folders:
                found.add((folders, value))
            elif spec is None and value in known:
                found.add(((known[value],), value))
    return found


def allowed_in(classes: Collection[str]) -> list[str]:
    """The allowed classes that the contract describes, in its order: what /object_info lists."""
    return [name for name in node_specs() if name in classes]
