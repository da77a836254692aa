"""The key of a namespace's stores: a Secret that its stagers make once, and that gateways read.

`data.key` signs; `data.previous`, where somebody has put it there to change keys without a gap, is accepted too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from kinora.api.names import LABEL_MANAGED_BY, LABEL_NAME, STORE_SECRET, STORE_SECRET_TYPE
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import SECRET

log = logging.getLogger(__name__)

KEY_BYTES: Final = 32
AGAIN_SECONDS: Final = 5.0  # between two reads that a bad signature asks for


class StoreKeyError(Exception):
    """The Secret is there and holds no key; the message names it and what it must hold."""


def secret_body(namespace: str, key: bytes) -> dict[str, Any]:
    """The Secret with this key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": STORE_SECRET,
            "namespace": namespace,
            "labels": {LABEL_NAME: "kinora", LABEL_MANAGED_BY: "kinora"},
        },
        "type": STORE_SECRET_TYPE,
        "data": {"key": base64.b64encode(key).decode()},
    }


def keys_in(secret: Mapping[str, Any]) -> list[bytes]:
    """Its keys, the one that signs first. StoreKeyError."""
    data = secret.get("data") or {}
    where = f"Secret {secret['metadata'].get('namespace', '')}/{secret['metadata']['name']}"
    found: list[bytes] = []
    for name in ("key", "previous"):
        if name not in data:
            continue
        try:
            key = base64.b64decode(data[name], validate=True)
        except (binascii.Error, ValueError, TypeError):
            key = b""
        if len(key) < KEY_BYTES:
            raise StoreKeyError(f"{where}: data.{name} is shorter than {KEY_BYTES} bytes; delete the Secret or set it")
        found.append(key)
    if "key" not in data:
        raise StoreKeyError(f"{where}: data.key is not set; delete the Secret and restart the stagers, or set it")
    return found


class StoreKeys:
    """The keys of a namespace, as its stager knows them: made where there are none, read again when asked for anew."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._keys: list[bytes] = []
        self._read = 0.0
        self._lock = asyncio.Lock()

    async def __call__(self, anew: bool) -> list[bytes]:
        """The keys of the moment; `anew`: read again, unless that was done a moment ago."""
        if self._keys and not (anew and time.monotonic() - self._read > AGAIN_SECONDS):
            return self._keys
        async with self._lock:
            if not self._keys or time.monotonic() - self._read > AGAIN_SECONDS:
                self._keys = keys_in(await self._find_or_make())
                self._read = time.monotonic()
        return self._keys

    async def _find_or_make(self) -> dict[str, Any]:
        """One of several stagers makes it: a create that comes second is a conflict, and finds the first one's."""
        found = await self._client.find(SECRET, self._namespace, STORE_SECRET)
        if found is not None:
            return found
        try:
            made = await self._client.create(
                SECRET, self._namespace, secret_body(self._namespace, secrets.token_bytes(KEY_BYTES))
            )
        except ApiError as error:
            if not error.already_exists:
                raise
            return await self._client.get(SECRET, self._namespace, STORE_SECRET)
        log.info("made Secret %s/%s", self._namespace, STORE_SECRET)
        return made
