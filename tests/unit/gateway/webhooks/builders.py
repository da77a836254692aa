"""Finished VideoJobs with a webhook, as the API server has them."""

from __future__ import annotations

import datetime as dt
from typing import Any

Object = dict[str, Any]
NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
UID = "0b8f4f1c-5d0e-4b5e-9f0a-3f1f4c1d2e3f"
ENDED = "2026-05-01T11:59:00.000Z"
KEY = bytes(range(32))
ARTIFACT: Object = {
    "uri": "pvc://artifacts/films/lighthouse/0.mp4", "contentType": "video/mp4", "bytes": 1234, "sha256": "ab" * 32,
    "width": 832, "height": 480, "frames": 81, "fps": 16, "durationSeconds": 5.0625, "node": "32", "list": "gifs",
    "filename": "lighthouse_00001.mp4", "subfolder": "", "type": "output",
}  # fmt: skip


def job(phase: str = "Succeeded", webhook: Object | None = None, name: str = "lighthouse", **status: Any) -> Object:
    """A job; `webhook` is its status.webhook."""
    told = {
        "phase": phase, "reason": "Completed", "message": "", "submitTime": "2026-05-01T11:50:00Z",
        "startTime": "2026-05-01T11:55:00.000Z", "completionTime": ENDED, **status,
    }  # fmt: skip
    if webhook is not None:
        told["webhook"] = webhook
    return {
        "metadata": {
            "name": name, "namespace": "films", "uid": UID, "resourceVersion": "7",
            "creationTimestamp": "2026-05-01T11:50:00Z",
        },
        "spec": {"prompt": "a secret plan", "webhook": {"url": "https://receiver.example/hook"}},
        "status": told,
    }  # fmt: skip
