"""What scheduler and kubelet would write for a pod, without either: bind it, say that it runs, say that it is ready.

Bodies and single requests only; which pods, and when, is node.py's affair.
"""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import replace
from typing import Any

from kinora.api.names import AGENT_SERVICE_ACCOUNT, CONDITION_ENGINE_READY
from kinora.kube.client import STRATEGIC, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import POD, Resource

Object = dict[str, Any]
TOKEN_SECONDS = 7200


def now() -> str:
    """A pod's times have whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_body(name: str) -> Object:
    """A node as its kubelet registers it. Nothing sends its heartbeats, and no controller here asks for them."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "hollow",
        "lastTransitionTime": now(),
    }
    capacity = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
    }


async def bind(client: KubeClient, pod: Object, node: str) -> None:
    """As the scheduler does."""
    metadata = pod["metadata"]
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    binding = Resource("", "v1", f"pods/{metadata['name']}/binding", "Binding")
    await client.create(binding, metadata["namespace"], body)


async def say_running(client: KubeClient, pod: Object) -> Object:
    """The first status of a pod whose containers run; its readiness gates decide whether it is ready."""
    gates = (pod["spec"].get("readinessGates")) or []
    conditions = [_condition("Initialized", "True"), _condition("ContainersReady", "True")]
    conditions.append(_condition("Ready", "False" if gates else "True"))
    status = {
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": "127.0.0.1",
        "startTime": now(),
        "conditions": conditions,
        "containerStatuses": [_container(one, {"running": {"startedAt": now()}}) for one in pod["spec"]["containers"]],
    }
    return await _patch(client, pod, status)


async def say_succeeded(client: KubeClient, pod: Object) -> Object:
    """The last status of a pod whose containers have ended well."""
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}}
    status = {
        "phase": "Succeeded",
        "conditions": [_condition("Ready", "False"), _condition("ContainersReady", "False")],
        "containerStatuses": [_container(one, ended) for one in pod["spec"]["containers"]],
    }
    return await _patch(client, pod, status)


async def say_ready(client: KubeClient, pod: Object) -> Object:
    """Ready, once the readiness gate is open."""
    return await _patch(client, pod, {"conditions": [_condition("Ready", "True")]})


def engine_ready(pod: Object) -> bool:
    """Whether the agent has said so on its pod."""
    return _holds(pod, CONDITION_ENGINE_READY)


def is_ready(pod: Object) -> bool:
    """Whether the kubelet has."""
    return _holds(pod, "Ready")


async def token(client: KubeClient, pod: Object) -> str:
    """A token of the agents' account, bound to the pod, as the kubelet projects it."""
    metadata = pod["metadata"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
    return await service_account_token(client, metadata["namespace"], AGENT_SERVICE_ACCOUNT, bound)


async def service_account_token(client: KubeClient, namespace: str, account: str, bound: Object | None = None) -> str:
    """A token of any service account."""
    resource = Resource("", "v1", f"serviceaccounts/{account}/token", "TokenRequest")
    spec: Object = {"expirationSeconds": TOKEN_SECONDS}
    if bound is not None:
        spec["boundObjectRef"] = bound
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await client.create(resource, namespace, body)
    return str(answer["status"]["token"])


def tls_without_certificate(connection: Connection) -> ssl.SSLContext:
    """The server's CA, but not the administrator's certificate, which would rule over a token."""
    return ssl.create_default_context(cafile=connection.ca_file)


def as_bearer(connection: Connection, tls: ssl.SSLContext, secret: str) -> Connection:
    """The same API server, as somebody else."""
    return replace(connection, tls=tls, authorization=lambda: f"Bearer {secret}", cert_file=None, key_file=None)


async def _patch(client: KubeClient, pod: Object, status: Object) -> Object:
    metadata = pod["metadata"]
    body = {"metadata": {"uid": metadata["uid"]}, "status": status}
    return await client.patch(
        POD, metadata["namespace"], metadata["name"], body, subresource="status", content_type=STRATEGIC
    )


def _condition(kind: str, status: str) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": now()}


def _container(container: Object, state: Object) -> Object:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": "running" in state,
        "started": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _holds(pod: Object, kind: str) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)
