"""The Secrets that webhooks are signed with, read when they are needed. What they may be used for is sign.py's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kinora.api.webhooks import SECRET_NOT_FOUND, SECRET_NOT_READABLE
from kinora.gateway.webhooks.decide import Unsigned
from kinora.gateway.webhooks.sign import keys_of
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import SECRET

Keys = tuple[bytes, ...]
_SECONDS: Final = 10.0  # for which what was read of a Secret is taken for true
_KEPT: Final = 1000


class Secrets:
    """Reads Secrets one by one: the gateway may list none. A thousand jobs that name the same one read it once."""

    def __init__(self, client: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._read: dict[tuple[str, str], tuple[float, Keys | Unsigned]] = {}

    async def keys(self, namespace: str, name: str | None) -> Keys | Unsigned:
        """The keys to sign with; none where no Secret is named. Raises ApiError, UnreachableError."""
        if name is None:
            return ()
        place, now = (namespace, name), self._clock()
        known = self._read.get(place)
        if known is not None and now - known[0] < _SECONDS:
            return known[1]
        found = await self._find(namespace, name)
        self._read.pop(place, None)
        self._read[place] = (now, found)
        while len(self._read) > _KEPT:
            del self._read[next(iter(self._read))]
        return found

    async def _find(self, namespace: str, name: str) -> Keys | Unsigned:
        try:
            secret = await self._client.find(SECRET, namespace, name)
        except ApiError as error:
            if error.status != 403:
                raise
            words = (
                f"the gateway may not read Secrets of namespace {namespace}; "
                "its administrator can bind the ClusterRole of webhook Secrets to the gateway there"
            )
            return Unsigned(SECRET_NOT_READABLE, words)
        if secret is None:
            return Unsigned(SECRET_NOT_FOUND, f"no Secret {name} in namespace {namespace}")
        return keys_of(secret)
