"""The declared queues (chart value ``queues``), read from the operator's settings; what a job may ask of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from kinora.api.videojob import VideoJobSpec
from kinora.controller.scheduling.facts import DEFAULT_QUEUE, Queue
from kinora.recipes.faults import Fault


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    name: str = Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    weight: float = Field(1.0, gt=0, le=1000)
    max_priority: int = Field(1000, ge=-1000, le=1000)
    max_running: int | None = Field(None, ge=0)
    video_seconds_per_day: float | None = Field(None, ge=0)
    preempts: bool = False
    preemptible: bool = False
    namespaces: tuple[str, ...] = ()


class QueuesError(ValueError):
    """The declared queues cannot be used: names the queue, the field and what is allowed."""


def read_queues(text: str) -> dict[str, Queue]:
    """Queues by name from JSON (a list of objects). ``default`` is there in any case. Raises QueuesError."""
    try:
        declared = TypeAdapter(list[_Declared]).validate_python(json.loads(text or "[]"))
    except (ValidationError, ValueError) as error:
        raise QueuesError(f"queues (chart value): {error}") from None
    queues: dict[str, Queue] = {DEFAULT_QUEUE: Queue(DEFAULT_QUEUE)}
    seen: set[str] = set()
    for one in declared:
        if one.name in seen:
            raise QueuesError(f"queues (chart value): {one.name} is declared twice; allowed: each name once")
        seen.add(one.name)
        values = one.model_dump() | {"namespaces": frozenset(one.namespaces)}
        queues[one.name] = Queue(**values)
    return queues


def queue_faults(spec: VideoJobSpec, namespace: str, queues: Mapping[str, Queue]) -> Iterator[Fault]:
    """The queue must be declared, open to the namespace, and allow the priority (decisions.md, 9).

    A name that nobody declared is refused: else a new one would buy a fresh share.
    """
    queue = queues.get(spec.queue)
    open_to = sorted(one.name for one in queues.values() if not one.namespaces or namespace in one.namespaces)
    if queue is None or queue.name not in open_to:
        yield Fault("spec.queue", spec.queue, f"{', '.join(open_to)} in namespace {namespace}")
    elif spec.priority > queue.max_priority:
        yield Fault("spec.priority", spec.priority, f"at most {queue.max_priority} in queue {queue.name}")
