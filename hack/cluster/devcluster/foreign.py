"""Up and down where the cluster is not ours: kind, and a context that was named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from . import gobuild
from .backend import Backend
from .packages import find
from .paths import Layout
from .steps import ClusterError, run, step


def tool(name: str) -> Path:
    """kubectl or helm: the machine's, or else ours."""
    path = find(name)
    return Path(path) if path else gobuild.ensure() / name


def up(layout: Layout, backend: Backend, gpus: int) -> None:
    """Write a kubeconfig that holds the one cluster, and see that it answers."""
    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if backend.kind == "kind":
        _kind_up(layout, gpus)
    else:
        view: list[str | Path] = [
            tool("kubectl"),
            "config",
            "view",
            "--minify",
            "--flatten",
            f"--context={backend.context}",
        ]
        layout.kubeconfig.touch(mode=0o600)
        layout.kubeconfig.write_text(run(view, timeout=30))
    with step("API server answers"):
        run([tool("kubectl"), f"--kubeconfig={layout.kubeconfig}", "get", "--raw=/readyz"], timeout=60)
    layout.record.write_text(json.dumps({"name": layout.name, "mode": backend.kind, "context": backend.context}) + "\n")


def _kind_up(layout: Layout, gpus: int) -> None:
    if layout.name not in run(["kind", "get", "clusters"], timeout=60).split():
        with step("kind create cluster"):
            run(
                [
                    "kind",
                    "create",
                    "cluster",
                    f"--name={layout.name}",
                    f"--kubeconfig={layout.kubeconfig}",
                    "--wait=180s",
                ]
            )
    layout.kubeconfig.touch(mode=0o600)
    layout.kubeconfig.write_text(run(["kind", "get", "kubeconfig", f"--name={layout.name}"], timeout=60))
    kubectl: list[str | Path] = [tool("kubectl"), f"--kubeconfig={layout.kubeconfig}"]
    patch = json.dumps(
        {"status": {"capacity": {"nvidia.com/gpu": str(gpus)}, "allocatable": {"nvidia.com/gpu": str(gpus)}}}
    )
    for node in run([*kubectl, "get", "nodes", "-o", "name"], timeout=60).split():
        run([*kubectl, "patch", node, "--subresource=status", "--type=merge", f"--patch={patch}"], timeout=60)


def down(layout: Layout, mode: str) -> None:
    """Delete a kind cluster; of somebody's cluster only our copy of the kubeconfig."""
    if mode == "kind":
        if find("kind") is None:
            raise ClusterError(f"kind is not on PATH: it is needed to delete its cluster {layout.name}")
        run(["kind", "delete", "cluster", f"--name={layout.name}"], timeout=300)
    shutil.rmtree(layout.root, ignore_errors=True)


def mode_of(layout: Layout) -> str:
    """The mode that `up` recorded, or ''."""
    try:
        return str(json.loads(layout.record.read_text())["mode"])
    except (OSError, ValueError, KeyError):
        return ""
