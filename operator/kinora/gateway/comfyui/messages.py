"""Changes of jobs -> the websocket messages of one client, in ComfyUI's order. Pure; one Follow a socket.

Two tell of a render: the engine itself, node by node, where its stream can be had (`heard`), and the job's status. A
status tells less: its stage names one node of the graph (the first of that kind), its step and steps are that node's
progress. While the engine speaks the status is quiet; where it falls silent the status goes on, and never back. How a
prompt ends, and what it made, is the status's to say. What ended while no socket was there is not told again, as
ComfyUI does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from kinora.engine import wire
from kinora.engine.live import Cached, Caught, Entered, LiveEvent, Stepped
from kinora.engine.stages import stage_of
from kinora.gateway.comfyui.answer import beginning, client_of, ending, in_queue, output_nodes, outputs_of
from kinora.gateway.jobs import Job, State

Graph = Mapping[str, Any]
MAX_ENDED: Final = 5000  # ends that a socket remembers, one by one


@dataclass
class _Told:
    """What a client has heard of one job. `started` and `cached`: that these two messages are out.

    Of one attempt: `done`, the nodes that the engine has left, or need not run; `guess`, that the present one is the
    status's; `spoken`, that the engine has said something; `silent`, that it repeats what is no news; `now`, the last
    of that.
    """

    state: wire.ProgressState
    attempt: int = 0
    nodes: Collection[str] = ()
    node: str | None = None
    step: tuple[int, int] | None = None
    started: bool = False
    cached: bool = False
    done: set[str] = field(default_factory=set)
    guess: bool = False
    spoken: bool = False
    silent: bool = False
    now: Entered | Stepped | None = None

    def renew(self, job: Job) -> None:
        """Another attempt renders the prompt anew, from its first node; its beginning is not told twice."""
        self.state, self.attempt = wire.ProgressState(job.id), job.attempt
        self.node = self.step = self.now = None
        self.done = set()
        self.guess = self.spoken = self.silent = False


class Follow:
    """What one socket has heard. `jobs`: all of the tenant's when it connects."""

    def __init__(self, client_id: str, jobs: Iterable[Job]) -> None:
        self.client_id = client_id
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
        mine = client_of(job) == self.client_id and not self._is_over(job)
        return mine and (job.state is State.RUNNING or job.state.finished)

    def greeting(self, running: Mapping[str, tuple[Job, Graph]]) -> list[wire.Message]:
        """What is said at once. `running`: this client's jobs that run already, by id."""
        messages = [wire.status(len(self._waiting), self.client_id)]
        for job, graph in running.values():
            told = self._of(job)
            told.started = told.cached = told.silent = told.guess = True
            told.nodes = frozenset(graph)
            node = _node_of(job, graph)
            if node is not None:
                told.node = node
                told.state.set(node, 0.0, 1.0, "running")
                messages.append(wire.executing_now(node))
        return messages

    def changed(self, job: Job, graph: Graph, *, quiet: bool = False) -> list[wire.Message]:
        """What is said of a job as it is now. `graph`: {} where `needs_graph` is false.

        `quiet`: the engine itself tells of the render, or is about to.
        """
        if self._is_over(job):
            return []
        before = self._waiting.pop(job.id, None)
        if in_queue(job):
            self._waiting[job.id] = job.state
        if job.state.finished:
            self._note_end(job)
        mine = client_of(job) == self.client_id
        moved = before is not (job.state if in_queue(job) else None)
        if not mine:
            return [self._status()] if moved else []
        return list(self._mine(job, graph, moved, quiet))

    def heard(self, job: Job, events: Sequence[LiveEvent]) -> list[wire.Message]:
        """What is said of what the engine says of the job's present attempt."""
        told = self._told.get(job.id)
        if told is None or told.attempt != job.attempt or job.id in self._ended:
            return []
        return [message for event in events for message in _heard(job, told, event)]

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

    def _mine(self, job: Job, graph: Graph, moved: bool, quiet: bool) -> Iterator[wire.Message]:
        told = self._of(job)
        if job.state is State.RUNNING:
            told.nodes = told.nodes or frozenset(graph)
            if told.attempt != job.attempt:
                told.renew(job)
        began = job.state is State.RUNNING or job.start_time is not None or job.state is State.SUCCEEDED
        if moved and not job.state.finished:
            yield self._status()
        if began and not told.started:
            told.started = True
            yield beginning(job)[0]
        if job.state is State.RUNNING and quiet:
            return
        if began:
            yield from _cached(job, told, ())
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
        return self._told.setdefault(job.id, _Told(wire.ProgressState(job.id), job.attempt))

    def _status(self) -> wire.Message:
        return wire.status(len(self._waiting))


def _when(job: Job) -> datetime:
    return job.completion_time or job.submit_time


def _cached(job: Job, told: _Told, nodes: Sequence[str]) -> Iterator[wire.Message]:
    """Which nodes need not run; said once. Only the engine knows of any."""
    if not told.cached:
        told.cached = True
        _, (kind, data) = beginning(job)
        yield kind, {**data, "nodes": list(nodes)}


def _running(job: Job, graph: Graph, told: _Told) -> Iterator[wire.Message]:
    """What the status says. It is seconds behind the engine: where that has spoken, what it said before is no news."""
    told.silent = told.silent or told.spoken
    node = _node_of(job, graph)
    if node is None or node in told.done:
        return
    if node != told.node:
        yield from _enter(job, node, told)
        told.silent = told.guess = True
    step = (job.step, job.steps) if job.step is not None and job.steps else None
    if step is None or step == told.step or (told.spoken and told.step is not None and step <= told.step):
        return
    yield from _step(job, told, *step)


def _heard(job: Job, told: _Told, event: LiveEvent) -> Iterator[wire.Message]:
    """What the engine says. Nodes that are not of the client's graph, and those that it has left, are not told of."""
    told.spoken = True
    match event:
        case Cached(nodes=nodes):
            known = [node for node in nodes if node in told.nodes]
            for node in known:
                told.state.set(node, 1.0, 1.0, "finished")
                told.done.add(node)
            yield from _cached(job, told, known)
        case Entered(node=node) if node in told.nodes and node not in told.done:
            if told.silent:
                _pass_by(told, event)
            elif node != told.node:
                yield from _cached(job, told, ())
                yield from _enter(job, node, told)
            told.guess = told.guess and told.silent
        case Stepped(node=node, value=value, max=maximum):
            if told.silent and isinstance(told.now, Entered | Stepped) and told.now.node == node:
                told.now = event
            elif not told.silent and node == told.node and (value, maximum) != told.step:
                yield from _step(job, told, value, maximum)
        case Caught():
            yield from _cached(job, told, ())
            yield from _caught_up(job, told)


def _pass_by(told: _Told, event: Entered) -> None:
    """A node that began before: what was before it is done, and nobody is told."""
    before = told.now.node if told.now is not None else None
    if before is not None and before not in (told.node, event.node):
        told.state.set(before, 1.0, 1.0, "finished")
        told.done.add(before)
    told.now = event


def _caught_up(job: Job, told: _Told) -> Iterator[wire.Message]:
    """The engine has said where it is: the client's view moves there, and hears everything from now on."""
    now, told.now, told.silent = told.now, None, False
    if now is None:
        return
    if now.node != told.node:
        yield from _enter(job, now.node, told)
    told.guess = False
    if isinstance(now, Stepped) and (now.value, now.max) != told.step:
        yield from _step(job, told, now.value, now.max)


def _step(job: Job, told: _Told, value: int, maximum: int) -> Iterator[wire.Message]:
    assert told.node is not None
    told.step = (value, maximum)
    yield told.state.set(told.node, value, maximum, "running")
    yield wire.progress(job.id, told.node, value, maximum)


def _enter(job: Job, node: str, told: _Told) -> Iterator[wire.Message]:
    """The client's view moves on to another node."""
    if told.node is not None:
        yield told.state.finish(told.node)
        if not told.guess:
            told.done.add(told.node)
    told.node, told.step, told.guess = node, None, False
    yield told.state.set(node, 0.0, 1.0, "running")
    yield wire.executing(job.id, node)


def _finished_nodes(job: Job, graph: Graph, told: _Told) -> Iterator[wire.Message]:
    made = outputs_of(job, graph)
    order = [node for node in output_nodes(job, graph) if node in made]
    for node in [*order, *(node for node in made if node not in order)]:
        if node != told.node and node not in told.done:
            yield from _enter(job, node, told)
        yield wire.executed(job.id, node, made[node])
    if told.node is not None:
        yield told.state.finish(told.node)


def _node_of(job: Job, graph: Graph) -> str | None:
    """The node that the job's stage is about."""
    found = (node_id for node_id, node in graph.items() if stage_of(node["class_type"]) == job.stage)
    return next(found, None)
