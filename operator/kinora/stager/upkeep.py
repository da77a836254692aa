"""What keeps a store going beside its requests: the Secret with its key, and the end of what nobody uses any more.

Each sweep decides anew on what is there: one that is cut off is made good by the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from kinora.api.intake import uploads_of
from kinora.api.names import STORE_SECRET_TYPE
from kinora.api.reasons import Phase
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import VIDEOJOB
from kinora.kube.secret_keys import SecretKeyError, SecretKeys
from kinora.stager.metrics import Metrics
from kinora.storage.census import census_of
from kinora.storage.garbage import INPUTS, Census, Keep, Listed, Why, garbage
from kinora.storage.objects import Objects
from kinora.storage.service.model import FileStore
from kinora.storage.store import StoreError

log = logging.getLogger(__name__)
UNFINISHED: Final = ",".join(f"status.phase!={phase}" for phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED))
_AGAIN_SECONDS: Final = 5.0
_FAULTS = (SecretKeyError, ApiError, UnreachableError)


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds that what nobody uses stays; 0: for ever. `artifacts`: those of the gateway's jobs that are gone."""

    uploads: float = 0.0
    artifacts: float = 0.0
    inputs: float = 0.0


class Upkeep:
    """Of the store of one stager: its `files` as gateways have them, and all its `objects`."""

    def __init__(
        self,
        client: KubeClient,
        files: FileStore,
        objects: Objects,
        retention: Retention,
        *,
        every_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._client, self._files, self._objects = client, files, objects
        self._retention, self._every, self._metrics = retention, every_seconds, metrics
        self._keys = SecretKeys(client, files.namespace, make=STORE_SECRET_TYPE)

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
        sweeps: list[tuple[str, Callable[[], Awaitable[int]]]] = []
        if self._retention.uploads:
            sweeps.append(("uploads that nobody uses", self.sweep_uploads))
        if self._retention.artifacts or self._retention.inputs:
            sweeps.append(("artifacts and inputs that nobody uses", self.sweep_objects))
        while sweeps:
            for what, sweep in sweeps:
                try:
                    removed = await sweep()
                except (ApiError, UnreachableError, StoreError) as error:
                    log.warning("removing %s: %s; trying again later", what, error)
                except Exception:
                    log.exception("removing %s: unexpected; trying again later", what)
                else:
                    if removed:
                        log.info("removed %d %s", removed, what)
            await asyncio.sleep(self._every)

    async def sweep_uploads(self) -> int:
        """Remove the uploads that have not been used for so long and that no unfinished job names; how many."""
        jobs, _ = await self._client.list(VIDEOJOB, self._files.namespace, field_selector=UNFINISHED)
        used = {upload for job in jobs for upload in uploads_of(job.get("spec") or {})}
        removed = await self._files.sweep_uploads(self._retention.uploads, used.__contains__)
        self._metrics.store_removed.labels("upload").inc(removed)
        return removed

    async def sweep_objects(self) -> int:
        """Remove the videos of the gateway's jobs that are gone, and the inputs that no unfinished job names; how many.

        The objects are listed before the jobs (see kinora.storage.garbage).
        """
        namespace, retention = self._files.namespace, self._retention
        keep = Keep(gone_gateway=retention.artifacts or None, inputs=retention.inputs or None)
        listed = await self._objects.listed(f"{namespace}/") if retention.artifacts else []
        listed += await self._objects.listed(INPUTS) if retention.inputs else []
        candidates = garbage(listed, Census(), keep, namespace=namespace, now=time.time())
        if not candidates:
            return 0  # as it mostly is: nothing is asked of the API server
        census = await census_of(self._client, namespace)
        going = garbage((found.listed for found in candidates), census, keep, namespace=namespace, now=time.time())
        removed = 0
        for why in Why:
            removed += await self._remove([one.listed for one in going if one.why is why], why)
        return removed

    async def _remove(self, going: list[Listed], why: Why) -> int:
        """A store that refuses one of a kind, as a bucket's policy may, is not asked about the others."""
        removed = 0
        for one in going:
            try:
                gone = await self._objects.remove(one)
            except StoreError as error:
                log.warning("removing what is left of %s (%d objects): %s; trying again later", why, len(going), error)
                break
            if gone:
                log.info("removed %s, %d bytes: %s", one.key, one.bytes, why)
                self._metrics.store_removed.labels(why.value).inc()
            removed += gone
        return removed
