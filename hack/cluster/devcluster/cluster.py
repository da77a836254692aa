"""Up and down of our own cluster, built from its parts."""

from __future__ import annotations

import ipaddress
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import control, gobuild, node, packages, procs, sandbox
from .api import Api
from .control import Plan
from .paths import Layout, cache_root
from .steps import ClusterError, file_lock, step

DEFAULT_GPUS = 4


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """One `up`, `down` or `images` at a time for each cluster; the others wait."""
    with file_lock(layout.lock, f"another command that works on cluster {layout.name}"):
        yield


def up(layout: Layout, mode: str, gpus: int) -> None:
    """Start the cluster, or see that it is up."""
    plan = Plan.load(layout)
    if plan and healthy(layout, plan):
        if plan.mode != mode:
            raise ClusterError(
                f"cluster {layout.name} is up in {plan.mode} mode: "
                f"run down --name {layout.name} first, or use another name"
            )
        if mode == "node" and plan.gpus != gpus:
            Api(plan.server, layout.pki).set_gpus(plan.name, gpus)
            Plan(**{**plan.__dict__, "gpus": gpus}).save(layout)
        return
    if layout.root.exists():
        with step(f"clean what is left of cluster {layout.name}"):
            remove(layout)
    if mode == "node":
        _check_root(layout)
        packages.ensure(packages.NODE, cni=True)
    binaries = gobuild.ensure()
    for folder in (layout.run, layout.logs, layout.config):
        folder.mkdir(parents=True, exist_ok=True)
    layout.root.chmod(0o700)
    try:
        if mode == "node":
            _up_node(layout, binaries, gpus)
        else:
            _up_control_plane(layout, binaries)
    except BaseException:
        # The logs stay for a look; the next `up` or `down` removes the rest.
        procs.end([process for process in procs.recorded(layout) if process.alive], grace=0)
        raise


def _check_root(layout: Layout) -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "a node needs root (namespaces, mounts, cgroups): run as root, or use Docker with kind, "
            "or set KINORA_CLUSTER to a context, or add --control-plane-only"
        )
    if str(layout.root).startswith("/run/"):
        raise ClusterError(
            f"state in {layout.root} is hidden from the node, which has a /run of its own: set KINORA_STATE"
        )


def _up_control_plane(layout: Layout, binaries: Path) -> None:
    api_port, etcd_port, peer_port = control.free_ports(3)
    plan = Plan(
        layout.name,
        "control-plane",
        str(binaries),
        "127.0.0.1",
        api_port,
        etcd_port,
        peer_port,
        services="10.96.0.0/16",
    )

    def starter(name: str, command: Sequence[str | Path]) -> procs.Process:
        return procs.start(layout, name, command)

    with step("control plane"):
        control.prepare(layout, plan)
        control.start(layout, plan, starter)
    plan.save(layout)


def _up_node(layout: Layout, binaries: Path, gpus: int) -> None:
    with step("namespaces and network of the node"):
        network = sandbox.choose_range(sandbox.routes())
        holder = sandbox.create(layout, binaries / "pause", cache_root() / "containerd" / layout.name)
        address = sandbox.connect(layout.name, holder, network)
        sandbox.make_cgroup(layout.name)
    services, pods = ranges(network)
    plan = Plan(layout.name, "node", str(binaries), address, 6443, 2379, 2380, services, pods, gpus)

    def starter(name: str, command: Sequence[str | Path]) -> procs.Process:
        return procs.start(layout, name, [*sandbox.enter(holder), *command])

    with step("control plane"):
        control.prepare(layout, plan)
        control.start(layout, plan, starter)
    with step("containerd"):
        node.write_config(layout, plan)
        node.start_containerd(layout, plan, holder, starter)
    with step(f"kubelet, kube-proxy, DNS ({gpus} GPUs advertised)"):
        node.start_kubelet(layout, plan, starter)
    plan.save(layout)


def ranges(network: ipaddress.IPv4Network) -> tuple[str, str]:
    """Ranges of Services and of pods in the cluster's /16; the first /24 is the link's."""
    services, pods = list(network.subnets(new_prefix=20))[1], list(network.subnets(new_prefix=17))[1]
    return str(services), str(pods)


def healthy(layout: Layout, plan: Plan) -> bool:
    """Whether all that was started is there and answers."""
    processes = procs.recorded(layout)
    if not processes or not all(process.alive for process in processes):
        return False
    if plan.binaries != str(gobuild.folder()):
        return False  # of another version
    api = Api(plan.server, layout.pki)
    return api.answers("/readyz") and (plan.mode != "node" or api.node_ready(plan.name))


def holder_of(layout: Layout) -> procs.Process:
    """The process that holds the node's namespaces."""
    for process in procs.recorded(layout):
        if process.name == sandbox.HOLDER and process.alive:
            return process
    raise ClusterError(f"cluster {layout.name} is not up with a node: run up --name {layout.name} first")


def remove(layout: Layout) -> None:
    """End and remove all that `up` made; nothing happens when there is nothing."""
    processes = procs.recorded(layout)
    # The holder takes the whole node with it. The others end by themselves then.
    holder = [process for process in processes if process.name == sandbox.HOLDER]
    procs.end(holder, grace=0)
    # The API server stays some seconds for open watches: it is not asked twice.
    procs.end([process for process in processes if process.name != sandbox.HOLDER], grace=1)
    if os.geteuid() == 0:
        sandbox.disconnect(layout.name)
        sandbox.remove_cgroup(layout.name)
    if layout.root.exists():
        mounts = sandbox.mounts_below(layout.root)
        if mounts:
            raise ClusterError(
                f"not removing {layout.root}: something is mounted in it ({', '.join(mounts)}); umount it"
            )
        _remove_tree(layout.root)
    if os.geteuid() == 0:
        sandbox.remove_host_folders()


def _remove_tree(folder: Path) -> None:
    """Remove a folder; what a process that is just ending writes to it is removed the next time."""
    for attempt in range(20):
        try:
            shutil.rmtree(folder)
        except OSError:
            if attempt == 19:
                raise
            time.sleep(0.1)
        else:
            return
