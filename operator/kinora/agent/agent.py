"""The agent as a whole: follows the jobs bound to its pod, has the choice made, runs the attempts, drains.

Level-triggered: whatever happened, `_step` looks at the jobs as they are and does what is missing. Wiring of the real
parts is main.py's; a hollow agent gives others.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kinora.agent.attempt import Attempt, Tools
from kinora.agent.condition import ConditionWriter
from kinora.agent.events import EventPump
from kinora.agent.health import Health, WeightFiles, WeightsCheck
from kinora.agent.jobs import Hold, Key, choose, is_ours, key_of
from kinora.agent.live import Live
from kinora.agent.metrics import Metrics
from kinora.agent.publish import Publisher
from kinora.agent.readiness import Readiness
from kinora.agent.settings import Settings
from kinora.agent.staging import Media, MediaChild, Stager
from kinora.agent.stop import Stop
from kinora.agent.workflow import Workflows
from kinora.agent.workflow_outputs import WorkflowOutputs
from kinora.agent.writer import JobStore, StatusWriter
from kinora.api import names
from kinora.api.reasons import TERMINAL
from kinora.catalogue.model import Model
from kinora.engine.base import Engine
from kinora.engine.supervisor_client import SupervisorClient
from kinora.kube.client import KubeClient
from kinora.kube.resources import VIDEOJOB
from kinora.kube.watch import Reflector
from kinora.storage.store import ArtifactStore

log = logging.getLogger(__name__)

Object = dict[str, Any]
_JOB_FOLDER: Final = re.compile(r"^(?P<uid>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?P<attempt>\d+)$")
_LAST_CONDITION: Final = 2.0  # seconds that an idle agent gives its last condition before it exits


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Parts:
    """What an agent is put together from."""

    settings: Settings
    client: KubeClient
    engine: Engine
    supervisor: SupervisorClient
    store: ArtifactStore
    model: Model
    media: Media = field(default_factory=MediaChild)
    weights: WeightsCheck | None = None
    metrics: Metrics = field(default_factory=Metrics)
    now: Callable[[], dt.datetime] = utc_now
    token_fault: str | None = None


def selection(pod_uid: str) -> str:
    """The field selector of the jobs bound to a pod and not finished."""
    finished = ",".join(f"status.phase!={phase}" for phase in sorted(TERMINAL))
    return f"status.assignment.podUID={pod_uid},{finished}"


class Agent:
    """Run it; `drain` makes `run` return when nothing renders any more."""

    def __init__(self, parts: Parts) -> None:
        settings, metrics = parts.settings, parts.metrics
        self.settings = settings
        self.metrics = metrics
        self._attempts: dict[Key, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._drain_from: float | None = None
        self._store = JobStore(self._wake.set)
        self._writer = StatusWriter(parts.client, settings.identity, settings.times, self._store, metrics)
        self._condition = ConditionWriter(parts.client, settings.identity, settings.times, parts.now, self._see_pod)
        self.health = Health(
            settings=settings,
            model=parts.model,
            engine=parts.engine,
            supervisor=parts.supervisor,
            weights=parts.weights or WeightFiles(parts.model, settings),
            metrics=metrics,
            on_readiness=self._note_readiness,
            ask_container_oom=self._condition.engine_was_oom_killed,
            token_fault=parts.token_fault,
        )
        self.live = Live()
        metrics.live.streams.set_function(lambda: len(self.live))
        self._pump = EventPump(parts.engine, settings.identity.client_id, self.live)
        self._reflector = Reflector(
            parts.client,
            VIDEOJOB,
            self._replaced,
            self._happened,
            namespace=settings.identity.namespace,
            field_selector=selection(settings.identity.pod_uid),
        )
        stager = Stager(settings, parts.client, parts.store, parts.media)
        self._tools = Tools(
            settings=settings,
            now=parts.now,
            model=parts.model,
            engine=parts.engine,
            health=self.health,
            pump=self._pump,
            writer=self._writer,
            stager=stager,
            workflows=Workflows(settings, parts.client, stager, parts.model),
            workflow_outputs=WorkflowOutputs(settings, parts.store, parts.media),
            publisher=Publisher(settings, parts.store, parts.media),
            metrics=metrics,
        )

    # --- from outside -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The pod goes: hand back what has not started, finish what renders, end (SIGTERM)."""
        if self._drain_from is None:
            log.info("draining; what renders has %d s", self.settings.config.drain_seconds)
            self._drain_from = asyncio.get_running_loop().time()
            self.health.drain()
            self._wake.set()

    def obstacle(self) -> str | None:
        """Why the agent is not ready (/readyz), or None. The engine's own readiness is the pod's condition."""
        return None if self._reflector.synced.is_set() else "the first list of this pod's jobs is not in yet"

    async def run(self) -> None:
        """Serve until drained, or cancelled (a killed agent: what it was doing is resumed by the next one)."""
        async with asyncio.TaskGroup() as group:
            services = [
                group.create_task(part.run()) for part in (self.health, self._condition, self._pump, self._reflector)
            ]
            try:
                await self._conduct()
            finally:
                for task in (*services, *self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what the watch tells -----------------------------------------------------------------------------------------

    def _replaced(self, jobs: list[Object]) -> None:
        listed = {job["metadata"]["uid"] for job in jobs}
        for job in jobs:
            self._store.put(job)
        for job in self._store.all():
            if job["metadata"]["uid"] not in listed:
                self._spawn(self._look(job["metadata"]["uid"]))
        self._wake.set()

    def _happened(self, kind: str, job: Object) -> None:
        self.metrics.api.shown(VIDEOJOB.plural, job, asyncio.get_running_loop().time())
        if kind != "DELETED":
            self._store.put(job)
        elif self._store.knows(job):
            pass  # our own last write took it out of the selection: its answer said so
        else:  # it left the selection, or it is gone: the old object does not tell which
            self._spawn(self._look(job["metadata"]["uid"], job))

    def _note_readiness(self, readiness: Readiness) -> None:
        self._condition.want(readiness)
        self._wake.set()  # a CUDA fault changes the choice

    def _see_pod(self, pod: Object) -> None:
        """Every write of the condition shows the pod: one that is being deleted is drained, signal or not."""
        if pod["metadata"].get("deletionTimestamp"):
            self.drain()

    # --- the work -----------------------------------------------------------------------------------------------------

    async def _conduct(self) -> None:
        await self._synced_or_drained()
        await asyncio.to_thread(self._sweep)
        while True:
            self._wake.clear()
            self._step()
            if self._drain_from is not None and not self._attempts:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_CONDITION):
                        await self._condition.settled()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._drain_until()):
                    await self._wake.wait()

    async def _synced_or_drained(self) -> None:
        """An agent that is drained before it could read its jobs has none to hand back that it knows of."""
        while not self._reflector.synced.is_set() and self._drain_from is None:
            self._wake.clear()
            await self._wake.wait()

    def _drain_until(self) -> float | None:
        if self._drain_from is None:
            return None
        until = self._drain_from + self.settings.config.drain_seconds
        return until if until > asyncio.get_running_loop().time() else None

    def _step(self) -> None:
        pod_uid = self.settings.identity.pod_uid
        jobs = {key_of(job): job for job in self._store.all() if is_ours(job, pod_uid)}
        draining = self._drain_from is not None or self.health.cuda_fault
        choice = choose(jobs.values(), {key: one.hold for key, one in self._attempts.items()}, draining=draining)
        for key in (*choice.take_up, *choice.hand_back):
            if key not in self._attempts:
                self._take_up(key, jobs[key])
        for key, attempt in self._attempts.items():
            if key in jobs and jobs[key]["spec"].get("cancel"):
                attempt.stop.set(Stop.CANCEL)
            elif key in jobs and jobs[key]["status"]["assignment"].get("preemptTime"):
                attempt.stop.set(Stop.PREEMPT)
        for key in choice.stop:
            self._attempts[key].stop.set(Stop.LOST)
        for key in choice.hand_back:
            self._attempts[key].hand_back()
        if choice.engine is not None:
            self._attempts[choice.engine].grant()
        if draining:
            self._press(over=self._drain_from is not None and self._drain_until() is None)

    def _press(self, *, over: bool) -> None:
        """What has the engine and has not begun goes back; what renders does when the drain's time is over."""
        for attempt in self._attempts.values():
            if attempt.hold is Hold.ENGINE:
                attempt.hand_back()
                if over:
                    attempt.stop.set(Stop.DRAIN_OVER)

    def _take_up(self, key: Key, job: Object) -> None:
        log.info("taking up %s attempt %d", names.key(job), key.attempt)
        attempt = Attempt(key, job, self._tools, self._wake.set)
        self._attempts[key] = attempt
        self._spawn(self._run(attempt))

    async def _run(self, attempt: Attempt) -> None:
        try:
            await attempt.run()
        finally:
            del self._attempts[attempt.key]
            self._close(attempt.key.uid)
            self._wake.set()

    async def _look(self, uid: str, left: Object | None = None) -> None:
        await self._writer.look(uid, left)
        self._close(uid)

    def _close(self, uid: str) -> None:
        """Keep no job that this pod is done with: an agent lives for weeks."""
        job = self._store.get(uid)
        if job is None or any(key.uid == uid for key in self._attempts):
            return
        if not is_ours(job, self.settings.identity.pod_uid):
            self._store.close(uid)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        """Remove what attempts of an earlier agent left behind."""
        pod_uid = self.settings.identity.pod_uid
        ours = {key_of(job) for job in self._store.all() if is_ours(job, pod_uid)}
        for root in (self.settings.paths.input, self.settings.paths.output):
            for folder in _job_folders(root):
                found = _JOB_FOLDER.match(folder.name)
                if found and Key(found["uid"], int(found["attempt"])) not in ours:
                    shutil.rmtree(folder, ignore_errors=True)


def _job_folders(root: Path) -> list[Path]:
    try:
        return [entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return []
