"""Debian packages that a node and the image build need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .steps import ClusterError, run, step

# Program (or file) that must be there -> the package that brings it. Programs
# are looked for, not packages: a machine with Docker has containerd elsewhere.
NODE = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PACKAGE = "containernetworking-plugins"
_POLICY = Path("/usr/sbin/policy-rc.d")


def cni_folder() -> Path | None:
    """Folder of the CNI plugins, when they are there."""
    return next((folder for folder in CNI_FOLDERS if (folder / "ptp").exists()), None)


def find(program: str) -> str | None:
    """Path of a program; sbin too, which is not on every user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing(wanted: dict[str, str], *, cni: bool) -> list[str]:
    packages = {package for program, package in wanted.items() if find(program) is None}
    if cni and cni_folder() is None:
        packages.add(CNI_PACKAGE)
    return sorted(packages)


def ensure(wanted: dict[str, str], *, cni: bool = False) -> None:
    """Install what is missing, or say what to install."""
    packages = missing(wanted, cni=cni)
    if not packages:
        return
    listed = " ".join(packages)
    if find("apt-get") is None:
        raise ClusterError(
            f"programs of these Debian packages are missing: {listed}; install them, or use Docker with kind"
        )
    if os.geteuid() != 0:
        raise ClusterError(f"packages are missing; run as root: apt-get install --no-install-recommends {listed}")
    with step(f"Debian packages: {listed}"):
        _install(packages)


def _install(packages: Iterable[str]) -> None:
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    # The packaged containerd service must not start: the dev cluster runs one
    # of its own, elsewhere. Debian's switch for that is this file.
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        run(["apt-get", "update", "-qq"], env=env, timeout=600)
        run(install, env=env, timeout=1200)
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
