"""The control plane: certificates, etcd, API server, controller manager, scheduler."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .api import Api, kubeconfig
from .paths import Layout
from .procs import Process
from .steps import run, wait_for

# Starts a component: its name and its command.
Starter = Callable[[str, Sequence[str | Path]], Process]

# Who did what to which object, without bodies: enough to count writes, and cheap.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        # What every cluster says all the time, and nobody reads.
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*", "/openapi*", "/metrics"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Plan:
    """What `up` decided for a cluster; kept as cluster.json."""

    name: str
    mode: str  # "control-plane" or "node"
    binaries: str
    address: str  # of the API server and the kubelet
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    services: str
    pods: str = ""
    gpus: int = 0

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.api_port}"

    @property
    def bin(self) -> Path:
        return Path(self.binaries)

    def save(self, layout: Layout) -> None:
        layout.record.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, layout: Layout) -> Plan | None:
        """The plan of a cluster that is or was up; None when there is none or it cannot be read."""
        try:
            return cls(**json.loads(layout.record.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; taken together, so that they differ."""
    held = []
    for _ in range(count):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        held.append(listener)
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


def prepare(layout: Layout, plan: Plan) -> None:
    """Write certificates and configuration files."""
    hosts = [plan.address, "127.0.0.1", first_service_address(plan.services), "localhost", plan.name, "kubernetes"]
    hosts += ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    run([plan.bin / "pki", layout.pki, plan.name, *dict.fromkeys(hosts)])
    layout.config.mkdir(parents=True, exist_ok=True)
    (layout.config / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
    for user in ("controller-manager", "scheduler", "proxy", "kubelet", "dns"):
        _write_secret(layout.config / f"{user}.kubeconfig", kubeconfig(plan.server, layout.pki, user, plan.name))
    _write_secret(layout.kubeconfig, kubeconfig(plan.server, layout.pki, "admin", f"kinora-dev-{plan.name}"))


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def first_service_address(cidr: str) -> str:
    """The address of the `kubernetes` Service: the first of the range."""
    network, _, _ = cidr.partition("/")
    return network[: network.rindex(".")] + ".1"


def start(layout: Layout, plan: Plan, starter: Starter) -> list[Process]:
    """Start everything and wait until the API server is ready."""
    etcd = starter("etcd", etcd_command(layout, plan))
    apiserver = starter("kube-apiserver", apiserver_command(layout, plan))
    api = Api(plan.server, layout.pki)

    def failed() -> str | None:
        return etcd.why_dead() or apiserver.why_dead()

    wait_for("API server ready", lambda: api.answers("/readyz"), deadline=120, failed=failed, log=apiserver.log)
    processes = [etcd, apiserver, starter("kube-controller-manager", controller_manager_command(layout, plan))]
    if plan.mode == "node":
        processes.append(starter("kube-scheduler", scheduler_command(layout, plan)))
    # Pods are refused until the controller manager has made this one.
    wait_for(
        "default service account",
        lambda: api.answers("/api/v1/namespaces/default/serviceaccounts/default"),
        deadline=60,
        log=processes[2].log,
        failed=lambda: next((why for process in processes if (why := process.why_dead())), None),
    )
    return processes


def etcd_command(layout: Layout, plan: Plan) -> list[str | Path]:
    client = f"https://127.0.0.1:{plan.etcd_port}"
    peer = f"http://127.0.0.1:{plan.etcd_peer_port}"
    return [
        plan.bin / "etcd",
        "--name=dev",
        f"--data-dir={layout.root / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=dev={peer}",
        # Only the API server may speak to it: it holds every Secret.
        "--client-cert-auth",
        f"--trusted-ca-file={layout.pki / 'ca.crt'}",
        f"--cert-file={layout.pki / 'apiserver.crt'}",
        f"--key-file={layout.pki / 'apiserver.key'}",
        # The data is thrown away with the cluster: nothing is gained by waiting for the disk.
        "--unsafe-no-fsync",
        # 2 GiB by default: a load test's history fills them before the API server's next compaction.
        f"--quota-backend-bytes={8 << 30}",
        "--log-level=warn",
    ]


def apiserver_command(layout: Layout, plan: Plan) -> list[str | Path]:
    pki = layout.pki
    command: list[str | Path] = [
        plan.bin / "kube-apiserver",
        f"--etcd-servers=https://127.0.0.1:{plan.etcd_port}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'apiserver.crt'}",
        f"--etcd-keyfile={pki / 'apiserver.key'}",
        f"--bind-address={plan.address}",
        f"--advertise-address={plan.address}",
        f"--secure-port={plan.api_port}",
        f"--service-cluster-ip-range={plan.services}",
        f"--cert-dir={layout.root / 'apiserver'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        # The node's name is in no DNS: exec and logs go by its address.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--audit-policy-file={layout.config / 'audit-policy.json'}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=1",
        "--profiling=false",
    ]
    if plan.mode == "control-plane":
        # An endpoint must not be a loopback address, and no pod is there to use it.
        command.append("--endpoint-reconciler-type=none")
    return command


def controller_manager_command(layout: Layout, plan: Plan) -> list[str | Path]:
    config = layout.config / "controller-manager.kubeconfig"
    command: list[str | Path] = [
        plan.bin / "kube-controller-manager",
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        # It makes dozens of objects before its controllers run: 4 s at the default 20/s.
        "--kube-api-qps=400",
        "--kube-api-burst=800",
        # A claim made before its volume is bound by the next round: 15 s by default.
        "--pvclaimbinder-sync-period=1s",
        "--use-service-account-credentials",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        f"--service-account-private-key-file={layout.pki / 'sa.key'}",
        f"--flex-volume-plugin-dir={layout.root / 'volume-plugins'}",
        "--profiling=false",
    ]
    if plan.mode == "control-plane":
        # Nobody sends a node's heartbeat, and a test's own nodes are to stay as they are.
        command.append("--controllers=*,-node-lifecycle-controller,-node-ipam-controller,-bootstrap-signer-controller")
    return command


def scheduler_command(layout: Layout, plan: Plan) -> list[str | Path]:
    config = layout.config / "scheduler.kubeconfig"
    return [plan.bin / "kube-scheduler", f"--kubeconfig={config}", "--secure-port=0", "--leader-elect=false"]
