"""What the API server's audit log says of one object: its accepted writes, by verb and subresource."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path


async def at_least(count: int, log: Path, resource: str, namespace: str, name: str) -> list[str]:
    """The writes, once there are so many: the log gets its line after the writer got its answer."""
    async with asyncio.timeout(10):
        while len(found := writes(log, resource, namespace, name)) < count:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.05)
    return found


def writes(log: Path, resource: str, namespace: str, name: str) -> list[str]:
    """``verb[/subresource] by user`` of each accepted write of one object, in order."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        if f'"{name}"' not in line:
            continue
        event = json.loads(line)
        ref = event.get("objectRef") or {}
        if (ref.get("resource"), ref.get("namespace"), ref.get("name")) != (resource, namespace, name):
            continue
        if event["verb"] not in {"create", "update", "patch", "delete"} or event["stage"] != "ResponseComplete":
            continue
        if event["responseStatus"]["code"] < 300:
            sub = f"/{ref['subresource']}" if ref.get("subresource") else ""
            found.append(f"{event['verb']}{sub} by {event['user']['username']}")
    return found
