"""The node: containerd, kubelet, kube-proxy, DNS and the pod network.

Paths below /run/kinora are the node's own (see sandbox.SETUP).
"""

from __future__ import annotations

import json
from pathlib import Path

from . import packages, procs
from .api import Api
from .archive import pause_archive
from .control import Plan, Starter
from .paths import Layout
from .sandbox import enter
from .steps import ClusterError, run, wait_for

SOCKET = "/run/kinora/containerd.sock"
PAUSE_IMAGE = "localhost/kinora-pause:1"

# containerd's settings. restrict_oom_score_adj: a container's score must not be
# lower than containerd's own where CAP_SYS_RESOURCE is missing, or no sandbox starts.
CONTAINERD = """version = 2
root = "/run/kinora/containerd"
state = "/run/kinora/containerd-state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/kinora/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{config}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

# What a kubelet ends with that asks containerd between its first answer and the start of its CRI service.
CRI_STARTING = "server is not initialized yet"

# Names of Services and pods; any other name is refused at once, not after a while.
COREFILE = """.:53 {{
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
"""


def write_config(layout: Layout, plan: Plan) -> None:
    """Write the configuration of the node's programs."""
    plugins = packages.cni_folder()
    if plugins is None:
        raise ClusterError(f"CNI plugins are missing: install the package {packages.CNI_PACKAGE}")
    network = layout.config / "cni"
    network.mkdir(exist_ok=True)
    (network / "10-pods.conflist").write_text(json.dumps(pod_network(plan)))
    (layout.config / "containerd.toml").write_text(
        CONTAINERD.format(socket=SOCKET, pause=PAUSE_IMAGE, plugins=plugins, config=network)
    )
    # Pods ask the cluster's DNS only: nothing outside can be reached anyway.
    (layout.config / "resolv.conf").write_text("")
    (layout.config / "Corefile").write_text(COREFILE.format(kubeconfig=layout.config / "dns.kubeconfig"))
    (layout.config / "kubelet.json").write_text(json.dumps(kubelet_config(layout, plan), indent=1))
    (layout.config / "proxy.json").write_text(json.dumps(proxy_config(layout, plan), indent=1))


def pod_network(plan: Plan) -> dict[str, object]:
    """A point-to-point link for each pod, so that all traffic is routed and passes kube-proxy's rules.

    A bridge would need the kernel's br_netfilter for a Service that leads back
    to a pod on the same bridge, and not every kernel has it.
    """
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": plan.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/kinora/cni",
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}]}


def kubelet_config(layout: Layout, plan: Plan) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/kinora-{plan.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "protectKernelDefaults": False,
        "resolvConf": str(layout.config / "resolv.conf"),
        "clusterDNS": [plan.address],
        "clusterDomain": "cluster.local",
        "volumePluginDir": "/run/kinora/volume-plugins",
        # A full disk is the developer's to see, not a reason to evict a test's pods.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "5s",
        # No image is fetched, and starting pods together is what the tests do.
        "serializeImagePulls": False,
        "registryPullQPS": 0,
    }


def proxy_config(layout: Layout, plan: Plan) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(layout.config / "proxy.kubeconfig")},
        "clusterCIDR": plan.pods,
        "hostnameOverride": plan.name,
        "healthzBindAddress": f"{plan.address}:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The size of the connection table is the machine's, not the cluster's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }


def start_containerd(layout: Layout, plan: Plan, holder: procs.Process, starter: Starter) -> procs.Process:
    """Start containerd and give it the image of pod sandboxes."""
    containerd = starter("containerd", ["containerd", f"--config={layout.config / 'containerd.toml'}"])

    def answers() -> bool:
        try:
            ctr(holder, "version")
        except ClusterError:
            return False
        return True

    wait_for("containerd", answers, deadline=30, failed=containerd.why_dead, log=containerd.log)
    if PAUSE_IMAGE not in images(holder):
        archive = layout.root / "pause.tar"
        pause_archive(plan.bin / "pause", PAUSE_IMAGE, archive)
        load(holder, archive)
        archive.unlink()
    return containerd


def start_kubelet(layout: Layout, plan: Plan, starter: Starter) -> None:
    """Start kubelet, kube-proxy and DNS; wait until pods can be placed on the node."""
    config = layout.config
    command = [
        plan.bin / "kubelet",
        f"--config={config / 'kubelet.json'}",
        f"--kubeconfig={config / 'kubelet.kubeconfig'}",
        "--root-dir=/run/kinora/kubelet",
        f"--hostname-override={plan.name}",
        f"--node-ip={plan.address}",
    ]
    kubelet = starter("kubelet", command)
    proxy = starter("kube-proxy", [plan.bin / "kube-proxy", f"--config={config / 'proxy.json'}"])
    dns = starter("coredns", [plan.bin / "coredns", "-conf", config / "Corefile"])
    api = Api(plan.server, layout.pki)

    def failed() -> str | None:
        nonlocal kubelet
        why = kubelet.why_dead()
        if why and CRI_STARTING in why:  # start it again, as a node's service manager does
            kubelet, why = starter("kubelet", command), None
        return why or proxy.why_dead() or dns.why_dead()

    wait_for(f"node {plan.name} Ready", lambda: api.node_ready(plan.name), deadline=90, log=kubelet.log, failed=failed)
    # Only now: the kubelet clears extended resources when it registers.
    api.set_gpus(plan.name, plan.gpus)


def ctr(holder: procs.Process, *words: str | Path, timeout: float = 300) -> str:
    """Run containerd's own client in the node."""
    return run([*enter(holder), "ctr", f"--address={SOCKET}", "--namespace=k8s.io", *words], timeout=timeout)


def images(holder: procs.Process) -> set[str]:
    """References of the images that the node has."""
    return set(ctr(holder, "images", "ls", "-q").split())


def load(holder: procs.Process, archive: Path) -> None:
    """Import an image archive into the node."""
    ctr(holder, "images", "import", archive)
