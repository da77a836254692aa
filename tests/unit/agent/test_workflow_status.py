"""The status of a raw workflow with all the files and outputs that one may have."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import Any

from kinora.agent.attempt import _proven
from kinora.api import transitions
from kinora.api.reasons import Phase
from kinora.workflows.limits import MAX_FILES
from kinora.workflows.workflow import MAX_INPUTS
from unit.workflows.made import UID, planned, sound

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FOLDER = f"{UID}-1"


def artifact(index: int) -> dict[str, Any]:
    name = f"{FOLDER}-32_0000{index}.mp4"
    return {
        "uri": f"pvc://rendered-videos/film-department/a-job-with-a-rather-long-name/{UID}/1/{index}-{name}",
        "contentType": "video/mp4", "bytes": 2**30, "sha256": "0" * 64, "width": 832, "height": 480, "frames": 81,
        "fps": 23.976, "durationSeconds": 3.378378, "node": "32", "list": "gifs", "filename": name,
        "subfolder": FOLDER, "type": "output",
    }  # fmt: skip


def test_sixteen_files_and_eight_outputs_fit_into_8_kib() -> None:
    bindings = {"prompt": "15.text", "seed": "24.seed", "steps": "24.steps", "width": "17.width"}
    names = tuple(f"files[{index}]" for index in range(MAX_INPUTS))
    resolved = replace(planned(sound(), bindings=bindings).resolved, inputs=names).to_status()
    job: dict[str, Any] = {
        "metadata": {"name": "a-job", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {}, "status": {},
    }  # fmt: skip
    assignment = {"podName": "vace-0-01234567", "podUID": UID, "nodeName": "node-1", "pool": "l20", "promptID": UID}
    inputs = [{"name": name, "sha256": "0" * 64} for name in names]
    artifacts = [artifact(index) for index in range(MAX_FILES)]
    for step in (
        lambda: transitions.inputs_stored(job, "pvc://rendered-videos/", inputs, None, NOW),
        lambda: transitions.bound(job, assignment, NOW, resolved=resolved),
        lambda: transitions.running(job, NOW, inputs, resolved),
        lambda: transitions.ended_by_agent(
            job, Phase.SUCCEEDED, "Completed", f"{_proven(artifacts)}, read back from the store and proven", NOW,
            artifacts=artifacts, timings={f"{name}Seconds": 7199.123 for name in ("queued", "staged", "loaded")},
            gpu_seconds=7199.123,
        ),
    ):  # fmt: skip
        job["status"] = {**job["status"], **step()}
    size = len(json.dumps(job["status"], separators=(",", ":")))
    assert 6_000 < size <= 8192, size


def test_what_was_made_in_words() -> None:
    picture = {"width": 64, "height": 32, "frames": 1}
    assert _proven([artifact(0)]) == "81 frames of 832x480 at 23.976 fps"
    assert _proven([artifact(0), picture]) == "81 frames of 832x480 at 23.976 fps, a picture of 64x32"
    assert _proven([picture] * 4) == "4 files"
