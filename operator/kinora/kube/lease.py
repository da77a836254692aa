"""Holding a Lease on the API server: the shell around the rules of ``election.py``. Knows nothing of what it guards.

    lease = LeaseHolder(client, "kinora-system", "kinora-operator", "pod-a")
    await lease.hold(work)                       # contends, works while it holds, gives back; or in single steps:
    running = asyncio.create_task(lease.run())   # ends with LeaseLostError when it held, and does no more
    await lease.held.wait()
    lease.check()                                # before each write that only the holder may make
    running.cancel(); await lease.release()      # the next one takes it at once

A LeaseHolder holds once: after it was lost or given back, make another. ``client`` should be the lease's own where
much hangs on it: a renewal must not wait behind other requests. A Lease that somebody deletes while it is held is made
anew by its holder; a process that starts within that moment could take it too (docs/limits.md).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from kinora.kube import election
from kinora.kube.client import ApiError, KubeClient, Object, UnreachableError, WriteRefusedError
from kinora.kube.election import Lost, Read, Record, Standing, Terms, Wait, Write
from kinora.kube.resources import LEASE
from kinora.kube.watch import Reflector

log = logging.getLogger(__name__)
_BROKEN = (UnreachableError, aiohttp.ClientError, TimeoutError, OSError)
T = TypeVar("T")


class LeaseLostError(Exception):
    """The Lease was held and is not any more; whatever it guarded must end."""


def steady() -> float:
    """Seconds of a clock that never jumps, and that goes on while the machine sleeps where there is such a one."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def _nothing(_words: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Listeners:
    """Who hears what becomes of a Lease. Plain functions that do not block.

    Attributes:
        lost: why it was lost; called at once, before LeaseLostError is raised.
        waiting: who holds it, while this process does not; at each change that is seen.
        trouble: what kept a read or a write of it from working; it is tried again.
    """

    lost: Callable[[str], None] = _nothing
    waiting: Callable[[str], None] = _nothing
    trouble: Callable[[str], None] = _nothing


class LeaseHolder:
    """One process's part in one Lease: contends for it, renews it, tells when it is lost, gives it back."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        terms: Terms | None = None,
        tell: Listeners | None = None,
        courtesy: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """One part in one Lease.

        Args:
            client: reads and writes it.
            namespace: where the Lease is.
            name: the Lease's own.
            identity: of this process alone (a pod's name).
            terms: how long it lasts.
            tell: who hears of it.
            courtesy: seconds for which others may go first, asked each time that it could be taken.
        """
        self.held = asyncio.Event()  # set once, when it is held for the first time
        self.identity = identity
        self._client = client
        self._namespace = namespace
        self._name = name
        self._tell = tell or Listeners()
        self._courtesy = courtesy
        self._standing = Standing(identity, terms or Terms())
        self._news = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether this process may act as the holder right now; true for ``Terms.renew`` after a renewal was sent."""
        return election.holds(self._standing, steady())

    @property
    def holder(self) -> str:
        """Who holds it as far as is known; empty: nobody, or not known yet."""
        known = self._known()
        return known.holder if known else ""

    @property
    def transitions(self) -> int:
        """How often it changed its holder, as the Lease itself counts."""
        known = self._known()
        return known.transitions if known else 0

    def check(self) -> None:
        """Raise WriteRefusedError unless it is held."""
        if not self.is_held:
            raise WriteRefusedError(
                f"Lease {self._namespace}/{self._name} is not held by {self.identity} but by {self.holder or 'nobody'}"
            )

    async def run(self) -> None:
        """Contend, then hold, until cancelled. Raises LeaseLostError when it was held and is not any more."""
        follower = asyncio.create_task(self._reflector().run())
        try:
            while True:
                await self._take(election.next_step(self._standing, steady()))
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def hold(self, work: Callable[[], Awaitable[T]], *, release_within: float = 1.0) -> T:
        """Contend; do the work while it is held; give it back (see `release`). What the work returns or raises.

        Raises LeaseLostError when it slips away meanwhile: the work is cancelled then, and awaited.
        """
        running = asyncio.ensure_future(self.run())
        held = asyncio.ensure_future(self.held.wait())
        working: asyncio.Future[T] | None = None
        try:
            await asyncio.wait({running, held}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                working = asyncio.ensure_future(work())
                await asyncio.wait({running, working}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    return await working
            await running
            raise AssertionError("a Lease is contended for without an end")
        finally:
            try:  # the work ends first: nothing of it may go on when another holds
                if working is not None:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
            finally:  # also when whoever waits for that is told to stop waiting
                running.cancel()
                held.cancel()
                await asyncio.gather(running, held, return_exceptions=True)
            await self.release(release_within)

    async def release(self, within: float = 1.0) -> bool:
        """Give it back, after ``run`` has ended: nothing counts as held from here on. Whether the others can see it.

        What cannot be written within so many seconds is left to expire.
        """
        was_ours = self._standing.renewed is not None
        self._standing = election.dropped(self._standing)
        known = self._known()
        if not was_ours or known is None or known.holder != self.identity:
            return False
        with suppress(*_BROKEN):
            async with asyncio.timeout(within):
                return await self._give_back(known)
        log.warning("Lease %s/%s could not be released; it expires by itself", self._namespace, self._name)
        return False

    # --- the steps ------------------------------------------------------------------------------------------------

    async def _take(self, step: election.Step) -> None:
        if isinstance(step, Lost):
            self._standing = election.dropped(self._standing)
            log.error("Lease %s/%s is lost: %s", self._namespace, self._name, step.why)
            self._tell.lost(step.why)
            raise LeaseLostError(f"Lease {self._namespace}/{self._name}: {step.why}")
        if isinstance(step, Wait):
            await self._wait(step.until)
        elif isinstance(step, Read):
            await self._try(self._read())
        elif step.acquires and (pause := self._courtesy()) > 0:
            await asyncio.sleep(pause)
            again = election.next_step(self._standing, steady())  # nobody took it meanwhile, as far as is known
            if isinstance(again, Write):
                await self._try(self._write(again))
        else:
            await self._try(self._write(step))

    async def _wait(self, until: float) -> None:
        """Until then, or until there is news. Candidates spread, so that they do not all write at the same moment."""
        spread = 0.0
        if self._standing.renewed is None:
            spread = random.uniform(0.0, 0.2 * self._standing.terms.retry)  # noqa: S311 - no secret
        self._news.clear()
        with suppress(TimeoutError):  # not wait_for: that of Python 3.11 may swallow a cancellation
            async with asyncio.timeout(max(0.0, until - steady()) + spread):
                await self._news.wait()

    async def _try(self, request: Awaitable[None]) -> None:
        """One request, with its limit: a connection that hangs must leave time for another before the deadline."""
        standing = self._standing
        limit = standing.terms.renew / 2
        if standing.renewed is not None:
            limit = min(limit, standing.renewed + standing.terms.renew - steady())
        pause = standing.terms.retry * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(limit):
                await request
        except (ApiError, *_BROKEN) as error:
            words = str(error) or type(error).__name__
            log.warning("Lease %s/%s: %s; trying again in %.1f s", self._namespace, self._name, words, pause)
            self._tell.trouble(words)
            self._standing = election.unanswered(self._standing, steady(), pause)

    async def _read(self) -> None:
        self._see(await self._client.find(LEASE, self._namespace, self._name))

    async def _write(self, step: Write) -> None:
        sent = steady()
        try:
            if step.over is None:
                answer = await self._client.create(LEASE, self._namespace, self._body(step))
            else:
                answer = await self._client.patch(LEASE, self._namespace, self._name, self._body(step))
        except ApiError as error:
            if not (error.is_conflict or error.already_exists or (error.is_not_found and step.over)):
                raise
            self._standing = election.refused(self._standing)
            return
        self._standing = election.wrote(self._standing, election.record(answer), sent, steady())
        if step.acquires and self.is_held:
            log.info("Lease %s/%s is held by %s", self._namespace, self._name, self.identity)
            self.held.set()

    async def _give_back(self, known: Record) -> bool:
        while known.holder == self.identity:
            body = {"metadata": {"resourceVersion": known.version}, "spec": {"holderIdentity": ""}}
            try:
                await self._client.patch(LEASE, self._namespace, self._name, body)
            except ApiError as error:
                if not error.is_conflict:
                    log.warning("Lease %s/%s was not released: %s", self._namespace, self._name, error)
                    return False
                known = election.record(await self._client.get(LEASE, self._namespace, self._name))
            else:
                log.info("Lease %s/%s is released by %s", self._namespace, self._name, self.identity)
                return True
        return False

    def _body(self, step: Write) -> Object:
        """The wall clock is for people to read; nobody decides by it."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Object = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._standing.terms.published,
            "leaseTransitions": step.transitions,
            "renewTime": now,
        }
        if step.acquires or step.over is None:
            spec["acquireTime"] = now
        if step.over is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return {"metadata": {"resourceVersion": step.over.version}, "spec": spec}

    # --- what is seen ---------------------------------------------------------------------------------------------

    def _reflector(self) -> Reflector:
        return Reflector(
            self._client,
            LEASE,
            on_replace=lambda leases: self._see(leases[0] if leases else None),
            on_event=lambda kind, lease: self._see(None if kind == "DELETED" else lease),
            namespace=self._namespace,
            field_selector=f"metadata.name={self._name}",
        )

    def _see(self, lease: Object | None) -> None:
        found = None if lease is None else election.record(lease)
        before = self._standing.view
        self._standing = election.seen(self._standing, found, steady())
        if self._standing.view is not before:
            self._news.set()
            if found is not None and found.holder and found.holder != self.identity:
                self._tell.waiting(found.holder)

    def _known(self) -> Record | None:
        return self._standing.view.record if self._standing.view else None
