"""What the demo puts into its namespace besides ``examples/``: volumes, inputs, and a Job that makes small weights.

On the project's own dev cluster there is no provisioner, so each claim gets a volume on the node; elsewhere the
cluster's default StorageClass serves the claims.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

Object = dict[str, Any]

NAMESPACE = "kinora-demo"
CLAIMS = ("models", "videos", "clips")
SHARED_GID = 10000  # the group of agent and engine
AGENT_UID = 10002
_STORAGE = "2Gi"


def namespace() -> Object:
    """The demo's namespace; its pods must pass the restricted pod security standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def volume(claim: str, folder: Path, prefix: str = NAMESPACE) -> Object:
    """A volume on the dev cluster's node, for the claim of that name alone."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{prefix}-{claim}"},
        "spec": {
            "capacity": {"storage": _STORAGE},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": f"{prefix}-static",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": prefix, "name": claim},
            "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
        },
    }


def claim(name: str, *, static: bool, prefix: str = NAMESPACE) -> Object:
    """One claim; ReadWriteOnce where a provisioner serves it, as every provisioner can."""
    spec: Object = {
        "accessModes": ["ReadWriteMany" if static else "ReadWriteOnce"],
        "resources": {"requests": {"storage": _STORAGE}},
    }
    if static:
        spec["storageClassName"] = f"{prefix}-static"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": prefix},
        "spec": spec,
    }


def config_map(name: str, files: list[Path], prefix: str = NAMESPACE) -> Object:
    """A ConfigMap with these files."""
    data = {path.name: base64.b64encode(path.read_bytes()).decode() for path in files}
    metadata = {"name": name, "namespace": prefix}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data}


def prepare_job(image: str, models: list[str], clip: str, prefix: str = NAMESPACE) -> Object:
    """A Job that writes small FP8 weight files under the models' real names, and the clip, onto the claims."""
    script = (
        "set -e; python3 -m kinora.weights.tiny --root /models --models {models}; cp /inputs/{clip} /clips/".format(
            models=" ".join(models), clip=clip
        )
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "prepare", "namespace": prefix},
        "spec": {
            "backoffLimit": 2,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": AGENT_UID,
                        "runAsGroup": SHARED_GID,
                        "fsGroup": SHARED_GID,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "prepare",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["sh", "-c", script],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [
                                {"name": "models", "mountPath": "/models"},
                                {"name": "clips", "mountPath": "/clips"},
                                {"name": "inputs", "mountPath": "/inputs", "readOnly": True},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
                        {"name": "clips", "persistentVolumeClaim": {"claimName": "clips"}},
                        {"name": "inputs", "configMap": {"name": "clips"}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                }
            },
        },
    }
