"""In which order the nodes of a graph run, and which node results an earlier prompt has left. Pure.

Facts: ComfyUI 0.3.64 picks, among the nodes that are ready, first an output node, then one that feeds an output node,
then one that is two steps away from it, else the first one found when walking from the outputs upwards (seen in the
recorded traces). A node's result is reused while its class, its values and those of all its ancestors are the same.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kinora.engine.contract import is_link, node_specs

Fingerprint = Callable[[str, Mapping[str, Any]], str]
"""(class, values) -> what else the result depends on, such as the state of a file."""


class Plan:
    """The nodes of a graph that are still to run."""

    def __init__(self, graph: Mapping[str, Any], outputs: Collection[str], cached: Collection[str]) -> None:
        self._graph = graph
        self._cached = cached
        self._feeds: dict[str, list[str]] = {}
        self._waits: dict[str, set[str]] = {}
        for output in outputs:
            self._add(output)

    def next(self) -> str | None:
        """The node to run now, or None when all have run."""
        ready = [node for node, waits in self._waits.items() if not waits]
        if not ready:
            return None
        return self._within(ready, 0) or self._within(ready, 1) or self._within(ready, 2) or ready[0]

    def done(self, node_id: str) -> None:
        """The node has run."""
        del self._waits[node_id]
        for fed in self._feeds.pop(node_id):
            self._waits[fed].discard(node_id)

    def _add(self, node_id: str) -> None:
        stack = [node_id]
        links: list[tuple[str, str]] = []
        while stack:
            current = stack.pop()
            if current in self._waits:
                continue
            self._waits[current] = set()
            self._feeds[current] = []
            for source in sources(self._graph[current]):
                if source not in self._cached:
                    stack.append(source)
                    links.append((source, current))
        for source, target in links:
            if target not in self._feeds[source]:
                self._feeds[source].append(target)
            self._waits[target].add(source)

    def _within(self, ready: list[str], steps: int) -> str | None:
        """The first ready node that reaches an output node in exactly `steps` steps."""
        for node in ready:
            reached = [node]
            for _ in range(steps):
                reached = [fed for source in reached for fed in self._feeds.get(source, ())]
            if any(node_specs()[self._graph[end]["class_type"]].is_output for end in reached):
                return node
        return None


def sources(node: Mapping[str, Any]) -> list[str]:
    """The ids of the nodes that a node is linked to, in the order of its inputs, with repetitions."""
    return [value[0] for value in node["inputs"].values() if is_link(value)]


def signatures(graph: Mapping[str, Any], fingerprint: Fingerprint) -> dict[str, str]:
    """A key for each node's result: equal keys mean equal results."""
    found: dict[str, str] = {}

    def sign(node_id: str) -> str:
        if node_id not in graph:
            return "absent"  # only in parts that no valid output reaches
        if node_id not in found:
            found[node_id] = "cycle"  # stands only where the part is a cycle, which never runs
            node = graph[node_id]
            own = {
                name: [sign(value[0]), value[1]] if is_link(value) else {"value": value}
                for name, value in sorted(node["inputs"].items())
            }
            values = {name: value for name, value in node["inputs"].items() if not is_link(value)}
            state = fingerprint(node["class_type"], values)
            text = json.dumps([node["class_type"], own, state], sort_keys=True, default=repr)
            found[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return found[node_id]

    for node_id in graph:
        sign(node_id)
    return found
