"""Fixtures on a real API server (a control plane of its own: make integration-up): chart applied, namespace fresh."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kinora.controller.main import serve
from kinora.controller.operator import Operator
from kinora.controller.settings import Settings
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection, connect
from kinora.kube.election import Terms
from kinora.kube.lease import LeaseLostError
from kinora.kube.resources import CLAIM, NAMESPACE
from kinora.weights.sources import Rules
from kinora_cluster import ROOT, Cluster
from kinora_cluster import cluster as find_cluster
from ports import free_port
from s3proxy import S3Proxy, s3_proxy
from s3server import S3Server, s3_server
from waiting import DEADLINE

log = logging.getLogger(__name__)
PATIENT = Terms(duration=20.0, renew=15.0)  # all tests of a process share its loop, and two cores with an API server


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The control plane, with CRDs, RBAC and admission policies of the chart (no operator pod runs there)."""
    found = find_cluster(os.environ.get("KINORA_IT_CLUSTER", "kinora-it"))
    install(found)
    return found


def install(found: Cluster) -> None:
    """Apply the chart; its roles and policies are enforced when this returns."""
    manifests = found.run(
        "helm",
        "template",
        "kinora",
        str(ROOT / "charts/kinora"),
        "--namespace",
        "kinora-system",
        "--kube-version",
        "1.34.0",
    )
    found.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_namespace("kinora-system") + manifests)
    found.run("wait", "--for=condition=Established", "crd", "videojobs.kinora.dev", "modelservers.kinora.dev")
    _until_enforced(found)


def _namespace(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n"


def _until_enforced(found: Cluster) -> None:
    """Roles and policies are known to the API server a moment after they were applied: refusals by them show it."""
    account = "--as=system:serviceaccount:kinora-system:kinora-"
    operator = ("create", "secret", "generic", "probe", f"{account}operator")
    weights = ("create", "-f", "-", f"{account}weights", "--as-group=system:masters")
    lease = "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: of-no-volume}\n"
    refusals = ((operator, None, "the Secret of its own key"), (weights, lease, "may hold only the Leases of volumes"))
    deadline = time.monotonic() + 2 * DEADLINE
    for words, given, refusal in refusals:
        while refusal not in (
            said := found.run(*words, "-n", "kinora-system", "--dry-run=server", stdin=given, check=False)
        ):
            assert time.monotonic() < deadline, f"the chart's policies are not enforced: {said}"


@pytest.fixture
def connection(cluster: Cluster) -> Connection:
    return connect(kubeconfig=cluster.kubeconfig)


@pytest.fixture
async def kube(connection: Connection) -> AsyncIterator[KubeClient]:
    async with KubeClient(connection) as client:
        yield client


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    name = f"it-{secrets.token_hex(4)}"
    await kube.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    await kube.delete(NAMESPACE, None, name)


@pytest.fixture
async def charts_lease(cluster: Cluster) -> AsyncIterator[None]:
    """The Lease that the chart lets an operator have: there is one in a cluster, and other workers wait their turn."""
    with Path(cluster.kubeconfig).with_name("charts-lease.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
async def start_operator(
    connection: Connection, namespace: str
) -> AsyncIterator[Callable[..., Awaitable[Callable[[], Awaitable[None]]]]]:
    """``stop = await start_operator(setting=...)``: the real operator on this loop, watching the test's namespace."""
    stops: list[Callable[[], Awaitable[None]]] = []

    async def start(**overrides: Any) -> Callable[[], Awaitable[None]]:
        settings = Settings(
            agent_image="kinora:test",
            engine_image="standin:test",
            namespaces=(namespace,),
            http_port=free_port(),
            instance=f"operator-under-test-{len(stops)}",
            lease_namespace=namespace,
            lease_terms=PATIENT,
            weights_rules=Rules(allow_http=True),
        )
        settings = dataclasses.replace(settings, **overrides)
        stop_event, wired = asyncio.Event(), asyncio.Event()
        operators: list[Operator] = []

        def started(operator: Operator) -> None:
            operators.append(operator)
            wired.set()

        async def kept() -> None:
            while True:
                try:
                    return await serve(settings, connection, stop_event, started)
                except LeaseLostError as error:
                    log.warning("%s; starting the operator again, as its kubelet would", error)

        task = asyncio.create_task(kept())
        await asyncio.wait({task, asyncio.create_task(wired.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        await asyncio.wait_for(operators[0].store.ready.wait(), DEADLINE)

        async def stop() -> None:
            stop_event.set()
            await task

        stops.append(stop)
        return stop

    yield start
    for stop in stops:
        await stop()


@pytest.fixture
async def operator(start_operator: Callable[[], Awaitable[Any]]) -> None:
    """An operator that runs for the whole test."""
    await start_operator()


@pytest.fixture
async def claims(kube: KubeClient, namespace: str) -> None:
    """The claims that ``model_server`` names (nothing binds them here)."""
    for name in ("weights", "artifacts"):
        await kube.create(
            CLAIM,
            namespace,
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
            },
        )


# --- a bucket


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    """An S3 server with an empty bucket."""
    with s3_server(tmp_path / "s3") as one:
        yield one


@pytest.fixture
async def proxy(server: S3Server) -> AsyncIterator[S3Proxy]:
    """A proxy before it that fails as it is told."""
    async with s3_proxy(server.port) as one:
        yield one
