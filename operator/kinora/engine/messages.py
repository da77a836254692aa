"""ComfyUI's JSON (history entries, queue listings, websocket messages) turned into the words of base.py. Pure.

Facts: recorded exchanges of ComfyUI 0.3.64. Unknown message types and lists are ignored, never an error: engines grow.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kinora.engine.base import (
    EngineError,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Failed,
    Interrupted,
    NodeExecuted,
    NodesCached,
    NodeStarted,
    Outcome,
    OutputFile,
    Progress,
    PromptEvent,
    Succeeded,
)

MESSAGE_LIMIT = 500  # characters; a status message holds at most 1,024
_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?[/\\](?:[\w.@+~-]+[/\\])+[\w.@+~-]*")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_OOM = ("out of memory", "outofmemoryerror", "allocation on device")
_CUDA_FAULT = (
    "device-side assert", "illegal memory access", "illegal instruction", "misaligned address", "unspecified launch",
    "cuda error", "cudnn_status_execution_failed", "uncorrectable ecc", "acceleratorerror", "device lost",
)  # fmt: skip


def outcome_of(entry: Mapping[str, Any]) -> Outcome:
    """The outcome that a history entry tells. An entry alone says nothing: errors and interrupts have one too."""
    status = entry.get("status") or {}
    for kind, data in reversed(_messages(status)):
        if kind == "execution_interrupted":
            return Interrupted()
        if kind == "execution_error":
            return Failed(engine_error(data))
    if status.get("status_str") == "success" and status.get("completed"):
        return Succeeded(tuple(output_files(entry.get("outputs") or {})))
    message = f"the engine ended the prompt with status {status.get('status_str')!r} and no reason"
    return Failed(EngineError("", "", "", message))


def _messages(status: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(message[0], message[1]) for message in status.get("messages") or [] if len(message) == 2]


def output_files(outputs: Mapping[str, Any]) -> Iterator[OutputFile]:
    """Every result in the outputs of a history entry: any list, any name of it, type "output" only."""
    for node, lists in outputs.items():
        if not isinstance(lists, Mapping):
            continue
        for name, entries in lists.items():
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, Mapping) and entry.get("filename") and entry.get("type", "output") == "output":
                    yield OutputFile(
                        node=str(node),
                        list=str(name),
                        filename=str(entry["filename"]),
                        subfolder=str(entry.get("subfolder") or ""),
                        type="output",
                        format=entry.get("format"),
                    )


def engine_error(data: Mapping[str, Any]) -> EngineError:
    """An execution_error message without its traceback, its inputs (prompts, tensors) and any path."""
    kind = str(data.get("exception_type", ""))
    text = str(data.get("exception_message", ""))
    signs = f"{kind} {text}".lower()
    oom = any(sign in signs for sign in _OOM)
    return EngineError(
        node_id=str(data.get("node_id", "")),
        class_type=str(data.get("node_type", "")),
        exception_type=kind,
        message=sanitised(text),
        is_oom=oom,
        is_cuda_fault=not oom and any(sign in signs for sign in _CUDA_FAULT),
    )


def sanitised(text: str) -> str:
    """An engine's words as a person may see them: first paragraph, one line, no path or URL, at most 500 characters."""
    words = text.split("Traceback (most recent call last)", maxsplit=1)[0]
    words = _PATH.sub("<path>", _URL.sub("<url>", words))
    words = " ".join(words.split())
    return words if len(words) <= MESSAGE_LIMIT else words[: MESSAGE_LIMIT - 3] + "..."


def refusal_message(body: Mapping[str, Any]) -> str:
    """One line out of the answer to a refused graph: each node's complaints, or the error as a whole."""
    node_errors = body.get("node_errors")
    if isinstance(node_errors, Mapping) and node_errors:
        return sanitised("; ".join(_complaints(node_errors)))
    error = body.get("error")
    if isinstance(error, Mapping):
        parts = (str(error.get("message", "")), str(error.get("details", "")))
        return sanitised(": ".join(part for part in parts if part))
    return sanitised(str(error))


def _complaints(node_errors: Mapping[str, Any]) -> Iterator[str]:
    for node_id, entry in node_errors.items():
        for error in entry.get("errors", ()):
            yield f"node {node_id} ({entry.get('class_type')}): {error.get('message')}: {error.get('details')}"


def listed_ids(items: Iterable[Any]) -> set[str]:
    """The prompt ids in a list of GET /queue."""
    return {str(item[1]) for item in items if isinstance(item, list) and len(item) > 1}


def event_of(message: Mapping[str, Any]) -> PromptEvent | None:
    """The event that a websocket message tells, or None for one that tells none (status, previews, new kinds)."""
    kind, data = message.get("type"), message.get("data")
    if not isinstance(data, Mapping) or not data.get("prompt_id"):
        return None
    prompt_id, node = str(data["prompt_id"]), data.get("node")
    match kind:
        case "execution_start":
            return ExecutionStart(prompt_id)
        case "execution_cached":
            return NodesCached(prompt_id, _ids(data.get("nodes")))
        case "executing" if node is not None:
            return NodeStarted(prompt_id, str(node))
        case "progress" if node is not None:
            return Progress(prompt_id, str(node), int(data.get("value", 0)), int(data.get("max", 0)))
        case "executed" if node is not None:
            return NodeExecuted(prompt_id, str(node), data.get("output") or {})
        case "execution_success":
            return ExecutionSuccess(prompt_id)
        case "execution_error":
            return ExecutionError(prompt_id, engine_error(data))
        case "execution_interrupted":
            return ExecutionInterrupted(prompt_id, str(data.get("node_id", "")))
    return None


def _ids(nodes: Any) -> tuple[str, ...]:
    return tuple(str(node) for node in nodes) if isinstance(nodes, list) else ()
