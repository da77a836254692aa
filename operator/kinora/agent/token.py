"""Whether this process's service account token is bound to this pod: pure, on the token's text.

The admission fence compares the pod in the token with the pod in the job (api.md); a token without one is refused
there, so that an agent with such a token could render and never say so.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
_CLAIM: Final = "kubernetes.io"


def token_fault(token: str, pod_uid: str) -> str | None:
    """What is wrong with the token, or None. Its signature is the API server's affair."""
    try:
        payload = token.strip().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        pod = (claims.get(_CLAIM) or {}).get("pod") or {}
    except (IndexError, ValueError, binascii.Error, AttributeError):
        return "the service account token is no JWT that names a pod; the pod needs a projected token"
    if not pod.get("uid"):
        return "the service account token is not bound to a pod; the pod needs a projected token"
    if pod["uid"] != pod_uid:
        return f"the service account token is bound to another pod ({pod.get('name')})"
    return None
