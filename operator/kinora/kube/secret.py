"""Random keys in Secrets: made once by whoever comes first, and the same for everybody after."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any

from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import SECRET

_BYTES = 32


async def ensure_keys(client: KubeClient, namespace: str, name: str, labels: Mapping[str, str]) -> tuple[bytes, ...]:
    """The keys in the Secret, `current` first; made with one random key where it is not there. Raises ApiError.

    Others in it are former ones: they still open what they signed. Needs `create` of Secrets and `get` of this one.
    """
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "data": {"current": base64.b64encode(secrets.token_bytes(_BYTES)).decode()},
    }
    found = await client.find(SECRET, namespace, name)
    if found is None:
        try:
            found = await client.create(SECRET, namespace, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            found = await client.get(SECRET, namespace, name)
    return keys_in(found)


def keys_in(secret: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The keys of a Secret, `current` first. ValueError where it has none of at least 16 bytes."""
    data = {name: base64.b64decode(text or "") for name, text in (secret.get("data") or {}).items()}
    ordered = sorted((value, name) for name, value in data.items() if len(value) >= 16)
    keys = sorted(ordered, key=lambda item: (item[1] != "current", item[1]))
    if not keys:
        metadata = secret["metadata"]
        raise ValueError(
            f"Secret {metadata['namespace']}/{metadata['name']} holds no key; allowed: data.current, 16 bytes or more"
        )
    return tuple(value for value, _ in keys)
