"""A ModelServer with sources and an empty volume: fetched, verified, ready, rendered; and a file that goes bad."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo import manifests
from demo.install import DevCluster
from e2e.conftest import condition, is_ready
from e2e.test_disruptions import remove_server, slow_job, slow_server
from kinora.api.modelserver import VerifyLevel
from kinora.catalogue.load import load_catalogue
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from kinora.weights.header import read_header
from kinora.weights.manifest import read_manifest
from kinora.weights.verify import verify
from waiting import phase, wait_for

pytestmark = pytest.mark.e2e
Object = dict[str, Any]
WHOLE = load_catalogue().get("wan2.1-vace-1.3b")
assert WHOLE is not None
MODEL = WHOLE.model_copy(update={"weights": tuple(weight for weight in WHOLE.weights if weight.preset is None)})
PORT = 8000
SERVE = f"from aiohttp import web; app = web.Application(); app.router.add_static('/', '/files'); \
web.run_app(app, port={PORT})"


@dataclass(frozen=True)
class Volume:
    """The empty claim, and where it lies on the node."""

    claim: str
    folder: Path


@pytest.fixture
async def volume(cluster: DevCluster, kube: KubeClient, namespace: str) -> AsyncIterator[Volume]:
    """An empty claim."""
    if not cluster.is_own:
        pytest.skip("the test looks at the node's volume, which only the project's own node lets it reach")
    folder = cluster.state / "volumes" / namespace / "fetched"
    folder.mkdir(parents=True)
    os.chown(folder, manifests.AGENT_UID, manifests.SHARED_GID)
    folder.chmod(0o2775)
    cluster.kube("apply", "-f", "-", stdin=json.dumps(manifests.volume("fetched", folder, namespace)))
    cluster.apply(manifests.claim("fetched", static=True, prefix=namespace))
    yield Volume("fetched", folder)
    cluster.kube("delete", "pvc", "fetched", "-n", namespace, "--wait")
    cluster.kube("delete", "pv", f"{namespace}-fetched", "--wait")
    shutil.rmtree(folder)


@pytest.fixture
async def files(cluster: DevCluster, kube: KubeClient, namespace: str) -> AsyncIterator[str]:
    """A file server in the cluster with the model's demo files; its address."""
    job = manifests.prepare_job(cluster.images["kinora"], [], "", namespace)
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container |= {
        "name": "files",
        "command": ["python3", "-c", SERVE],
        "volumeMounts": [
            {"name": "models", "mountPath": "/files", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    spec |= {"restartPolicy": "Always", "volumes": [v for v in spec["volumes"] if v["name"] in {"models", "tmp"}]}
    metadata = {"name": "files", "namespace": namespace, "labels": {"app": "files"}}
    service = {"selector": {"app": "files"}, "ports": [{"port": PORT}]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {**metadata, "labels": {}}, "spec": service},
    )
    cluster.kube("wait", "-n", namespace, "--for=condition=Ready", "pod/files", "--timeout=60s")
    yield f"http://files.{namespace}.svc:{PORT}"
    cluster.kube("delete", "pod,service", "files", "-n", namespace, "--wait", "--grace-period=1")


async def test_an_empty_volume_is_filled_and_renders_and_a_spoilt_file_is_fetched_again(
    cluster: DevCluster, kube: KubeClient, namespace: str, volume: Volume, files: str
) -> None:
    server = slow_server("fetched")
    sources = [{"name": weight.path, "url": f"{files}/{weight.path}"} for weight in MODEL.weights]
    server["spec"]["weights"] = {"claimName": volume.claim, "sources": sources, "verify": "Hash"}
    server["spec"]["engine"] = {}
    await kube.create(MODELSERVER, namespace, server)
    found = await wait_for(kube, MODELSERVER, namespace, "fetched", is_ready, deadline=120)
    weights = found["status"]["weights"]
    assert condition(found, "WeightsReady")["reason"] == "WeightsPresent"
    assert weights["bytesDone"] == weights["bytesTotal"] == sum(map(size_of, volume.folder.rglob("*.safetensors")))
    assert {entry["name"] for entry in weights["files"]} == {weight.path for weight in MODEL.weights}
    assert {entry["state"] for entry in weights["files"]} == {"Present"}
    assert set(read_manifest(volume.folder)) == {weight.path for weight in MODEL.weights}

    await kube.create(VIDEOJOB, namespace, slow_job("from-sources", "fetched", steps=2))
    job = await wait_for(kube, VIDEOJOB, namespace, "from-sources", phase("Succeeded", "Failed"), deadline=120)
    assert job["status"]["phase"] == "Succeeded", job["status"]

    spoilt = volume.folder / MODEL.weights[0].path
    spoilt.write_bytes(spoilt.read_bytes()[:5000])

    def says_which(obj: Object | None) -> bool:
        ready = condition(obj, "Ready")
        return ready.get("status") == "False" and spoilt.name in ready.get("message", "")

    await wait_for(kube, MODELSERVER, namespace, "fetched", says_which, deadline=90)
    await wait_for(kube, MODELSERVER, namespace, "fetched", is_ready, deadline=180)
    assert all(state.ok for state in verify(MODEL, volume.folder, VerifyLevel.HASH))
    assert read_header(spoilt)
    await remove_server(kube, namespace, "fetched")


def size_of(path: Path) -> int:
    return path.stat().st_size
