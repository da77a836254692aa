"""A Job -> what ComfyUI says of a prompt: queue item, history entry, outputs. Pure.

`graph` is the graph that was sent; {} for a job that came in by another dialect, and has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from kinora.engine import wire
from kinora.engine.contract import node_specs
from kinora.engine.filenames import split
from kinora.gateway.comfyui.names import prefix_in, result_name
from kinora.gateway.jobs import Artifact, Job, State
from kinora.workflows import allow

Graph = Mapping[str, Any]
#: What VHS_VideoCombine calls a format, by content type, where no graph tells it.
_FORMATS: Final = {
    "video/mp4": "video/h264-mp4",
    "video/webm": "video/webm",
    "video/x-matroska": "video/ffv1-mkv",
    "video/quicktime": "video/ProRes",
    "image/gif": "image/gif",
}


def in_queue(job: Job) -> bool:
    """Whether it waits or runs. What is cancelled while it waits is gone at once, as ComfyUI's deleted prompts are."""
    return job.state is State.RUNNING or (job.state is State.QUEUED and not job.cancel_asked)


def in_history(job: Job) -> bool:
    """Whether it has ended, and was not taken out of the queue before it began."""
    return job.state.finished and not (job.state is State.CANCELLED and job.start_time is None)


def number_of(job: Job) -> float:
    """Its place in the order of submission; that of other dialects is the time, in milliseconds, as ours is."""
    number = job.note.get("number")
    given = isinstance(number, int | float) and not isinstance(number, bool)
    value = float(number) if given and number is not None else float(millis(job.submit_time))
    return int(value) if value.is_integer() else value


def client_of(job: Job) -> str | None:
    """Whose websocket hears of it."""
    client = job.note.get("client")
    return client if isinstance(client, str) else None


def queue_item(job: Job, graph: Graph) -> list[Any]:
    """As /queue shows it."""
    client = client_of(job)
    return wire.queue_item(
        number_of(job), job.id, graph, {"client_id": client} if client else {}, output_nodes(job, graph)
    )


def output_nodes(job: Job, graph: Graph) -> list[str]:
    """The nodes that give outputs; where there is no graph, those whose files there are."""
    if not graph:
        return list(dict.fromkeys(_node(artifact) for artifact in job.artifacts))
    specs = node_specs()
    return [
        node_id
        for node_id, node in graph.items()
        if (specs[node["class_type"]].is_output if node["class_type"] in specs else allow.PREFIX in node["inputs"])
    ]


def history_entry(job: Job, graph: Graph) -> dict[str, Any]:
    """What became of it, as /history shows it."""
    success = job.state is State.SUCCEEDED
    outputs = outputs_of(job, graph) if success else {}
    return wire.history_entry(queue_item(job, graph), outputs, told(job, graph), success=success)


def told(job: Job, graph: Graph) -> list[wire.Message]:
    """The messages that the history keeps."""
    messages = [] if job.start_time is None and job.state is not State.SUCCEEDED else beginning(job)
    return [*messages, ending(job, graph)]


def beginning(job: Job) -> list[wire.Message]:
    """That it has begun. No node is ever served from a cache: every job is rendered."""
    at = millis(job.start_time or job.submit_time)
    return [wire.execution_start(job.id, at), wire.execution_cached(job.id, [], at)]


def ending(job: Job, graph: Graph) -> wire.Message:
    """How it ended."""
    at = millis(job.completion_time or job.start_time or job.submit_time)
    if job.state is State.SUCCEEDED:
        return wire.execution_success(job.id, at)
    if job.state is State.CANCELLED:
        return wire.execution_interrupted(job.id, "", "", [], at)
    node_type = job.failed_node or ""
    return wire.execution_error(
        job.id,
        next((key for key, node in graph.items() if node["class_type"] == node_type), ""),
        node_type,
        executed=[],
        message=job.message,
        kind=job.reason,
        at=at,
    )


# --- outputs ----------------------------------------------------------------------------------------------------------


def outputs_of(job: Job, graph: Graph) -> dict[str, Any]:
    """Node -> list -> files, as the engine's history had them, under the names that /view knows."""
    outputs: dict[str, Any] = {}
    for artifact in job.artifacts:
        node = outputs.setdefault(_node(artifact), {})
        name = artifact.list or ("images" if artifact.content_type.startswith("image/") else "gifs")
        node.setdefault(name, []).append(_file(job, artifact, graph, name))
        if name == "images" and artifact.content_type.startswith("video/"):
            node["animated"] = [*node.get("animated", []), True]
    return {
        key: {name: node[name] for name in sorted(node, key=lambda name: name == "animated")}
        for key, node in outputs.items()
    }


def _node(artifact: Artifact) -> str:
    return artifact.node or "0"


def _file(job: Job, artifact: Artifact, graph: Graph, name: str) -> dict[str, Any]:
    subfolder, filename = result_name(job, artifact, prefix_in(graph, artifact.node))
    entry: dict[str, Any] = {"filename": filename, "subfolder": subfolder, "type": "output"}
    if name == "gifs":
        inputs = (graph.get(artifact.node) or {}).get("inputs") or {}
        known, rate = inputs.get("format"), inputs.get("frame_rate")
        guess = _FORMATS.get(artifact.content_type, f"video/{split(filename)[1].lstrip('.')}")
        entry["format"] = known if isinstance(known, str) else guess
        number = rate if isinstance(rate, int | float) else artifact.fps
        entry["frame_rate"] = float(number) if number is not None else 0.0
    return entry


def millis(time: datetime) -> int:
    """Milliseconds since 1970."""
    return round(time.timestamp() * 1000)
