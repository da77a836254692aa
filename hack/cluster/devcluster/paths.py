"""Where everything lives: caches outlive a cluster, state goes with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
GO_MODULE = REPOSITORY / "hack" / "cluster" / "go"
DEFAULT_NAME = "kinora"

# The name becomes part of an interface name, a cgroup and a Kubernetes node.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")


def cache_root(env: Mapping[str, str] = os.environ) -> Path:
    """Folder of what is dear to make and the same for every cluster."""
    if env.get("KINORA_CACHE"):
        return Path(env["KINORA_CACHE"]).expanduser().absolute()
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".cache")
    return Path(base).absolute() / "kinora"


def state_root(env: Mapping[str, str] = os.environ) -> Path:
    """Folder of the clusters that are up."""
    if env.get("KINORA_STATE"):
        return Path(env["KINORA_STATE"]).expanduser().absolute()
    base = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(base).absolute() / "kinora"


def check_name(name: str) -> str:
    """Return the cluster name, or raise ValueError that says what is allowed."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"cluster name {name!r} is not allowed: use 1 to 30 of a-z, 0-9 and '-', "
            "starting with a letter and not ending with '-'"
        )
    return name


@dataclass(frozen=True)
class Layout:
    """The files of one cluster."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str, env: Mapping[str, str] = os.environ) -> Layout:
        return cls(check_name(name), state_root(env) / "clusters" / name)

    @property
    def lock(self) -> Path:
        # Beside the folder, not in it: `down` removes the folder while it holds the lock.
        return self.root.with_name(f"{self.name}.lock")

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def record(self) -> Path:
        """What `up` decided (mode, ports, addresses), as JSON."""
        return self.root / "cluster.json"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """One JSON file for each process that was started."""
        return self.root / "run"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def images_record(self) -> Path:
        """References of the images that were loaded, as JSON."""
        return self.root / "images.json"
