"""Runs one prompt: nodes in order, results remembered, every message that ComfyUI would send.

Here lives the story that a client sees (types, order and fields of the messages). Sockets, HTTP and the queue must not
be known here, nor what a node does.
"""

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kinora.engine import wire
from kinora.engine.contract import is_link, node_specs
from kinora.engine.standin.folders import Folders
from kinora.engine.standin.order import Plan, signatures
from kinora.engine.standin.pace import Interrupted, Pace
from kinora.engine.standin.prompts import QueuedPrompt, Result
from kinora.engine.standin.registry import NODES
from kinora.engine.standin.values import Context, NodeError, Output

log = logging.getLogger("kinora.standin")

Send = Callable[[str, dict[str, Any], str | None], None]
"""(message type, data, client id or None for everybody)."""


@dataclass
class _Cached:
    values: list[list[Any]]  # one list an output, usually of one value
    ui: dict[str, Any] | None


class Executor:
    """Executes prompts one after another; `current_node` is told to a socket that takes another's place."""

    def __init__(self, folders: Folders, pace: Pace, send: Send, *, metadata: bool = True) -> None:
        self._folders = folders
        self._pace = pace
        self._send = send
        self._metadata = metadata
        self._cache: dict[str, _Cached] = {}
        self.client_id: str | None = None
        self.current_node: str | None = None

    def reset(self) -> None:
        """Forgets every result, as POST /free with free_memory asks."""
        self._cache = {}

    def execute(self, prompt: QueuedPrompt) -> Result:
        """Runs a prompt to its end; never raises for what a node does."""
        self._pace.forget_interrupt()
        self.client_id = prompt.extra_data.get("client_id")
        run = _Run(self, prompt, self._folders, self._pace, self._metadata)
        try:
            return run.execute()
        finally:
            self.current_node = None

    def finished(self, prompt: QueuedPrompt) -> None:
        """Tells the client that nothing runs any more; comes after the queue has announced its change."""
        if self.client_id is not None:
            self._send(*wire.executing(prompt.prompt_id, None), self.client_id)
        self.client_id = None

    def send(self, kind: str, data: dict[str, Any]) -> None:
        """A message to the client of the running prompt, or to everybody where it gave no id."""
        self._send(kind, data, self.client_id)

    def cached(self, key: str) -> _Cached | None:
        """The remembered result under a signature."""
        return self._cache.get(key)

    def remember(self, key: str, result: _Cached) -> None:
        """Remembers a result."""
        self._cache[key] = result

    def keep_only(self, keys: set[str]) -> None:
        """Drops what the prompt that starts cannot use, as ComfyUI's classic cache does."""
        self._cache = {key: result for key, result in self._cache.items() if key in keys}


class _Run:
    def __init__(self, executor: Executor, prompt: QueuedPrompt, folders: Folders, pace: Pace, metadata: bool) -> None:
        self._executor = executor
        self._prompt = prompt
        self._graph: Mapping[str, Any] = prompt.graph
        self._folders = folders
        self._pace = pace
        self._metadata = metadata
        self._id = prompt.prompt_id
        self._progress = wire.ProgressState(prompt.prompt_id)
        self._messages: list[wire.Message] = []
        self._executed: list[str] = []
        self._shown: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}

    def execute(self) -> Result:
        self._note(wire.execution_start(self._id, _now()))
        self._keys = signatures(self._graph, self._fingerprint)
        self._executor.keep_only(set(self._keys.values()))
        cached = [node_id for node_id in self._graph if self._cached(node_id) is not None]
        self._note(wire.execution_cached(self._id, cached, _now()))
        plan = Plan(self._graph, self._prompt.outputs, cached)
        success = True
        while success and (node_id := plan.next()) is not None:
            success = self._node(node_id)
            plan.done(node_id)
        if success:
            self._note(wire.execution_success(self._id, _now()))
        return Result(dict(self._shown), self._messages, success)

    def _note(self, message: wire.Message) -> None:
        """Tell it, and keep it for the history."""
        self._messages.append(message)
        self._executor.send(*message)

    def _cached(self, node_id: str) -> _Cached | None:
        return self._executor.cached(self._keys[node_id])

    def _node(self, node_id: str) -> bool:
        cached = self._cached(node_id)
        if cached is not None:
            self._show(node_id, cached.ui)
            self._state(node_id, 1, 1, "finished")
            return True
        started = time.monotonic()
        self._executor.current_node = node_id
        self._state(node_id, 0.0, 1.0, "running")
        self._executing(node_id)
        try:
            result = self._results(node_id)
        except Interrupted:
            self._note(wire.execution_interrupted(self._id, node_id, self._class(node_id), self._executed, _now()))
            return False
        except Exception as exc:  # noqa: BLE001 - whatever a node does, the next prompt must run
            self._failed(node_id, exc)
            return False
        self._pace.node(started)
        self._executor.remember(self._keys[node_id], result)
        self._executed.append(node_id)
        self._show(node_id, result.ui)
        self._executor.send(*self._progress.finish(node_id))
        return True

    def _executing(self, node_id: str) -> None:
        if self._executor.client_id is not None:
            self._executor.send(*wire.executing(self._id, node_id))

    def _show(self, node_id: str, ui: dict[str, Any] | None) -> None:
        if ui is None:
            return
        self._shown[node_id] = ui
        if self._executor.client_id is not None:
            self._executor.send(*wire.executed(self._id, node_id, ui))

    def _state(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._executor.send(*self._progress.set(node_id, value, maximum, state))

    def _step(self, node_id: str, value: int, maximum: int) -> None:
        self._pace.boundary()
        self._state(node_id, value, maximum, "running")
        self._executor.send(*wire.progress(self._id, node_id, value, maximum))

    def _class(self, node_id: str) -> str:
        return str(self._graph[node_id]["class_type"])

    def _results(self, node_id: str) -> _Cached:
        implementation = NODES.get(self._class(node_id))
        if implementation is None:
            raise NodeError(f"the stand-in does not execute {self._class(node_id)}", "NotImplementedError")
        self._pace.boundary()
        inputs = self._inputs(node_id)
        context = Context(
            folders=self._folders,
            pace=self._pace,
            progress=lambda value, maximum: self._step(node_id, value, maximum),
            graph=self._graph,
            metadata=self._metadata,
        )
        if implementation.lists:
            return _collected([implementation.run(context, **inputs)], lists=True)
        count = max((len(values) for values in inputs.values()), default=1)
        outputs = [
            implementation.run(context, **{name: values[min(at, len(values) - 1)] for name, values in inputs.items()})
            for at in range(count)
        ]
        return _collected(outputs, lists=False)

    def _inputs(self, node_id: str) -> dict[str, list[Any]]:
        inputs: dict[str, list[Any]] = {}
        for name, value in self._graph[node_id]["inputs"].items():
            if not is_link(value):
                inputs[name] = [value]
            elif (source := self._cached(value[0])) is not None:
                inputs[name] = source.values[value[1]]
        return inputs

    def _fingerprint(self, class_type: str, values: Mapping[str, Any]) -> str:
        """The state of the uploaded files that a node names: the same name may hold another picture now."""
        spec = node_specs().get(class_type)
        if spec is None:
            return ""
        states = []
        for name, wanted in spec.inputs.items():
            if wanted.files == ("input",) and isinstance(values.get(name), str):
                try:
                    status = self._folders.upload(values[name]).stat()
                except (OSError, ValueError):
                    continue
                states.append(f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}")
        return ",".join(states)

    def _failed(self, node_id: str, exc: Exception) -> None:
        kind = exc.kind if isinstance(exc, NodeError) else type(exc).__name__
        log.warning("node %s (%s) failed: %s: %s", node_id, self._class(node_id), kind, exc)
        self._note(
            wire.execution_error(
                self._id,
                node_id,
                self._class(node_id),
                executed=self._executed,
                message=f"{exc}\n",
                kind=kind,
                traceback=traceback.format_tb(exc.__traceback__),
                inputs={key: [_shown(value) for value in given] for key, given in self._inputs(node_id).items()},
                outputs=self._graph,
                at=_now(),
            )
        )


def _now() -> int:
    return int(time.time() * 1000)


def _collected(outputs: list[Output], lists: bool) -> _Cached:
    slots = max((len(output.values) for output in outputs), default=0)
    if lists:
        values = [list(value) for value in outputs[0].values]
    else:
        values = [[output.values[slot] for output in outputs] for slot in range(slots)]
    shown = [output.ui for output in outputs if output.ui is not None]
    if not shown:
        return _Cached(values, None)
    return _Cached(values, {key: [entry for ui in shown for entry in ui[key]] for key in shown[0]})


def _shown(value: Any) -> Any:
    """An input as an error message shows it: plain values as they are, everything else by its kind and shape."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    shape = getattr(value, "shape", None)
    return f"<{type(value).__name__} {tuple(shape)}>" if shape is not None else f"<{type(value).__name__}>"
