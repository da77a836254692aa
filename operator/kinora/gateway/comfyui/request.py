"""The body of POST /prompt -> a Submission, or the refusal that ComfyUI would answer. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kinora.engine.contract import node_specs
from kinora.engine.filenames import annotated
from kinora.gateway.comfyui.errors import refused
from kinora.gateway.comfyui.judge import MAX_INLINE, Judged, checked_shape, text_of
from kinora.gateway.comfyui.names import BadName, upload_path
from kinora.gateway.names import is_id
from kinora.gateway.service import Submission
from kinora.recipes.graph import Graph
from kinora.workflows import allow

NAME: Final = "comfyui"
MAX_CLIENT: Final = 128  # characters of a client_id
_MAX_FILES: Final = 16  # of spec.workflow.files
_MAX_NUMBER: Final = 2**53


@dataclass(frozen=True)
class Asked:
    """What a client asks for. `number`: its place in the queue as the client gave it; `front`: before all others."""

    graph: Graph
    prompt_id: str | None
    client_id: str | None
    number: float | None
    front: bool


@dataclass(frozen=True)
class File:
    """What a name in a graph leads to: a `Source` of the VideoJob, and its hash where that is known."""

    source: Mapping[str, Any]
    sha256: str | None = None


def asked(body: bytes) -> Asked:
    """What a body says. Raises PromptRefused."""
    data = json_object(body)
    if "prompt" not in data:
        raise refused("no_prompt", "No prompt provided", "No prompt provided")
    return Asked(
        graph=checked_shape(data["prompt"]),
        prompt_id=_prompt_id(data.get("prompt_id")),
        client_id=_client_id(data.get("client_id")),
        number=_number(data.get("number")),
        front=bool(data.get("front")),
    )


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises PromptRefused."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise refused("invalid_json", "The body is not JSON") from None
    if not isinstance(data, dict):
        raise refused("invalid_json", "The body is not a JSON object")
    return data


def _prompt_id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not is_id(value):
        details = "allowed: a UUID in canonical form, lower case, such as 6f2b4c1e-0000-4000-8000-000000000001"
        raise refused("invalid_prompt_id", "prompt_id is no UUID", details, input_name="prompt_id")
    return value


def _client_id(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else str(value)
    if len(text) > MAX_CLIENT or not text.isprintable():
        details = f"allowed: at most {MAX_CLIENT} characters, printable ones"
        raise refused("invalid_client_id", "client_id cannot be used", details, input_name="client_id")
    return text


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not abs(number) <= _MAX_NUMBER:
        details = f"allowed: a number, at most {_MAX_NUMBER}"
        raise refused("invalid_number", "number is no number", details, input_name="number")
    return number


# --- files ------------------------------------------------------------------------------------------------------------


def file_names(graph: Graph) -> set[str]:
    """Every text in the graph that is to be the name of an uploaded file."""
    found = set()
    for node in graph.values():
        spec = node_specs().get(node["class_type"])
        for name, value in node["inputs"].items():
            wanted = spec.inputs.get(name) if spec is not None else None
            if isinstance(value, str) and (allow.is_file(wanted) or (spec is None and _may_be_file(name, value))):
                found.add(value)
    return found


def _may_be_file(name: str, value: str) -> bool:
    """In a class that no contract describes any text may name a file; what is none of the tenant's stays a text."""
    return name != allow.PREFIX and "." in value and len(value) <= 300 and not value.startswith(".")


def place_of(name: str) -> tuple[str, str] | None:
    """(type, path) of a name such as "a/b.png [output]"; None for what can be no file's name."""
    path, kind = annotated(name)
    try:
        return kind or "input", upload_path("", path)
    except BadName:
        return None


# --- the job ----------------------------------------------------------------------------------------------------------


def submission(
    request: Asked, judged: Judged, files: Mapping[str, File], *, owner: str, now: int, body: bytes
) -> tuple[Submission, float]:
    """The job of a graph that runs, and its number. `files`: by name in the graph; `now`: milliseconds since 1970.

    A graph that is too long for the job lies in the store by its hash, below `owner` (the tenant's digest): then
    `Submission.graph` is its text. Raises PromptRefused for what a job cannot hold.
    """
    graph, declared = _with_files(judged.graph, files)
    number = float(request.number) if request.number is not None else (-now if request.front else now)
    text = text_of(graph)
    is_long = len(text) > MAX_INLINE
    workflow: dict[str, Any] = {"upload": _place(owner, text)} if is_long else {"inline": text}
    if declared:
        workflow["files"] = declared
    spec = {"modelServerName": judged.server.name, "workflow": workflow}
    note: dict[str, Any] = {"number": number}
    if request.client_id is not None:
        note["client"] = request.client_id
    made = Submission(
        dialect=NAME,
        spec=spec,
        note=note,
        id=request.prompt_id,
        body=body,
        graph=text if is_long else None,
        order=number if request.number is not None or request.front else None,
    )
    return made, number


def _place(owner: str, text: str) -> dict[str, str]:
    """Where the store keeps a text of this tenant: as any upload, by its content."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"key": f"{owner}/{sha256}", "sha256": sha256}


def _with_files(graph: Graph, files: Mapping[str, File]) -> tuple[Graph, list[dict[str, Any]]]:
    """The graph with one spelling of each file's name ("a//b.png" is a/b.png), and spec.workflow.files."""
    plain = {name: _plain(name) for name in sorted(file_names(graph)) if name in files}
    declared: dict[str, dict[str, Any]] = {}
    for name, spelt in plain.items():
        file = files[name]
        pin = {"sha256": file.sha256} if file.sha256 else {}
        declared[spelt] = {"name": spelt, "source": dict(file.source), **pin}
    if len(declared) > _MAX_FILES:
        raise refused("too_many_files", "The prompt reads too many files", f"{len(declared)}; allowed: {_MAX_FILES}")
    renamed = {
        key: {**node, "inputs": {name: _renamed(node, name, value, plain) for name, value in node["inputs"].items()}}
        for key, node in graph.items()
    }
    return renamed, list(declared.values())


def _renamed(node: Mapping[str, Any], name: str, value: Any, plain: Mapping[str, str]) -> Any:
    spec = node_specs().get(node["class_type"])
    reads = spec is None or allow.is_file(spec.inputs.get(name))
    return plain[value] if reads and isinstance(value, str) and value in plain else value


def _plain(name: str) -> str:
    """The name in one spelling; a type behind it stays, since /history shows a graph that can be sent again."""
    path, kind = annotated(name)
    return upload_path("", path) + (f" [{kind}]" if kind else "")
