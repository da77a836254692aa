"""Faults that the operator has had, on a real API server: each test failed before its mend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from integration.test_operator import make_ready
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import (
    MODELSERVER,
    NODE,
    POD,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    VIDEOJOB,
    Resource,
)
from waiting import DEADLINE, model_server, phase, video_job, wait_for, wait_for_pods

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


@pytest.mark.usefixtures("claims")
async def test_a_pod_of_a_node_that_is_not_ready_gets_no_job_until_it_is_ready_again(
    kube: KubeClient, namespace: str, start_operator: Callable[[], Awaitable[Any]]
) -> None:
    node = f"node-{namespace}"
    # A lease-less node of nobody: the taint keeps everything else away.
    await kube.create(
        NODE, None, {"metadata": {"name": node}, "spec": {"taints": [{"key": "test", "effect": "NoSchedule"}]}}
    )
    try:
        await set_node(kube, node, "False")
        await start_operator()  # now, so that it knows of the node from the first: nodes come by a watch of their own
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


def deny_status(name: str, job: str) -> tuple[Object, Object]:
    """An admission policy, and its binding, that refuses every status write of the jobs of one name."""
    rules = [
        {"apiGroups": ["kinora.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["videojobs/status"]}
    ]
    spec = {
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": f"object.metadata.name != '{job}'", "message": "refused by the test"}],
    }
    return (
        {"metadata": {"name": name}, "spec": spec},
        {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}},
    )


async def until_denied(kube: KubeClient, namespace: str, job: str) -> None:
    """Policies take a moment to be known: dry runs show when."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await kube.patch(
                    VIDEOJOB,
                    namespace,
                    job,
                    {"status": {"reason": "Probe"}},
                    subresource="status",
                    query={"dryRun": "All"},
                )
            except ApiError as error:
                if "refused by the test" not in error.message:
                    raise
                return


@pytest.mark.usefixtures("claims")
async def test_a_job_whose_bind_is_refused_holds_up_nobody_else(
    kube: KubeClient, namespace: str, start_operator: Callable[[], Awaitable[Any]]
) -> None:
    policy, binding = (
        Resource("admissionregistration.k8s.io", "v1", plural, kind, namespaced=False)
        for plural, kind in (
            ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
            ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        )
    )
    poison = f"poison-{namespace}"
    bodies = deny_status(poison, poison)
    await kube.create(policy, None, bodies[0])
    await kube.create(binding, None, bodies[1])
    try:
        await kube.create(VIDEOJOB, namespace, video_job(poison, priority=10))
        await until_denied(kube, namespace, poison)
        await start_operator()
        await kube.create(MODELSERVER, namespace, model_server())
        pod = (await wait_for_pods(kube, namespace, lambda pods: len(pods) == 1))[0]
        await kube.create(VIDEOJOB, namespace, video_job("good"))
        await make_ready(kube, namespace, pod)
        await wait_for(kube, VIDEOJOB, namespace, "good", phase("Scheduled"))
    finally:
        await kube.delete(binding, None, poison)
        await kube.delete(policy, None, poison)
