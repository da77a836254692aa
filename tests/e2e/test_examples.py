"""The main job on a real node: the examples become videos whose pixels show their inputs; few writes tell the story."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from demo.install import EXAMPLES, DevCluster
from e2e import audit, pixels
from e2e.conftest import is_ready
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from waiting import phase, wait_for

pytestmark = pytest.mark.e2e
Fetch = Callable[[str], Path]
ENDED = phase("Succeeded", "Failed", "Cancelled")


@pytest.fixture(scope="module")
def servers(cluster: DevCluster, namespace: str) -> None:
    """The ModelServers of the examples, applied as a user would."""
    cluster.kube("apply", "-n", namespace, "-f", str(EXAMPLES / "modelservers.yaml"))


async def rendered(cluster: DevCluster, kube: KubeClient, namespace: str, name: str) -> dict[str, Any]:
    """Apply one example once its server is ready; the finished job."""
    document = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    server = "i2v" if "i2v" in document["spec"]["model"] else "vace"
    await wait_for(kube, MODELSERVER, namespace, server, is_ready, deadline=120)
    cluster.kube("apply", "-n", namespace, "-f", str(EXAMPLES / f"{name}.yaml"))
    job = await wait_for(kube, VIDEOJOB, namespace, name, ENDED, deadline=180)
    assert job["status"]["phase"] == "Succeeded", job["status"]
    return job


def agrees(path: Path, job: dict[str, Any]) -> None:
    """The file is what the spec asked for and what the status claims."""
    asked, artifact = job["spec"]["parameters"], job["status"]["artifacts"][0]
    width, height, frames, fps, codec = pixels.stream(path)
    assert (width, height, frames) == (asked["width"], asked["height"], asked["frames"])
    assert (artifact["width"], artifact["height"], artifact["frames"]) == (width, height, frames)
    assert fps == pytest.approx(16)
    assert codec == "h264"
    assert artifact["bytes"] == path.stat().st_size


@pytest.mark.usefixtures("servers")
async def test_text_becomes_a_moving_picture_that_says_stand_in(
    cluster: DevCluster, kube: KubeClient, namespace: str, fetch: Fetch
) -> None:
    job = await rendered(cluster, kube, namespace, "text-to-video")
    path = fetch("text-to-video")
    agrees(path, job)
    frames = pixels.luma(path)
    assert frames.std(axis=(1, 2)).min() > 8, "a frame is nearly uniform"
    assert pixels.likeness(frames[0], frames[-1]) < 0.9, "nothing moves"
    assert "stand-in" in " ".join(pixels.metadata(path).values()).lower()


@pytest.mark.usefixtures("servers")
async def test_an_image_is_the_first_frame_and_then_moves(
    cluster: DevCluster, kube: KubeClient, namespace: str, fetch: Fetch
) -> None:
    job = await rendered(cluster, kube, namespace, "image-to-video")
    path = fetch("image-to-video")
    agrees(path, job)
    frames = pixels.luma(path)
    photograph = pixels.picture(EXAMPLES / "inputs/coffee.jpg", 512, 512)
    first, last = pixels.likeness(frames[0], photograph), pixels.likeness(frames[-1], photograph)
    assert first > 0.95
    assert last < first - 0.05, "nothing moves"
    image = next(entry for entry in job["status"]["inputs"] if entry["name"] == "image")
    assert (image["width"], image["height"]) == (600, 400)


@pytest.mark.usefixtures("servers")
async def test_a_video_keeps_its_motion_and_changes_its_look(
    cluster: DevCluster, kube: KubeClient, namespace: str, fetch: Fetch
) -> None:
    job = await rendered(cluster, kube, namespace, "video-to-video")
    path = fetch("video-to-video")
    agrees(path, job)
    frames, source = pixels.luma(path), pixels.luma(EXAMPLES / "inputs/bunny.mp4")
    likenesses = np.array(
        [pixels.likeness(frame, pixels.scaled(source[index], 640, 352)) for index, frame in enumerate(frames)]
    )
    assert likenesses.min() > 0.5, "an output frame does not show the source's frame of the same moment"
    shuffled = pixels.likeness(frames[0], pixels.scaled(source[48], 640, 352))
    assert likenesses[0] > shuffled, "the order of the frames is not the source's"
    difference = np.abs(frames[0] - pixels.scaled(source[0], 640, 352)).mean()
    assert difference > 5, "the source came back untouched"


@pytest.mark.usefixtures("servers")
async def test_an_outpaint_keeps_the_clip_in_its_place(kube: KubeClient, namespace: str, fetch: Fetch) -> None:
    await wait_for(kube, MODELSERVER, namespace, "vace", is_ready, deadline=120)
    spec = {
        "model": "wan2.1-vace-1.3b",
        "task": "Outpaint",
        "prompt": "a wide meadow",
        "inputs": {"video": {"claim": {"name": "clips", "path": "bunny.mp4"}}},
        "parameters": {"frames": 17, "steps": 2, "expand": {"left": 1.25, "right": 1.25}},
    }
    body = {"apiVersion": "kinora.dev/v1alpha1", "kind": "VideoJob", "metadata": {"name": "outpaint"}, "spec": spec}
    await kube.create(VIDEOJOB, namespace, body)
    job = await wait_for(kube, VIDEOJOB, namespace, "outpaint", ENDED, deadline=90)
    assert job["status"]["phase"] == "Succeeded", job["status"]
    frames, source = pixels.luma(fetch("outpaint")), pixels.luma(EXAMPLES / "inputs/bunny.mp4")
    assert frames.shape == (17, 360, 960)
    for index, frame in enumerate(frames):
        assert np.abs(frame[:, 160:800] - source[index]).mean() < 4, f"frame {index + 1} moved or changed"
    assert frames[:, :, :150].std() > 8, "nothing was painted beside it"


@pytest.mark.usefixtures("servers")
async def test_a_job_costs_at_most_four_status_writes_besides_progress(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    """Three on an idle pod: bind, Running, terminal. The API server's audit log is the witness."""
    await wait_for(kube, MODELSERVER, namespace, "vace", is_ready, deadline=120)
    name = f"few-writes-{secrets.token_hex(3)}"  # the log may hold those of an earlier run
    parameters = {"width": 128, "height": 128, "frames": 9, "steps": 2}
    spec = {"model": "wan2.1-vace-1.3b", "task": "TextToVideo", "prompt": "few writes", "parameters": parameters}
    body = {"apiVersion": "kinora.dev/v1alpha1", "kind": "VideoJob", "metadata": {"name": name}, "spec": spec}
    await kube.create(VIDEOJOB, namespace, body)
    job = await wait_for(kube, VIDEOJOB, namespace, name, ENDED, deadline=60)
    assert job["status"]["phase"] == "Succeeded"
    log = cluster.state / "logs/audit.log"
    writes = await audit.at_least(4, log, "videojobs", namespace, name)
    assert writes[0].startswith("create by ")
    assert writes[1:] == [
        "patch/status by system:serviceaccount:kinora-system:kinora-operator",
        f"patch/status by system:serviceaccount:{namespace}:kinora-agent",
        f"patch/status by system:serviceaccount:{namespace}:kinora-agent",
    ]
    metadata = job["metadata"]
    assert "finalizers" not in metadata
    assert "annotations" not in metadata


@pytest.mark.usefixtures("servers")
async def test_what_kubectl_prints_fits_120_columns_and_tells_the_story(
    cluster: DevCluster, kube: KubeClient, namespace: str
) -> None:
    await wait_for(kube, MODELSERVER, namespace, "vace", is_ready, deadline=120)
    table = cluster.kube("get", "vj,msrv", "-n", namespace)
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 120
    for title in ("PHASE", "REASON", "PROGRESS", "SERVER", "AGE"):
        assert title in table
