"""The comparison: one batch/v1 Job per item, created suspended, released by a minimal controller, pods by this kubelet.

This is what an operator that makes a Job per video would cost the same API server, without its images and its renders.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from bench.scale import kubelet
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import POD, Resource
from kinora.kube.watch import Reflector

log = logging.getLogger(__name__)
Object = dict[str, Any]
JOB = Resource("batch", "v1", "jobs", "Job")


def job_body(name: str) -> Object:
    """A suspended Job whose one pod does what the items' pods do: be bound, run, end well."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "suspend": True,
            "backoffLimit": 2,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "render", "image": "none"}],
                }
            },
        },
    }


class PlainPods:
    """Scheduler and kubelet for the pods of plain Jobs: binding, Running, a render, Succeeded."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        nodes: list[str],
        *,
        mine: Callable[[str], bool],
        render: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._mine = mine
        self._render = render
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reflector = Reflector(
            client,
            POD,
            self._take,
            self._see,
            namespace=namespace,
            field_selector="status.phase!=Succeeded",
        )

    async def start(self) -> None:
        """Returns when the first list is in."""
        self._add(self._reflector.run())
        await self._reflector.synced.wait()

    async def stop(self) -> None:
        """End everything."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, listed: list[Object]) -> None:
        for one in listed:
            self._see("ADDED", one)

    def _see(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if kind != "DELETED" and self._mine(pod["metadata"]["name"]) and uid not in self._seen:
            self._seen.add(uid)
            self._add(self._serve(pod))

    async def _serve(self, pod: Object) -> None:
        try:
            await kubelet.bind(self._client, pod, self._nodes[len(self._seen) % len(self._nodes)])
            await kubelet.say_running(self._client, pod)
            await self._render()
            await kubelet.say_succeeded(self._client, pod)
        except (ApiError, UnreachableError) as error:
            log.warning("plain pod %s: %s", pod["metadata"]["name"], error)

    def _add(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Releaser:
    """The minimal controller: at most ``slots`` Jobs are unsuspended and unfinished; the oldest goes first."""

    def __init__(self, client: KubeClient, namespace: str, slots: int) -> None:
        self._client = client
        self._namespace = namespace
        self._free = slots
        self._waiting: deque[str] = deque()
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reflector = Reflector(client, JOB, self._take, self._see, namespace=namespace)
        self.ended: dict[str, float] = {}  # name -> monotonic seconds
        self.progress = asyncio.Event()

    async def start(self) -> None:
        """Returns when the first list is in."""
        task = asyncio.create_task(self._reflector.run())
        self._tasks.add(task)
        await self._reflector.synced.wait()

    async def stop(self) -> None:
        """End everything."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, listed: list[Object]) -> None:
        for one in listed:
            self._see("ADDED", one)

    def _see(self, kind: str, job: Object) -> None:
        name = job["metadata"]["name"]
        if kind == "DELETED":
            return
        if name not in self._seen:
            self._seen.add(name)
            self._waiting.append(name)
        conditions = (job.get("status") or {}).get("conditions") or []
        ended = any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)
        if ended and name not in self.ended:
            self.ended[name] = time.monotonic()
            self._free += 1
            self.progress.set()
        self._release()

    def _release(self) -> None:
        while self._free > 0 and self._waiting:
            self._free -= 1
            task = asyncio.create_task(self._unsuspend(self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _unsuspend(self, name: str) -> None:
        try:
            await self._client.patch(JOB, self._namespace, name, {"spec": {"suspend": False}})
        except (ApiError, UnreachableError) as error:
            log.warning("releasing %s: %s", name, error)
