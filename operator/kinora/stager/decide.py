"""What a stager does about a job, and what it concludes from what it found. Pure: no I/O, clock or randomness.

A job is this stager's when it is Pending, has a `url` or `upload`, is one that could be rendered, and when the store
of this stager is the one that is chosen among those of its ModelServers. What cannot be rendered the operator refuses.
A raw workflow's graph may lie where no stager reads (in the job, in a ConfigMap): the operator judges it, decides
everything about it, and tells in `status.inputStore` whose it is; its files are fetched and looked at here, and that is
all. A graph that lies in the store is read and judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from kinora.api import transitions
from kinora.api.intake import Store, artifact_store, choose_store, inputs_condition, store_of, stores_for
from kinora.api.reasons import Phase
from kinora.api.videojob import Task, VideoJobSpec, WorkflowUpload
from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.media.info import MediaInfo
from kinora.recipes.build import planned_hash
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.needs import MediaKind, NamedInput, field_of, named_inputs, staging_faults
from kinora.recipes.preparation import SIZED_BY, sized
from kinora.recipes.resolve import prompts_of, resolve
from kinora.recipes.resolved import Resolved
from kinora.stager.verdict import Refusal, of_faults
from kinora.workflows.resolved import MANY_INPUTS, ResolvedWorkflow
from kinora.workflows.workflow import pin_faults, plan_among

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """A job to take in: `inputs` are those that this stager brings, the others are the agent's.

    `resolved`: None for a raw workflow. `lists`: allowedNodeClasses of the ModelServers that may render a graph which
    lies in this store, and is to be judged here; None for every other job.
    """

    spec: VideoJobSpec
    model: Model
    resolved: Resolved | None
    inputs: tuple[NamedInput, ...]
    lists: tuple[frozenset[str], ...] | None = None

    @property
    def graph(self) -> WorkflowUpload | None:
        """The graph that is to be judged here."""
        return self.spec.workflow.upload if self.spec.workflow is not None else None


@dataclass(frozen=True)
class Found:
    """One input that is in the store."""

    sha256: str
    bytes: int
    info: MediaInfo


@dataclass(frozen=True)
class Concluded:
    """What `status.inputs` and, but for a raw workflow that the operator judged, `status.resolved` will say."""

    inputs: list[dict[str, Any]]
    resolved: dict[str, Any] | None


def decide(job: Object, servers: Iterable[Object], catalogue: Catalogue, store: Store) -> Work | None:
    """The work on this job of the stager of `store`; None where there is none (yet, any more, or of this stager)."""
    status = job.get("status") or {}
    if job["metadata"].get("deletionTimestamp") or job["spec"].get("cancel"):
        return None
    if transitions.phase_of(status) is not Phase.PENDING or status.get("assignment"):
        return None
    if inputs_condition(job).get("status") in ("True", "False"):
        return None
    try:
        spec = VideoJobSpec.model_validate(job["spec"])
    except ValidationError:
        return None
    fetched = tuple(one for one in named_inputs(spec) if is_fetched(one))
    model = _model(spec, servers := list(servers), catalogue)
    graph = spec.workflow.upload if spec.workflow is not None else None
    if (not fetched and graph is None) or model is None:
        return None
    if spec.workflow is not None and graph is None:
        return Work(spec, model, None, fetched) if store_of(job) == store.root else None
    uid = job["metadata"]["uid"]
    if choose_store(uid, stores_for(model.local_name, spec.model_server_name, servers)) != store:
        return None
    if graph is not None:
        return Work(spec, model, None, fetched, _lists(spec, model, servers, store))
    try:
        return Work(spec, model, resolve(spec, model, uid), fetched)
    except InvalidSpec:
        return None


def is_fetched(one: NamedInput) -> bool:
    """Whether a stager brings this input into the store."""
    return one.source.url is not None or one.source.upload is not None


def _lists(spec: VideoJobSpec, model: Model, servers: list[Object], store: Store) -> tuple[frozenset[str], ...]:
    """What the ModelServers of the job that have its graph's store allow beyond what all do."""
    return tuple(
        frozenset(server["spec"].get("allowedNodeClasses") or ())
        for server in servers
        if server["spec"].get("model") == model.local_name
        and spec.model_server_name in (None, server["metadata"]["name"])
        and artifact_store(server) == store
    )


def judged(work: Work, uid: str, text: str) -> ResolvedWorkflow:
    """What is decided of a graph in the store: `status.resolved`, but for its files. Raises InvalidSpec."""
    return plan_among(work.spec, work.model, text, uid, work.lists or ()).resolved


def _model(spec: VideoJobSpec, servers: list[Object], catalogue: Catalogue) -> Model | None:
    if spec.model_server_name is None:
        return catalogue.get(spec.model)
    named = (one["spec"].get("model") for one in servers if one["metadata"]["name"] == spec.model_server_name)
    return catalogue.get(next(named, None))


def conclude(work: Work, found: Mapping[str, Found], graph: ResolvedWorkflow | None = None) -> Concluded | Refusal:
    """Judge what was found, by the rules that the agent goes by, and decide every parameter that rests on it.

    `graph`: what was decided of one that lay in the store. What rests on an input of another kind (claim, configMap,
    artifact) is left to the agent, which sees it.
    """
    facts = {name: one.info for name, one in found.items()}
    if work.resolved is None:
        return _conclude_workflow(work, found, graph)
    known = replace(work.resolved, inputs=tuple(name for name in work.resolved.inputs if name in facts))
    faults = staging_faults(known, facts)
    if faults:
        return of_faults(faults)
    resolved = work.resolved
    if _size_is_known(resolved, facts):
        resolved = sized(resolved, facts, work.model.limits.size)
    graph_hash = planned_hash(work.model, resolved, prompts_of(work.spec, work.model))
    inputs = [_entry(one.name, found[one.name]) for one in work.inputs]
    return Concluded(inputs, {**resolved.to_status(), "graphHash": graph_hash})


def _conclude_workflow(work: Work, found: Mapping[str, Found], graph: ResolvedWorkflow | None) -> Concluded | Refusal:
    """Files go to a raw workflow as they are: each must be of its kind, and the one that the job pins."""
    faults = []
    for one in work.inputs:
        kind = found[one.name].info.kind
        if one.kind not in (kind, MediaKind.EITHER):
            faults.append(Fault(field_of(one.name), f"a file of kind {kind}", f"one {one.kind.lower()}"))
    faults += pin_faults(work.spec, {name: one.sha256 for name, one in found.items()})
    if faults:
        return of_faults(tuple(faults))
    entries = [_entry(one.name, found[one.name]) for one in work.inputs]
    if len(named_inputs(work.spec)) > MANY_INPUTS:
        entries = [{key: entry[key] for key in ("name", "sha256")} for entry in entries]
    return Concluded(entries, None if graph is None else graph.to_status())


def _size_is_known(resolved: Resolved, facts: Mapping[str, MediaInfo]) -> bool:
    """Whether the input that gives the job its size is among those found."""
    order = SIZED_BY.get(Task(resolved.task), ())
    return next((name for name in order if name in resolved.inputs), None) in facts


def _entry(name: str, found: Found) -> dict[str, Any]:
    info = found.info
    entry: dict[str, Any] = {"name": name, "sha256": found.sha256, "bytes": found.bytes}
    entry |= {"width": info.width, "height": info.height}
    if info.kind == "Video":
        entry |= {"frames": info.frames, "fps": info.fps, "durationSeconds": info.duration_seconds}
    return entry
