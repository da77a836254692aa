"""An input by URL on a real node: fetched by a stager in its pod, from where the chart's values allow, and rendered."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.install import EXAMPLES, DevCluster, install_chart
from e2e import audit, pixels
from e2e.conftest import VALUES, serve
from e2e.test_disruptions import remove_server, slow_server
from kinora.api.intake import inputs_condition
from kinora.api.names import stager_name
from kinora.kube.client import KubeClient
from kinora.kube.resources import DEPLOYMENT, MODELSERVER, POD, SERVICE, VIDEOJOB
from waiting import phase, wait_for

pytestmark = pytest.mark.e2e
Object = dict[str, Any]
ENDED = phase("Succeeded", "Failed", "Cancelled")
PORT = 8080


@pytest.fixture(scope="module")
def host(cluster: DevCluster, namespace: str) -> Iterator[str]:
    """The name under which photographs are served inside the cluster; the chart's values open it, and nothing else."""
    name = f"photographs.{namespace}.svc.cluster.local"
    cluster.apply(_web_pod(cluster, namespace), _web_service(namespace))
    cluster.kube("wait", "-n", namespace, "--for=condition=Ready", "pod/photographs", "--timeout=60s")
    install_chart(cluster, *VALUES, "--set-json", f'stager.allow.hosts=["{name}:{PORT}"]')
    yield name
    install_chart(cluster, *VALUES)
    # Python as process 1 takes no notice of SIGTERM.
    cluster.kube("delete", "pod,service", "photographs", "-n", namespace, "--wait", "--grace-period=1")


def _web_pod(cluster: DevCluster, namespace: str) -> Object:
    container = {
        "name": "web",
        "image": cluster.images["kinora"],
        "command": ["python3", "-m", "http.server", str(PORT), "--directory", "/photographs"],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "photographs", "mountPath": "/photographs", "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "photographs", "namespace": namespace, "labels": {"app": "photographs"}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10002, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "photographs", "configMap": {"name": "photographs"}}],
        },
    }


def _web_service(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": SERVICE.kind,
        "metadata": {"name": "photographs", "namespace": namespace},
        "spec": {"selector": {"app": "photographs"}, "ports": [{"port": PORT, "targetPort": PORT}]},
    }


def job(name: str, url: str) -> Object:
    """A picture in motion, from a URL."""
    return {
        "apiVersion": "kinora.dev/v1alpha1",
        "kind": "VideoJob",
        "metadata": {"name": name},
        "spec": {
            "modelServerName": "fetching",
            "task": "ImageToVideo",
            "prompt": "steam rises",
            "inputs": {"image": {"url": url}},
            "parameters": {"width": 256, "height": 256, "frames": 9, "steps": 2},
        },
    }


async def test_a_photograph_by_url_becomes_a_video_and_a_refused_address_takes_no_pod(
    cluster: DevCluster, kube: KubeClient, namespace: str, host: str, fetch: Callable[[str], Path]
) -> None:
    await serve(kube, namespace, slow_server("fetching"))
    stager = stager_name("videos")
    await wait_for(
        kube, DEPLOYMENT, namespace, stager,
        lambda found: bool(found) and found["status"].get("availableReplicas") == 1, deadline=90,
    )  # fmt: skip
    name = f"by-url-{secrets.token_hex(3)}"  # the log may hold those of an earlier run
    await kube.create(VIDEOJOB, namespace, job(name, f"http://{host}:{PORT}/coffee.jpg?Signature=secret"))
    refused = {
        "refused-metadata": ("http://169.254.169.254/latest/meta-data", "InputRefused", "a cloud's metadata service"),
        "refused-service": ("https://kubernetes.default.svc.cluster.local/", "InputRefused", "(private)"),
        "not-there": (f"http://{host}:{PORT}/none.jpg", "InvalidInput", "answers with 404"),
    }
    for other, (url, _, _) in refused.items():
        await kube.create(VIDEOJOB, namespace, job(other, url))

    done = await wait_for(kube, VIDEOJOB, namespace, name, ENDED, deadline=90)
    assert done["status"]["phase"] == "Succeeded", done["status"]
    assert inputs_condition(done)["status"] == "True"
    [image] = done["status"]["inputs"]
    assert (image["width"], image["height"]) == (600, 400)
    assert done["status"]["inputStore"] == "pvc://videos/"
    assert "secret" not in str(done["status"])
    frames = pixels.luma(fetch(name))
    assert pixels.likeness(frames[0], pixels.picture(EXAMPLES / "inputs/coffee.jpg", 256, 256)) > 0.95
    writes = await audit.at_least(5, cluster.state / "logs/audit.log", "videojobs", namespace, name)
    by_stager = f"patch/status by system:serviceaccount:{namespace}:kinora-stager"
    assert writes.count(by_stager) == 1
    assert len(writes) <= 7, writes

    for other, (_, reason, words) in refused.items():
        failed = await wait_for(kube, VIDEOJOB, namespace, other, ENDED, deadline=60)
        status = failed["status"]
        assert (status["phase"], status["reason"]) == ("Failed", reason), status
        assert status["message"].startswith("spec.inputs.image.url")
        assert words in status["message"]
        assert "assignment" not in status

    await remove_server(kube, namespace, "fetching")
    await wait_for_its_end(kube, namespace, stager)


async def wait_for_its_end(kube: KubeClient, namespace: str, stager: str) -> None:
    """With its last ModelServer the stager goes, if this was the last one here that uses the claim."""
    servers, _ = await kube.list(MODELSERVER, namespace)
    if not servers:
        await wait_for(kube, DEPLOYMENT, namespace, stager, lambda found: found is None, deadline=60)
        pods, _ = await kube.list(POD, namespace, label_selector=f"kinora.dev/stager={stager}")
        assert all(pod["metadata"].get("deletionTimestamp") for pod in pods)
