"""Who delivers which shard: a coordination Lease each, held by one replica at a time. Knows nothing of deliveries.

A replica that holds much lets others go first, and gives one shard back now and then: whoever holds least takes it, so
that shards spread over replicas that came at different times, without any of them counting the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from kinora.kube.client import KubeClient
from kinora.kube.election import Terms
from kinora.kube.lease import LeaseHolder, LeaseLostError

log = logging.getLogger(__name__)

LEASE_PREFIX: Final = "kinora-gateway-webhooks-"
TURN_SECONDS: Final = 300.0  # after about which a replica with more than one shard gives one back
_COURTESY: Final = 0.25  # seconds for which others may go first, for each shard that is held
#: A restart of the API server is no reason to move shards; nothing is lost by moving them later.
TERMS: Final = Terms(duration=15.0, renew=10.0, retry=2.0)
_RELEASE: Final = 5.0  # seconds for giving a shard back: nobody delivers its webhooks for all of `duration` else


def lease_name(shard: int) -> str:
    """The Lease of a shard, in the gateway's own namespace."""
    return f"{LEASE_PREFIX}{shard}"


class Shards:
    """One replica's part in all shards."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        count: int,
        identity: str,
        *,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        """`identity`: of this process alone (its pod's name)."""
        self._client, self._namespace, self._count = client, namespace, count
        self._identity, self._turn = identity, turn_seconds
        self._leases: dict[int, LeaseHolder] = {}
        self._closing: set[int] = set()

    def holds(self, shard: int) -> bool:
        """Whether this replica may begin a delivery of that shard."""
        lease = self._leases.get(shard)
        return lease is not None and lease.is_held and shard not in self._closing

    @property
    def held(self) -> list[int]:
        """The shards of this replica."""
        return [shard for shard in self._leases if self.holds(shard)]

    async def run(self, taken: Callable[[int], None], landed: Callable[[int], Awaitable[None]]) -> None:
        """Contend for every shard until cancelled.

        `taken(shard)`: it is this replica's from now on. `landed(shard)` ends once nothing of it is under way: it is
        given back no sooner, so that nobody sends what is just being sent.
        """
        async with asyncio.TaskGroup() as group:
            for shard in range(self._count):
                group.create_task(self._contend(shard, taken, landed))

    async def _contend(
        self, shard: int, taken: Callable[[int], None], landed: Callable[[int], Awaitable[None]]
    ) -> None:
        async def deliver() -> None:
            taken(shard)
            try:
                await self._until_turn()
            finally:
                self._closing.add(shard)
                await landed(shard)

        while True:
            lease = self._leases[shard] = LeaseHolder(
                self._client,
                self._namespace,
                lease_name(shard),
                self._identity,
                terms=TERMS,
                courtesy=lambda: _COURTESY * len(self.held),
            )
            self._closing.discard(shard)
            try:
                await lease.hold(deliver, release_within=_RELEASE)
            except LeaseLostError as error:
                log.warning("%s; another replica delivers its webhooks", error)
            await asyncio.sleep(2 * _COURTESY)

    async def _until_turn(self) -> None:
        """Until this replica should give a shard back: never while it has only one."""
        while True:
            await asyncio.sleep(self._turn * self._count * random.uniform(0.7, 1.3))  # noqa: S311 - spreads, no secret
            if len(self.held) > 1:
                return
