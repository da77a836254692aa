"""The node contract, and ComfyUI's validation of a graph against it.

Here live the typed view of `nodes.json` (which classes exist, their inputs, ranges and outputs) and the check that a
ComfyUI makes at POST /prompt, with its response bodies. Everything is pure: no file is listed and no engine is asked;
the caller says which files exist. What a node *does* must not live here (see standin/).

Facts: ComfyUI 0.3.64, its recorded answers, and the node declarations that it serves at /object_info.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

Graph: TypeAlias = Mapping[str, Any]
"""A graph in API format: node id -> {"class_type": str, "inputs": {name: value or [node id, output index]}}."""

FilesByFolder: TypeAlias = Mapping[str, Collection[str]]
"""Folder of models, or "input" -> names of the files in it. A folder that is no key is not checked."""

LONG_LIST = 20  # ComfyUI prints the allowed values up to this many
ANY = "*"  # the type that goes with every other
_FOREIGN_OUTPUTS = 64  # more than a link can name in a graph that is allowed


@dataclass(frozen=True)
class InputSpec:
    """One declared input. `type` is INT, FLOAT, STRING, BOOLEAN, COMBO or the name of a link type."""

    name: str
    type: str
    required: bool
    default: Any = None
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)

    def options(self, files: FilesByFolder) -> list[str] | None:
        """The allowed values in order, or None where everything is allowed (no COMBO, or folders not given)."""
        if self.values is not None:
            return list(self.values)
        if self.files is None or not any(folder in files for folder in self.files):
            return None
        return [name for folder in self.files for name in files.get(folder, ())]

    def config(self, files: FilesByFolder) -> list[Any]:
        """The input as ComfyUI declares it: [type or list of values, {default, min, max, step}]."""
        options = self.options(files)
        extra = {key: self.declared[key] for key in ("default", "min", "max", "step") if key in self.declared}
        return [options if options is not None else self.type, extra]


@dataclass(frozen=True)
class NodeSpec:
    """One node class: its inputs in order, and its outputs as (name, type)."""

    name: str
    module: str
    is_output: bool
    inputs: Mapping[str, InputSpec]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PromptRefusal:
    """ComfyUI's answer 400 to a graph: `body()` is that answer, `message` one line for a person."""

    error: Mapping[str, Any]
    node_errors: Mapping[str, Any]

    def body(self) -> dict[str, Any]:
        """The JSON body of the 400 answer."""
        return {"error": dict(self.error), "node_errors": dict(self.node_errors)}

    @property
    def message(self) -> str:
        """The reason, with its detail."""
        details = str(self.error["details"])
        return f"{self.error['message']}: {details}" if details else str(self.error["message"])


@dataclass(frozen=True)
class Validation:
    """What ComfyUI makes of a graph.

    `graph` is the graph with its values converted (16 -> 16.0 for a FLOAT); `outputs` are the output nodes that will
    run. A graph with one good output runs even where `node_errors` is not empty: those outputs are left out silently.
    """

    graph: dict[str, Any]
    outputs: list[str]
    node_errors: dict[str, Any]
    refusal: PromptRefusal | None


@cache
def node_specs() -> Mapping[str, NodeSpec]:
    """Every node class of the contract, by name."""
    text = resources.files(__package__).joinpath("nodes.json").read_text(encoding="utf-8")
    return {name: _node_spec(name, raw) for name, raw in json.loads(text)["nodes"].items()}


def _node_spec(name: str, raw: Mapping[str, Any]) -> NodeSpec:
    inputs = {key: _input_spec(key, value, True) for key, value in raw["required"].items()}
    inputs |= {key: _input_spec(key, value, False) for key, value in raw["optional"].items()}
    return NodeSpec(
        name=name,
        module=raw["module"],
        is_output=raw["is_output"],
        inputs=inputs,
        outputs=tuple((output, kind) for output, kind in raw["outputs"]),
    )


def _input_spec(name: str, raw: Mapping[str, Any], required: bool) -> InputSpec:
    return InputSpec(
        name=name,
        type=raw["type"],
        required=required,
        default=raw.get("default"),
        min=raw.get("min"),
        max=raw.get("max"),
        values=tuple(raw["values"]) if "values" in raw else None,
        files=tuple(raw["files"]) if "files" in raw else None,
        declared=raw,
    )


def is_link(value: Any) -> bool:
    """Whether an input's value is a link: ComfyUI takes every list for one."""
    return isinstance(value, list)


def check_graph(graph: Graph, files_by_folder: FilesByFolder) -> PromptRefusal | None:
    """The refusal that ComfyUI would answer to `graph`, or None when it would accept it.

    `files_by_folder` names the files of "diffusion_models", "text_encoders", "vae", "clip_vision", "loras" and
    "input"; a folder that is left out is not checked. A graph of which only some outputs are valid is accepted, as
    ComfyUI does: whoever wants none of that looks at `validate(...).node_errors`.
    """
    return validate(graph, files_by_folder).refusal


def validate(graph: Graph, files_by_folder: FilesByFolder, specs: Mapping[str, NodeSpec] | None = None) -> Validation:
    """Everything that ComfyUI's validation says about `graph`. The graph given is not changed.

    `specs`: the classes that are installed, where they are not just those of the contract.
    """
    known = node_specs() if specs is None else specs
    refusal, outputs = _output_nodes(graph, known)
    if refusal is not None:
        return Validation(dict(graph), [], {}, refusal)
    check = _Check(graph, files_by_folder, known)
    good: list[str] = []
    failures: list[dict[str, Any]] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        errors = check.output(output)
        if errors is None:
            good.append(output)
            continue
        failures.extend(errors)
        for node_id, reasons in check.reasons():
            entry = node_errors.setdefault(
                node_id,
                {"errors": reasons, "dependent_outputs": [], "class_type": graph[node_id]["class_type"]},
            )
            entry["dependent_outputs"].append(output)
    refusal = None
    if not good:
        details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in failures)
        error = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details, {})
        refusal = PromptRefusal(error, node_errors)
    return Validation(check.graph, good, node_errors, refusal)


def foreign_specs(graph: Graph, classes: Collection[str]) -> dict[str, NodeSpec]:
    """What can be said of the graph's nodes of `classes`, which no contract describes: any input, any outputs."""
    found: dict[str, NodeSpec] = {}
    for node in graph.values():
        name = node["class_type"]
        if name in classes:
            known = found[name].inputs if name in found else {}
            inputs = {key: InputSpec(key, ANY, required=False) for key in node["inputs"]}
            is_output = "filename_prefix" in {**known, **inputs}
            found[name] = NodeSpec(name, "", is_output, {**known, **inputs}, ((ANY, ANY),) * _FOREIGN_OUTPUTS)
    return found


def _output_nodes(graph: Graph, specs: Mapping[str, NodeSpec]) -> tuple[PromptRefusal | None, list[str]]:
    outputs = []
    for node_id, node in graph.items():
        if not isinstance(node, Mapping) or "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return _refused("invalid_prompt", message, f"Node ID '#{node_id}'"), []
        spec = specs.get(node["class_type"])
        if spec is None:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return _refused("invalid_prompt", message, f"Node ID '#{node_id}'"), []
        if spec.is_output:
            outputs.append(node_id)
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs", ""), []
    return None, outputs


def _refused(kind: str, message: str, details: str) -> PromptRefusal:
    return PromptRefusal(_error(kind, message, details, {}), {})


def _error(kind: str, message: str, details: str, extra_info: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


class _BadLinkError(Exception):
    """A link that names no node or no output: ComfyUI meets it as a KeyError or an IndexError."""

    def __init__(self, kind: str, details: str) -> None:
        super().__init__(details)
        self.kind = kind
        self.details = details


class _Check:
    """One pass of validation; remembers what each node was found to be, as ComfyUI does."""

    def __init__(self, graph: Graph, files: FilesByFolder, specs: Mapping[str, NodeSpec]) -> None:
        self.graph = {key: {**node, "inputs": dict(node.get("inputs", {}))} for key, node in graph.items()}
        self._specs = specs
        self._files = files
        self._found: dict[str, list[dict[str, Any]] | None] = {}  # None: valid
        self._invalid: set[str] = set()
        self._visiting: list[str] = []

    def reasons(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Nodes that have errors of their own, with them."""
        for node_id, reasons in self._found.items():
            if reasons:
                yield node_id, reasons

    def output(self, node_id: str) -> list[dict[str, Any]] | None:
        """The errors of an output node ([] when only something upstream is wrong), or None when it can run."""
        try:
            self._node(node_id)
        except _BadLinkError as exc:
            extra = {"exception_type": exc.kind, "traceback": []}
            self._found[node_id] = [
                _error("exception_during_validation", "Exception when validating node", exc.details, extra)
            ]
            self._invalid.add(node_id)
        return (self._found[node_id] or []) if node_id in self._invalid else None

    def _node(self, node_id: str) -> bool:
        if node_id in self._found:
            return node_id not in self._invalid
        if node_id in self._visiting:
            self._cycle(node_id)
            return False
        spec = self._specs[self.graph[node_id]["class_type"]]
        errors: list[dict[str, Any]] = []
        valid = True
        self._visiting.append(node_id)
        try:
            for wanted in spec.inputs.values():
                valid &= self._input(node_id, wanted, errors)
        finally:
            self._visiting.pop()
        if node_id in self._found:  # part of a cycle, already judged
            return False
        self._found[node_id] = errors or None
        if errors or not valid:
            self._invalid.add(node_id)
        return not errors and valid

    def _cycle(self, node_id: str) -> None:
        path = [*self._visiting[self._visiting.index(node_id) :], node_id]
        details = " -> ".join(f"{step} ({self.graph[step]['class_type']})" for step in path)
        members = list(dict.fromkeys(path))
        for member in members:
            extra = {"node_id": member, "cycle_nodes": members}
            self._found[member] = [_error("dependency_cycle", "Dependency cycle detected", details, extra)]
            self._invalid.add(member)

    def _input(self, node_id: str, wanted: InputSpec, errors: list[dict[str, Any]]) -> bool:
        """Checks one input: adds to `errors`; False when what it is linked to is wrong."""
        inputs = self.graph[node_id]["inputs"]
        if wanted.name not in inputs:
            if wanted.required:
                extra = {"input_name": wanted.name}
                errors.append(_error("required_input_missing", "Required input is missing", wanted.name, extra))
            return True
        value = inputs[wanted.name]
        if is_link(value):
            return self._link(wanted, value, errors)
        try:
            value = inputs[wanted.name] = _converted(wanted, value)
        except (TypeError, ValueError, OverflowError) as exc:
            message = f"Failed to convert an input value to a {wanted.type} value"
            extra = self._extra(wanted, received_value=value, exception_message=str(exc))
            errors.append(_error("invalid_input_type", message, f"{wanted.name}, {value}, {exc}", extra))
            return True
        problem = self._value(wanted, value)
        if problem is not None:
            errors.append(problem)
        return True

    def _extra(self, wanted: InputSpec, **more: Any) -> dict[str, Any]:
        return {"input_name": wanted.name, "input_config": wanted.config(self._files), **more}

    def _link(self, wanted: InputSpec, link: list[Any], errors: list[dict[str, Any]]) -> bool:
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            errors.append(_error("bad_linked_input", message, wanted.name, self._extra(wanted, received_value=link)))
            return True
        received = self._linked_type(link)
        if not _accepts(wanted.type, received):
            details = f"{wanted.name}, received_type({received}) mismatch input_type({wanted.type})"
            extra = self._extra(wanted, received_type=received, linked_node=link)
            errors.append(_error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra))
            return True
        try:
            return self._node(link[0])
        except _BadLinkError as exc:
            extra = self._extra(
                wanted, exception_message=exc.details, exception_type=exc.kind, traceback=[], linked_node=link
            )
            message = "Exception when validating inner node"
            self._found[link[0]] = [_error("exception_during_inner_validation", message, exc.details, extra)]
            self._invalid.add(link[0])
            return False

    def _linked_type(self, link: list[Any]) -> str:
        node_id, slot = link
        try:
            outputs = self._specs[self.graph[node_id]["class_type"]].outputs
        except (KeyError, TypeError) as exc:
            raise _BadLinkError("KeyError", repr(node_id)) from exc
        try:
            return str(outputs[slot][1])
        except (IndexError, TypeError) as exc:
            raise _BadLinkError("IndexError", "tuple index out of range") from exc

    def _value(self, wanted: InputSpec, value: Any) -> dict[str, Any] | None:
        if wanted.min is not None and value < wanted.min:
            message = f"Value {value} smaller than min of {wanted.min}"
            return _error("value_smaller_than_min", message, wanted.name, self._extra(wanted, received_value=value))
        if wanted.max is not None and value > wanted.max:
            message = f"Value {value} bigger than max of {wanted.max}"
            return _error("value_bigger_than_max", message, wanted.name, self._extra(wanted, received_value=value))
        options = wanted.options(self._files)
        if options is None or value in options:
            return None
        if wanted.files == ("input",):
            return _missing_upload(wanted, value)
        return _not_in_list(self._extra(wanted, received_value=value), options)


def _converted(wanted: InputSpec, value: Any) -> Any:
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    converters: dict[str, type] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
    converter = converters.get(wanted.type)
    return value if converter is None else converter(value)


def _accepts(wanted: str, received: str) -> bool:
    """Whether a link of type `received` may go into an input of type `wanted` ("*" fits everything)."""
    return wanted == received or ANY in (wanted, received)


def _missing_upload(wanted: InputSpec, value: Any) -> dict[str, Any]:
    """The loaders of uploaded files check by themselves that the file exists, and word it so."""
    what = "video" if wanted.name in ("video", "file") else "image"
    details = f"{wanted.name} - Invalid {what} file: {value}"
    message = "Custom validation failed for node"
    return _error("custom_validation_failed", message, details, {"input_name": wanted.name})


def _not_in_list(extra: dict[str, Any], options: list[str]) -> dict[str, Any]:
    listed = str(options)
    if len(options) > LONG_LIST:
        listed = f"(list of length {len(options)})"
        extra["input_config"] = None
    details = f"{extra['input_name']}: '{extra['received_value']}' not in {listed}"
    return _error("value_not_in_list", "Value not in list", details, extra)
