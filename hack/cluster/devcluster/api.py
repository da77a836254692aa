"""The few API calls that this program makes itself, with an administrator's certificate."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Api:
    """A client of one API server."""

    def __init__(self, server: str, pki: Path) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        # No proxy from the environment: the server is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """One request; raises OSError (urllib's errors are) when it fails."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.server + path, data=data, method=method, headers={"Content-Type": kind, "Accept": "application/json"}
        )
        with self._opener.open(request, timeout=5) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] in b"{[" else text.decode()

    def answers(self, path: str) -> bool:
        """Whether a GET of the path succeeds now."""
        try:
            self.call("GET", path)
        except OSError:
            return False
        return True

    def node_ready(self, name: str) -> bool:
        try:
            node = self.call("GET", f"/api/v1/nodes/{name}")
        except OSError:
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def set_gpus(self, name: str, count: int) -> None:
        """Advertise GPUs that are not there: extended resources are only counted."""
        resource = {"nvidia.com/gpu": str(count)}
        patch = {"status": {"capacity": resource, "allocatable": resource}}
        self.call("PATCH", f"/api/v1/nodes/{name}/status", patch, kind="application/merge-patch+json")


def kubeconfig(server: str, pki: Path, user: str, name: str) -> str:
    """A kubeconfig as JSON (which is YAML) that holds its certificates itself."""

    def data(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": data(f"{user}.crt"),
                    "client-key-data": data(f"{user}.key"),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }
    return json.dumps(config, indent=1) + "\n"
