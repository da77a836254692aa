"""Whether a VideoJob can be rendered at all, before it is queued or takes a GPU (invariant 11).

The answer rests on the spec, the catalogue and, for ``modelServerName``, the model that server serves; nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kinora.api import reasons
from kinora.api.base import MESSAGE_LIMIT
from kinora.api.findings import shape_message
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import Catalogue
from kinora.controller.queues import queue_faults
from kinora.controller.scheduling.facts import Queue
from kinora.recipes.build import planned_hash
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.resolve import prompts_of, resolve

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Accepted:
    """The job can be rendered; ``resolved`` is what ``status.resolved`` will say."""

    model: str
    resolved: Mapping[str, Any]

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
    """The model is not known: ``modelServerName`` names no ModelServer yet, or the model's entry cannot be used."""

    message: str
    reason: str = reasons.NO_MODEL_SERVER


Verdict = Accepted | Refused | Undecided


def check(
    job: Object, catalogue: Catalogue, server_models: Mapping[str, str], queues: Mapping[str, Queue] | None = None
) -> Verdict:
    """Accept, refuse with every fault, or wait. ``server_models``: ModelServer name -> model, of the namespace.

    ``queues``: the declared ones; None where nobody can know them (offline).
    """
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
    try:
        resolved = resolve(spec, model, job["metadata"]["uid"])
    except InvalidSpec as invalid:
        return _refused(InvalidSpec((*invalid.faults, *_queue_faults(spec, job, queues))))
    faults = _queue_faults(spec, job, queues)
    if faults:
        return _refused(InvalidSpec(faults))
    graph_hash = planned_hash(model, resolved, prompts_of(spec, model))
    return Accepted(model.local_name, {**resolved.to_status(), "graphHash": graph_hash})


def _queue_faults(spec: VideoJobSpec, job: Object, queues: Mapping[str, Queue] | None) -> tuple[Fault, ...]:
    return () if queues is None else tuple(queue_faults(spec, job["metadata"]["namespace"], queues))


def _refused(invalid: InvalidSpec) -> Refused:
    reason = reasons.NOT_IMPLEMENTED if invalid.not_implemented else reasons.INVALID_SPEC
    return Refused(reason, str(invalid)[:MESSAGE_LIMIT])
