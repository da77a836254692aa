"""Judges a graph by the allow-list: classes, inputs, values, links, files, weights, prefixes, cycles, outputs.

The same check runs before a job is queued, on stand-in names of its files, and in the agent on the graph that is to be
submitted, on the real ones. Sizes are judged in limits.py.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from kinora.catalogue.model import Model
from kinora.engine.contract import InputSpec, node_specs
from kinora.recipes.faults import Fault
from kinora.recipes.graph import Graph
from kinora.recipes.needs import MediaFacts, MediaKind
from kinora.workflows import allow
from kinora.workflows.limits import limit_faults
from kinora.workflows.shapes import Shapes
from kinora.workflows.words import FIELD, place, shown

MAX_OUTPUTS: Final = 8  # in a status


@dataclass(frozen=True)
class Rules:
    """What a graph is held to. `files`: the names that it may read, with what was found in each (None: not yet)."""

    model: Model
    classes: frozenset[str]
    files: Mapping[str, MediaFacts | None]
    prefix: str
    "What every filename_prefix begins with."


def graph_faults(graph: Graph, rules: Rules) -> tuple[Fault, ...]:
    """Everything that is wrong with the graph."""
    faults = [fault for node_id in graph for fault in _node_faults(graph, node_id, rules)]
    faults += _output_faults(graph)
    order, cycle = ordered(graph)
    if cycle:
        return (*faults, cycle)
    if not any(_is_broken(graph, node_id) for node_id in graph):
        faults += limit_faults(graph, Shapes(graph, order, rules.files), rules.model)
    return tuple(faults)


def ordered(graph: Graph) -> tuple[tuple[str, ...], Fault | None]:
    """The nodes, each after those that it is linked to; or the cycle that there is."""
    needs = {node_id: [target for target in _targets(node) if target in graph] for node_id, node in graph.items()}
    try:
        return tuple(TopologicalSorter(needs).static_order()), None
    except CycleError as error:
        cycle = [str(node_id) for node_id in error.args[1]]
        told = " -> ".join(cycle[:6]) + (" -> ..." if len(cycle) > 6 else "")
        return (), Fault(FIELD, f"a graph with the cycle {told}", "links that lead forward")


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(input, node id, output) of each link into the node."""
    for name, value in node["inputs"].items():
        if isinstance(value, list):
            yield name, value[0], value[1]


def _targets(node: Mapping[str, Any]) -> Iterator[str]:
    return (target for _, target, _ in links(node))


def _is_broken(graph: Graph, node_id: str) -> bool:
    """Whether a link leads nowhere: then sizes cannot be followed."""
    return any(target not in graph for target in _targets(graph[node_id]))


# --- nodes ------------------------------------------------------------------------------------------------------------


def _node_faults(graph: Graph, node_id: str, rules: Rules) -> Iterator[Fault]:
    class_type, inputs = graph[node_id]["class_type"], graph[node_id]["inputs"]
    if class_type not in rules.classes:
        yield _class_fault(node_id, class_type)
        return
    spec = node_specs().get(class_type)
    wanted = spec.inputs if spec is not None else {}
    beyond = allow.BEYOND.get(class_type, {})
    for name, value in inputs.items():
        where = place(node_id, class_type, name)
        if name == allow.PREFIX and (spec is None or name in wanted):
            yield from _prefix_faults(where, value, rules)
        elif isinstance(value, list):
            yield from _link_faults(where, wanted.get(name), value, graph)
            if spec is not None and name not in wanted:
                yield _no_input(where, wanted)
        elif name in wanted:
            yield from _known_faults(where, class_type, wanted[name], value, rules)
        elif name in beyond:
            yield from _beyond_faults(where, beyond[name], value)
        elif spec is not None:
            yield _no_input(where, wanted)
        else:
            yield from _foreign_faults(where, value, rules)
    for name, one in wanted.items():
        if one.required and name not in inputs:
            yield Fault(place(node_id, class_type, name), None, f"a value or a link of type {one.type}")


def _class_fault(node_id: str, class_type: str) -> Fault:
    where = f"{place(node_id)} class_type"
    if allow.never_allowed(class_type):
        allowed = "no class that reads paths of the server, fetches or runs code; no ModelServer can allow one"
        return Fault(where, shown(class_type), allowed, "give files in spec.workflow.files")
    mend = "an administrator can add a class in spec.allowedNodeClasses of the ModelServer"
    return Fault(where, shown(class_type), "the classes listed in docs/workflows.md", mend)


def _no_input(where: str, wanted: Mapping[str, InputSpec]) -> Fault:
    return Fault(where, "set", f"the inputs of the class: {', '.join(wanted)}")


def _prefix_faults(where: str, value: Any, rules: Rules) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault(where, shown(value), "a text; it is replaced by a prefix of the job's own")
    elif not value.startswith(rules.prefix) or "/" in value.removeprefix(rules.prefix):
        yield Fault(where, shown(value), "a name in the job's own folder")


def _link_faults(where: str, wanted: InputSpec | None, link: list[Any], graph: Graph) -> Iterator[Fault]:
    target, index = link
    if target not in graph:
        yield Fault(where, shown(link), "a link to a node of this graph")
        return
    if allow.is_file(wanted) or allow.weight_folders(wanted):
        yield Fault(where, shown(link), "a name written in the node: names of files cannot come through a link")
        return
    spec = node_specs().get(graph[target]["class_type"])
    if spec is None:
        return
    if index >= len(spec.outputs):
        outputs = ", ".join(f"{at} ({kind})" for at, (_, kind) in enumerate(spec.outputs)) or "none"
        yield Fault(where, shown(link), f"an output of {spec.name}: {outputs}")
        return
    kind = spec.outputs[index][1]
    if wanted is not None and kind != wanted.type and "*" not in (kind, wanted.type):
        yield Fault(where, f"{shown(link)}, of type {kind}", f"a value or a link of type {wanted.type}")


# --- values -----------------------------------------------------------------------------------------------------------


def _known_faults(where: str, class_type: str, wanted: InputSpec, value: Any, rules: Rules) -> Iterator[Fault]:
    folders = allow.weight_folders(wanted)
    only = allow.ONLY.get((class_type, wanted.name))
    if allow.is_file(wanted):
        yield from _file_faults(where, class_type, value, rules)
    elif folders:
        names = [weight.name for weight in rules.model.weights if weight.folder in folders]
        if value not in names:
            told = ", ".join(names) or f"none: {rules.model.name} has no file of that kind"
            yield Fault(where, shown(value), told)
    elif only is not None and not any(value is one or (isinstance(one, str) and value == one) for one in only):
        yield Fault(where, shown(value), ", ".join(map(str, only)))
    else:
        yield from _typed_faults(where, wanted, value)


def _file_faults(where: str, class_type: str, value: Any, rules: Rules) -> Iterator[Fault]:
    if value not in rules.files:
        yield Fault(where, shown(value), "a name in spec.workflow.files, or a binding of an input of the job")
        return
    facts, kind = rules.files[value], allow.file_kind(class_type)
    if facts is not None and kind not in (MediaKind.EITHER, facts.kind):
        yield Fault(where, f"a file that is {allow.a(facts.kind)}", allow.a(kind))


_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "INT": ((int,), "a whole number"),
    "FLOAT": ((int, float), "a number"),
    "STRING": ((str,), "a text"),
    "BOOLEAN": ((bool,), "true or false"),
}


def _typed_faults(where: str, wanted: InputSpec, value: Any) -> Iterator[Fault]:
    if wanted.type == "COMBO":
        options = wanted.options({})
        if options is not None and not (isinstance(value, str) and value in options):
            yield Fault(where, shown(value), _listed(options))
        elif options is None and not (isinstance(value, str) and allow.is_plain_word(value)):
            yield Fault(where, shown(value), "one of the words of the class")
    elif wanted.type not in _TYPES:
        yield Fault(where, shown(value), f'a link of type {wanted.type}, such as ["12", 0]')
    else:
        types, words = _TYPES[wanted.type]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield Fault(where, shown(value), words)
        elif isinstance(value, (int, float)) and not _in_range(value, wanted):
            yield Fault(where, shown(value), _range(wanted))
        elif isinstance(value, str) and "embedding:" in value:
            yield Fault(where, shown(value), "a text without 'embedding:', which would read a file of the server")


def _listed(options: list[str]) -> str:
    return ", ".join(options[:12]) + (f" and {len(options) - 12} more" if len(options) > 12 else "")


def _in_range(value: float, wanted: InputSpec) -> bool:
    low = -math.inf if wanted.min is None else wanted.min
    return low <= value <= (math.inf if wanted.max is None else wanted.max)


def _range(wanted: InputSpec) -> str:
    if wanted.max is None:
        return f"at least {wanted.min:g}"
    low, high = (f"{edge:d}" if isinstance(edge, int) else f"{edge:g}" for edge in (wanted.min or 0, wanted.max))
    return f"{low} to {high}"


def _beyond_faults(where: str, wanted: type, value: Any) -> Iterator[Fault]:
    """Widgets of a format: short words and small numbers."""
    if type(value) is not wanted:
        yield Fault(where, shown(value), {str: "a word", int: "a whole number", bool: "true or false"}[wanted])
    elif isinstance(value, str) and not allow.is_one_word(value):
        yield Fault(where, shown(value), "one word")
    elif isinstance(value, int) and not 0 <= value <= 10_000:
        yield Fault(where, shown(value), "0 to 10000")


def _foreign_faults(where: str, value: Any, rules: Rules) -> Iterator[Fault]:
    """A class that an administrator allowed and no contract describes: no text that could lead to a file."""
    if isinstance(value, str) and value not in rules.files and not allow.is_plain_word(value):
        names = {weight.name for weight in rules.model.weights}
        if value not in names:
            allowed = "a plain word, a name in spec.workflow.files, or a weight file of the model: the class is unknown"
            yield Fault(where, shown(value), allowed)


# --- the graph as a whole ---------------------------------------------------------------------------------------------


def savers(graph: Graph) -> tuple[str, ...]:
    """The nodes whose files are the job's results."""
    return tuple(node_id for node_id, node in graph.items() if _saves(node))


def _saves(node: Mapping[str, Any]) -> bool:
    class_type, inputs = node["class_type"], node["inputs"]
    if class_type in node_specs():
        return class_type in allow.SAVERS and inputs.get("save_output") is not False
    return allow.PREFIX in inputs


def _output_faults(graph: Graph) -> Iterator[Fault]:
    count = len(savers(graph))
    if count == 0:
        allowed = f"one at least of {', '.join(sorted(allow.SAVERS))} (save_output true)"
        yield Fault(FIELD, "a graph that saves nothing", allowed)
    elif count > MAX_OUTPUTS:
        yield Fault(FIELD, f"a graph with {count} nodes that save", f"at most {MAX_OUTPUTS}")
