"""The webhooks of one gateway process, wired: watch of undelivered jobs, dispatcher, Leases of the shards."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from kinora import __version__
from kinora.api.webhooks import UNDELIVERED, WebhookValues
from kinora.gateway.webhooks.backlog import trim
from kinora.gateway.webhooks.dispatcher import Dispatcher, Parts
from kinora.gateway.webhooks.metrics import Metrics
from kinora.gateway.webhooks.secrets import Secrets
from kinora.gateway.webhooks.send import Sender, policy_of
from kinora.gateway.webhooks.shards import TURN_SECONDS, Shards
from kinora.kube.client import KubeClient
from kinora.kube.resources import VIDEOJOB
from kinora.kube.watch import Reflector
from kinora.storage.guard.connect import GuardedClient, Resolve, resolve_by_system

log = logging.getLogger(__name__)
_RELIST = 600.0
_AGAIN = 5.0  # seconds before all of it is started anew after a surprise


@dataclass(frozen=True)
class Wiring:
    """What a process tells its webhooks.

    Attributes:
        client: reads jobs and Secrets, writes status.webhook.
        lease_client: for renewals, which wait behind nothing.
        namespace: the gateway's own, with the Leases.
        instance: this process's name; no two live processes may share it.
        namespaces: where to look for jobs; empty: everywhere.
        values: the chart's.
        metrics: where it is counted.
        resolve: names to addresses.
        turn_seconds: see shards.py.
        landing_seconds: for writing what came of the last deliveries, after they have ended.
    """

    client: KubeClient
    lease_client: KubeClient
    namespace: str
    instance: str
    namespaces: tuple[str, ...] = ()
    values: WebhookValues = field(default_factory=WebhookValues)
    metrics: Metrics = field(default_factory=Metrics)
    resolve: Resolve = resolve_by_system
    turn_seconds: float = TURN_SECONDS
    landing_seconds: float = 5.0


class Webhooks:
    """Run it until it is cancelled."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.shards = Shards(
            wiring.lease_client,
            wiring.namespace,
            wiring.values.shards,
            wiring.instance,
            turn_seconds=wiring.turn_seconds,
        )
        guarded = GuardedClient(policy_of(wiring.values.allow), resolve=wiring.resolve, agent=f"kinora/{__version__}")
        self.dispatcher = Dispatcher(
            Parts(
                client=wiring.client,
                values=wiring.values,
                secrets=Secrets(wiring.client),
                sender=Sender(guarded, wiring.values.timeout_seconds),
                metrics=wiring.metrics,
                instance=wiring.instance,
                holds=self.shards.holds,
            )
        )
        wiring.metrics.pending.set_function(lambda: self.dispatcher.backlog.count(self.shards.held))
        wiring.metrics.shards.set_function(lambda: len(self.shards.held))

    async def run(self) -> None:
        """Deliver until cancelled; then let what is under way end, for a bounded time, and give the shards back."""
        while True:
            try:
                await self._run()
            except* Exception:  # requests are served meanwhile, and the other replicas deliver
                log.exception("webhooks: unexpected; starting anew in %g s", _AGAIN)
            await asyncio.sleep(_AGAIN)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            watches = [self._watch(scope) for scope in self._wiring.namespaces or (None,)]
            for watch in watches:
                group.create_task(watch.run())
            for watch in watches:
                await watch.synced.wait()
            group.create_task(self.dispatcher.run())
            group.create_task(self.shards.run(self.dispatcher.take, self._landed))

    async def _landed(self, shard: int) -> None:
        try:
            async with asyncio.timeout(self._wiring.values.timeout_seconds + self._wiring.landing_seconds):
                await self.dispatcher.landed(shard)
        except TimeoutError:
            log.warning("shard %d is given back with deliveries under way", shard)

    def _watch(self, scope: str | None) -> Reflector:
        reflector = Reflector(
            client=self._wiring.client,
            resource=VIDEOJOB,
            on_replace=lambda jobs: self.dispatcher.replaced(jobs, scope, reflector.listed_version),
            on_event=self.dispatcher.happened,
            namespace=scope,
            field_selector=UNDELIVERED,
            relist_seconds=_RELIST,
            trim=trim,
        )
        return reflector
