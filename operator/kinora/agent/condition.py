"""The condition kinora.dev/EngineReady on the agent's own pod: one write a change, tried until the API server takes it.

With it goes kinora.dev/FastReady, for models that have preset Fast. What the conditions say is decided in readiness.py.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kinora.agent.readiness import Readiness
from kinora.agent.settings import Identity, Times
from kinora.api import names, reasons
from kinora.api.transitions import rfc3339
from kinora.kube.client import STRATEGIC, ApiError, KubeClient, UnreachableError
from kinora.kube.resources import POD

log = logging.getLogger(__name__)

_KUBELET_LOOKS, _KUBELET_PAUSE = 5, 0.5


def engine_termination(pod: dict[str, Any]) -> dict[str, Any] | None:
    """How the engine's container ended last, as the kubelet has written it."""
    status = pod.get("status") or {}
    for container in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
        if container.get("name") == names.CONTAINER_ENGINE:
            for state in (container.get("state") or {}, container.get("lastState") or {}):
                if state.get("terminated"):
                    terminated: dict[str, Any] = state["terminated"]
                    return terminated
    return None


class ConditionWriter:
    """Brings what was last wanted to the pod. `on_pod` sees the pod as each write's answer has it."""

    def __init__(
        self,
        client: KubeClient,
        identity: Identity,
        times: Times,
        now: Callable[[], dt.datetime],
        on_pod: Callable[[dict[str, Any]], None],
    ) -> None:
        self._client = client
        self._identity = identity
        self._times = times
        self._now = now
        self._on_pod = on_pod
        self._wanted: Readiness | None = None
        self._written: Readiness | None = None
        self._doubtful = False  # a write failed since, and may have been taken all the same
        self._since = ""
        self._fast_since = ""
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._writing = asyncio.Lock()  # one write at a time: an older word must not overtake a newer one
        self.writes = 0

    async def engine_was_oom_killed(self) -> bool:
        """Whether the kubelet says that the engine's container was killed for memory.

        An agent may not read pods; the answer of a write that changes nothing tells (under cgroup v2 the whole
        container goes at once, supervisor and all). The kubelet is given a moment to say it.
        """
        for _ in range(_KUBELET_LOOKS):
            if self._written is None:
                return False
            with suppress(ApiError, UnreachableError):
                async with self._writing:
                    terminated = engine_termination(await self._write(self._written))
                if terminated is not None:
                    return terminated.get("reason") == "OOMKilled"
            await asyncio.sleep(_KUBELET_PAUSE)
        return False

    def want(self, readiness: Readiness) -> None:
        """This is how it is now."""
        self._wanted = readiness
        self._wake.set()

    async def settled(self) -> None:
        """Wait until what is wanted is written."""
        while self._wanted != self._written or self._doubtful:
            self._progress.clear()
            await self._progress.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        delay = self._times.write_retry
        await self._settle()
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted = self._wanted
            if wanted is None or (wanted == self._written and not self._doubtful):
                continue
            try:
                async with self._writing:
                    pod = await self._write(wanted)
                self._doubtful = False
                self._progress.set()
                self._on_pod(pod)
                delay = self._times.write_retry
            except (ApiError, UnreachableError) as error:
                self._doubtful = True
                log.warning("the condition %s could not be written: %s", names.CONDITION_ENGINE_READY, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, self._times.write_retry_limit)
                self._wake.set()

    async def _settle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.settle):
                while self._wanted is None or not self._wanted.ready:
                    await self._wake.wait()
                    self._wake.clear()
        self._wake.set()

    async def _write(self, wanted: Readiness) -> dict[str, Any]:
        now = rfc3339(self._now())[:-5] + "Z"  # a pod's times have whole seconds
        if self._written is None or self._written.ready != wanted.ready:
            self._since = now
        if self._written is None or bool(self._written.fast) != bool(wanted.fast):
            self._fast_since = now
        condition = {
            "type": names.CONDITION_ENGINE_READY,
            "status": "True" if wanted.ready else "False",
            "reason": wanted.reason,
            "message": wanted.message,
            "lastTransitionTime": self._since,
        }
        conditions = [condition, *self._fast(wanted)]
        body = {"metadata": {"uid": self._identity.pod_uid}, "status": {"conditions": conditions}}
        pod = await self._client.patch(
            POD, self._identity.namespace, self._identity.pod_name, body, subresource="status", content_type=STRATEGIC
        )
        self._written = wanted
        self.writes += 1
        log.info("EngineReady is %s: %s: %s", condition["status"], wanted.reason, wanted.message)
        return pod

    def _fast(self, wanted: Readiness) -> list[dict[str, Any]]:
        """The second condition, of models that have preset Fast: Ready for others does not hang on its files."""
        if wanted.fast is None:
            return []
        return [
            {
                "type": names.CONDITION_FAST_READY,
                "status": "False" if wanted.fast else "True",
                "reason": reasons.WEIGHTS_MISSING if wanted.fast else reasons.FAST_READY,
                "message": wanted.fast or "the files of preset Fast are there",
                "lastTransitionTime": self._fast_since,
            }
        ]
