"""Jobs as they are stored, for the tables of the agent's unit tests."""

from __future__ import annotations

import datetime as dt
from typing import Any

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
POD = "11111111-1111-1111-1111-111111111111"
UID = "22222222-2222-2222-2222-{:012d}"


def job(
    number: int = 1,
    *,
    phase: str = "Scheduled",
    attempt: int = 1,
    pod: str = POD,
    bound: str = "2030-01-02T03:00:00Z",
    released: int | None = None,
    version: int = 1,
    spec: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A VideoJob bound to the pod."""
    full: dict[str, Any] = {"phase": phase, "attempt": attempt, **status}
    full["assignment"] = {"podName": "vace-0", "podUID": pod, "boundTime": bound}
    if released is not None:
        full["released"] = {"attempt": released, "reason": "Drain", "time": bound}
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {
            "name": f"job-{number}",
            "namespace": "ns",
            "uid": UID.format(number),
            "generation": 1,
            "resourceVersion": str(version),
            "creationTimestamp": "2030-01-02T03:00:00Z",
        },
        "spec": {"model": "m", "task": "TextToVideo", "backoffLimit": 2, **(spec or {})},
        "status": full,
    }
