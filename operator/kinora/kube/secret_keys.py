"""Keys that processes of Kinora share by a Secret: made once by whoever comes first, read by those that may.

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
from kinora.kube.client import ApiError, KubeClient, Object
from kinora.kube.resources import SECRET

log = logging.getLogger(__name__)

KEY_BYTES: Final = 32
AGAIN_SECONDS: Final = 5.0  # between two reads that a bad signature asks for


class SecretKeyError(Exception):
    """There is no such Secret, or it holds no key; the message names it and what it must hold."""


def secret_body(namespace: str, key: bytes, *, name: str = STORE_SECRET, kind: str = STORE_SECRET_TYPE) -> Object:
    """The Secret with this key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {LABEL_NAME: "kinora", LABEL_MANAGED_BY: "kinora"},
        },
        "type": kind,
        "data": {"key": base64.b64encode(key).decode()},
    }


def keys_in(secret: Mapping[str, Any]) -> list[bytes]:
    """Its keys, the one that signs first. SecretKeyError."""
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
            raise SecretKeyError(f"{where}: data.{name} is no base64 of at least {KEY_BYTES} bytes; set or delete it")
        found.append(key)
    if "key" not in data:
        raise SecretKeyError(f"{where}: data.key is not set; delete the Secret, and it is made anew, or set it")
    return found


class SecretKeys:
    """The keys of one Secret. `make`: its type, where this process makes it when there is none.

    Read once, and again when asked for anew, at most every AGAIN_SECONDS.
    """

    def __init__(
        self, client: KubeClient, namespace: str, name: str = STORE_SECRET, *, make: str | None = None
    ) -> None:
        self._client, self._namespace, self._name, self._make = client, namespace, name, make
        self._keys: list[bytes] = []
        self._read = 0.0
        self._lock = asyncio.Lock()

    @property
    def known(self) -> list[bytes]:
        """The keys as they were read last; none before the first time."""
        return self._keys

    async def __call__(self, anew: bool = False) -> list[bytes]:
        """The keys of the moment. SecretKeyError, ApiError, UnreachableError."""
        if self._keys and not (anew and self._is_due()):
            return self._keys
        async with self._lock:
            if not self._keys or (anew and self._is_due()):
                self._keys = keys_in(await self._found())
                self._read = time.monotonic()
        return self._keys

    def _is_due(self) -> bool:
        return time.monotonic() - self._read > AGAIN_SECONDS

    async def _found(self) -> Object:
        """One of several processes makes it: a create that comes second is a conflict, and finds the first one's."""
        found = await self._client.find(SECRET, self._namespace, self._name)
        if found is not None:
            return found
        if self._make is None:
            raise SecretKeyError(f"there is no Secret {self._namespace}/{self._name}")
        body = secret_body(self._namespace, secrets.token_bytes(KEY_BYTES), name=self._name, kind=self._make)
        try:
            made = await self._client.create(SECRET, self._namespace, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            return await self._client.get(SECRET, self._namespace, self._name)
        log.info("made Secret %s/%s", self._namespace, self._name)
        return made
