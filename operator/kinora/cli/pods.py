"""Short-lived pods that hold a claim for a command of ours: the only way to a volume from outside the cluster.

The API server proxies to them, so that nothing has to be reachable from here. What they serve is the command's affair.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from kinora.api import names
from kinora.kube.client import KubeClient
from kinora.kube.resources import POD

PORT: Final = 8781  # of every such pod


class PodError(Exception):
    """Why the pod did not serve, and what to do."""


async def agent_image(client: KubeClient, namespace: str) -> str:
    """The image of the namespace's agents: what such a pod runs, if nobody says otherwise. PodError."""
    pods, _ = await client.list(POD, namespace, label_selector=f"{names.LABEL_COMPONENT}={names.COMPONENT_SERVER}")
    for pod in pods:
        for container in pod["spec"]["containers"]:
            if container["name"] == names.CONTAINER_AGENT:
                return str(container["image"])
    raise PodError(f"no server pod in namespace {namespace!r} tells the image of the reader; give it by --image")


def claim_pod(
    namespace: str,
    claim: str,
    command: Sequence[str],
    *,
    image: str,
    read_only: bool = True,
    env: Mapping[str, str] | None = None,
    seconds: int = 600,
) -> dict[str, Any]:
    """A pod with the claim at ARTIFACTS_DIR that serves on PORT, as the agents' user, and ends by itself."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"kinora-fetch-{secrets.token_hex(4)}",
            "namespace": namespace,
            "labels": {names.LABEL_NAME: "kinora", names.LABEL_COMPONENT: "reader"},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": seconds,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": names.AGENT_UID,
                "runAsGroup": names.SHARED_GID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "reader",
                    "image": image,
                    "command": list(command),
                    "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": PORT, "scheme": "HTTP"}, "periodSeconds": 1},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "artifacts", "mountPath": names.ARTIFACTS_DIR, "readOnly": read_only}],
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                }
            ],
            "volumes": [
                {"name": "artifacts", "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}},
            ],
        },
    }


@asynccontextmanager
async def running(client: KubeClient, pod: dict[str, Any], seconds: float) -> AsyncIterator[str]:
    """The pod's name once it is ready, within `seconds`; it goes at the end. PodError, ApiError."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    await client.create(POD, namespace, pod)
    try:
        try:
            async with asyncio.timeout(seconds):
                await _wait_ready(client, namespace, name)
        except TimeoutError:
            raise PodError(
                f"reader pod {namespace}/{name} was not ready within {seconds:.0f} s;"
                f" see `kubectl describe pod`, or raise --timeout"
            ) from None
        yield name
    finally:
        await client.delete(POD, namespace, name, grace_seconds=0)


def proxied(namespace: str, pod: str, path: str) -> str:
    """Where the API server proxies to that path of the pod."""
    return f"/api/v1/namespaces/{namespace}/pods/{pod}:{PORT}/proxy/{path}"


async def _wait_ready(client: KubeClient, namespace: str, name: str) -> None:
    pods, version = await client.list(POD, namespace, field_selector=f"metadata.name={name}")
    if any(_is_ready(pod) for pod in pods):
        return
    while True:
        async for event in client.stream(
            POD, namespace, resource_version=version, field_selector=f"metadata.name={name}"
        ):
            pod = event["object"]
            version = pod["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            if _is_ready(pod):
                return
            if event["type"] == "DELETED" or (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
                raise PodError(f"reader pod {namespace}/{name} ended: the file is not on the claim, or unreadable")


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
