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

    Read once, and again when asked for anew, at most every AGAIN_SECONDS. `grace_seconds`: how long a key is accepted
    after it was taken out, since another process may not have seen that yet.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str = STORE_SECRET,
        *,
        make: str | None = None,
        grace_seconds: float = 0.0,
    ) -> None:
        self._grace = grace_seconds
        self._client, self._namespace, self._name, self._make = client, namespace, name, make
        self._keys: list[bytes] = []
        self._former: dict[bytes, float] = {}  # taken out -> until when it is accepted
        self._read = 0.0
        self._lock = asyncio.Lock()

    @property
    def known(self) -> list[bytes]:
        """The keys as they were read last, the one that signs first; none before the first time."""
        now = time.monotonic()
        return [*self._keys, *(key for key, until in self._former.items() if now < until)]

    async def read(self) -> None:
        """Read them now, whenever that was done last. SecretKeyError, ApiError, UnreachableError."""
        async with self._lock:
            await self._read_again()

    async def __call__(self, anew: bool = False) -> list[bytes]:
        """The keys of the moment. SecretKeyError, ApiError, UnreachableError."""
        if self._keys and not (anew and self._is_due()):
            return self.known
        async with self._lock:
            if not self._keys or (anew and self._is_due()):
                await self._read_again()
        return self.known

    async def _read_again(self) -> None:
        before, self._keys = self._keys, keys_in(await self._found())
        self._read = time.monotonic()
        former = self._former | dict.fromkeys(before, self._read + self._grace)
        self._former = {key: until for key, until in former.items() if key not in self._keys and self._read < until}

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
