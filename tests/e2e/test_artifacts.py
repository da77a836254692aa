"""`kinora artifacts gc` on a claim: through a pod of its own, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from demo.install import DevCluster
from demo.manifests import AGENT_UID, SHARED_GID
from e2e import pixels
from e2e.conftest import serve
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER, POD, VIDEOJOB
from waiting import model_server, phase, video_job, wait_for

pytestmark = pytest.mark.e2e
SERVER = "tidied"


def gc(cluster: DevCluster, namespace: str, *options: str) -> str:
    command = [sys.executable, "-m", "kinora.cli", "artifacts", "gc", "-n", namespace, *options]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * 86_400,) * 2)


async def test_the_bytes_of_a_lost_attempt_go_and_the_published_video_stays(
    cluster: DevCluster, kube: KubeClient, namespace: str, fetch: Any
) -> None:
    if not cluster.is_own:
        pytest.skip("the claim's folder is on this machine only where the node is")
    claims = {"weights": {"claimName": "models"}, "artifacts": {"claimName": "videos"}}
    await serve(kube, namespace, model_server(SERVER, **claims))
    await kube.create(VIDEOJOB, namespace, video_job("tidy", modelServerName=SERVER, model=None))
    done = await wait_for(kube, VIDEOJOB, namespace, "tidy", phase("Succeeded", "Failed"), deadline=90)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    volume = cluster.state / "volumes" / namespace / "videos"
    published = volume / done["status"]["artifacts"][0]["uri"].removeprefix("pvc://videos/")
    lost = published.parents[1] / "7" / published.name
    lost.parent.mkdir()
    lost.write_bytes(b"cut off")
    for path in (lost, lost.parent):
        os.chown(path, AGENT_UID, SHARED_GID)
    for path in (published, lost):
        age(path, 3)

    shown = gc(cluster, namespace, "--modelserver", SERVER)
    assert "lost attempt" in shown
    assert str(lost.relative_to(volume)) in shown
    assert str(published.relative_to(volume)) not in shown
    assert lost.exists()
    assert "removed 1 objects, 7 B" in gc(cluster, namespace, "--modelserver", SERVER, "--delete")
    assert not lost.parent.exists()
    assert len(pixels.luma(fetch("tidy"))) == 9
    pods, _ = await kube.list(POD, namespace, label_selector="app.kubernetes.io/component=reader")
    assert [pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")] == []
    await kube.delete(MODELSERVER, namespace, SERVER)
