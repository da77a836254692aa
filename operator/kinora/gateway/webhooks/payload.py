"""What a webhook says: one JSON document, a function of the finished job alone, so that every attempt sends the same.

Its fields are documented (docs/webhooks.md) and only ever added to. No prompt, no graph, no input; links to videos are
asked for at the gateway by whoever may have them, and are not sent around.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from kinora.api.base import MESSAGE_LIMIT
from kinora.api.reasons import Phase
from kinora.api.transitions import clip, phase_of
from kinora.gateway.names import id_of

LIMIT: Final = 20 * 1024  # bytes
_TYPES: Final = {
    Phase.SUCCEEDED: "video_job.succeeded",
    Phase.FAILED: "video_job.failed",
    Phase.CANCELLED: "video_job.cancelled",
}
_ARTIFACT: Final = (
    "uri", "contentType", "bytes", "sha256", "width", "height", "frames", "fps", "durationSeconds", "filename",
)  # fmt: skip


def payload(job: Mapping[str, Any]) -> bytes:
    """The body, UTF-8, at most LIMIT bytes. ValueError for a job that has not ended."""
    metadata, status = job["metadata"], job.get("status") or {}
    phase = phase_of(status)
    if phase not in _TYPES:
        raise ValueError(f"status.phase is {phase}; allowed: {', '.join(_TYPES)}")
    data = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "id": id_of(metadata["name"]) or metadata["uid"],
        "phase": str(phase),
        "reason": status.get("reason") or "",
        "message": clip(status.get("message") or "", MESSAGE_LIMIT),
        "submitTime": status.get("submitTime") or metadata.get("creationTimestamp"),
        "startTime": status.get("startTime"),
        "completionTime": status.get("completionTime"),
        "artifacts": [_artifact(one) for one in status.get("artifacts") or ()],
        "artifactsOmitted": 0,
    }
    document = {"type": _TYPES[phase], "timestamp": data["completionTime"] or data["submitTime"], "data": data}
    while len(body := _encode(document)) > LIMIT and data["artifacts"]:
        data["artifacts"].pop()
        data["artifactsOmitted"] += 1
    return body


def _artifact(one: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: one.get(name) for name in _ARTIFACT}
    uri = str(one.get("uri") or "")
    if uri.lower().startswith(("http:", "https:")):  # no store writes such a one; a signature would be in its query
        told["uri"] = uri.partition("?")[0].partition("#")[0]
    return told


def _encode(document: Mapping[str, Any]) -> bytes:
    """UTF-8 as it is, no spaces; lone surrogates (no API server stores any) become question marks."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
