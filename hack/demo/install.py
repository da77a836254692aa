"""Chart, volumes, inputs and weights on a dev cluster: what the demo and the e2e tests both need before any job.

Runs ``hack/cluster`` and kubectl as programs; knows paths from ``hack/cluster env`` only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import manifests

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SYSTEM_NAMESPACE = "kinora-system"


class StepError(Exception):
    """A step that failed, with what the program said."""


@dataclass(frozen=True)
class DevCluster:
    """A cluster that is up, with its images."""

    kubeconfig: str
    kubectl: str
    helm: str
    mode: str
    state: Path
    images: dict[str, str]

    @classmethod
    def find(cls, name: str) -> DevCluster:
        """The cluster of that name. Raises StepError when it is not up."""
        text = run([sys.executable, str(ROOT / "hack/cluster"), "env", "--name", name])
        env: dict[str, Any] = json.loads(text)
        return cls(
            kubeconfig=env["kubeconfig"],
            kubectl=env["kubectl"],
            helm=env["helm"],
            mode=env["mode"],
            state=Path(env["state"]),
            images=env["images"],
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which kubectl, helm and kinora reach the cluster."""
        return {**os.environ, "KUBECONFIG": self.kubeconfig}

    def kube(self, *arguments: str, stdin: str | None = None, timeout: float = 180) -> str:
        """kubectl's output."""
        return run([self.kubectl, *arguments], env=self.environment, stdin=stdin, timeout=timeout)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Server-side apply of plain objects (a ConfigMap with a clip is too large for an annotation)."""
        documents = "\n---\n".join(json.dumps(item) for item in objects)
        self.kube("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=documents)

    @property
    def is_own(self) -> bool:
        """The project's own node, without a provisioner of volumes."""
        return self.mode == "node"


def run(
    command: list[str], *, env: dict[str, str] | None = None, stdin: str | None = None, timeout: float = 1800
) -> str:
    """Run a program; its standard output. Raises StepError with what it printed."""
    done = subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode != 0:
        told = (done.stdout + done.stderr).strip().splitlines()[-30:]
        raise StepError(f"{' '.join(command[:4])} ...: exit {done.returncode}\n" + "\n".join(told))
    return done.stdout


def install_chart(cluster: DevCluster, *extra: str) -> None:
    """helm upgrade --install, and wait for the operator."""
    repository, _, tag = cluster.images["kinora"].rpartition(":")
    command = [
        cluster.helm,
        *("upgrade", "--install", "kinora", str(ROOT / "charts/kinora")),
        *("--namespace", SYSTEM_NAMESPACE, "--create-namespace"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
        *("--set", f"engine.image={cluster.images['standin']}"),
        *extra,
        *("--wait", "--timeout", "2m"),
    ]
    try:
        run(command, env=cluster.environment)
    except StepError as error:
        told = cluster.kube("get", "pods", "-n", SYSTEM_NAMESPACE, "-o", "wide")
        logs = cluster.kube("logs", "-n", SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--tail=20")
        raise StepError(f"{error}\n{told}\n{logs}") from error


def prepare(cluster: DevCluster, namespace: str, models: list[str]) -> None:
    """Namespace, volumes, claims, inputs, and the Job that makes the weight files; waits for the Job."""
    cluster.apply({**manifests.namespace(), "metadata": {**manifests.namespace()["metadata"], "name": namespace}})
    for claim in manifests.CLAIMS:
        if cluster.is_own:
            folder = cluster.state / "volumes" / namespace / claim
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, manifests.AGENT_UID, manifests.SHARED_GID)
            folder.chmod(0o2775)
            cluster.apply(manifests.volume(claim, folder, namespace))
        cluster.apply(manifests.claim(claim, static=cluster.is_own, prefix=namespace))
    inputs = EXAMPLES / "inputs"
    cluster.apply(
        manifests.config_map("photographs", [inputs / "coffee.jpg"], namespace),
        manifests.config_map("clips", [inputs / "bunny.mp4"], namespace),
    )
    cluster.kube("delete", "job", "prepare", "-n", namespace, "--ignore-not-found", "--wait")
    cluster.apply(manifests.prepare_job(cluster.images["kinora"], models, "bunny.mp4", namespace))
    try:
        cluster.kube("wait", "-n", namespace, "--for=condition=Complete", "job/prepare", "--timeout=120s")
    except StepError as error:
        told = cluster.kube("describe", "pods", "-n", namespace, "-l", "job-name=prepare")
        raise StepError(f"{error}\n{told[-3000:]}") from error


def uninstall(cluster: DevCluster, namespace: str) -> None:
    """Remove what ``install_chart`` and ``prepare`` made, from a cluster that stays (CRDs too: the demo's trace)."""
    cluster.kube("delete", "namespace", namespace, "--ignore-not-found", "--wait", timeout=600)
    run(
        [cluster.helm, "uninstall", "kinora", "--namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--wait"],
        env=cluster.environment,
    )
    cluster.kube("delete", "namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--wait", timeout=600)
    cluster.kube("delete", "crd", "videojobs.kinora.dev", "modelservers.kinora.dev", "--ignore-not-found", "--wait")
