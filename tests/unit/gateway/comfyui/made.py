"""Tenants' ModelServers, jobs and prompts for the tests of this folder."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kinora.catalogue.load import load_catalogue
from kinora.gateway.admit import admit
from kinora.gateway.comfyui.judge import judge, of_faults
from kinora.gateway.comfyui.request import Asked, File, asked, file_names, submission
from kinora.gateway.comfyui.servers import Server, servers_of
from kinora.gateway.errors import InvalidInput
from kinora.gateway.jobs import Job, job_of
from kinora.gateway.service import Submission

Graph = dict[str, Any]
ID = "6f2b4c1e-0000-4000-8000-000000000001"
VACE, I2V = "wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p"
CLIENT = "a-client"
OWNER = "0123456789"


def server(
    name: str = "vace", model: str = VACE, classes: Sequence[str] | None = None, **status: Any
) -> dict[str, Any]:
    """A ModelServer as the cluster has it."""
    spec = {"model": model, **({"allowedNodeClasses": list(classes)} if classes else {})}
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def servers(*objects: Mapping[str, Any]) -> list[Server]:
    """What the dialect makes of them; one VACE server where none is given."""
    return servers_of(objects or [server()], load_catalogue())


def body(graph: Any, **more: Any) -> bytes:
    """A POST /prompt."""
    return json.dumps({"prompt": graph, **more}).encode()


def submitted(
    graph: Any,
    *objects: Mapping[str, Any],
    files: Mapping[str, File] | None = None,
    now: int = 1000,
    **more: Any,
) -> tuple[Submission, float]:
    """What would be made of the prompt. Raises PromptRefused."""
    return admitted(asked(body(graph, **more)), *objects, files=files, now=now)


def admitted(
    request: Asked, *objects: Mapping[str, Any], files: Mapping[str, File] | None = None, now: int = 1000
) -> tuple[Submission, float]:
    """What would be made of a request, held to what the service holds every job to. Raises PromptRefused."""
    there = {name: file for name, file in (files or {}).items() if name in file_names(request.graph)}
    judged = judge(request.graph, servers(*objects), there)
    made, number = submission(request, judged, there, owner=OWNER, now=now, body=b"")
    try:
        admit(made.spec, load_catalogue(), objects or [server()], made.graph)
    except InvalidInput as error:
        raise of_faults(error.faults, judged.graph) from None
    return made, number


def job(phase: str = "Pending", *, id_: str = ID, note: Mapping[str, Any] | None = None, **status: Any) -> Job:
    """A job of this dialect. `status`: fields of the VideoJob's status."""
    kept = {"note": {"number": 3, "client": CLIENT} if note is None else note, "request": "", "model": VACE}
    made = job_of(
        {
            "metadata": {
                "name": f"gw-0123456789-{id_}",
                "namespace": "media",
                "uid": f"uid-{id_}",
                "creationTimestamp": "2026-11-21T10:00:00Z",
                "resourceVersion": "1",
                "labels": {"kinora.dev/tenant": "0123456789", "kinora.dev/dialect": "comfyui"},
                "annotations": {"kinora.dev/gateway": json.dumps(kept)},
            },
            "spec": {"modelServerName": "vace", "workflow": {"inline": "{}"}, "cancel": status.pop("cancel", False)},
            "status": {"phase": phase, **status},
        }
    )
    assert made is not None
    return made


def artifact(node: str = "32", list_: str = "gifs", **more: Any) -> dict[str, Any]:
    """An entry of status.artifacts."""
    return {
        "uri": "pvc://artifacts/media/x/0-a.mp4",
        "contentType": "video/mp4",
        "bytes": 1000,
        "sha256": "0" * 64,
        "fps": 16,
        "node": node,
        "list": list_,
        "filename": "uid-1-1-32_00001.mp4",
        "subfolder": "uid-1-1",
        "type": "output",
        **more,
    }


STARTED, ENDED = "2026-11-21T10:00:05Z", "2026-11-21T10:01:05Z"
STARTED_MS = int(dt.datetime(2026, 11, 21, 10, 0, 5, tzinfo=dt.UTC).timestamp() * 1000)
ENDED_MS = STARTED_MS + 60_000
