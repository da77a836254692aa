"""From what an engine says to the client's websocket: milliseconds, and the gateway's CPU a message.

Usage: PYTHONPATH=hack:tests python -m bench.live [--name kinora-gateway] [--jobs 1 8] [--rate 50] [--seconds 20]
Real are the API server, the gateway (a process of its own, led to the agent by the pod's address), the agent's part
that tells, and a websocket client a job. Engines are played: steps are put in at a fixed rate. All on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import socket
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect as websocket

from bench.gateway.__main__ import gateway, install, tenancy
from integration.gateway.comfyui import graph
from kinora.agent.live import Live
from kinora.agent.liveroutes import service
from kinora.agent.metrics import Metrics
from kinora.api import names, transitions
from kinora.controller.modelserver.desired import service_account
from kinora.engine.base import NodeStarted, Progress
from kinora.kube.client import KubeClient
from kinora.kube.config import connect
from kinora.kube.http import serve
from kinora.kube.resources import POD, SECRET, SERVICE_ACCOUNT, VIDEOJOB
from kinora.kube.secret_keys import KEY_BYTES, secret_body
from kinora_cluster import cluster as find_cluster

Object = dict[str, Any]
NODE = "24"
_TICKS = os.sysconf("SC_CLK_TCK")


def own_address() -> str:
    """An address of this machine that a pod could have: the one that packets to elsewhere would have. None is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            sys.exit("this machine has no address but loopback, where the gateway goes for no pod")
        return str(probe.getsockname()[0])


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def gateway_process() -> int:
    """The gateway's process, a child of this one."""
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()
    return next(int(one) for one in children if b"gateway" in Path(f"/proc/{one}/cmdline").read_bytes())


async def make_pod(kube: KubeClient, namespace: str) -> Object:
    """The server pod, at this machine's address, and its account."""
    await kube.create(SERVICE_ACCOUNT, namespace, service_account(namespace))
    spec = {"serviceAccountName": names.AGENT_SERVICE_ACCOUNT, "containers": [{"name": "agent", "image": "none"}]}
    spec["automountServiceAccountToken"] = False
    await kube.create(POD, namespace, {"metadata": {"name": "vace-0-bench"}, "spec": spec})
    address = own_address()
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    return await kube.patch(POD, namespace, "vace-0-bench", {"status": status}, subresource="status")


async def running(kube: KubeClient, namespace: str, id_: str, pod: Object) -> str:
    """The job is bound to the pod and renders; its UID."""
    found, _ = await kube.list(VIDEOJOB, namespace)
    job = next(one for one in found if one["metadata"]["name"].endswith(id_))
    metadata = job["metadata"]
    assignment = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"], "promptID": "p"}
    now = dt.datetime.now(dt.UTC)
    for change in (lambda job: transitions.bound(job, assignment, now), lambda job: transitions.running(job, now)):
        body = {"status": {**change(job), "submitTime": metadata["creationTimestamp"]}}
        job = await kube.patch(VIDEOJOB, namespace, metadata["name"], body, subresource="status")
    return str(metadata["uid"])


async def hear(url: str, key: str, client: str, ready: asyncio.Event, got: dict[tuple[str, int], float]) -> None:
    """One client: when each step came."""
    headers = {"Authorization": f"Bearer {key}"}
    async with websocket(f"{url.replace('http', 'ws')}/ws?clientId={client}", additional_headers=headers) as ws:
        async for text in ws:
            now = time.perf_counter()
            message = json.loads(text)
            if message["type"] == "status":
                ready.set()
            if message["type"] == "progress":
                got.setdefault((client, message["data"]["value"]), now)


async def measure(name: str, jobs: int, rate: float, seconds: float) -> None:
    """One line of the table."""
    cluster = find_cluster(name)
    told, metrics, key_bytes = Live(), Metrics(), os.urandom(KEY_BYTES)
    put: dict[tuple[str, int], float] = {}
    got: dict[tuple[str, int], float] = {}

    async def keys(_anew: bool) -> list[bytes]:
        return [key_bytes]

    async with (
        KubeClient(connect(kubeconfig=cluster.kubeconfig)) as kube,
        tenancy(kube) as (namespace, key),
        gateway(cluster, namespace) as url,
        AsyncExitStack() as stack,
    ):
        secret = secret_body(namespace, key_bytes, name=names.LIVE_SECRET, kind=names.LIVE_SECRET_TYPE)
        await kube.create(SECRET, namespace, secret)
        pod = await make_pod(kube, namespace)
        app = service(told, keys, pod["metadata"]["uid"], metrics.live)
        runner = await serve(app, own_address(), names.AGENT_LIVE_PORT, shutdown_seconds=0.5, leaving=True)
        stack.push_async_callback(runner.cleanup)
        prompts: dict[str, str] = {}
        for index in range(jobs):
            client, ready = f"client-{index}", asyncio.Event()
            hearing = asyncio.create_task(hear(url, key, client, ready, got))
            stack.callback(hearing.cancel)
            await asyncio.wait_for(ready.wait(), 20)
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
                answer = await http.post(f"{url}/prompt", json={"prompt": graph(), "client_id": client})
            uid = await _begun(kube, namespace, str(answer.json()["prompt_id"]), pod, told)
            prompts[client] = names.prompt_id(uid, 1)
        async with asyncio.timeout(30):
            while len(told) < jobs:  # noqa: ASYNC110 - a condition of this very process
                await asyncio.sleep(0.01)
        pid = gateway_process()
        before, own, began = cpu_of(pid), time.process_time(), time.perf_counter()
        for step in range(1, int(rate * seconds) + 1):
            await asyncio.sleep(max(0.0, began + step / rate - time.perf_counter()))
            for client, prompt in prompts.items():
                put[(client, step)] = time.perf_counter()
                told.note(Progress(prompt, NODE, step, 10**6))
        await asyncio.sleep(0.5)
        used, mine = cpu_of(pid) - before, time.process_time() - own
    late = sorted((got[one] - put[one]) * 1000 for one in put if one in got)
    p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
    messages = 2 * len(got)  # progress_state and progress
    cells = f"{jobs:>6}{rate * jobs:>10.0f}{p50:>8.2f}{p99:>8.2f}{late[-1]:>8.1f}{len(put) - len(got):>8}"
    print(f"{cells}{used / messages * 1e6:>16.0f}{mine / messages * 1e6:>16.0f}", flush=True)


async def _begun(kube: KubeClient, namespace: str, id_: str, pod: Object, told: Live) -> str:
    """The job runs, and its engine is at the sampler."""
    found, _ = await kube.list(VIDEOJOB, namespace)
    uid = next(str(one["metadata"]["uid"]) for one in found if one["metadata"]["name"].endswith(id_))
    prompt = names.prompt_id(uid, 1)
    told.open(prompt)
    told.note(NodeStarted(prompt, NODE))
    return await running(kube, namespace, id_, pod)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="kinora-gateway")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rate", type=float, default=50.0, help="steps a second of each job")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    install(find_cluster(arguments.name))
    print(f"{os.cpu_count()} cores for all; milliseconds from the engine's event to the client; CPU in us a message")
    print(f"{'jobs':>6}{'events/s':>10}{'p50':>8}{'p99':>8}{'max':>8}{'lost':>8}{'gateway CPU':>16}{'the rest':>16}")
    for jobs in arguments.jobs:
        asyncio.run(measure(arguments.name, jobs, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
