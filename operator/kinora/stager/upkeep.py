"""What keeps a store service going beside its requests: the Secret with its key, and the end of unused uploads."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kinora.api.intake import uploads_of
from kinora.api.names import STORE_SECRET_TYPE
from kinora.api.reasons import Phase
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import VIDEOJOB
from kinora.kube.secret_keys import SecretKeyError, SecretKeys
from kinora.storage.service.model import FileStore
from kinora.storage.store import StoreError

log = logging.getLogger(__name__)
UNFINISHED: Final = ",".join(f"status.phase!={phase}" for phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED))
_AGAIN_SECONDS: Final = 5.0
_FAULTS = (SecretKeyError, ApiError, UnreachableError)


class Upkeep:
    """Of the store of one stager. `keep_seconds`: how long an upload that no job uses stays; 0: for ever."""

    def __init__(self, client: KubeClient, store: FileStore, *, keep_seconds: float, every_seconds: float) -> None:
        self._client, self._store = client, store
        self._keep, self._every = keep_seconds, every_seconds
        self._keys = SecretKeys(client, store.namespace, make=STORE_SECRET_TYPE)

    async def keys(self, anew: bool) -> list[bytes]:
        """The keys that requests may be signed with. StoreError when they cannot be read."""
        try:
            return await self._keys(anew)
        except _FAULTS as error:
            log.warning("the key of the store: %s", error)
            raise StoreError("the store's key cannot be read now") from None

    async def run(self) -> None:
        """Until cancelled. Nothing that fails here ends it."""
        while True:
            try:
                await self._keys()
                break
            except _FAULTS as error:
                log.warning("the key of the store: %s; trying again", error)
                await asyncio.sleep(_AGAIN_SECONDS)
        while self._keep:
            try:
                await self.sweep()
            except (ApiError, UnreachableError, StoreError) as error:
                log.warning("removing uploads that nobody uses: %s; trying again later", error)
            await asyncio.sleep(self._every)

    async def sweep(self) -> int:
        """Remove the uploads that have not been used for so long and that no unfinished job names; how many."""
        jobs, _ = await self._client.list(VIDEOJOB, self._store.namespace, field_selector=UNFINISHED)
        used = {upload for job in jobs for upload in uploads_of(job.get("spec") or {})}
        removed = await self._store.sweep_uploads(self._keep, used.__contains__)
        if removed:
            log.info("removed %d uploads that nobody has used for %.0f h", removed, self._keep / 3600)
        return removed
