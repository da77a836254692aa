"""The namespaces, address range and cgroup that a node lives in.

A node mounts file systems, adds network interfaces and firewall rules, sets
kernel parameters and starts processes whose parents end. All of it happens in
namespaces of its own (mount, network, process ids), which are held by one
process. So the machine's own network, mounts and /run are never touched, two
clusters do not meet, and ending that one process ends everything at once: the
kernel kills what is in the process-id namespace, and drops the mounts, rules
and interfaces. What is left outside is one veth pair, and a folder of cgroups.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import time
from collections.abc import Iterable
from pathlib import Path

from . import procs
from .packages import find
from .paths import Layout, state_root
from .steps import ClusterError, run, tail, wait_for

HOLDER = "sandbox"
CGROUPS = Path("/sys/fs/cgroup")

# Kernel parameters that the kubelet sets for the whole machine, and wants to
# read back. They have no namespace: it gets files of its own to look at, with
# the values that it wants, so that it has no reason to write.
KUBELET_WANTS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# Folders that the kubelet and containerd's CNI library write to, whatever they
# are told. The node sees folders of its own there; but a mount needs a place.
HOST_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"))

# Runs as process 1 of the namespaces, then becomes the holder.
SETUP = """set -eu
state=$1 containerd=$2 holder=$3
mount -n -t proc proc /proc
mount -n -t tmpfs -o mode=755,size=256m tmpfs /run
# Short paths, because a socket's path must have fewer than 108 characters.
mkdir -p /run/kinora/kubelet /run/kinora/containerd /run/netns
mount --bind "$state/kubelet" /run/kinora/kubelet
mount --bind "$containerd" /run/kinora/containerd
mkdir -p "$state/var-lib-kubelet" "$state/var-lib-cni"
mount --bind "$state/var-lib-kubelet" /var/lib/kubelet
mount --bind "$state/var-lib-cni" /var/lib/cni
# The kubelet writes pod logs to fixed places below /var/log.
mount --bind "$state/var-log" /var/log
find "$state/sysctl" -type f | while read -r file; do
  name=${file#"$state/sysctl/"}
  if [ -e "/proc/sys/$name" ]; then mount --bind "$file" "/proc/sys/$name"; fi
done
mount --make-rshared /
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
touch "$state/sandbox-ready"
exec "$holder"
"""


def interface(name: str) -> str:
    """Our end of the veth pair: a name has at most 15 characters."""
    return f"kn-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def choose_range(taken: Iterable[str]) -> ipaddress.IPv4Network:
    """A /16 of 10.0.0.0/8 that no route or address of this machine overlaps."""
    used = [ipaddress.ip_network(item, strict=False) for item in taken]
    for second in [*range(213, 250), *range(100, 213)]:
        candidate = ipaddress.IPv4Network(f"10.{second}.0.0/16")
        if not any(isinstance(net, ipaddress.IPv4Network) and net.overlaps(candidate) for net in used):
            return candidate
    raise ClusterError(
        "no free /16 in 10.100.0.0 to 10.249.255.255: every one overlaps a route of this machine (ip route)"
    )


def routes() -> list[str]:
    """Destinations of every IPv4 route, the default one aside."""
    found = json.loads(run([find("ip") or "ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    return [item["dst"] for item in found if item.get("dst", "default") != "default"]


def create(layout: Layout, holder: Path, containerd_root: Path) -> procs.Process:
    """Make the namespaces; returns the process that holds them."""
    for folder in ("kubelet", "var-log"):
        (layout.root / folder).mkdir(exist_ok=True)
    containerd_root.mkdir(parents=True, exist_ok=True)
    _make_host_folders()
    for name, value in KUBELET_WANTS.items():
        path = layout.root / "sysctl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "slave", "--"]
    arguments = ["sh", "-c", SETUP, "sandbox", str(layout.root), str(containerd_root), str(holder)]
    outer = procs.start(layout, "unshare", [*command, *arguments])
    ready = layout.root / "sandbox-ready"
    wait_for("namespaces of the node", ready.exists, deadline=20, failed=outer.why_dead, log=outer.log, every=0.02)
    children = children_of(outer.pid)
    if len(children) != 1:
        raise ClusterError(f"the namespaces' first process was not found; the end of its log:\n{tail(outer.log)}")
    return procs.record(layout, HOLDER, children[0], outer.log)


def _made() -> Path:
    """Where the folders of this machine that we made are written down, for all clusters."""
    return state_root() / "host-folders.json"


def _make_host_folders() -> None:
    known = json.loads(_made().read_text()) if _made().exists() else []
    made = [str(folder) for folder in HOST_FOLDERS if not folder.exists()]
    if made:
        # Before they are made: what is written down too much is harmless.
        _made().write_text(json.dumps(sorted({*known, *made})))
    for folder in HOST_FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)


def remove_host_folders() -> None:
    """Remove the folders that we made, once no node is left that has mounts on them."""
    if not _made().exists() or any((state_root() / "clusters").glob(f"*/run/{HOLDER}.json")):
        return
    for folder in json.loads(_made().read_text()):
        with contextlib.suppress(OSError):  # somebody uses it now, or removed it
            Path(folder).rmdir()
    _made().unlink()


def children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if int(text[text.rindex(")") + 2 :].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def enter(holder: procs.Process) -> list[str]:
    """Words before a command that is to run in the namespaces."""
    return ["nsenter", f"--target={holder.pid}", "--mount", "--net", "--pid", "--"]


def connect(name: str, holder: procs.Process, network: ipaddress.IPv4Network) -> str:
    """Join the node's network with this machine's; returns the node's address."""
    ip = find("ip") or "ip"
    outside, inside = network[1], network[2]
    device = interface(name)
    run([ip, "link", "add", device, "type", "veth", "peer", "name", "node0", "netns", str(holder.pid)])
    run([ip, "addr", "add", f"{outside}/30", "dev", device])
    run([ip, "link", "set", device, "up"])
    within = [*enter(holder), ip]
    run([*within, "addr", "add", f"{inside}/30", "dev", "node0"])
    run([*within, "link", "set", "node0", "up"])
    # Tests on this machine reach pods and Services by their addresses.
    run([ip, "route", "add", str(network), "via", str(inside)])
    return str(inside)


def disconnect(name: str) -> None:
    """Remove our end of the veth pair; its routes go with it."""
    device = interface(name)
    if Path("/sys/class/net", device).exists():
        # The kernel may be removing it already, with the namespace at its other end.
        with contextlib.suppress(ClusterError):
            run([find("ip") or "ip", "link", "delete", device])
    until = time.monotonic() + 10
    while Path("/sys/class/net", device).exists():
        if time.monotonic() > until:
            raise ClusterError(f"interface {device} does not go: remove it with `ip link delete {device}`")
        time.sleep(0.05)


def cgroup_folders(name: str) -> list[Path]:
    """The cluster's folder in each hierarchy (one with cgroup v2)."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / f"kinora-{name}"]
    folders: dict[Path, Path] = {}
    for controller in sorted(CGROUPS.iterdir()):
        # v1 controllers that share a hierarchy appear as links to one folder.
        if controller.is_dir() and (controller / "cgroup.procs").exists():
            folders.setdefault(controller.resolve(), controller.resolve() / f"kinora-{name}")
    return list(folders.values())


def make_cgroup(name: str) -> None:
    """The cgroup below which the kubelet makes those of the pods."""
    for folder in cgroup_folders(name):
        folder.mkdir(exist_ok=True)
        for file in ("cpuset.mems", "cpuset.cpus"):
            # A v1 cpuset starts empty, and nothing can run in an empty one.
            if (folder / file).exists() and not (folder / "cgroup.controllers").exists():
                (folder / file).write_text((folder.parent / file).read_text())
        controllers = folder.parent / "cgroup.controllers"
        if folder.parent == CGROUPS and controllers.exists():
            wanted = " ".join(f"+{item}" for item in controllers.read_text().split())
            (folder / "cgroup.subtree_control").write_text(wanted)


def remove_cgroup(name: str) -> None:
    for top in cgroup_folders(name):
        until = time.monotonic() + 20
        while top.exists():
            for folder in sorted(top.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                top.rmdir()
            if top.exists():  # its last processes are still being ended
                if time.monotonic() > until:
                    raise ClusterError(f"cgroup {top} does not go: processes are in it (see {top}/**/cgroup.procs)")
                time.sleep(0.05)


def mounts_below(folder: Path) -> list[str]:
    """Mount points of this machine inside a folder."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if Path(point).is_relative_to(folder):
            found.append(point)
    return found
