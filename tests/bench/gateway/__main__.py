"""One replica of the gateway under wrk: reads of status and submits a second, with latencies, as a table.

Usage: make bench-gateway, or PYTHONPATH=hack:tests python -m bench.gateway [--name kinora-gateway] [--seconds 10]
Everything runs on this machine and on loopback: API server, gateway (a process of its own), and wrk (Debian's package
`wrk`), which all share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from bench.scale import kubelet
from bench.scale.measure import control_plane, cpu_seconds
from integration.conftest import free_port
from kinora.gateway.settings import GatewayValues
from kinora.gateway.tenants import Entry, entry_text, hash_of
from kinora.kube.client import KubeClient
from kinora.kube.config import connect
from kinora.kube.resources import MODELSERVER, NAMESPACE, ROLE_BINDING, SECRET, Resource
from kinora_cluster import ROOT, Cluster
from kinora_cluster import cluster as find_cluster
from waiting import model_server

HERE = Path(__file__).parent
SYSTEM, ACCOUNT = "kinora-system", "kinora-gateway"
_ROLE = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
SUBMIT = "/api/v3/wavespeed-ai/wan-2.1-14b-vace"
BODY = {"prompt": "a lighthouse NUMBER", "task": "none", "images": ["https://example.com/a.png"]}
READS = {
    "wavespeed result": "/api/v3/predictions/{id}/result",
    "dashscope task": "/api/v1/tasks/{id}",
    "openai video": "/v1/videos/{id}",
    "runcomfy status": "/v1/requests/{id}/status",
    "comfyui history": "/history/{id}",
}


@dataclass(frozen=True)
class Load:
    """What wrk said: requests a second, latencies in milliseconds, answers other than 2xx.

    `cpu`: milliseconds of CPU a request, by process; they say more than the clock on a machine with other work.
    """

    rate: float
    p50: float
    p99: float
    worst: float
    wrong: int
    cpu: Mapping[str, float]

    @property
    def bound(self) -> float:
        """Requests a second that the cores would bear if they did nothing else."""
        return 1000 * (os.cpu_count() or 1) / max(sum(self.cpu.values()), 0.001)


def install(cluster: Cluster) -> None:
    """CRDs, roles and policies of the chart, as the integration tests have them."""
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: kinora-system}\n---\n"
    arguments = ("template", "kinora", str(ROOT / "charts/kinora"), "--namespace", "kinora-system")
    manifests = cluster.run("helm", *arguments, "--kube-version", "1.34.0")
    cluster.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=namespace + manifests)
    cluster.run("wait", "--for=condition=Established", "crd", "videojobs.kinora.dev", "modelservers.kinora.dev")


@asynccontextmanager
async def tenancy(kube: KubeClient) -> AsyncIterator[tuple[str, str]]:
    """A namespace with a ModelServer and a key without limits that matter: (namespace, key)."""
    name, key = f"bench-{secrets.token_hex(3)}", f"kn-{secrets.token_urlsafe(24)}"
    await kube.create(NAMESPACE, None, {"metadata": {"name": name}})
    limits = {"submitsPerMinute": 1e9, "burst": 10**9, "concurrent": 10**9}
    entry = Entry.model_validate({"hashes": [hash_of(key)], "namespace": name, "limits": limits})
    secret = {"metadata": {"name": GatewayValues().keys_secret}, "stringData": {"bench": entry_text(entry)}}
    await kube.create(SECRET, name, secret)
    await kube.create(MODELSERVER, name, model_server(model="wan2.1-vace-14b"))
    yield name, key
    await kube.delete(NAMESPACE, None, name)


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kinora-gateway-") as path:
        yield Path(path)


async def login(kube: KubeClient, cluster: Cluster, namespace: str, folder: Path) -> Path:
    """A kubeconfig of the account that the chart runs the gateway by, with its own namespace's rights in this one.

    A token, as in a pod: a client's certificate is verified anew at every request, and the policies know the account.
    """
    role = await kube.get(_ROLE, SYSTEM, ACCOUNT)
    await kube.create(_ROLE, namespace, {"metadata": {"name": "gateway"}, "rules": role["rules"]})
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}
    reference = {"apiGroup": _ROLE.group, "kind": "Role", "name": "gateway"}
    binding = {"metadata": {"name": "gateway"}, "roleRef": reference, "subjects": [subject]}
    await kube.create(ROLE_BINDING, namespace, binding)
    secret = await kubelet.service_account_token(kube, SYSTEM, ACCOUNT)
    return _with_token(Path(cluster.kubeconfig), secret, folder / "kubeconfig")


def _with_token(source: Path, secret: str, target: Path) -> Path:
    config = yaml.safe_load(source.read_text())
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": secret}}]
    target.write_text(yaml.safe_dump(config))
    return target


@asynccontextmanager
async def gateway(kubeconfig: Path, namespace: str) -> AsyncIterator[tuple[str, int]]:
    """One replica, a process of its own; its address and its id."""
    port, admin = free_port(), free_port()
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "POD_NAMESPACE": namespace,
        "KINORA_NAMESPACES": namespace,
        "KINORA_LISTEN_HOST": "127.0.0.1",
        "KINORA_GATEWAY_PORT": str(port),
        "KINORA_HTTP_PORT": str(admin),
        "KINORA_GATEWAY": json.dumps({"drainSeconds": 0}),
    }
    command = [sys.executable, "-m", "kinora.cli", "gateway"]
    quiet = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    process = await asyncio.create_subprocess_exec(*command, env=environment, **quiet)
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while True:
                try:
                    if (await http.get(f"http://127.0.0.1:{admin}/readyz")).is_success:
                        break
                except httpx.TransportError:
                    assert process.returncode is None, "the gateway ended"
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        await process.wait()


def wrk(
    url: str, key: str, script: str, processes: Mapping[str, int], *, seconds: int, connections: int, **environment: str
) -> Load:
    """Run wrk with a script; its latencies, and what these processes and wrk itself used."""
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    own = _children_seconds()
    done = subprocess.run(
        [
            *("wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency"),
            *("-H", f"Authorization: Bearer {key}", "-s", str(HERE / script), url),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    worst = re.search(r"Latency\s+\S+\s+\S+\s+(\S+)", text)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate, text
    assert worst, text
    answered = re.search(r"(\d+) requests in", text)
    assert answered, text
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}
    spent["wrk"] = _children_seconds() - own
    cpu = {name: 1000 * value / max(int(answered[1]), 1) for name, value in spent.items()}
    percent = dict(re.findall(r"^\s+(50|99)%\s+(\S+)\s*$", text, re.MULTILINE))
    assert {"50", "99"} <= percent.keys(), text
    failed = int(wrong[1]) if wrong else 0
    return Load(float(rate[1]), _ms(percent["50"]), _ms(percent["99"]), _ms(worst[1]), failed, cpu)


def _children_seconds() -> float:
    """CPU time of ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]


async def submitted(url: str, key: str, jobs: int = 200) -> str:
    """So many jobs; their ids, with spaces between."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
        answers = [await http.post(SUBMIT, json=BODY) for _ in range(jobs)]
    assert all(answer.status_code == 200 for answer in answers), answers[0].text
    return " ".join(answer.json()["data"]["id"] for answer in answers)


async def measure(cluster: Cluster, seconds: int, connections: int, *, reads: bool) -> dict[str, Load]:
    """All loads, one after the other."""
    found: dict[str, Load] = {}
    load = {"seconds": seconds, "connections": connections}
    state = control_plane(Path(cluster.kubeconfig).parent)
    async with (
        _folder() as folder,
        KubeClient(connect(kubeconfig=cluster.kubeconfig)) as kube,
        tenancy(kube) as (namespace, key),
        gateway(await login(kube, cluster, namespace, folder), namespace) as (url, pid),
    ):
        processes = {"gateway": pid, "API server": state["kube-apiserver"], "etcd": state["etcd"]}
        ids = await submitted(url, key)
        for name, path in READS.items() if reads else ():
            found[name] = await asyncio.to_thread(
                wrk, url, key, "status.lua", processes, **load, BENCH_IDS=ids, BENCH_PATH=path
            )
        body = json.dumps(BODY)
        found["submit"] = await asyncio.to_thread(
            wrk, url, key, "submit.lua", processes, **load, BENCH_PATH=SUBMIT, BENCH_BODY=body
        )
    return found


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="kinora-gateway")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--submits-only", action="store_true", help="leave the reads out")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here; on Debian: apt-get install wrk")
    cluster = find_cluster(arguments.name)
    install(cluster)
    found = asyncio.run(measure(cluster, arguments.seconds, arguments.connections, reads=not arguments.submits_only))
    shared = f"{os.cpu_count()} cores for all, {arguments.connections} connections, {arguments.seconds} s each"
    print(f"one replica, {shared}; milliseconds")
    print(f"{'':<20}{'requests/s':>12}{'p50':>8}{'p99':>8}{'max':>8}{'errors':>8}   CPU ms a request; the cores' bound")
    for name, load in found.items():
        spent = ", ".join(f"{process} {value:.2f}" for process, value in load.cpu.items())
        print(
            f"{name:<20}{load.rate:>12.0f}{load.p50:>8.1f}{load.p99:>8.1f}{load.worst:>8.1f}{load.wrong:>8}"
            f"   {spent}; {load.bound:.0f}/s"
        )


if __name__ == "__main__":
    main()
