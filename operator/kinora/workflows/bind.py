"""The job's own values put into a graph: bindings, files by their staged names, prefixes. Judges only what it places.

`bindings` is name -> `node.input`, or several such places divided by commas. A name stands for one field of the spec.
"""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from kinora.api.videojob import BINDING_NAMES, VideoJobSpec
from kinora.catalogue.model import Model
from kinora.engine.contract import node_specs
from kinora.recipes.faults import Fault
from kinora.recipes.graph import Graph
from kinora.recipes.needs import MediaKind, file_name, given_inputs, input_name, kind_of
from kinora.recipes.resolve import seed_of
from kinora.recipes.rules import frames_of_duration
from kinora.workflows import allow
from kinora.workflows.words import place, shown

_TEXTS: Final = frozenset({"prompt", "negativePrompt"})
_WHOLE: Final = frozenset({"width", "height", "frames", "steps", "seed"})
_NUMBERS: Final = frozenset({"fps", "guidance", "shift", "denoise", "controlStrength"})
_FILES: Final = frozenset(BINDING_NAMES) - _TEXTS - _WHOLE - _NUMBERS

#: Where a file's name stands in a graph: (node id, input).
Place = tuple[str, str]


@dataclass
class Bound:
    """A graph with the job's values in it. File inputs hold the marker of the staged input that they read."""

    graph: Graph
    places: dict[Place, str] = field(default_factory=dict)
    "File inputs, with the name of the staged input."
    filled: set[Place] = field(default_factory=set)
    "Inputs that a binding has given a value."
    seed: int | None = None
    "The seed that was bound."
    faults: list[Fault] = field(default_factory=list)


def marker(name: str) -> str:
    """What stands for a staged input until its name is known."""
    return f"<{name}>"


def bind(graph: Graph, spec: VideoJobSpec, model: Model, uid: str) -> Bound:
    """Put everything that the job gives into a copy of the graph."""
    assert spec.workflow is not None
    bound = Bound(deepcopy(graph))
    values = _values(spec, model)
    for name, targets in spec.workflow.bindings.items():
        if name in BINDING_NAMES:
            value = seed_of(uid) if name == "seed" and values.get(name) is None else values.get(name)
            for target in targets.split(","):
                _place(bound, name, target.strip(), value)
            bound.seed = value if name == "seed" else bound.seed
    for name, value in values.items():
        if value is not None and name not in spec.workflow.bindings:
            where = "spec.parameters.durationSeconds" if name == "frames" and _by_duration(spec) else _field(name)
            bound.faults.append(Fault(where, shown(value), f"unset, or spec.workflow.bindings.{name}: node.input"))
    _name_files(bound, spec)
    return bound


def prefix_of(folder: str, node_id: str) -> str:
    """The prefix of a node's files: below the job's folder, and unlike any other node's."""
    return f"{folder}/{folder}-" + "".join(one if one.isalnum() else "-" for one in node_id)


def with_prefixes(graph: Graph, folder: str) -> Graph:
    """A copy in which every prefix is the job's own; one that comes through a link is left to the check."""
    made = deepcopy(graph)
    for node_id, node in made.items():
        if isinstance(node["inputs"].get(allow.PREFIX), str):
            node["inputs"][allow.PREFIX] = prefix_of(folder, node_id)
    return made


# --- values -----------------------------------------------------------------------------------------------------------


def _values(spec: VideoJobSpec, model: Model) -> dict[str, Any]:
    """Name of a binding -> the job's value, None where it gives none. Files are told by their markers."""
    asked = spec.parameters
    frames = asked.frames
    if frames is None and asked.duration_seconds is not None:
        step = model.limits.frames.step
        frames = frames_of_duration(asked.duration_seconds, asked.fps or model.defaults.fps, step)
    values: dict[str, Any] = {
        "prompt": spec.prompt or None,
        "negativePrompt": spec.negative_prompt,
        "width": asked.width,
        "height": asked.height,
        "frames": frames,
        "fps": asked.fps,
        "steps": asked.steps,
        "guidance": asked.guidance,
        "shift": asked.shift,
        "seed": asked.seed,
        "denoise": asked.denoise,
        "controlStrength": asked.control_strength,
    }
    bindings = spec.workflow.bindings if spec.workflow else {}
    if asked.duration_seconds is not None and "frames" in bindings and "fps" not in bindings:
        values["fps"] = None  # it tells how many frames the duration is
    for name, sources in given_inputs(spec.inputs).items():
        for index in range(len(sources)):
            values[input_name(name, index)] = marker(input_name(name, index))
    return values


def _by_duration(spec: VideoJobSpec) -> bool:
    return spec.parameters.frames is None


def _field(name: str) -> str:
    if name in _TEXTS:
        return f"spec.{name}"
    return f"spec.inputs.{name}" if name in _FILES else f"spec.parameters.{name}"


# --- places -----------------------------------------------------------------------------------------------------------


def _place(bound: Bound, name: str, target: str, value: Any) -> None:
    """Put one value at `node.input`; a binding is judged even where the job gives no value for it."""
    where = f"spec.workflow.bindings.{name}"
    node_id, _, input_ = target.partition(".")
    node = bound.graph.get(node_id)
    if node is None:
        known = ", ".join(list(bound.graph)[:12])
        bound.faults.append(Fault(where, shown(target), f"node.input, with a node of the graph: {known}"))
        return
    faults = list(_target_faults(where, name, target, node, input_))
    bound.faults += faults
    if faults or value is None:
        return
    if (node_id, input_) in bound.filled:
        bound.faults.append(Fault(where, shown(target), "an input that no other binding fills"))
        return
    bound.filled.add((node_id, input_))
    node["inputs"][input_] = value
    if name in _FILES:
        bound.places[node_id, input_] = name


def _target_faults(where: str, name: str, target: str, node: Mapping[str, Any], input_: str) -> Iterator[Fault]:
    class_type, inputs = node["class_type"], node["inputs"]
    wanted = allow.known_input(class_type, input_)
    known = node_specs().get(class_type)
    if wanted is None and input_ not in inputs:
        names = ", ".join(known.inputs if known else inputs)
        yield Fault(where, shown(target), f"an input of {class_type}: {names}")
    elif isinstance(inputs.get(input_), list):
        source = inputs[input_][0]
        yield Fault(
            where, shown(target), "an input that holds a value", f"it is linked: bind an input of node {source}"
        )
    elif wanted is not None:
        yield from _type_faults(where, name, target, class_type, wanted.type, is_file=allow.is_file(wanted))
    elif input_ == allow.PREFIX or not _fits_as_written(name, inputs[input_]):
        yield Fault(where, shown(target), f"an input that takes {_words(name)}")


def _type_faults(where: str, name: str, target: str, class_type: str, kind: str, *, is_file: bool) -> Iterator[Fault]:
    takes = {"STRING": _TEXTS, "INT": _WHOLE | _NUMBERS, "FLOAT": _WHOLE | _NUMBERS}.get(kind, frozenset())
    if target.endswith(f".{allow.PREFIX}"):
        takes = frozenset()
    if is_file:
        takes = _FILES
        read = allow.file_kind(class_type)
        if name in _FILES and MediaKind.EITHER not in (read, kind_of(name)) and read != kind_of(name):
            yield Fault(where, shown(target), f"an input that takes {_words(name)}; {class_type} reads {allow.a(read)}")
            return
    if name not in takes:
        yield Fault(where, f"{shown(target)}, of type {kind}", f"an input that takes {_words(name)}")


def _fits_as_written(name: str, written: Any) -> bool:
    """For a class that no contract describes: the value in the graph says what the input takes."""
    if name in _TEXTS | _FILES:
        return isinstance(written, str)
    return isinstance(written, (int, float)) and not isinstance(written, bool)


def _words(name: str) -> str:
    if name in _FILES:
        return {"Image": "an image", "Video": "a video"}.get(kind_of(name), "a file")
    return "a text" if name in _TEXTS else "a number"


# --- files ------------------------------------------------------------------------------------------------------------


def _name_files(bound: Bound, spec: VideoJobSpec) -> None:
    """Every name of spec.workflow.files in the graph becomes the marker of that file."""
    assert spec.workflow is not None
    declared = {file.name: file_name(index) for index, file in enumerate(spec.workflow.files)}
    used = set()
    for node_id, node in bound.graph.items():
        for input_, value in node["inputs"].items():
            if not isinstance(value, str) or (node_id, input_) in bound.places or value not in declared:
                continue
            wanted = allow.known_input(node["class_type"], input_)
            foreign = node["class_type"] not in node_specs() and input_ != allow.PREFIX
            if allow.is_file(wanted) or foreign:
                node["inputs"][input_] = marker(declared[value])
                bound.places[node_id, input_] = declared[value]
                used.add(value)
    bound.faults += _declaration_faults(spec, used)


def _declaration_faults(spec: VideoJobSpec, used: set[str]) -> Iterator[Fault]:
    assert spec.workflow is not None
    names = [file.name for file in spec.workflow.files]
    for index, name in enumerate(names):
        where = f"spec.workflow.files[{index}].name"
        if not _is_plain_path(name):
            yield Fault(where, shown(name), "a name as the graph has it: relative, without '..', '\\' and controls")
        elif name in names[:index]:
            yield Fault(where, shown(name), "each name once")
        elif name not in used:
            yield Fault(where, shown(name), "a name that a node of the graph reads")


def _is_plain_path(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and ":" not in name and not {"", ".", "..", "~"} & set(parts)


def forged(bound: Bound, names: Collection[str]) -> Iterator[Fault]:
    """Texts that look like a marker, where a file is read, and were not put there by `bind`."""
    markers = {marker(name) for name in names}
    for node_id, node in bound.graph.items():
        class_type = node["class_type"]
        for input_, value in node["inputs"].items():
            reads = class_type not in node_specs() or allow.is_file(allow.known_input(class_type, input_))
            if reads and isinstance(value, str) and value in markers and (node_id, input_) not in bound.places:
                yield Fault(place(node_id, class_type, input_), shown(value), "a name in spec.workflow.files")
