"""A receiver of webhooks in a pod of the test's namespace: refuses as often as it is told, and prints what came."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from demo.install import DevCluster
from integration.gateway.receivers import Request
from waiting import DEADLINE

Object = dict[str, Any]
NAME, PORT = "hooks", 8080

#: One JSON line a request on standard output; the first `sys.argv[1]` are answered 503, all others 204.
_PROGRAM = """
import base64, http.server, json, sys

class Receiver(http.server.BaseHTTPRequestHandler):
    refused = int(sys.argv[1])

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = {"path": self.path, "headers": headers, "body": base64.b64encode(body).decode()}
        print(json.dumps(told), flush=True)
        self.send_response(503 if Receiver.refused > 0 else 204)
        Receiver.refused -= 1
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", %d), Receiver).serve_forever()
"""


def url(namespace: str) -> str:
    """Where the gateway's pods find it; the chart's values must allow its host."""
    return f"http://{host(namespace)}/kinora"


def host(namespace: str) -> str:
    """As `gateway.webhooks.allow.hosts` names it."""
    return f"{NAME}.{namespace}.svc:{PORT}"


def start(cluster: DevCluster, namespace: str, *, refusals: int) -> None:
    """The pod and its Service; returns when it answers."""
    cluster.apply(_pod(namespace, cluster.images["kinora"], refusals), _service(namespace))
    cluster.kube("wait", "-n", namespace, "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s")


def stop(cluster: DevCluster, namespace: str) -> None:
    """Both go."""
    cluster.kube("delete", f"pod/{NAME}", f"service/{NAME}", "-n", namespace, "--grace-period=0", "--ignore-not-found")


def came(cluster: DevCluster, namespace: str, count: int) -> list[Request]:
    """All requests, once there are so many: the log has a line a moment after it was printed."""
    deadline = time.monotonic() + DEADLINE
    while len(lines := cluster.kube("logs", NAME, "-n", namespace).splitlines()) < count:
        assert time.monotonic() < deadline, f"{count} requests are expected: {lines}"
    return [Request(one["path"], one["headers"], base64.b64decode(one["body"])) for one in map(json.loads, lines)]


def _pod(namespace: str, image: str, refusals: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"app": NAME}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10003,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "receiver",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", _PROGRAM % PORT, str(refusals)],
                    "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def _service(namespace: str) -> Object:
    spec = {"selector": {"app": NAME}, "ports": [{"port": PORT}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": spec,
    }
