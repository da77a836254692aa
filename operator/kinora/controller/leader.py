"""One leader among the replicas: who may write, what a new leader reads first, how it hands over. Decides no object.

Every replica watches and keeps its store warm; only writes are gated, at the API client, so that nothing leaves a
process that does not hold the Lease. Losing the Lease ends the process: its replacement starts clean.
"""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from kinora.api.names import COMPONENT_SERVER, LABEL_COMPONENT
from kinora.api.reasons import TERMINAL, Phase
from kinora.controller.operator import Operator
from kinora.controller.settings import Settings
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.lease import LeaseHolder
from kinora.kube.resources import MODELSERVER, POD, VIDEOJOB

log = logging.getLogger(__name__)

SERVER_PODS = f"{LABEL_COMPONENT}={COMPONENT_SERVER}"
# Jobs that a pod has; they are few, whatever the length of the queue.
ASSIGNED = ",".join(f"status.phase!={phase}" for phase in sorted({Phase.PENDING, Phase.QUEUED} | TERMINAL))
LANDING_SECONDS = 1.0  # how long decisions that are being carried out may take to end when the process ends
EXIT_LOST = 75  # of a process that lost the Lease: start it again (EX_TEMPFAIL of sysexits.h)


class Leader:
    """Gates one operator by one Lease."""

    def __init__(self, operator: Operator, client: KubeClient, lease: LeaseHolder, settings: Settings) -> None:
        """From here on ``client`` writes only while ``lease`` is held, and ``operator`` decides only when it leads."""
        self.leading = asyncio.Event()
        self._operator = operator
        self._client = client
        self._lease = lease
        self._scopes: tuple[str | None, ...] = settings.namespaces or (None,)
        client.permit = lease.check
        operator.stand_by()
        operator.metrics.lead_by(lambda: lease.is_held, lambda: lease.transitions)

    def role(self) -> str:
        """For people: what this process is."""
        if self._lease.is_held:
            return "leading" if self.leading.is_set() else "taking over"
        return f"standing by for {self._lease.holder or 'a leader'}"

    async def contend(self) -> None:
        """Contend once the store is warm, then hold. Raises LeaseLostError; never returns."""
        await self._operator.store.ready.wait()
        await self._lease.run()

    async def lead(self) -> None:
        """Decide and execute from when the Lease is held, until cancelled."""
        await self._lease.held.wait()
        started = asyncio.get_running_loop().time()
        await self._read_again()
        self._operator.take_over()
        self.leading.set()
        log.info("leading, %.2f s after the Lease was taken", asyncio.get_running_loop().time() - started)
        await self._operator.work()

    async def _read_again(self) -> None:
        """What the former leader wrote last may still be on its way in the watches: read it.

        A stale job or server alone would only be refused (compare-and-set); a pod that is wrongly held for idle would
        get a second job.
        """
        while True:
            try:
                for scope in self._scopes:
                    await self._read_scope(scope)
            except (ApiError, UnreachableError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("reading again before the first decision: %s; trying again", error)
                await asyncio.sleep(0.5)
            else:
                return

    async def _read_scope(self, scope: str | None) -> None:
        store = self._operator.store
        servers, pods, jobs = await asyncio.gather(
            self._client.list(MODELSERVER, scope),
            self._client.list(POD, scope, label_selector=SERVER_PODS),
            self._client.list(VIDEOJOB, scope, field_selector=ASSIGNED),
        )
        store.servers.replace(servers[0], listed_version=int(servers[1]), scope=scope)
        store.pods.replace(pods[0], listed_version=int(pods[1]), scope=scope)
        for job in jobs[0]:
            store.jobs.apply(job)

    async def wind_down(self) -> None:
        """Take up nothing more, and let what is being carried out end (for a bounded time)."""
        self._operator.stand_by()
        try:
            await asyncio.wait_for(self._operator.landed(), LANDING_SECONDS)
        except TimeoutError:
            log.warning("cutting off what is still being carried out after %g s", LANDING_SECONDS)

    async def release(self) -> None:
        """Hand over, once nothing of this process writes any more."""
        await self._lease.release()
