"""How long nobody binds when the leader dies, and when it is asked to end: two operator processes, a real API server.

Usage: PYTHONPATH=tests python tests/bench/failover.py [--runs 5] [--queued 0]
Needs a control plane (make integration-up). Jobs arrive all the time, and their agents, played here, end each at once.
``--queued`` more jobs wait meanwhile for a model that nobody serves. Prints seconds after the signal: when the other
process had the Lease, and the longest pause between two binds while jobs waited. Fails when a job was bound twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count, pairwise
from pathlib import Path

from integration.conftest import install
from integration.replicas import History, Replica, held_by
from integration.test_operator import ready_pods
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import connect
from kinora.kube.resources import CLAIM, LEASE, MODELSERVER, NAMESPACE, VIDEOJOB
from kinora_cluster import Cluster
from kinora_cluster import cluster as find_cluster
from waiting import model_server, phase, video_job, wait_for

PODS = 8
PACE = 0.2  # seconds between two jobs


async def prepare(kube: KubeClient, queued: int) -> str:
    """A namespace with claims, and the jobs that wait."""
    namespace = f"failover-{secrets.token_hex(3)}"
    await kube.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for name in ("weights", "artifacts"):
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        await kube.create(CLAIM, namespace, {"metadata": {"name": name}, "spec": spec})
    for number in range(queued):
        await kube.create(VIDEOJOB, namespace, video_job(f"queued-{number}", model="wan2.1-vace-14b"))
    return namespace


async def submit(kube: KubeClient, namespace: str) -> None:
    """One job after the other, until cancelled."""
    for number in count():
        await kube.create(VIDEOJOB, namespace, video_job(f"job-{number}"))
        await asyncio.sleep(PACE)


async def play_agents(kube: KubeClient, namespace: str, version: str, history: History) -> None:
    """Each job that is bound succeeds at once."""
    async for event in kube.stream(VIDEOJOB, namespace, resource_version=version):
        if event["type"] == "BOOKMARK":
            continue
        job = event["object"]
        history.add(job)
        if event["type"] != "DELETED" and phase("Scheduled")(job):
            body = {"status": {"phase": "Succeeded", "completionTime": job["metadata"]["creationTimestamp"]}}
            with suppress(ApiError):
                await kube.patch(VIDEOJOB, namespace, job["metadata"]["name"], body, subresource="status")


def bound(history: History) -> dict[str, float]:
    """When each job was first seen bound; each exactly once. Raises SystemExit otherwise."""
    pods: dict[str, tuple[str, int]] = {}
    for _, job in history.states:
        status = job.get("status") or {}
        if "assignment" in status:
            mark = (status["assignment"]["podUID"], status["attempt"])
            if pods.setdefault(job["metadata"]["name"], mark) != mark:
                sys.exit(f"{job['metadata']['name']} was bound twice")
    return {name: moment for moment, name in history.in_phase("Scheduled")}


def longest_pause(history: History, since: float) -> float:
    """Seconds; a job comes every PACE seconds, so that somebody waits in any pause that is longer."""
    moments = sorted(bound(history).values())
    return max(later - earlier for earlier, later in pairwise(moments) if later > since)


async def one_run(cluster: Cluster, kube: KubeClient, folder: Path, number: int, queued: int) -> tuple[float, float]:
    """Seconds from the signal until the Lease was taken, and the longest pause between two binds."""
    namespace = await prepare(kube, queued)
    replicas = [await Replica.start(name, folder, cluster.kubeconfig, namespace) for name in ("first", "second")]
    tasks: list[asyncio.Task[None]] = []
    try:
        lease = await held_by(kube, namespace, deadline=60)
        leader, standby = sorted(replicas, key=lambda replica: replica.name != lease["spec"]["holderIdentity"])
        await standby.ready("standing by")
        await kube.create(MODELSERVER, namespace, model_server(replicas=PODS))
        await ready_pods(kube, namespace, PODS)
        if queued:
            await wait_for(kube, VIDEOJOB, namespace, f"queued-{queued - 1}", phase("Queued"), deadline=120)
        history = History()
        _, version = await kube.list(VIDEOJOB, namespace, field_selector="metadata.name=none")
        tasks.append(asyncio.create_task(play_agents(kube, namespace, version, history)))
        tasks.append(asyncio.create_task(submit(kube, namespace)))
        await history.reaches(lambda: len(history.in_phase("Scheduled")) >= 20, "work is in flight", 60)
        sent = leader.send(signal.Signals(number))
        await held_by(kube, namespace, other_than=leader.name, deadline=60)
        taken = time.monotonic()
        await history.reaches(
            lambda: len([moment for moment in bound(history).values() if moment > taken]) >= 10, "work goes on", 60
        )
        return taken - sent, longest_pause(history, sent)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in replicas:
            await replica.stop()
        await kube.delete(LEASE, namespace, "kinora-operator")
        await kube.delete(NAMESPACE, None, namespace)


async def measure(cluster: Cluster, runs: int, queued: int) -> None:
    """All runs, and a line for each and for all."""
    print(f"{'':<10}{'':>6}{'Lease taken':>14}{'longest pause':>14}   seconds; {queued} jobs queued")
    async with KubeClient(connect(kubeconfig=cluster.kubeconfig)) as kube:
        for name, number in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
            found = []
            for run in range(runs):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(await one_run(cluster, kube, Path(folder), number, queued))
                print(f"{name:<10}{run + 1:>6}{found[-1][0]:>14.2f}{found[-1][1]:>14.2f}", flush=True)
            for word, reduce in (("median", statistics.median), ("worst", max)):
                taken, pause = (reduce([row[column] for row in found]) for column in (0, 1))
                print(f"{name:<10}{word:>6}{taken:>14.2f}{pause:>14.2f}", flush=True)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=os.environ.get("KINORA_IT_CLUSTER", "kinora-it"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--queued", type=int, default=0)
    arguments = parser.parse_args()
    cluster = find_cluster(arguments.name)
    install(cluster)
    asyncio.run(measure(cluster, arguments.runs, arguments.queued))


if __name__ == "__main__":
    main()
