"""Which kind of cluster is used."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .packages import find
from .steps import ClusterError


@dataclass(frozen=True)
class Backend:
    """kind: "context" (somebody's cluster, by name), "kind", or "own"."""

    kind: str
    context: str = ""
    registry: str = ""

    @property
    def sentence(self) -> str:
        """First line of the output: what will be touched."""
        if self.kind == "context":
            return f"using YOUR cluster: context {self.context} of your kubeconfig (KINORA_CLUSTER)"
        if self.kind == "kind":
            return "using kind, in Docker"
        return "using a cluster of our own on this machine (no Docker engine with kind was found)"


def docker_answers() -> bool:
    """Whether a Docker engine is there, not only its client."""
    if find("docker") is None:
        return False
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, timeout=15, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def detect(
    env: Mapping[str, str] = os.environ,
    *,
    which: Callable[[str], str | None] = find,
    docker: Callable[[], bool] = docker_answers,
    control_plane_only: bool = False,
) -> Backend:
    """Choose by what was named and what is there.

    KUBECONFIG alone chooses nothing: tests kill pods, and must never meet a
    cluster that nobody named for them.
    """
    context = env.get("KINORA_CLUSTER", "")
    if context:
        return Backend("context", context, env.get("KINORA_REGISTRY", "").rstrip("/"))
    if env.get("KINORA_REGISTRY"):
        raise ClusterError(
            "KINORA_REGISTRY is set without KINORA_CLUSTER: set KINORA_CLUSTER=<context> to use that cluster, "
            "or unset KINORA_REGISTRY to use one of our own"
        )
    # kind makes nodes; a control plane alone is quicker as a few processes.
    if not control_plane_only and which("kind") and docker():
        return Backend("kind")
    return Backend("own")
