"""What of an artifact store is mounted where it is used: a claim, or a bucket's credentials and certificates. Pure.

Into the agent's and the stager's container alone: an engine runs other people's nodes.
"""

from __future__ import annotations

from typing import Any

from kinora.api import names
from kinora.api.modelserver import ArtifactStoreSpec

Body = dict[str, Any]

CLAIM = "artifacts"
SECRET = "artifacts-secret"  # noqa: S105 - a volume's name
CA = "artifacts-ca"
VOLUMES = frozenset({CLAIM, SECRET, CA})


def volumes(artifacts: ArtifactStoreSpec) -> list[Body]:
    """The pod's volumes."""
    if artifacts.s3 is None:
        return [{"name": CLAIM, "persistentVolumeClaim": {"claimName": artifacts.claim_name}}]
    found: list[Body] = []
    if artifacts.s3.secret_name:
        found.append({"name": SECRET, "secret": {"secretName": artifacts.s3.secret_name, "defaultMode": 0o440}})
    ca = artifacts.s3.ca_config_map
    if ca is not None:
        found.append({"name": CA, "configMap": {"name": ca.name, "items": [{"key": ca.key, "path": ca.key}]}})
    return found


def mounts(artifacts: ArtifactStoreSpec) -> list[Body]:
    """Where the container has them."""
    if artifacts.s3 is None:
        return [{"name": CLAIM, "mountPath": names.ARTIFACTS_DIR}]
    found: list[Body] = []
    if artifacts.s3.secret_name:
        found.append({"name": SECRET, "mountPath": names.STORE_SECRET_DIR, "readOnly": True})
    if artifacts.s3.ca_config_map is not None:
        found.append({"name": CA, "mountPath": names.STORE_CA_DIR, "readOnly": True})
    return found
