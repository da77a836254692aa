"""How tests find their cluster: ``hack/cluster env`` tells paths; a missing cluster is an error that says the mend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cluster:
    """Where a dev cluster's things are."""

    name: str
    kubeconfig: str
    kubectl: str
    helm: str
    audit_log: str | None

    def run(self, *command: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl (or helm, when the first word is helm) against the cluster; its output."""
        program, arguments = (self.helm, command[1:]) if command[0] == "helm" else (self.kubectl, command)
        done = subprocess.run(
            [program, *arguments],
            env={**os.environ, "KUBECONFIG": self.kubeconfig},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)


@cache
def cluster(name: str) -> Cluster:
    """The running dev cluster of that name. Raises AssertionError saying how to start it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack/cluster"), "env", "--name", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise AssertionError(f"no cluster {name!r} (start it: make cluster-up, or make integration-up): {done.stderr}")
    env = json.loads(done.stdout)
    if not Path(env["kubeconfig"]).exists():
        raise AssertionError(f"cluster {name!r} is not up; start it: make cluster-up, or make integration-up")
    return Cluster(name, env["kubeconfig"], env["kubectl"], env["helm"], env.get("auditLog"))
