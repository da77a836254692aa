"""Fixtures on a real node: the chart installed by Helm, a namespace with volumes, inputs and weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.install import DevCluster, install_chart, prepare
from e2e import hooks
from kinora.kube.client import KubeClient
from kinora.kube.config import connect
from kinora.kube.resources import MODELSERVER
from waiting import Object, wait_for

NAME = os.environ.get("KINORA_E2E_CLUSTER", "kinora-e2e")
MODELS = ["wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p"]
NAMESPACE = "kinora-e2e"


#: Of every installation here: weights are served without TLS, and so are webhooks taken, inside the cluster.
VALUES = (
    *("--set", "weights.allowHTTP=true", "--set", "gateway.webhooks.allow.http=true"),
    *("--set", f"gateway.webhooks.allow.hosts={{{hooks.host(NAMESPACE)}}}"),
    *("--set", r"modelAliases.wan-2\.1-14b-vace=wan2.1-vace-1.3b"),  # what is served here for WaveSpeed's model
)


@pytest.fixture(scope="session")
def cluster() -> DevCluster:
    """The node with the chart installed."""
    found = DevCluster.find(NAME)
    install_chart(found, *VALUES)
    return found


@pytest.fixture(scope="session")
def namespace(cluster: DevCluster) -> Iterator[str]:
    """A namespace with claims, inputs and weights; restricted pod security is enforced in it."""
    prepare(cluster, NAMESPACE, MODELS)
    yield NAMESPACE
    cluster.kube("delete", "namespace", NAMESPACE, "--wait", "--ignore-not-found", timeout=300)
    for claim in ("models", "videos", "clips"):
        cluster.kube("delete", "persistentvolume", f"{NAMESPACE}-{claim}", "--ignore-not-found", "--wait")
        shutil.rmtree(cluster.state / "volumes" / NAMESPACE / claim, ignore_errors=True)


@pytest.fixture
async def kube(cluster: DevCluster) -> AsyncIterator[KubeClient]:
    async with KubeClient(connect(kubeconfig=cluster.kubeconfig)) as client:
        yield client


def is_ready(obj: Object | None) -> bool:
    """The ModelServer's Ready condition holds."""
    return condition(obj, "Ready").get("status") == "True"


def condition(obj: Object | None, kind: str) -> dict[str, Any]:
    """One condition of an object."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


async def serve(kube: KubeClient, namespace: str, server: Object) -> None:
    """Create a ModelServer and wait until it is ready."""
    await kube.create(MODELSERVER, namespace, server)
    await wait_for(kube, MODELSERVER, namespace, server["metadata"]["name"], is_ready, deadline=90)


@pytest.fixture
def fetch(cluster: DevCluster, namespace: str, tmp_path: Path) -> Any:
    """``fetch(job) -> path``: the video of a finished job, brought by the kinora command."""

    def bring(job: str) -> Path:
        target = tmp_path / f"{job}.mp4"
        command = [sys.executable, "-m", "kinora.cli", "fetch", f"vj/{job}", "-n", namespace, "-o", str(target)]
        done = subprocess.run(
            command, env=cluster.environment, capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return target

    return bring
