"""Waiting for things to be as wanted (the cluster's by watches; with a deadline), and small objects to ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kinora.api.names import COMPONENT_SERVER, LABEL_COMPONENT
from kinora.kube.client import KubeClient
from kinora.kube.resources import POD, VIDEOJOB, Resource

Object = dict[str, Any]
DEADLINE = 60.0  # seconds for any condition: only a test that fails waits for so long


async def until(holds: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Wait for what tells nobody when it changes: a file, a counter, a cache of a part that runs in this process."""
    async with asyncio.timeout(deadline):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def wait_for(
    kube: KubeClient,
    resource: Resource,
    namespace: str,
    name: str,
    holds: Callable[[Object | None], bool],
    deadline: float = DEADLINE,
    *,
    since: str | None = None,
) -> Object:
    """Follow one object by a watch until it is as wanted; the failure shows it as it is.

    ``since``: a version of it; what came after that counts, however briefly it was so.
    """
    obj = None if since else await kube.find(resource, namespace, name)
    if since is None and holds(obj):
        return obj or {}
    selector = f"metadata.name={name}"
    try:
        async with asyncio.timeout(deadline):
            while True:
                version, since = since, None
                if version is None:
                    items, version = await kube.list(resource, namespace, field_selector=selector)
                    obj = items[0] if items else None
                    if holds(obj):
                        return obj or {}
                async for event in kube.stream(resource, namespace, resource_version=version, field_selector=selector):
                    if event["type"] == "BOOKMARK":
                        continue
                    obj = None if event["type"] == "DELETED" else event["object"]
                    if holds(obj):
                        return obj or {}
    except TimeoutError:
        shown = {part: (obj or {}).get(part) for part in ("spec", "status")}
        raise AssertionError(f"{resource.kind} {name} is not as wanted after {deadline} s: {shown}") from None


async def wait_for_pods(
    kube: KubeClient,
    namespace: str,
    holds: Callable[[list[Object]], bool],
    deadline: float = DEADLINE,
    component: str = COMPONENT_SERVER,
) -> list[Object]:
    """Follow the namespace's pods of one component (server pods) by a watch until they are as wanted."""
    selector = f"{LABEL_COMPONENT}={component}"
    pods: dict[str, Object] = {}
    try:
        async with asyncio.timeout(deadline):
            items, version = await kube.list(POD, namespace, label_selector=selector)
            pods = {item["metadata"]["uid"]: item for item in items}
            if holds(list(pods.values())):
                return list(pods.values())
            async for event in kube.stream(POD, namespace, resource_version=version, label_selector=selector):
                if event["type"] == "BOOKMARK":
                    continue
                uid = event["object"]["metadata"]["uid"]
                if event["type"] == "DELETED":
                    pods.pop(uid, None)
                else:
                    pods[uid] = event["object"]
                if holds(list(pods.values())):
                    return list(pods.values())
    except TimeoutError:
        pass
    for pod in pods.values():
        pod["metadata"].pop("managedFields", None)  # pages of them hid the rest
    shown = [{part: pod.get(part) for part in ("metadata", "status")} for pod in pods.values()]
    raise AssertionError(f"pods are not as wanted after {deadline} s: {shown}")


def model_server(name: str = "vace", model: str = "wan2.1-vace-1.3b", **spec: Any) -> Object:
    """A ModelServer whose claims are ``weights`` and ``artifacts``."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": name},
        "spec": {
            "model": model,
            "weights": {"claimName": "weights"},
            "artifacts": {"claimName": "artifacts"},
            "gpu": {"count": 0},
            **spec,
        },
    }


def video_job(name: str = "job", **spec: Any) -> Object:
    """A small text-to-video job."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {"name": name},
        "spec": {
            "model": "wan2.1-vace-1.3b",
            "task": "TextToVideo",
            "prompt": "a lighthouse at dusk",
            "parameters": {"width": 128, "height": 128, "frames": 9, "steps": 2},
            **spec,
        },
    }


def phase(*wanted: str) -> Callable[[Object | None], bool]:
    """The object exists and its phase is one of these."""
    return lambda obj: obj is not None and (obj.get("status") or {}).get("phase") in wanted


async def job_status(kube: KubeClient, namespace: str, name: str, status: Object) -> Object:
    """Patch a job's status as an administrator would."""
    return await kube.patch(VIDEOJOB, namespace, name, {"status": status}, subresource="status")
