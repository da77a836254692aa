"""Changes of jobs -> the websocket messages of one client, in ComfyUI's order. Pure; one Follow a socket.

A status tells less than an engine does: its stage names one node of the graph (the first of that kind), its step and
steps are that node's progress. What ended while no socket was there is not told again, as ComfyUI does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from kinora.engine import wire
from kinora.engine.stages import stage_of
from kinora.gateway.comfyui.answer import beginning, client_of, ending, in_queue, output_nodes, outputs_of
from kinora.gateway.jobs import Job, State

Graph = Mapping[str, Any]
MAX_ENDED: Final = 5000  # ends that a socket remembers, one by one


@dataclass
class _Told:
    """What a client has heard of one job."""

    state: wire.ProgressState
    node: str | None = None
    step: tuple[int, int] | None = None
    started: bool = False
    seen: set[str] = field(default_factory=set)


class Follow:
    """What one socket has heard. `jobs`: all of the tenant's when it connects."""

    def __init__(self, client_id: str, jobs: Iterable[Job]) -> None:
        self._client_id = client_id
        self._waiting: dict[str, State] = {}
        self._ended: dict[str, datetime] = {}
        self._horizon: datetime | None = None
        self._told: dict[str, _Told] = {}
        for job in sorted(jobs, key=_when):
            if in_queue(job):
                self._waiting[job.id] = job.state
            elif job.state.finished:
                self._note_end(job)

    def needs_graph(self, job: Job) -> bool:
        """Whether `changed` has to know the job's graph."""
        mine = client_of(job) == self._client_id and not self._is_over(job)
        return mine and (job.state is State.RUNNING or job.state.finished)

    def greeting(self, running: Mapping[str, tuple[Job, Graph]]) -> list[wire.Message]:
        """What is said at once. `running`: this client's jobs that run already, by id."""
        messages = [wire.status(len(self._waiting), self._client_id)]
        for job, graph in running.values():
            told = self._of(job)
            told.started = True
            node = _node_of(job, graph)
            if node is not None:
                told.node = node
                told.state.set(node, 0.0, 1.0, "running")
                messages.append(wire.executing_now(node))
        return messages

    def changed(self, job: Job, graph: Graph) -> list[wire.Message]:
        """What is said of a job as it is now. `graph`: {} where `needs_graph` is false."""
        if self._is_over(job):
            return []
        before = self._waiting.pop(job.id, None)
        if in_queue(job):
            self._waiting[job.id] = job.state
        if job.state.finished:
            self._note_end(job)
        mine = client_of(job) == self._client_id
        moved = before is not (job.state if in_queue(job) else None)
        if not mine:
            return [self._status()] if moved else []
        return list(self._mine(job, graph, moved))

    def only(self, known: Collection[str]) -> list[wire.Message]:
        """What is said when these jobs (ids) are all that there are: others were removed."""
        gone = self._waiting.keys() - known
        for job_id in gone:
            del self._waiting[job_id]
            self._told.pop(job_id, None)
        return [self._status()] if gone else []

    def _note_end(self, job: Job) -> None:
        """Remember that its end is no news any more; of very many ends the time of the last one that is left out."""
        self._ended[job.id] = _when(job)
        if len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended))
            self._horizon = max(self._ended.pop(oldest), self._horizon or datetime.min.replace(tzinfo=UTC))

    def _is_over(self, job: Job) -> bool:
        if job.id in self._ended:
            return True
        unseen = job.state.finished and job.id not in self._waiting and job.id not in self._told
        return unseen and self._horizon is not None and _when(job) <= self._horizon

    # --- one's own jobs -----------------------------------------------------------------------------------------------

    def _mine(self, job: Job, graph: Graph, moved: bool) -> Iterator[wire.Message]:
        told = self._of(job)
        began = job.state is State.RUNNING or job.start_time is not None or job.state is State.SUCCEEDED
        if moved and not job.state.finished:
            yield self._status()
        if began and not told.started:
            told.started = True
            yield from beginning(job)
        if job.state is State.RUNNING:
            yield from _running(job, graph, told)
        elif job.state.finished:
            if job.state is State.SUCCEEDED:
                yield from _finished_nodes(job, graph, told)
            if told.started or job.state is State.FAILED:
                yield ending(job, graph)
            yield self._status()
            if told.started or job.state is State.FAILED:
                yield wire.executing(job.id, None)
            self._told.pop(job.id, None)

    def _of(self, job: Job) -> _Told:
        return self._told.setdefault(job.id, _Told(wire.ProgressState(job.id)))

    def _status(self) -> wire.Message:
        return wire.status(len(self._waiting))


def _when(job: Job) -> datetime:
    return job.completion_time or job.submit_time


def _running(job: Job, graph: Graph, told: _Told) -> Iterator[wire.Message]:
    node = _node_of(job, graph)
    if node is None:
        return
    if node != told.node:
        yield from _enter(job, node, told)
    step = (job.step, job.steps) if job.step is not None and job.steps else None
    if step is not None and step != told.step:
        told.step = step
        yield told.state.set(node, *step, "running")
        yield wire.progress(job.id, node, *step)


def _enter(job: Job, node: str, told: _Told) -> Iterator[wire.Message]:
    """The client's view moves on to another node."""
    if told.node is not None:
        yield told.state.finish(told.node)
    told.node, told.step = node, None
    yield told.state.set(node, 0.0, 1.0, "running")
    yield wire.executing(job.id, node)


def _finished_nodes(job: Job, graph: Graph, told: _Told) -> Iterator[wire.Message]:
    made = outputs_of(job, graph)
    order = [node for node in output_nodes(job, graph) if node in made]
    for node in [*order, *(node for node in made if node not in order)]:
        if node != told.node:
            yield from _enter(job, node, told)
        yield wire.executed(job.id, node, made[node])
    if told.node is not None:
        yield told.state.finish(told.node)


def _node_of(job: Job, graph: Graph) -> str | None:
    """The node that the job's stage is about."""
    found = (node_id for node_id, node in graph.items() if stage_of(node["class_type"]) == job.stage)
    return next(found, None)
