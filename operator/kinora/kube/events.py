"""Events on objects, for what is not normal: recorded best-effort, never retried, never blocking a decision."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging

from kinora.kube.client import ApiError, KubeClient, Object, UnreachableError
from kinora.kube.resources import EVENT

log = logging.getLogger(__name__)


def event_body(
    regarding: Object, *, kind: str, reason: str, note: str, action: str, reporter: str, instance: str, now: dt.datetime
) -> Object:
    """An events.k8s.io/v1 Event; its name is a hash of what it says and when, so that a retry is a conflict."""
    metadata = regarding["metadata"]
    digest = hashlib.sha256(f"{metadata['uid']}{reason}{note}{now.isoformat()}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:200].rstrip('-.')}.{digest}", "namespace": metadata["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": kind,
        "reason": reason,
        "note": note[:1024],
        "action": action,
        "reportingController": reporter,
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
    }


async def record(client: KubeClient, body: Object) -> None:
    """Write one event; a failure is logged and forgotten."""
    try:
        await client.create(EVENT, body["metadata"]["namespace"], body)
    except (ApiError, UnreachableError) as error:
        log.warning("event %s on %s was not recorded: %s", body["reason"], body["regarding"]["name"], error)
