"""Faults that the operator has had, on a real API server: each test failed before its mend."""

from __future__ import annotations

from typing import Any

import pytest

from integration.conftest import model_server, phase, video_job, wait_for, wait_for_pods
from integration.test_operator import make_ready
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER, NODE, POD, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT, VIDEOJOB

pytestmark = pytest.mark.integration
Object = dict[str, Any]


def stalled(status: str) -> Any:
    def holds(obj: Object | None) -> bool:
        conditions = ((obj or {}).get("status") or {}).get("conditions") or []
        return any(found["type"] == "Stalled" and found["status"] == status for found in conditions)

    return holds


@pytest.mark.usefixtures("operator", "claims")
async def test_a_refused_server_gets_its_children_when_its_spec_is_mended(kube: KubeClient, namespace: str) -> None:
    await kube.create(MODELSERVER, namespace, model_server(warmup=True))
    await wait_for(kube, MODELSERVER, namespace, "vace", stalled("True"))
    await kube.patch(MODELSERVER, namespace, "vace", {"spec": {"warmup": False}})
    await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1)
    for resource, name in ((SERVICE, "vace"), (SERVICE_ACCOUNT, "kinora-agent"), (ROLE_BINDING, "kinora-agent")):
        assert await kube.find(resource, namespace, name), f"{resource.kind} {name} is missing"


async def set_node(kube: KubeClient, name: str, ready: str) -> None:
    condition = {"type": "Ready", "status": ready, "reason": "Test", "message": ""}
    await kube.patch(NODE, None, name, {"status": {"conditions": [condition]}}, subresource="status")


@pytest.mark.usefixtures("operator", "claims")
async def test_a_pod_of_a_node_that_is_not_ready_gets_no_job_until_it_is_ready_again(
    kube: KubeClient, namespace: str
) -> None:
    node = f"node-{namespace}"
    # A lease-less node of nobody: the taint keeps everything else away.
    await kube.create(
        NODE, None, {"metadata": {"name": node}, "spec": {"taints": [{"key": "test", "effect": "NoSchedule"}]}}
    )
    try:
        await set_node(kube, node, "False")
        await kube.create(MODELSERVER, namespace, model_server())
        pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod["metadata"]["name"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = POD.path(namespace, pod["metadata"]["name"], "binding")
        await kube._call("POST", "create", POD, path, body=binding)
        await make_ready(kube, namespace, pod)
        await kube.create(VIDEOJOB, namespace, video_job())
        job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Queued", "Scheduled"))
        assert (job["status"]["phase"], job["status"]["reason"]) == ("Queued", "WaitingForServer")
        await set_node(kube, node, "True")
        await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    finally:
        await kube.delete(NODE, None, node)
