"""What of an artifact store is mounted where it is used: a claim, or a bucket's credentials and certificates. Pure.

Into the agent's and the stager's container alone: an engine runs other people's nodes. Keys go to the stager, which
signs for the agents (`access: Broker`); an agent then has a token of its own pod instead.
"""

from __future__ import annotations

from typing import Any

from kinora.api import names
from kinora.api.modelserver import ArtifactStoreSpec
from kinora.api.s3store import Access

Body = dict[str, Any]

CLAIM = "artifacts"
SECRET = "artifacts-secret"  # noqa: S105 - a volume's name
CA = "artifacts-ca"
TOKEN = "store-token"  # noqa: S105 - a volume's name
VOLUMES = frozenset({CLAIM, SECRET, CA, TOKEN})
_TOKEN_SECONDS = 3607


def is_brokered(artifacts: ArtifactStoreSpec, *, stagers: bool) -> bool:
    """Whether agents get presigned URLs of the store's stager. `stagers`: whether the operator runs any."""
    s3 = artifacts.s3
    return stagers and s3 is not None and bool(s3.secret_name) and s3.access is Access.BROKER


def agent_volumes(artifacts: ArtifactStoreSpec, *, stagers: bool) -> list[Body]:
    """Those of a server pod."""
    if not is_brokered(artifacts, stagers=stagers):
        return volumes(artifacts)
    token = {
        "serviceAccountToken": {
            "path": names.STORE_TOKEN_FILE, "audience": names.STORE_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS,
        }
    }  # fmt: skip
    kept = [volume for volume in volumes(artifacts) if volume["name"] != SECRET]
    return [*kept, {"name": TOKEN, "projected": {"defaultMode": 0o440, "sources": [token]}}]


def agent_mounts(artifacts: ArtifactStoreSpec, *, stagers: bool) -> list[Body]:
    """Where the agent's container has them."""
    if not is_brokered(artifacts, stagers=stagers):
        return mounts(artifacts)
    kept = [mount for mount in mounts(artifacts) if mount["name"] != SECRET]
    return [*kept, {"name": TOKEN, "mountPath": names.STORE_TOKEN_DIR, "readOnly": True}]


def volumes(artifacts: ArtifactStoreSpec) -> list[Body]:
    """The stager's volumes."""
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
