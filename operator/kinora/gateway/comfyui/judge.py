"""Whether a graph runs here, said as ComfyUI says it: what POST /prompt answers before anything is made. Pure.

ComfyUI's own validation, against the classes and weights of the tenant's ModelServers and the tenant's uploads. What no
good output needs is left out, as ComfyUI does. Kinora's stricter rules are the service's, which judges every job; their
faults become errors of nodes here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kinora.engine.contract import (
    NodeSpec,
    PromptRefusal,
    Validation,
    foreign_specs,
    is_link,
    node_specs,
    validate,
)
from kinora.gateway.comfyui.errors import PromptRefused, refused
from kinora.gateway.comfyui.servers import Server, choose, classes_of, weights_of
from kinora.recipes.faults import Fault
from kinora.recipes.graph import Graph
from kinora.workflows import allow
from kinora.workflows.check import savers
from kinora.workflows.parse import LEFTOVERS, MAX_BYTES, NODE_ID, GraphError, parse
from kinora.workflows.words import located

MAX_INLINE: Final = 65536  # characters of spec.workflow.inline
_FAILED: Final = "prompt_outputs_failed_validation"


@dataclass(frozen=True)
class Judged:
    """A graph that may run: what is rendered, its output nodes, and what ComfyUI would say of the rest."""

    graph: Graph
    outputs: tuple[str, ...]
    node_errors: Mapping[str, Any]
    server: Server


def checked_shape(prompt: Any) -> Graph:
    """The graph of a request, safe to walk. Raises PromptRefused."""
    if prompt == {}:
        raise refused("prompt_no_outputs", "Prompt has no outputs")
    if isinstance(prompt, dict):
        for node_id, node in prompt.items():
            if isinstance(node, dict) and "class_type" not in node and NODE_ID.fullmatch(node_id):
                refusal = validate({node_id: node}, {}).refusal
                assert refusal is not None
                raise PromptRefused(refusal)
    try:
        text = _text(prompt)
        _bounded(text)
        parse(text)
    except GraphError as error:
        raise of_faults(error.faults, {}) from None
    except RecursionError:
        raise refused("invalid_prompt", "Invalid prompt", "It is nested too deeply") from None
    return {
        node_id: {**node, "inputs": node.get("inputs", {})}
        for node_id, node in prompt.items()
        if isinstance(node, dict) and "class_type" in node
    }


def judge(graph: Graph, servers: Sequence[Server], uploads: Collection[str]) -> Judged:
    """What of the graph runs, and where. `uploads`: the names in it that lead to a file. Raises PromptRefused."""
    if not servers:
        details = "There is no ModelServer in the namespace of this key, or none of a known model"
        raise refused("no_model_server", "Nothing renders here", details)
    specs = _installed(graph, classes_of(servers))
    found = _validated(graph, weights_of(servers), uploads, specs)
    server = choose(needed(found.graph, found.outputs), servers)
    rest = _validated(graph, weights_of([server]), uploads, specs)
    kept = {key: _kept(node, specs) for key, node in needed(rest.graph, rest.outputs).items()}
    if not savers(kept):
        allowed = f"None of its outputs saves a file: one at least of {', '.join(sorted(allow.SAVERS))} (save_output)"
        raise refused("prompt_no_outputs", "Prompt has no outputs", allowed)
    return Judged(kept, tuple(rest.outputs), {**rest.node_errors, **found.node_errors}, server)


def text_of(graph: Graph) -> str:
    """The graph as a VideoJob has it: without titles, where it is long. Raises PromptRefused for one over 1 MiB."""
    text = _text(graph)
    if len(text) > MAX_INLINE:
        text = _text({key: {name: one for name, one in node.items() if name != "_meta"} for key, node in graph.items()})
    _bounded(text)
    return text


def _bounded(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise refused("prompt_too_large", "Prompt is too large", f"It is {size} bytes of JSON; allowed: {MAX_BYTES}")


# --- ComfyUI's validation ---------------------------------------------------------------------------------------------


def _installed(graph: Graph, classes: frozenset[str]) -> dict[str, NodeSpec]:
    known = {name: spec for name, spec in node_specs().items() if name in classes}
    return known | foreign_specs(graph, classes - node_specs().keys())


def _validated(
    graph: Graph, weights: Mapping[str, list[str]], uploads: Collection[str], specs: Mapping[str, NodeSpec]
) -> Validation:
    found = validate(graph, {**weights, "input": sorted(uploads)}, specs)
    if found.refusal is not None:
        raise PromptRefused(_explained(found.refusal, graph))
    return found


def _explained(refusal: PromptRefusal, graph: Graph) -> PromptRefusal:
    """A class that Kinora knows and does not allow is no typing error: say what can be done."""
    details = refusal.error["details"]
    for node_id, node in graph.items():
        if refusal.error["type"] == "invalid_prompt" and details == f"Node ID '#{node_id}'":
            mend = ""
            if allow.never_allowed(node["class_type"]):
                mend = ": it reads paths of the server, fetches or runs code, and can be allowed nowhere"
            elif node["class_type"] in node_specs():
                mend = ": an administrator can allow it, in spec.allowedNodeClasses of a ModelServer"
            return PromptRefusal({**refusal.error, "details": details + mend}, refusal.node_errors)
    return refusal


def needed(graph: Mapping[str, Any], outputs: Iterable[str]) -> Graph:
    """The nodes that these outputs need, in the graph's order."""
    found: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting += [target for target in _targets(graph[node_id]) if target in graph]
    return {node_id: node for node_id, node in graph.items() if node_id in found}


def _targets(node: Mapping[str, Any]) -> Iterable[str]:
    """The nodes that it is linked to. A list in an input that its class has not need be no link."""
    return (value[0] for value in node["inputs"].values() if is_link(value) and value and isinstance(value[0], str))


def _kept(node: Mapping[str, Any], specs: Mapping[str, NodeSpec]) -> dict[str, Any]:
    """The node without values that its class does not take: ComfyUI passes none of them on."""
    class_type = node["class_type"]
    taken = {*specs[class_type].inputs, *allow.BEYOND.get(class_type, {}), *LEFTOVERS.get(class_type, ())}
    inputs = {name: value for name, value in node["inputs"].items() if name in taken or is_link(value)}
    return {**node, "inputs": inputs}


# --- Kinora's faults as errors of nodes -------------------------------------------------------------------------------


def of_faults(faults: Sequence[Fault], graph: Graph) -> PromptRefused:
    """The refusal of a job by Kinora's own rules, as errors of the graph's nodes where they are located in it."""
    node_errors: dict[str, Any] = {}
    told = []
    for fault in faults:
        where = located(fault.field)
        node = graph.get(where.node_id) if where is not None else None
        if where is None or node is None:
            told.append(str(fault))
            continue
        entry = node_errors.setdefault(
            where.node_id,
            {
                "errors": [],
                "dependent_outputs": _dependent(graph, where.node_id),
                "class_type": node["class_type"],
            },
        )
        details = str(Fault(where.name or node["class_type"], fault.value, fault.allowed, fault.mend))
        reason = {"type": "custom_validation_failed", "message": "Custom validation failed for node"}
        entry["errors"].append({**reason, "details": details, "extra_info": {"input_name": where.name}})
        told.append(f"{reason['message']}: {details}")
    if node_errors:
        return refused(_FAILED, "Prompt outputs failed validation", "\n".join(told), node_errors=node_errors)
    return refused("invalid_prompt", "Invalid prompt", "\n".join(told))


def _dependent(graph: Graph, node_id: str) -> list[str]:
    """The output nodes that need the node."""
    outputs = [
        name for name, node in graph.items() if (spec := node_specs().get(node["class_type"])) is None or spec.is_output
    ]
    return [output for output in outputs if node_id in needed(graph, [output])]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
