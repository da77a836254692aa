"""One run's surroundings: namespaces, nodes, ModelServer, processes; made, asked, and taken away again."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.scale import kubelet
from bench.scale.etcd import Etcd
from bench.scale.fleet import SYSTEM, NodeProcess, OperatorProcess, install
from bench.scale.load import side_by_side_do
from bench.scale.measure import Cpu, control_plane
from kinora.api.names import COMPONENT_SERVER, LABEL_COMPONENT
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import Connection, connect
from kinora.kube.resources import CLAIM, MODELSERVER, NAMESPACE, NODE, POD, VIDEOJOB
from kinora_cluster import Cluster
from waiting import model_server

Object = dict[str, Any]
PODS_ON_A_NODE = 20


@dataclass(frozen=True)
class Size:
    """How big a run is."""

    jobs: int
    pods: int
    node_processes: int
    render_seconds: float


class World:
    """Everything that a phase works with."""

    def __init__(self, cluster: Cluster, state: Path, client: KubeClient, size: Size, folder: Path) -> None:
        self.cluster = cluster
        self.client = client
        self.connection: Connection = client.connection
        self.size = size
        self.folder = folder
        mark = secrets.token_hex(3)
        self.namespace = f"scale-{mark}"
        self.plain_namespace = f"scale-{mark}-plain"
        self.nodes = [f"hollow-{mark}-{index}" for index in range(-(-size.pods // PODS_ON_A_NODE))]
        self.node_processes: list[NodeProcess] = []
        self.operator: OperatorProcess
        self.state = state
        self.progress: Callable[[], str] = lambda: ""
        self._control_plane = control_plane(state)

    # --- up and down --------------------------------------------------------------------------------------------------

    async def up(self, profile: Path | None) -> None:
        """From nothing to all server pods ready."""
        deployment = await asyncio.to_thread(install, self.cluster, self.namespace)
        self.operator = OperatorProcess(deployment, self.connection, self.folder, profile)
        for name in (self.namespace, self.plain_namespace):
            await self.client.create(
                NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )
        for name in self.nodes:
            await self.client.create(NODE, None, kubelet.node_body(name))
        for name in ("weights", "artifacts"):
            # Of a volume that is not there: nobody looks for one, and no event says that none was found.
            spec = {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "",
                "volumeName": f"none-{name}",
            }
            claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
            await self.client.create(CLAIM, self.namespace, claim)
        for share in range(self.size.node_processes):
            self.node_processes.append(
                await NodeProcess.start(
                    Path(self.cluster.kubeconfig),
                    self.namespace,
                    self.nodes,
                    share,
                    self.size.node_processes,
                    self.size.render_seconds,
                    self.folder / f"node-{share}.log",
                )
            )
        await self.operator.start(self.client)
        await self.operator.until_ready()
        await self.client.create(MODELSERVER, self.namespace, model_server(replicas=self.size.pods))
        await self.until_pods_ready(60 + self.size.pods)

    async def until_pods_ready(self, seconds: float) -> None:
        """Every agent has said that its engine is ready, and every pod is."""
        deadline = time.monotonic() + seconds
        while True:
            states = [await one.ask("status") for one in self.node_processes]
            ready = sum(one["ready"] for one in states)
            if ready >= self.size.pods:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{ready} of {self.size.pods} server pods are ready after {seconds:.0f} s: {states}")
            self.progress = lambda now=ready: f"{now} of {self.size.pods} server pods are ready"
            await asyncio.sleep(0.5)

    async def down(self) -> None:
        """End every process that was started here, remove every object that was made here."""
        for one in self.node_processes:
            await one.stop()
        if hasattr(self, "operator"):  # else it never came to that
            await self.operator.stop()
        with suppress(RuntimeError, OSError):  # each by a request of its own the namespace's end would take minutes
            await self.clear_jobs()
        with suppress(ApiError, UnreachableError):
            await self.client.delete(MODELSERVER, self.namespace, "vace")
            pods, _ = await self.client.list(POD, self.namespace)
            await side_by_side_do((self._pod_deletion(one["metadata"]["name"]) for one in pods), 16)
        for name in (self.namespace, self.plain_namespace):
            with suppress(ApiError, UnreachableError):
                await self.client.delete(NAMESPACE, None, name)
        for name in self.nodes:
            with suppress(ApiError, UnreachableError):
                await self.client.delete(NODE, None, name)

    def _pod_deletion(self, name: str) -> Any:
        async def delete() -> None:
            with suppress(ApiError, UnreachableError):
                await self.client.delete(POD, self.namespace, name, grace_seconds=0)

        return delete

    # --- asking -------------------------------------------------------------------------------------------------------

    def cpu(self) -> Cpu:
        """CPU seconds so far of everybody who takes part."""
        return Cpu.of(
            {
                "operator": [] if self.operator.pid is None else [self.operator.pid],
                "agents": [one.process.pid for one in self.node_processes],
                "API server": [self._control_plane["kube-apiserver"]],
                "etcd": [self._control_plane["etcd"]],
                "controller manager": [self._control_plane["kube-controller-manager"]],
                "harness": [os.getpid()],
            }
        )

    async def everywhere(self, do: str, **arguments: Any) -> list[Object]:
        """One command to every node process."""
        return list(await asyncio.gather(*(one.ask(do, **arguments) for one in self.node_processes)))

    async def clear_jobs(self) -> None:
        """Remove every VideoJob, and wait until the watches of the API server say so."""
        async with Etcd(self.state) as etcd:
            await etcd.delete_jobs(self.namespace)
        async with asyncio.timeout(120):
            while (await self.client.list_page(VIDEOJOB, self.namespace, limit=1)).get("items"):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def reports(self) -> tuple[dict[str, float], dict[str, int], dict[str, int], dict[str, str]]:
        """What agents and stores noted since the last report: accepted, again, published; and the pods' tokens."""
        accepted: dict[str, float] = {}
        again: dict[str, int] = {}
        published: dict[str, int] = {}
        tokens: dict[str, str] = {}
        for index, one in enumerate(self.node_processes):
            path = self.folder / f"report-{index}.json"
            tokens |= (await one.ask("report", path=str(path)))["pods"]
            noted = json.loads(path.read_text())
            accepted |= noted["accepted"]
            for uid, count in noted["again"].items():
                again[uid] = again.get(uid, 0) + count
            for uid, count in noted["published"].items():
                published[uid] = published.get(uid, 0) + count
        return accepted, again, published, tokens

    async def server_pods(self) -> list[Object]:
        """The server pods as they are."""
        pods, _ = await self.client.list(POD, self.namespace, label_selector=f"{LABEL_COMPONENT}={COMPONENT_SERVER}")
        return pods

    async def operator_connection(self) -> Connection:
        """The API server as the operator's service account."""
        account = self.operator.account
        secret = await kubelet.service_account_token(self.client, SYSTEM, account)
        return kubelet.as_bearer(self.connection, self.tls(), secret)

    def tls(self) -> ssl.SSLContext:
        """For logins by token."""
        return kubelet.tls_without_certificate(self.connection)


@asynccontextmanager
async def world(cluster: Cluster, state: Path, size: Size, profile: Path | None = None) -> AsyncIterator[World]:
    """A world for the length of a run; it is taken away whatever happens."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kinora-scale-")))
        client = await stack.enter_async_context(KubeClient(connect(kubeconfig=cluster.kubeconfig), user_agent="bench"))
        made = World(cluster, state, client, size, folder)
        try:
            await made.up(profile)
            yield made
        except BaseException:
            _show_logs(folder)
            raise
        finally:
            await made.down()


def _show_logs(folder: Path) -> None:
    """What the processes said last: the folder goes with the run."""
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr, flush=True)
