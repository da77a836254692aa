"""Whether a VideoJob can be rendered at all, before it is queued or takes a GPU (invariant 11).

The answer rests on the spec, the catalogue and, for ``modelServerName``, the model that server serves; for a raw
workflow also on its text and on the node classes that ModelServers allow. Nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from kinora.api import reasons
from kinora.api.base import MESSAGE_LIMIT
from kinora.api.findings import shape_message
from kinora.api.intake import fetched_fields, is_resolved_by_stager
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.controller.queues import queue_faults
from kinora.controller.scheduling.facts import Queue
from kinora.recipes.build import planned_hash
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.resolve import prompts_of, resolve
from kinora.workflows.resolved import pinned
from kinora.workflows.workflow import class_names, plan_among, spec_faults, text_hash, workflow_changed

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Accepted:
    """The job can be rendered; ``resolved`` is what ``status.resolved`` will say."""

    model: str
    resolved: Mapping[str, Any]
    classes: frozenset[str] = frozenset()
    "Node classes of a raw workflow that a ModelServer must allow beyond what all do."

    @property
    def preset(self) -> str:
        """The preset whose files a pod must have besides; empty: none."""
        return str(self.resolved.get("preset", ""))


@dataclass(frozen=True)
class Refused:
    """The job can never be rendered as it is."""

    reason: str
    message: str


@dataclass(frozen=True)
class Undecided:
    """Something that the job names is not there yet: its ModelServer, its model's entry, its workflow's ConfigMap."""

    message: str
    reason: str = reasons.NO_MODEL_SERVER


Verdict = Accepted | Refused | Undecided
_OTHERS = "claim, configMap or artifact: the administrator has switched fetching off (chart value stager.enabled)"
_NO_WEBHOOK = "unset: the administrator has switched webhooks off (chart value gateway.webhooks.enabled)"


@dataclass(frozen=True)
class Around:
    """What stands around a job. ``allowed``: ModelServer name -> allowedNodeClasses, of those that have any.

    ``text`` is what a workflow's ConfigMap holds; None where it has not been read or is not there.
    """

    server_models: Mapping[str, str]
    allowed: Mapping[str, Collection[str]] = field(default_factory=dict)
    text: str | None = None
    missing: str = ""
    "Why there is no text, in words."
    queues: Mapping[str, Queue] | None = None
    "The declared ones; None where nobody can know them (offline)."
    has_stagers: bool = True
    "A url may be fetched, or has been."
    has_webhooks: bool = True
    "Somebody delivers webhooks."


def check(job: Object, catalogue: Catalogue, around: Around | Mapping[str, str]) -> Verdict:
    """Accept, refuse with every fault, or wait. A mapping stands for ``Around.server_models``."""
    around = around if isinstance(around, Around) else Around(around)
    server_models = around.server_models
    try:
        spec = VideoJobSpec.model_validate(job["spec"])
    except ValidationError as error:
        return Refused(reasons.INVALID_SPEC, shape_message(VideoJobSpec, job["spec"], error))
    name = spec.model
    if spec.model_server_name is not None:
        name = server_models.get(spec.model_server_name)
        if name is None:
            return Undecided(f"no ModelServer {spec.model_server_name!r} in the namespace yet")
    model = catalogue.get(name)
    if model is None and name is not None and name in catalogue.refused:
        message = f"the catalogue entry of {name} cannot be used: {catalogue.refused[name]}"[:MESSAGE_LIMIT]
        return Undecided(message, reasons.MODEL_REFUSED)
    if model is None:
        fault = Fault("spec.model", name, ", ".join(catalogue.names), catalogue.unknown(name))
        return Refused(reasons.INVALID_SPEC, str(fault))
    judge = _check_task if spec.workflow is None else _check_workflow
    return _served(job, judge(job, spec, model, around), around)


def _served(job: Object, verdict: Verdict, around: Around) -> Verdict:
    """A job that is sound, and that needs a part of Kinora which the administrator has not, is refused for that."""
    if not isinstance(verdict, Accepted):
        return verdict
    fetched = () if around.has_stagers else fetched_fields(job["spec"])
    if fetched:
        return Refused(reasons.STAGER_DISABLED, "; ".join(str(Fault(field, "set", _OTHERS)) for field in fetched))
    if job["spec"].get("webhook") and not around.has_webhooks:
        return Refused(reasons.WEBHOOKS_DISABLED, str(Fault("spec.webhook", "set", _NO_WEBHOOK)))
    return verdict


def _check_task(job: Object, spec: VideoJobSpec, model: Model, around: Around) -> Verdict:
    try:
        resolved = resolve(spec, model, job["metadata"]["uid"])
    except InvalidSpec as invalid:
        return _refused(InvalidSpec((*invalid.faults, *_queue_faults(spec, job, around))))
    faults = _queue_faults(spec, job, around)
    if faults:
        return _refused(InvalidSpec(faults))
    graph_hash = planned_hash(model, resolved, prompts_of(spec, model))
    return Accepted(model.local_name, {**resolved.to_status(), "graphHash": graph_hash})


def _check_workflow(job: Object, spec: VideoJobSpec, model: Model, around: Around) -> Verdict:
    assert spec.workflow is not None
    if spec.workflow.upload is not None:
        return _check_stored(job, spec, model, around)
    text = around.text if spec.workflow.inline is None else spec.workflow.inline
    if text is None:
        return Undecided(around.missing or "its workflow's ConfigMap is being read", reasons.WAITING_FOR_WORKFLOW)
    pin = pinned(job.get("status") or {})
    if pin is not None and pin != text_hash(text):
        return Refused(reasons.WORKFLOW_CHANGED, workflow_changed(spec.workflow))
    servers = [name for name, served in around.server_models.items() if served == model.local_name]
    servers = [spec.model_server_name] if spec.model_server_name else servers
    lists = [frozenset(around.allowed.get(name, ())) for name in servers]
    try:
        return _planned(job, spec, model, text, lists, around)
    except InvalidSpec as invalid:
        if not servers:
            with suppress(InvalidSpec):
                wanted = _planned(job, spec, model, text, [class_names(text)], around).classes
                return Undecided(f"no ModelServer in the namespace allows node classes {', '.join(sorted(wanted))} yet")
        return _refused(InvalidSpec((*invalid.faults, *_queue_faults(spec, job, around))))


def _check_stored(job: Object, spec: VideoJobSpec, model: Model, around: Around) -> Verdict:
    """A graph in the store: a stager judges it, and tells in `status.resolved` what became of that."""
    faults = (*spec_faults(spec), *_queue_faults(spec, job, around))
    if faults:
        return _refused(InvalidSpec(faults))
    if not is_resolved_by_stager(job):
        return Accepted(model.local_name, {})
    return Accepted(model.local_name, job["status"]["resolved"], told_classes(job))


def told_classes(job: Object) -> frozenset[str]:
    """The node classes that a ModelServer must allow for a graph in the store, as its stager found them."""
    classes = ((job.get("status") or {}).get("resolved") or {}).get("classes")
    return frozenset(name for name in classes if isinstance(name, str)) if isinstance(classes, list) else frozenset()


def _planned(  # noqa: PLR0917
    job: Object, spec: VideoJobSpec, model: Model, text: str, lists: Collection[frozenset[str]], around: Around
) -> Accepted:
    """Accepted by one at least of these allow-lists. Raises InvalidSpec."""
    planned = plan_among(spec, model, text, job["metadata"]["uid"], lists)
    later = _queue_faults(spec, job, around)
    if later:
        raise InvalidSpec(later)
    return Accepted(model.local_name, planned.resolved.to_status(), planned.beyond)


def _queue_faults(spec: VideoJobSpec, job: Object, around: Around) -> tuple[Fault, ...]:
    return () if around.queues is None else tuple(queue_faults(spec, job["metadata"]["namespace"], around.queues))


def _refused(invalid: InvalidSpec) -> Refused:
    reason = reasons.NOT_IMPLEMENTED if invalid.not_implemented else reasons.INVALID_SPEC
    return Refused(reason, str(invalid)[:MESSAGE_LIMIT])
