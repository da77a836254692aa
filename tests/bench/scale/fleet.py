"""The processes of a run: hollow node processes and the operator, started, spoken to and ended by their ids.

The operator runs as the chart's Deployment would have it: its command, its environment, its service account.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.scale import kubelet
from bench.scale.measure import memory_mib
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from kinora_cluster import ROOT, Cluster
from ports import free_port

Object = dict[str, Any]
SYSTEM = "kinora-system"
_START = 60.0  # seconds for a process to answer


def install(cluster: Cluster, namespace: str) -> Object:
    """The chart's CRDs, RBAC and policies on the cluster (no pod runs there); its Deployment.

    ``namespace``: the only one that the operator looks at, so that two runs, or a run and a test, do not meet.
    """
    manifests = cluster.run(
        "helm", "template", "kinora", str(ROOT / "charts/kinora"), "--namespace", SYSTEM, "--kube-version", "1.34.0",
        "--set", f"engine.image=stand-in:bench,watchNamespaces={{{namespace}}}",
    )  # fmt: skip
    system = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SYSTEM}}}\n---\n"
    documents = [one for one in yaml.safe_load_all(manifests) if one]
    deployment: Object = next(one for one in documents if one["kind"] == "Deployment")
    others = yaml.safe_dump_all([one for one in documents if one["kind"] != "Deployment"])
    cluster.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=system + others)
    cluster.run("wait", "--for=condition=Established", "crd", "videojobs.kinora.dev", "modelservers.kinora.dev")
    return deployment


@dataclass
class NodeProcess:
    """One process of hollow nodes (node.py)."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(
        cls, kubeconfig: Path, namespace: str, nodes: list[str], share: int, shares: int, render: float, log: Path
    ) -> NodeProcess:
        """Start it; it answers to ``ask`` from then on."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.scale.node", "--namespace", namespace, "--nodes", ",".join(nodes),
                "--share", str(share), "--shares", str(shares), "--render-seconds", str(render),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, limit=1 << 24,
                env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": f"{ROOT}/hack:{ROOT}/tests"},
            )  # fmt: skip
        return cls(process)

    async def ask(self, do: str, **arguments: Any) -> Object:
        """One command and its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        await self.process.stdin.drain()
        async with asyncio.timeout(120):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a node process ended (exit {await self.process.wait()}); see its log")
        answer: Object = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    async def stop(self) -> None:
        """Have it end; after a while make it."""
        if self.process.returncode is not None:
            return
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(b'{"do": "quit"}\n')
            await self.process.stdin.drain()
        await _ended(self.process, 15)


class OperatorProcess:
    """``kinora operator``, as the Deployment of the chart starts it; one that ends by itself is started again."""

    def __init__(self, deployment: Object, connection: Connection, folder: Path, profile: Path | None = None) -> None:
        pod = deployment["spec"]["template"]["spec"]
        self.account: str = pod["serviceAccountName"]
        self._container = pod["containers"][0]
        self._connection = connection
        self._folder = folder
        self._profile = profile
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.started = 0.0  # wall clock of its start
        self.ends: list[int] = []  # exit codes of those that ended by themselves
        self._peak = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        process = self.process
        return process.pid if process is not None and process.returncode is None else None

    def memory(self) -> Object:
        """MiB now, and at the peak of this process and of those before it that were not stopped on purpose."""
        now, peak = (0.0, 0.0) if self.pid is None else memory_mib(self.pid)
        self._peak = max(self._peak, peak)
        return {"now": round(now), "peak": round(self._peak)}

    async def start(self, client: KubeClient) -> None:
        """Start it, and keep it started."""
        self._peak = 0.0
        await self._launch(client)
        self._keeper = asyncio.create_task(self._keep(client))

    async def _keep(self, client: KubeClient) -> None:
        """As its kubelet would."""
        while self.process is not None:
            code = await self.process.wait()
            self.ends.append(code)
            print(f"the operator ended by itself (exit {code}); starting it again", file=sys.stderr, flush=True)
            await asyncio.sleep(min(2.0 ** len(self.ends) / 2, 10.0))
            await self._launch(client)

    async def _launch(self, client: KubeClient) -> None:
        kubeconfig = self._folder / "operator.kubeconfig"
        kubeconfig.touch(mode=0o600)
        secret = await kubelet.service_account_token(client, SYSTEM, self.account)
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self._connection, secret)))
        given = {one["name"]: one["value"] for one in self._container["env"] if one.get("value") is not None}
        environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TZ", "TMPDIR")},
            **given,
            "HOME": str(self._folder),
            "POD_NAME": "kinora-operator-bench",
            "POD_NAMESPACE": SYSTEM,
            "KINORA_HTTP_PORT": str(self.port),
            "KUBECONFIG": str(kubeconfig),
        }
        command = [str(Path(sys.executable).parent / "kinora"), *self._container["command"][1:]]
        if self._profile is not None:
            command = [sys.executable, "-m", "cProfile", "-o", str(self._profile), *command]
        with (self._folder / "operator.log").open("ab") as log:
            self.started = time.time()
            self.process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=log, stderr=log, preexec_fn=_end_with_parent
            )

    async def until_ready(self) -> None:
        """Wait until /readyz says so."""
        deadline = time.monotonic() + _START
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"http://127.0.0.1:{self.port}/readyz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.1)
        raise RuntimeError(f"the operator is not ready after {_START:.0f} s; see {self._folder}/operator.log")

    async def stop(self, *, kill: bool = False) -> None:
        """SIGTERM as a rollout does, or SIGKILL as a crash."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        await _ended(self.process, 20)


def _end_with_parent() -> None:
    """In the child: SIGTERM when the harness is gone, however it went (prctl, PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> None:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()


def _kubeconfig(connection: Connection, secret: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": connection.host, "certificate-authority": connection.ca_file}}
        ],
        "users": [{"name": "u", "user": {"token": secret}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
