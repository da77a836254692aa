"""The door to raw workflows: a job with its graph's text -> everything decided (`plan`); its files -> a graph to run.

`plan` needs the spec, the text and the catalogue only: the operator and the CLI ask it before a job is queued, and the
agent asks it again. `finished` is the agent's: the files are staged and looked at.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

from kinora.api.videojob import Audio, VideoJobSpec, Workflow
from kinora.catalogue.model import Model
from kinora.recipes import delivery, rules
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.graph import Graph, graph_hash
from kinora.recipes.needs import MediaFacts, file_name, named_inputs
from kinora.workflows.allow import allowed_classes
from kinora.workflows.bind import Place, bind, forged, marker, with_prefixes
from kinora.workflows.check import Rules, graph_faults, ordered, savers
from kinora.workflows.limits import load_of
from kinora.workflows.parse import GraphError, parse
from kinora.workflows.resolved import ResolvedWorkflow
from kinora.workflows.shapes import Shapes

MAX_INPUTS = 16  # in a status
MAX_CLASSES_TEXT = 600  # characters, in a status
_FOLDER = "job"  # stands for the job's folder until there is one


@dataclass(frozen=True)
class PlannedWorkflow:
    """A workflow that may be queued. `graph` holds stand-ins for the names of its files and for prefixes."""

    resolved: ResolvedWorkflow
    graph: Graph
    places: Mapping[Place, str]
    "File inputs, with the name of the staged input that they read."
    classes: frozenset[str]
    "Every node class of the graph."
    beyond: frozenset[str]
    "Those of them that a ModelServer must allow."


@dataclass(frozen=True)
class StagedFile:
    """A file of the job: where it lies, relative to the engine's input folder, and what was found in it."""

    file: str
    facts: MediaFacts


def plan(
    spec: VideoJobSpec, model: Model, text: str, uid: str, more_classes: Collection[str] | None = None
) -> PlannedWorkflow:
    """Decide everything about a job with `spec.workflow`. `more_classes`: allowedNodeClasses of its ModelServer.

    Raises InvalidSpec with all faults at once.
    """
    faults = list(spec_faults(spec))
    try:
        graph = parse(text)
    except GraphError as error:
        raise InvalidSpec((*error.faults, *faults)) from None
    bound = bind(graph, spec, model, uid)
    names = [one.name for one in named_inputs(spec)]
    ready = with_prefixes(bound.graph, _FOLDER)
    classes = allowed_classes(model.node_classes, more_classes)
    files: dict[str, MediaFacts | None] = {marker(name): None for name in names}
    faults += (*bound.faults, *forged(bound, names))
    faults += graph_faults(ready, Rules(model, classes, files, f"{_FOLDER}/"))
    if faults:
        raise InvalidSpec(sorted(faults, key=lambda fault: fault.not_implemented))
    found = frozenset(node["class_type"] for node in ready.values())
    beyond = found - allowed_classes(model.node_classes, None)
    load = load_of(ready, Shapes(ready, ordered(ready)[0], files), model)
    resolved = ResolvedWorkflow(
        model=model.name,
        nodes=len(ready),
        outputs=savers(ready),
        width=load.width,
        height=load.height,
        frames=load.frames,
        steps=load.steps,
        tokens=load.tokens,
        workflow_sha256=text_hash(text),
        graph_hash=graph_hash(ready),
        seed=bound.seed,
        classes=_told_classes(spec, beyond),
        inputs=tuple(names),
    )
    return PlannedWorkflow(resolved, ready, bound.places, found, beyond)


def plan_among(
    spec: VideoJobSpec, model: Model, text: str, uid: str, lists: Collection[Collection[str]]
) -> PlannedWorkflow:
    """As `plan`, where one at least of these ModelServers' allowedNodeClasses has all that the graph needs."""
    planned = plan(spec, model, text, uid, frozenset().union(*lists))
    if planned.beyond and not any(planned.beyond <= frozenset(one) for one in lists):
        names = ", ".join(sorted(planned.beyond))
        raise InvalidSpec(
            [Fault("spec.workflow", f"a graph with classes {names}", "those of one ModelServer together")]
        )
    return planned


def finished(
    planned: PlannedWorkflow,
    model: Model,
    staged: Mapping[str, StagedFile],
    folder: str,
    more_classes: Collection[str] | None = None,
) -> Graph:
    """The graph to submit: real names of files and prefixes, judged once more. Raises InvalidSpec.

    `staged`: the job's inputs by name.
    """
    graph = filled(planned, {name: one.file for name, one in staged.items()}, folder)
    files: dict[str, MediaFacts | None] = {one.file: one.facts for one in staged.values()}
    classes = allowed_classes(model.node_classes, more_classes)
    faults = graph_faults(graph, Rules(model, classes, files, f"{folder}/"))
    if faults:
        raise InvalidSpec(faults)
    return graph


def pin_faults(spec: VideoJobSpec, hashes: Mapping[str, str]) -> tuple[Fault, ...]:
    """The files of the workflow that are not those that the job pins. `hashes`: sha256 (hex) of the inputs at hand."""
    found = []
    for index, file in enumerate(spec.workflow.files if spec.workflow is not None else ()):
        sha256 = hashes.get(file_name(index))
        if sha256 is not None and file.sha256 not in (None, sha256):
            field = f"spec.workflow.files[{index}].sha256"
            found.append(Fault(field, file.sha256, f"{sha256}, which the file has"))
    return tuple(found)


def filled(planned: PlannedWorkflow, names: Mapping[str, str], folder: str) -> Graph:
    """The graph with the names of its files, by staged input, and prefixes below `folder`. Not judged again."""
    graph = deepcopy(planned.graph)
    for (node_id, input_), name in planned.places.items():
        graph[node_id]["inputs"][input_] = names[name]
    return with_prefixes(graph, folder)


def text_hash(text: str) -> str:
    """sha256 (hex) of the workflow's text in UTF-8: what a ConfigMap's graph is pinned by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def class_names(text: str) -> frozenset[str]:
    """The node classes that the text names; none for a text that is no graph."""
    try:
        return frozenset(node["class_type"] for node in parse(text).values())
    except GraphError:
        return frozenset()


def workflow_changed(workflow: Workflow) -> str:
    """The message of a job whose ConfigMap was edited while it waited."""
    ref = workflow.config_map_ref
    assert ref is not None
    return (
        f"spec.workflow.configMapRef: key {ref.key} of ConfigMap {ref.name} holds another text than when the job was "
        "queued; allowed: the same text (create the job anew to render the new one)"
    )


def _told_classes(spec: VideoJobSpec, beyond: Collection[str]) -> tuple[str, ...]:
    """What `status.resolved` says of a graph that only a stager and an agent see. InvalidSpec: there is no room."""
    if spec.workflow is None or spec.workflow.upload is None:
        return ()
    told = tuple(sorted(beyond))
    if sum(map(len, told)) > MAX_CLASSES_TEXT:
        value = f"a graph of {len(told)} classes that are not listed in docs/workflows.md"
        allowed = f"names of at most {MAX_CLASSES_TEXT} characters in all"
        raise InvalidSpec([Fault("spec.workflow.upload", value, allowed, "a graph in a ConfigMap may have more")])
    return told


def spec_faults(spec: VideoJobSpec) -> Iterator[Fault]:
    """What a job with a workflow cannot ask for: the graph says it itself."""
    yield from rules.source_faults(spec)
    asked, output, mask = spec.parameters, spec.output, spec.inputs.mask
    itself = "unset: a workflow says it itself"
    for name in ("control", "expand", "preset"):
        if getattr(asked, name) is not None:
            yield Fault(f"spec.parameters.{name}", "set", itself)
    if asked.frames is not None and asked.duration_seconds is not None:
        yield Fault("spec.parameters.durationSeconds", asked.duration_seconds, "unset where frames is set")
    for name in ("width", "height", "fps", "crf"):
        if getattr(output, name) is not None:
            yield Fault(f"spec.output.{name}", getattr(output, name), itself)
    if output.audio is not Audio.NONE:
        yield Fault("spec.output.audio", output.audio, f"{Audio.NONE}: a workflow says it itself")
    if output.watermark:
        yield Fault("spec.output.watermark", "true", "false: a workflow says it itself")
    if mask is not None and (mask.frame is not None or mask.expand_ratio is not None):
        yield Fault(
            "spec.inputs.mask", "with frame or expandRatio", "a source alone: a workflow gets the file as it is"
        )
    if len(named_inputs(spec)) > MAX_INPUTS:
        yield Fault(
            "spec.workflow.files", f"{len(named_inputs(spec))} with spec.inputs", f"at most {MAX_INPUTS} in all"
        )
    refused = delivery.key_prefix_fault(output.key_prefix or "")
    if refused:
        yield Fault("spec.output.keyPrefix", output.key_prefix, refused)
