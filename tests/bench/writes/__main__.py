"""What one write of a VideoJob costs the API server and etcd, in milliseconds of CPU, by kind of write, as a table.

Usage: make bench-writes, or PYTHONPATH=hack:tests python -m bench.writes [--name kinora-gateway] [--jobs 400]
CPU time, not the clock: other work on the machine disturbs it less. Each kind of write is one batch, by the account
that writes it in the product (a submitter's, the operator's, tokens bound to pods), with so many agents' watches open
as are asked for. A ConfigMap's create stands beside them: it says how fast the machine was in that minute. KiB are what
the API server allocated for a write: they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import itertools
import re
import secrets
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gateway.__main__ import install
from bench.scale import kubelet
from bench.scale.etcd import Etcd
from bench.scale.load import job_body, side_by_side_do
from bench.scale.measure import control_plane, cpu_seconds, scrape
from kinora.agent.agent import selection
from kinora.api import transitions
from kinora.api.names import AGENT_SERVICE_ACCOUNT, prompt_id
from kinora.api.reasons import COMPLETED, WAITING_FOR_SERVER, Phase
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import connect
from kinora.kube.resources import CONFIGMAP, NAMESPACE, POD, ROLE_BINDING, SERVICE_ACCOUNT, VIDEOJOB
from kinora_cluster import Cluster
from kinora_cluster import cluster as find_cluster

Object = dict[str, Any]
SYSTEM = "kinora-system"
PODS = 20  # that jobs are bound to
WIDTH = 16  # writes under way at once
RESOLVED: Object = {
    "model": "wan2.1-vace-1.3b", "task": "TextToVideo", "preset": "Quality", "width": 832, "height": 480, "frames": 81,
    "fps": 16, "steps": 20, "guidance": 6, "shift": 8, "seed": 4503599627370495, "sampler": "uni_pc",
    "scheduler": "simple", "control": "None", "denoise": 1, "outputWidth": 832, "outputHeight": 480, "crf": 16,
    "graphSha256": "0" * 64,
}  # fmt: skip
ARTIFACT: Object = {
    "uri": "s3://artifacts/videos/2026/00000000-0000-0000-0000-000000000000/1/video_00001_.mp4",
    "contentType": "video/mp4", "bytes": 1234567, "sha256": "0" * 64, "width": 832, "height": 480, "frames": 81,
    "fps": 16, "durationSeconds": 5.0625, "node": "9", "list": "images", "filename": "a_00001_.mp4", "type": "output",
}  # fmt: skip
TIMINGS = {"queuedSeconds": 1.234, "stagedSeconds": 0.012, "renderedSeconds": 93.5, "totalSeconds": 95.021}


@dataclass
class Life:
    """One job between its writes."""

    name: str
    job: Object  # as the API server answered last
    pod: int


class Writer:
    """The writes of a product's lives, each kind for all jobs of a batch."""

    def __init__(
        self, namespace: str, submitter: KubeClient, operator: KubeClient, agents: list[KubeClient], pods: list[Object]
    ) -> None:
        """``pods``: those whose tokens the agents' clients hold, in their order."""
        self._namespace, self._submitter, self._operator = namespace, submitter, operator
        self._agents, self._pods = agents, pods

    async def create(self, life: Life, body: Object) -> None:
        """As the gateway or a user does."""
        life.job = await self._submitter.create(VIDEOJOB, self._namespace, body)

    async def configmap(self, name: str) -> None:
        """The measure of the machine."""
        await self._submitter.create(CONFIGMAP, self._namespace, {"metadata": {"name": name}, "data": {"a": "b"}})

    async def queued(self, life: Life) -> None:
        """By the operator."""
        message = "every server pod of the model is busy or not ready"
        await self._status(
            self._operator, life, transitions.queued(life.job, WAITING_FOR_SERVER, message, _now(), resolved=RESOLVED)
        )

    async def bound(self, life: Life) -> None:
        """By the operator."""
        pod = self._pods[life.pod]["metadata"]
        assignment = {
            "podName": pod["name"],
            "podUID": pod["uid"],
            "nodeName": "node",
            "pool": "",
            "promptID": prompt_id(life.job["metadata"]["uid"], 1),
        }
        await self._status(self._operator, life, transitions.bound(life.job, assignment, _now()))

    async def running(self, life: Life) -> None:
        """By the agent."""
        await self._status(self._agents[life.pod], life, transitions.running(life.job, _now()))

    async def progress(self, life: Life) -> None:
        """By the agent, inside Running."""
        patch = transitions.progressed(life.job, _now(), percent=50, stage="Sample", step=10, steps=20)
        await self._status(self._agents[life.pod], life, patch)

    async def succeeded(self, life: Life) -> None:
        """By the agent."""
        patch = transitions.ended_by_agent(
            life.job,
            Phase.SUCCEEDED,
            COMPLETED,
            "81 frames of 832x480 were rendered and published",
            _now(),
            artifacts=[ARTIFACT],
            timings=TIMINGS,
            gpu_seconds=93.5,
        )
        await self._status(self._agents[life.pod], life, patch)

    async def _status(self, client: KubeClient, life: Life, status: Object) -> None:
        metadata = life.job["metadata"]
        patch = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]},
            "status": status,
        }
        life.job = await client.patch(VIDEOJOB, self._namespace, life.name, patch, subresource="status")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def hosted_body(name: str) -> Object:
    """A job as the gateway makes it of a WaveSpeed request with one reference."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {
            "name": name,
            "labels": {
                "kinora.dev/tenant": secrets.token_hex(8),
                "kinora.dev/dialect": "wavespeed",
                "kinora.dev/request": secrets.token_hex(16),
            },
            "annotations": {
                "kinora.dev/note": '{"note":{"model":"wavespeed-ai/wan-2.1-14b-vace"},"request":"","model":""}'
            },
        },
        "spec": {
            "model": "wan2.1-vace-14b",
            "task": "ReferenceToVideo",
            "prompt": f"a lighthouse {name}",
            "inputs": {"references": [{"source": {"url": "https://example.com/a.png"}}]},
            "parameters": {"durationSeconds": 5, "steps": 30, "guidance": 5.0, "shift": 16.0, "controlStrength": 1.0},
            "output": {"width": 832, "height": 480},
            "queue": "default",
            "ttlSecondsAfterFinished": 604800,
        },
    }


class Meter:
    """CPU milliseconds a write of each process, batch by batch."""

    def __init__(self, processes: dict[str, int], allocated: Callable[[], Awaitable[float]]) -> None:
        """``allocated``: bytes that the API server has allocated so far."""
        self._processes = processes
        self._allocated = allocated
        self.found: dict[str, dict[str, list[float]]] = {}

    async def batch(self, kind: str, works: list[Callable[[], Any]]) -> None:
        """Do all of them; what each process used for one."""
        before_bytes = await self._allocated()
        before = {name: cpu_seconds(pid) for name, pid in self._processes.items()}
        await side_by_side_do(works, WIDTH)
        for name, pid in self._processes.items():
            spent = 1000 * (cpu_seconds(pid) - before[name]) / len(works)
            self.found.setdefault(kind, {}).setdefault(name, []).append(spent)
        made = (await self._allocated() - before_bytes) / 1024 / len(works)
        self.found[kind].setdefault("allocated", []).append(made)

    def table(self) -> str:
        """Medians over the rounds, and the range of the API server's."""
        lines = [f"{'':<26}{'API server':>12}{'least':>8}{'most':>8}{'etcd':>8}{'KiB':>8}"]
        for kind, by_name in self.found.items():
            server, etcd = by_name["kube-apiserver"], by_name["etcd"]
            lines.append(
                f"{kind:<26}{statistics.median(server):>12.2f}{min(server):>8.2f}{max(server):>8.2f}"
                f"{statistics.median(etcd):>8.2f}{statistics.median(by_name['allocated']):>8.0f}"
            )
        return "\n".join(lines)


async def one_round(writer: Writer, meter: Meter, jobs: int, round_: int) -> None:
    """Every kind of write once for each job."""
    hosted = [Life(f"hosted-{round_}-{index}", {}, index % PODS) for index in range(jobs)]
    lives = [Life(f"life-{round_}-{index}", {}, index % PODS) for index in range(jobs)]

    def each(do: Callable[[Life], Any]) -> list[Callable[[], Any]]:
        return [lambda life=life: do(life) for life in lives]  # type: ignore[misc]

    await meter.batch(
        "create a ConfigMap", [lambda n=index: writer.configmap(f"c-{round_}-{n}") for index in range(jobs)]
    )
    await meter.batch(
        "create, by the gateway", [lambda one=one: writer.create(one, hosted_body(one.name)) for one in hosted]
    )
    await meter.batch("create, by a user", [lambda one=one: writer.create(one, job_body(one.name)) for one in lives])
    await meter.batch("-> Queued", each(writer.queued))
    await meter.batch("-> Scheduled", each(writer.bound))
    await meter.batch("-> Running", each(writer.running))
    await meter.batch("progress", each(writer.progress))
    await meter.batch("-> Succeeded", each(writer.succeeded))


class Watches:
    """Agents' watches, each of the jobs bound to one pod UID."""

    def __init__(self, agents: list[KubeClient], namespace: str) -> None:
        self._agents, self._namespace = agents, namespace
        self._open = 0
        for agent in agents:
            agent.observe = self._seen

    def _seen(self, verb: str, _plural: str, status: int, _seconds: float) -> None:
        self._open += verb == "watch" and status == 200

    @asynccontextmanager
    async def opened(self, uids: list[str], version: str) -> AsyncIterator[None]:
        """All of them are open meanwhile."""
        clients = itertools.cycle(self._agents)
        tasks = [asyncio.create_task(self._watch(next(clients), uid, version)) for uid in uids]
        try:
            async with asyncio.timeout(120):
                while self._open < len(uids):  # noqa: ASYNC110 - a bench, and nothing tells of it
                    await asyncio.sleep(0.1)
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _watch(self, client: KubeClient, uid: str, version: str) -> None:
        while True:
            with suppress(ApiError, UnreachableError):
                async for _ in client.stream(
                    VIDEOJOB,
                    self._namespace,
                    resource_version=version,
                    field_selector=selection(uid),
                    timeout_seconds=3600,
                ):
                    pass


def _pod(name: str) -> Object:
    container = {"name": "engine", "image": "none"}
    return {
        "metadata": {"name": name},
        "spec": {"serviceAccountName": AGENT_SERVICE_ACCOUNT, "containers": [container]},
    }


async def _account(admin: KubeClient, namespace: str, name: str, role: str) -> None:
    """A service account that may do in the namespace what a ClusterRole says."""
    await admin.create(SERVICE_ACCOUNT, namespace, {"metadata": {"name": name}})
    reference = {"apiGroup": ROLE_BINDING.group, "kind": "ClusterRole", "name": role}
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
    await admin.create(ROLE_BINDING, namespace, body)


@asynccontextmanager
async def writers(admin: KubeClient, watches: int) -> AsyncIterator[tuple[Writer, str]]:
    """A namespace with pods, their tokens, the accounts of a submitter and of the operator, and agents' watches."""
    namespace = f"writes-{secrets.token_hex(3)}"
    tls = kubelet.tls_without_certificate(admin.connection)
    async with AsyncExitStack() as stack:
        await admin.create(NAMESPACE, None, {"metadata": {"name": namespace}})
        stack.push_async_callback(admin.delete, NAMESPACE, None, namespace)
        await _account(admin, namespace, AGENT_SERVICE_ACCOUNT, "kinora-agent")
        await _account(admin, namespace, "submitter", "edit")
        pods = [await admin.create(POD, namespace, _pod(f"server-{index}")) for index in range(PODS)]

        async def client(secret: str) -> KubeClient:
            return await stack.enter_async_context(KubeClient(kubelet.as_bearer(admin.connection, tls, secret)))

        submitter = await client(await kubelet.service_account_token(admin, namespace, "submitter"))
        operator = await client(await kubelet.service_account_token(admin, SYSTEM, "kinora-operator"))
        agents = [await client(await kubelet.token(admin, pod)) for pod in pods]
        version = (await admin.list_page(VIDEOJOB, namespace))["metadata"]["resourceVersion"]
        uids = [pods[index]["metadata"]["uid"] if index < PODS else str(index) for index in range(watches)]
        await stack.enter_async_context(Watches(agents, namespace).opened(uids, version))
        yield Writer(namespace, submitter, operator, agents, pods), namespace


async def measure(cluster: Cluster, *, jobs: int, rounds: int, watches: int) -> Meter:
    """All rounds; the first one, in which the API server warms up, does not count."""
    state = Path(cluster.kubeconfig).parent
    processes = {name: pid for name, pid in control_plane(state).items() if name in ("kube-apiserver", "etcd")}
    async with KubeClient(connect(kubeconfig=cluster.kubeconfig)) as admin, writers(admin, watches) as (writer, where):

        async def allocated() -> float:
            page = await scrape(admin.connection, admin.connection.host + "/metrics")
            return float(re.search(r"^go_memstats_alloc_bytes_total (\S+)$", page, re.MULTILINE)[1])  # type: ignore[index]

        await one_round(writer, Meter(processes, allocated), 50, 0)
        meter = Meter(processes, allocated)
        try:
            for round_ in range(1, rounds + 1):
                await one_round(writer, meter, jobs, round_)
        finally:
            async with Etcd(state) as etcd:
                await etcd.delete_jobs(where)
    return meter


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="kinora-gateway")
    parser.add_argument("--jobs", type=int, default=300, help="of one batch (default: 300)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watches", type=int, default=0, help="of agents, open meanwhile (default: 0)")
    parser.add_argument("--no-install", action="store_true", help="the chart is there as it is wanted")
    arguments = parser.parse_args()
    cluster = find_cluster(arguments.name)
    if not arguments.no_install:
        install(cluster)
    meter = asyncio.run(measure(cluster, jobs=arguments.jobs, rounds=arguments.rounds, watches=arguments.watches))
    print(f"CPU milliseconds a write, medians of {arguments.rounds} batches of {arguments.jobs}", end="")
    print(f", {arguments.watches} watches of agents")
    print(meter.table())


if __name__ == "__main__":
    main()
