"""The Kubernetes binaries, built once from Go modules and kept in the cache.

One binary holds every component and kubectl (it acts by the name that it is
called by), helm and CoreDNS are others, and two small ones make certificates
and hold a pod's namespaces. The cache key covers everything that goes into them, so
changing the version of Kubernetes builds anew and nothing else does.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from .packages import find
from .paths import GO_MODULE, cache_root
from .steps import ClusterError, file_lock, run, step

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
HELM = "helm.sh/helm/v3/cmd/helm"
# Static: `pause` runs alone in an empty image, and nothing here needs libc.
ENVIRONMENT = {"CGO_ENABLED": "0"}
GO_NEEDED = (1, 24)


def kubernetes_version(go_mod: str) -> str:
    """The version of k8s.io/kubernetes that go.mod requires, such as v1.34.4."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)$", go_mod, re.MULTILINE)
    if not found:
        raise ClusterError("hack/cluster/go/go.mod does not require k8s.io/kubernetes at a version: add it")
    return found[1]


def linker_flags(version: str) -> str:
    """Flags that make the binary tell its version, as the released ones do."""
    package = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s", "-w", *(f"-X {package}.{key}={value}" for key, value in values.items())])


def helm_linker_flags(go_mod: str) -> str:
    """The same for helm, which also lints and renders for that Kubernetes, or else for one of years ago."""
    found = re.search(r"^\s*helm\.sh/helm/v3 (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise ClusterError("hack/cluster/go/go.mod does not require helm.sh/helm/v3: add it")
    major, minor, _ = kubernetes_version(go_mod).removeprefix("v").split(".")
    values = {"internal/version.version": found[1]}
    for package in ("pkg/lint/rules", "pkg/chartutil"):
        values |= {f"{package}.k8sVersionMajor": major, f"{package}.k8sVersionMinor": minor}
    return " ".join(["-s", "-w", *(f"-X helm.sh/helm/v3/{name}={value}" for name, value in values.items())])


def key(module: Path = GO_MODULE) -> str:
    """Hash of the module's files and of how they are built."""
    digest = hashlib.sha256()
    go_mod = (module / "go.mod").read_text()
    for word in (
        linker_flags(kubernetes_version(go_mod)),
        helm_linker_flags(go_mod),
        HELM,
        repr(sorted(ENVIRONMENT.items())),
        os.uname().machine,
    ):
        digest.update(word.encode() + b"\0")
    for path in sorted(path for path in module.rglob("*") if path.suffix in {".go", ".mod", ".sum"}):
        digest.update(f"{path.relative_to(module)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def folder() -> Path:
    """Where the binaries are, or will be."""
    return cache_root() / "bin" / key()


def built() -> bool:
    return (folder() / "complete").exists()


def ensure() -> Path:
    """Build what is not built; returns the folder of the binaries."""
    target = folder()
    if built():
        return target
    with file_lock(target.parent / "lock", "another command that builds the Kubernetes binaries"):
        if not built():
            _build(target)
    return target


def _build(target: Path) -> None:
    go = _go()
    go_mod = (GO_MODULE / "go.mod").read_text()
    version = kubernetes_version(go_mod)
    log = cache_root() / "logs" / "go-build.log"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        out = Path(scratch) / "bin"
        out.mkdir()
        build: list[str | Path] = [go, "build", "-mod=readonly", "-trimpath"]
        with step(f"build Kubernetes {version} from Go modules (5 to 10 min on 2 cores the first time)"):
            command: list[str | Path] = [*build, "-ldflags", linker_flags(version), "-o", f"{out}/", ".", "./cmd/..."]
            run(command, cwd=GO_MODULE, env=ENVIRONMENT, log=log, timeout=3600)
        with step("build helm"):
            helm: list[str | Path] = [*build, "-ldflags", helm_linker_flags(go_mod), "-o", out / "helm", HELM]
            run(helm, cwd=GO_MODULE, env=ENVIRONMENT, log=log)
        with step("build CoreDNS"):
            dns = [*build, "-ldflags", "-s -w", "-o", out / "coredns", "."]
            run(dns, cwd=GO_MODULE / "dns", env=ENVIRONMENT, log=log)
        (out / "cluster").rename(out / "kinora-k8s")
        for name in COMPONENTS:
            (out / name).symlink_to("kinora-k8s")
        (out / "complete").touch()
        if target.exists():  # left without its mark, by a build that was cut off
            shutil.rmtree(target)
        out.rename(target)


def _go() -> str:
    go = find("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    need = ".".join(map(str, GO_NEEDED))
    if go is None:
        raise ClusterError(
            f"Go {need} or newer was not found: install it, or use Docker with kind, or set KINORA_CLUSTER to a context"
        )
    said = run([go, "env", "GOVERSION"], cwd=GO_MODULE).strip()
    version = re.match(r"go(\d+)\.(\d+)", said)
    if version and (int(version[1]), int(version[2])) < GO_NEEDED:
        raise ClusterError(
            f"Go {need} or newer is needed, {go} is {said}: install a newer one, or use Docker with kind"
        )
    return go
