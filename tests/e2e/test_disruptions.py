"""What dies on the way: server pods killed and drained, the operator restarted, an engine killed, in mid-render."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.install import SYSTEM_NAMESPACE, DevCluster
from e2e.conftest import serve
from kinora.api.transitions import parse_time
from kinora.kube.client import KubeClient
from kinora.kube.resources import LEASE, MODELSERVER, POD, VIDEOJOB
from waiting import phase, wait_for, wait_for_pods

pytestmark = pytest.mark.e2e
Object = dict[str, Any]
ENDED = phase("Succeeded", "Failed", "Cancelled")
# Run in the engine's container: SIGKILL to the supervisor's child, as the kernel or a crash would end it.
KILL_ENGINE = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    command = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
    if b"kinora.engine.standin" in command:
        os.kill(int(pid), signal.SIGKILL)
"""
STEP_SECONDS = "0.4"  # of the stand-in: 20 steps are long enough to be killed in the middle


def slow_server(name: str, replicas: int = 1) -> Object:
    """A pool whose engines take their time."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": name},
        "spec": {
            "model": "wan2.1-vace-1.3b",
            "replicas": replicas,
            "gpu": {"count": 0},
            "weights": {"claimName": "models"},
            "artifacts": {"claimName": "videos"},
            "engine": {"env": [{"name": "KINORA_STANDIN_STEP_SECONDS", "value": STEP_SECONDS}]},
            "drainSeconds": 120,
        },
    }


def slow_job(name: str, server: str, steps: int = 20) -> Object:
    """A job of ``steps`` slow steps on one server."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {"name": name},
        "spec": {
            "modelServerName": server,
            "task": "TextToVideo",
            "prompt": f"a slow river, {name}",
            "parameters": {"width": 128, "height": 128, "frames": 9, "steps": steps},
        },
    }


async def remove_server(kube: KubeClient, namespace: str, name: str) -> None:
    """Delete a ModelServer; garbage collection removes its pods."""
    await kube.delete(MODELSERVER, namespace, name)
    await wait_for_pods(
        kube,
        namespace,
        lambda pods: not any(pod["metadata"].get("labels", {}).get("kinora.dev/modelserver") == name for pod in pods),
        deadline=120,
    )


def server_pods(pods: list[Object], server: str) -> list[Object]:
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get("kinora.dev/modelserver") == server]


async def test_a_server_pod_killed_in_mid_render_costs_no_retry_and_the_next_pod_succeeds(
    kube: KubeClient, namespace: str
) -> None:
    await serve(kube, namespace, slow_server("killed", replicas=2))
    await kube.create(VIDEOJOB, namespace, slow_job("survives-kill", "killed"))
    running = await wait_for(kube, VIDEOJOB, namespace, "survives-kill", phase("Running"), deadline=30)
    first = running["status"]["assignment"]
    await kube.delete(POD, namespace, first["podName"], uid=first["podUID"], grace_seconds=0)
    job = await wait_for(kube, VIDEOJOB, namespace, "survives-kill", ENDED, deadline=90)
    status = job["status"]
    assert status["phase"] == "Succeeded", status
    assert status["attempt"] == 2
    assert status["disruptions"] == 1
    assert status.get("failures", 0) == 0
    assert status["assignment"]["podUID"] != first["podUID"]
    assert len(status["artifacts"]) == 1
    assert "/2/" in status["artifacts"][0]["uri"], "the artifact is not the second attempt's"
    await remove_server(kube, namespace, "killed")


async def test_a_pod_deleted_gracefully_finishes_its_render(kube: KubeClient, namespace: str) -> None:
    await serve(kube, namespace, slow_server("drained"))
    await kube.create(VIDEOJOB, namespace, slow_job("survives-drain", "drained"))
    running = await wait_for(kube, VIDEOJOB, namespace, "survives-drain", phase("Running"), deadline=30)
    first = running["status"]["assignment"]
    await kube.delete(POD, namespace, first["podName"], uid=first["podUID"])
    job = await wait_for(kube, VIDEOJOB, namespace, "survives-drain", ENDED, deadline=90)
    status = job["status"]
    assert status["phase"] == "Succeeded", status
    assert status["attempt"] == 1
    assert status.get("disruptions", 0) == 0
    assert status["assignment"]["podUID"] == first["podUID"]
    # It goes at once when it is done, long before its grace is over, and another takes its slot.
    await wait_for_pods(
        kube,
        namespace,
        lambda pods: [pod["metadata"]["uid"] != first["podUID"] for pod in server_pods(pods, "drained")] == [True],
        deadline=45,
    )
    await remove_server(kube, namespace, "drained")


async def test_the_operator_restarted_in_mid_render_disturbs_nothing(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    await serve(kube, namespace, slow_server("steady"))
    await kube.create(VIDEOJOB, namespace, slow_job("survives-restart", "steady"))
    running = await wait_for(kube, VIDEOJOB, namespace, "survives-restart", phase("Running"), deadline=30)
    operators, _ = await kube.list(POD, SYSTEM_NAMESPACE)
    for pod in operators:
        await kube.delete(POD, SYSTEM_NAMESPACE, pod["metadata"]["name"], grace_seconds=0)
    await kube.create(VIDEOJOB, namespace, slow_job("waits-meanwhile", "steady", steps=3))
    job = await wait_for(kube, VIDEOJOB, namespace, "survives-restart", ENDED, deadline=90)
    assert job["status"]["phase"] == "Succeeded", job["status"]
    assert job["status"]["attempt"] == 1
    assert job["status"]["assignment"]["podUID"] == running["status"]["assignment"]["podUID"]
    second = await wait_for(kube, VIDEOJOB, namespace, "waits-meanwhile", ENDED, deadline=90)
    assert second["status"]["phase"] == "Succeeded", second["status"]
    cluster.kube("rollout", "status", "deployment/kinora-operator", "-n", SYSTEM_NAMESPACE, "--timeout=60s")
    await remove_server(kube, namespace, "steady")


async def test_the_leader_killed_in_mid_render_is_replaced_by_the_standby_within_15_seconds(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    await serve(kube, namespace, slow_server("led", replicas=2))
    await kube.create(VIDEOJOB, namespace, slow_job("goes-on", "led"))
    running = await wait_for(kube, VIDEOJOB, namespace, "goes-on", phase("Running"), deadline=30)
    leader = (await kube.get(LEASE, SYSTEM_NAMESPACE, "kinora-operator"))["spec"]["holderIdentity"]
    await kube.delete(POD, SYSTEM_NAMESPACE, leader, grace_seconds=0)
    await kube.create(VIDEOJOB, namespace, slow_job("bound-by-the-next", "led", steps=3))
    job = await wait_for(kube, VIDEOJOB, namespace, "bound-by-the-next", ENDED, deadline=90)
    assert job["status"]["phase"] == "Succeeded", job["status"]
    waited = parse_time(job["status"]["assignment"]["boundTime"]) - parse_time(job["metadata"]["creationTimestamp"])
    assert waited.total_seconds() < 15
    first = await wait_for(kube, VIDEOJOB, namespace, "goes-on", ENDED, deadline=90)
    assert (first["status"]["phase"], first["status"]["attempt"]) == ("Succeeded", 1), first["status"]
    assert first["status"]["assignment"]["podUID"] == running["status"]["assignment"]["podUID"]
    lease = await kube.get(LEASE, SYSTEM_NAMESPACE, "kinora-operator")
    assert lease["spec"]["holderIdentity"] not in {leader, ""}
    cluster.kube("rollout", "status", "deployment/kinora-operator", "-n", SYSTEM_NAMESPACE, "--timeout=60s")
    await remove_server(kube, namespace, "led")


async def test_an_engine_killed_in_mid_render_is_restarted_and_the_job_succeeds(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    await serve(kube, namespace, slow_server("engine"))
    more = slow_job("survives-engine", "engine", steps=40)  # kubectl exec takes its time
    await kube.create(VIDEOJOB, namespace, more)
    running = await wait_for(kube, VIDEOJOB, namespace, "survives-engine", phase("Running"), deadline=30)
    pod = running["status"]["assignment"]["podName"]
    await asyncio.to_thread(
        cluster.kube, "exec", "-n", namespace, pod, "-c", "engine", "--", "python3", "-c", KILL_ENGINE
    )
    job = await wait_for(kube, VIDEOJOB, namespace, "survives-engine", ENDED, deadline=90)
    status = job["status"]
    assert status["phase"] == "Succeeded", status
    assert status["attempt"] == 2
    assert status["disruptions"] == 1
    assert status.get("failures", 0) == 0
    await remove_server(kube, namespace, "engine")


def agent_process(pod_name: str) -> int:
    """The process id, on this machine, of the agent of one server pod (its environment names the pod)."""
    mark = f"KINORA_POD_NAME={pod_name}".encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"agent" in command.split(b"\0") and mark in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
    raise AssertionError(f"no agent of {pod_name} runs on this machine")


async def test_an_agent_killed_in_mid_render_resumes_the_same_attempt(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    if not cluster.is_own:
        pytest.skip("the test kills a process of the node, which only the project's own node lets it reach")
    await serve(kube, namespace, slow_server("agent"))
    await kube.create(VIDEOJOB, namespace, slow_job("survives-agent", "agent"))
    running = await wait_for(kube, VIDEOJOB, namespace, "survives-agent", phase("Running"), deadline=30)
    first = running["status"]["assignment"]
    os.kill(agent_process(first["podName"]), signal.SIGKILL)
    job = await wait_for(kube, VIDEOJOB, namespace, "survives-agent", ENDED, deadline=90)
    status = job["status"]
    assert status["phase"] == "Succeeded", status
    assert (status["attempt"], status["assignment"]) == (1, first)
    assert (status.get("disruptions", 0), status.get("failures", 0)) == (0, 0)
    pod = await kube.get(POD, namespace, first["podName"])
    restarts = {entry["name"]: entry["restartCount"] for entry in pod["status"]["containerStatuses"]}
    assert restarts["agent"] == 1, "the agent was not killed"
    await remove_server(kube, namespace, "agent")


async def test_cancel_in_mid_render_frees_the_pod_for_the_next_job(kube: KubeClient, namespace: str) -> None:
    await serve(kube, namespace, slow_server("cancel"))
    await kube.create(VIDEOJOB, namespace, slow_job("unwanted", "cancel", steps=100))
    await wait_for(kube, VIDEOJOB, namespace, "unwanted", phase("Running"), deadline=30)
    await kube.patch(VIDEOJOB, namespace, "unwanted", {"spec": {"cancel": True}})
    job = await wait_for(kube, VIDEOJOB, namespace, "unwanted", ENDED, deadline=30)
    assert job["status"]["phase"] == "Cancelled"
    await kube.create(VIDEOJOB, namespace, slow_job("wanted", "cancel", steps=2))
    job = await wait_for(kube, VIDEOJOB, namespace, "wanted", ENDED, deadline=60)
    assert job["status"]["phase"] == "Succeeded", job["status"]
    await remove_server(kube, namespace, "cancel")
