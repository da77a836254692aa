"""ComfyUI's words, made: websocket messages, queue and history entries. Pure; messages.py reads what is made here.

The stand-in says them of what it executes, the gateway of what it knows of a job. Keys stand in ComfyUI's order. Facts:
recorded exchanges of ComfyUI 0.3.64. Times are milliseconds since 1970.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Data: TypeAlias = dict[str, Any]
Message: TypeAlias = tuple[str, Data]
"""(type, data) of one websocket message; the history keeps some of them."""


def queue_info(remaining: int) -> Data:
    """The answer of GET /prompt, and the heart of every `status`."""
    return {"exec_info": {"queue_remaining": remaining}}


def status(remaining: int, sid: str | None = None) -> Message:
    """How many prompts run or wait. `sid` is told once, when a client connects."""
    return "status", {"status": queue_info(remaining), **({"sid": sid} if sid is not None else {})}


def execution_start(prompt_id: str, at: int) -> Message:
    """A prompt has begun."""
    return "execution_start", {"prompt_id": prompt_id, "timestamp": at}


def execution_cached(prompt_id: str, nodes: Sequence[str], at: int) -> Message:
    """These nodes need not run; told of every prompt."""
    return "execution_cached", {"nodes": list(nodes), "prompt_id": prompt_id, "timestamp": at}


def execution_success(prompt_id: str, at: int) -> Message:
    """All nodes of a prompt have run."""
    return "execution_success", {"prompt_id": prompt_id, "timestamp": at}


def execution_interrupted(prompt_id: str, node_id: str, node_type: str, executed: Iterable[str], at: int) -> Message:
    """A prompt was stopped in this node."""
    where = {"prompt_id": prompt_id, "node_id": node_id, "node_type": node_type}
    return "execution_interrupted", {**where, "executed": list(executed), "timestamp": at}


def execution_error(
    prompt_id: str,
    node_id: str,
    node_type: str,
    *,
    executed: Iterable[str],
    message: str,
    kind: str,
    at: int,
    traceback: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
    outputs: Iterable[str] = (),
) -> Message:
    """A node of a prompt failed. `inputs` and `outputs` are what the engine held in that moment."""
    return "execution_error", {
        "prompt_id": prompt_id,
        "node_id": node_id,
        "node_type": node_type,
        "executed": list(executed),
        "exception_message": message,
        "exception_type": kind,
        "traceback": list(traceback),
        "current_inputs": dict(inputs or {}),
        "current_outputs": list(outputs),
        "timestamp": at,
    }


def executing(prompt_id: str, node: str | None) -> Message:
    """A node has begun; None: nothing runs any more."""
    if node is None:
        return "executing", {"node": None, "prompt_id": prompt_id}
    return "executing", {"node": node, "display_node": node, "prompt_id": prompt_id}


def executing_now(node: str) -> Message:
    """What runs in the moment: told to a socket that takes another one's place."""
    return "executing", {"node": node}


def executed(prompt_id: str, node: str, output: Mapping[str, Any]) -> Message:
    """An output node has run, and this is what it made."""
    return "executed", {"node": node, "display_node": node, "output": dict(output), "prompt_id": prompt_id}


def progress(prompt_id: str, node: str, value: int, maximum: int) -> Message:
    """`value` of `maximum` steps of a node are done."""
    return "progress", {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node}


class ProgressState:
    """The running sum of a prompt's nodes: every one that has started, in order."""

    def __init__(self, prompt_id: str) -> None:
        self._prompt_id = prompt_id
        self._nodes: dict[str, Data] = {}

    def set(self, node: str, value: float, maximum: float, state: str) -> Message:
        """Note one node's progress; the message with all of them."""
        self._nodes[node] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node,
            "prompt_id": self._prompt_id,
            "display_node_id": node,
            "parent_node_id": None,
            "real_node_id": node,
        }
        nodes = {key: dict(entry) for key, entry in self._nodes.items()}
        return "progress_state", {"prompt_id": self._prompt_id, "nodes": nodes}

    def finish(self, node: str) -> Message:
        """The node is done, with as many steps as it said."""
        maximum = self._nodes[node]["max"]
        return self.set(node, maximum, maximum, "finished")


def queue_item(
    number: float, prompt_id: str, graph: Mapping[str, Any], extra: Mapping[str, Any], outputs: Sequence[str]
) -> list[Any]:
    """A prompt as /queue and /history show it. `outputs`: the output nodes that run."""
    return [number, prompt_id, graph, extra, list(outputs)]


def history_entry(
    item: list[Any], outputs: Mapping[str, Any], messages: Iterable[Message], *, success: bool
) -> dict[str, Any]:
    """What became of a prompt. `outputs`: by node, what it made."""
    told = {"status_str": "success" if success else "error", "completed": success}
    return {
        "prompt": item,
        "outputs": dict(outputs),
        "status": {**told, "messages": [list(message) for message in messages]},
        "meta": {
            node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node} for node in outputs
        },
    }
