"""Holding a coordination.k8s.io Lease: taken by compare-and-set, renewed, given up, and known when it is lost.

Another holder's age runs on this process's own clock since its last renewal was seen: clocks of nodes differ.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from kinora.kube.client import ApiError, KubeClient, Object, UnreachableError
from kinora.kube.resources import LEASE

log = logging.getLogger(__name__)


@dataclass
class Lease:
    """One Lease and who wants it. `holder` is this process's name; seconds as in the Lease's own fields."""

    client: KubeClient
    namespace: str
    name: str
    holder: str
    seconds: float = 30.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def held(self, waiting: Callable[[str], None]) -> AsyncIterator[None]:
        """Wait for it, hold it, give it up. `waiting(holder)` hears who has it. `lost` is set if it slips away."""
        await self._acquire(waiting)
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if not self.lost.is_set():
                await self._give_up()

    async def _acquire(self, waiting: Callable[[str], None]) -> None:
        seen, since = "", 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                lease = await self.client.find(LEASE, self.namespace, self.name)
                if lease is None:
                    await self.client.create(LEASE, self.namespace, self._body(None))
                    return
                holder = lease["spec"].get("holderIdentity") or ""
                mark = f"{holder} {lease['metadata']['resourceVersion']}"
                if mark != seen:
                    seen, since = mark, loop.time()
                limit = float(lease["spec"].get("leaseDurationSeconds") or self.seconds)
                if holder in {"", self.holder} or loop.time() - since > limit:
                    await self.client.replace(LEASE, self.namespace, self.name, self._body(lease))
                    return
                waiting(holder)
            except ApiError as error:
                if not (error.is_conflict or error.already_exists or error.is_not_found):
                    raise
            except UnreachableError as error:
                log.warning("the Lease %s: %s", self.name, error)
            await asyncio.sleep(self.retry_seconds)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self.renew_seconds if loop.time() - renewed < self.renew_seconds else 1.0)
            try:
                lease = await self.client.get(LEASE, self.namespace, self.name)
                if lease["spec"].get("holderIdentity") != self.holder:
                    log.error("the Lease %s is another's now", self.name)
                    break
                await self.client.replace(LEASE, self.namespace, self.name, self._body(lease))
                renewed = loop.time()
            except (ApiError, UnreachableError) as error:
                log.warning("renewing the Lease %s: %s", self.name, error)
                if loop.time() - renewed > self.seconds * 2 / 3:
                    break
        self.lost.set()

    async def _give_up(self) -> None:
        with suppress(ApiError, UnreachableError):
            lease = await self.client.get(LEASE, self.namespace, self.name)
            if lease["spec"].get("holderIdentity") == self.holder:
                body = self._body(lease)
                body["spec"]["holderIdentity"] = ""
                await self.client.replace(LEASE, self.namespace, self.name, body)

    def _body(self, lease: Object | None) -> Object:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (lease or {}).get("spec") or {}
        same = before.get("holderIdentity") == self.holder
        metadata: Object = {"name": self.name, "namespace": self.namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        spec = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": int(self.seconds),
            "acquireTime": before.get("acquireTime") if same else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (lease is not None and not same),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
