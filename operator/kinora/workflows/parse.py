"""JSON text of unknown origin -> a graph in ComfyUI's API format, or every fault of its shape.

What comes out is safe to walk: a bounded number of nodes, each with a class and flat inputs that are scalars or links.
Whether classes, values and links are good is not judged here.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kinora.recipes.faults import Fault
from kinora.recipes.graph import Graph
from kinora.workflows.words import FIELD, place, shown

MAX_BYTES: Final = 1024**2  # of a ConfigMap's key; an inline text is bounded by the API
MAX_DEPTH: Final = 32
MAX_NODES: Final = 256
MAX_INPUTS: Final = 64
MAX_TEXT: Final = 20_000  # characters of one value
MAX_INT: Final = 2**64 - 1  # the largest seed of a KSampler
_DIGITS = 20

#: What clients put beside a graph, at the top or in a node; it is for editors and is dropped.
_ENVELOPE: Final = frozenset({"prompt", "extra_data", "client_id", "prompt_id", "number", "front"})
_BESIDE: Final = frozenset({"extra_pnginfo", "extra_data", "_meta"})
_NODE_BESIDE: Final = frozenset({"_meta", "is_changed"})
#: What exports leave among the inputs of a class though no node reads it.
LEFTOVERS: Final[Mapping[str, frozenset[str]]] = {
    "LoadImage": frozenset({"upload"}),
    "LoadImageMask": frozenset({"upload"}),
    "LoadVideo": frozenset({"upload"}),
    "VHS_LoadVideo": frozenset({"choose video to upload", "videopreview"}),
    "VHS_VideoCombine": frozenset({"videopreview"}),
}

NODE_ID: Final = re.compile(r"[A-Za-z0-9_:-]{1,64}")
_CLASS = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_BRACKETS = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class GraphError(Exception):
    """The text is no graph, with every fault of it."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(str(fault) for fault in faults))


def parse(text: str) -> Graph:
    """The graph in `text`. Raises GraphError."""
    data = _loaded(text)
    nodes = _nodes(data)
    faults = [fault for node_id, node in nodes.items() for fault in _node_faults(node_id, node)]
    if faults:
        raise GraphError(*faults)
    return {node_id: _node(node) for node_id, node in nodes.items()}


def _loaded(text: str) -> Any:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise GraphError(Fault(FIELD, f"{size} bytes of text", f"at most {MAX_BYTES}"))
    if _depth(text) > MAX_DEPTH:
        raise GraphError(Fault(FIELD, f"nested deeper than {MAX_DEPTH}", "ComfyUI's API format, which is flat"))
    reader = _Reader()
    try:
        data = json.loads(
            text,
            object_pairs_hook=reader.pairs,
            parse_constant=reader.constant,
            parse_int=reader.integer,
            parse_float=reader.number,
        )
    except (ValueError, RecursionError) as error:
        at = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "not readable"
        raise GraphError(Fault(FIELD, f"text that is no JSON ({at})", "a graph in ComfyUI's API format")) from None
    if reader.faults:
        raise GraphError(*reader.faults)
    return data


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "]}":
            depth -= 1
    return deepest


class _Reader:
    """JSON's hooks: what Python would take silently, and another reader otherwise, becomes a fault."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                self.faults.append(Fault(FIELD, f"a text with the key {shown(key)} twice in one object", "once"))
            found[key] = value
        return found

    def constant(self, name: str) -> None:
        self.faults.append(Fault(FIELD, f"a text with {name}", "numbers of JSON, which have no such value"))

    def integer(self, digits: str) -> int:
        if len(digits.lstrip("-")) > _DIGITS or abs(int(digits)) > MAX_INT:
            self._too_large(digits)
            return 0
        return int(digits)

    def number(self, digits: str) -> float | int:
        value = float(digits)
        if not math.isfinite(value):
            self._too_large(digits)
            return 0
        return int(value) if value.is_integer() and abs(value) <= MAX_INT else value

    def _too_large(self, digits: str) -> None:
        self.faults.append(Fault(FIELD, f"a text with the number {digits[:40]}", f"numbers up to {MAX_INT} (2^64-1)"))


def _nodes(data: Any) -> Mapping[str, Any]:
    """The nodes by id, out of what clients put around them."""
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else f"JSON of type {type(data).__name__}"
        raise GraphError(Fault(FIELD, kind, "an object: node id -> {class_type, inputs}"))
    if isinstance(data.get("nodes"), list):
        raise GraphError(
            Fault(
                FIELD, "a workflow in the editor's format", "ComfyUI's API format", "in ComfyUI: Workflow, Export (API)"
            )
        )
    if isinstance(data.get("prompt"), dict) and "class_type" not in data["prompt"] and set(data) <= _ENVELOPE:
        data = data["prompt"]
    nodes = {name: value for name, value in data.items() if name not in _BESIDE or "class_type" in _mapping(value)}
    if not nodes:
        raise GraphError(Fault(FIELD, "a graph without nodes", f"1 to {MAX_NODES} nodes"))
    if len(nodes) > MAX_NODES:
        raise GraphError(Fault(FIELD, f"a graph of {len(nodes)} nodes", f"at most {MAX_NODES}"))
    return nodes


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    dropped = LEFTOVERS.get(node["class_type"], frozenset())
    inputs = {name: value for name, value in node.get("inputs", {}).items() if name not in dropped}
    return {"class_type": node["class_type"], "inputs": inputs}


def _node_faults(node_id: str, node: Any) -> Iterator[Fault]:
    if not NODE_ID.fullmatch(node_id):
        yield Fault(FIELD, f"a graph with the node id {shown(node_id)}", "1 to 64 letters, digits, '_', ':' and '-'")
        return
    if not isinstance(node, dict):
        # Its value is not told: the ConfigMap may be another one than was meant.
        yield Fault(place(node_id), f"a JSON value of type {type(node).__name__}", "an object with class_type, inputs")
        return
    class_type, inputs = node.get("class_type"), node.get("inputs", {})
    if not isinstance(class_type, str) or not _CLASS.fullmatch(class_type):
        yield Fault(f"{place(node_id)} class_type", shown(class_type), "the name of a node class")
        return
    for name in node:
        if name not in {"class_type", "inputs", *_NODE_BESIDE}:
            yield Fault(f"{place(node_id, class_type)} {shown(name)}", "set", "class_type and inputs")
    if not isinstance(inputs, dict):
        yield Fault(f"{place(node_id, class_type)} inputs", shown(inputs), "an object: input -> value or link")
        return
    if len(inputs) > MAX_INPUTS:
        yield Fault(f"{place(node_id, class_type)} inputs", f"{len(inputs)} of them", f"at most {MAX_INPUTS}")
        return
    for name, value in _node({**node, "inputs": inputs})["inputs"].items():
        yield from _value_faults(place(node_id, class_type, name), value)


def _value_faults(where: str, value: Any) -> Iterator[Fault]:
    """A value is a scalar; a list is a link, as ComfyUI takes every list for one."""
    if isinstance(value, list):
        if not (len(value) == 2 and isinstance(value[0], str) and _is_index(value[1])):
            yield Fault(where, shown(value), 'a value, or a link such as ["12", 0]: node id and output')
    elif value is None or isinstance(value, dict):
        yield Fault(where, shown(value), "a text, a number, true or false, or a link")
    elif isinstance(value, str) and len(value) > MAX_TEXT:
        yield Fault(where, f"a text of {len(value)} characters", f"at most {MAX_TEXT}")
    elif isinstance(value, str) and _CONTROL.search(value):
        yield Fault(where, shown(value), "text without control characters and lone surrogates")


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 64
