"""Gathers what readiness rests on: the weight files, the engine's process, its answers. Holds the engine's identity.

Decides nothing about jobs. What the facts mean is readiness.py's; what an exit means for an attempt is verdict.py's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from kinora.agent.metrics import Metrics
from kinora.agent.readiness import Facts, Readiness, assess
from kinora.agent.settings import Settings
from kinora.api.videojob import Preset
from kinora.catalogue.model import Model
from kinora.engine.base import Engine, EngineUnavailable
from kinora.engine.supervisor_client import EngineExit, EngineProcess, SupervisorClient, SupervisorUnavailable
from kinora.weights.manifest import read_manifest
from kinora.weights.verify import verify

log = logging.getLogger(__name__)

ProcessListener = Callable[[EngineProcess | None], None]


@dataclass(frozen=True)
class WeightFaults:
    """What is wrong with the files that every job needs, and with those of preset Fast (None: there is none)."""

    required: tuple[str, ...] = ()
    fast: tuple[str, ...] | None = None


class WeightsCheck(Protocol):
    """Looks at the weight files: faults in words, none when they are good."""

    async def full(self) -> WeightFaults:
        """Verify at the level that the ModelServer asks for."""
        ...

    async def changed(self) -> tuple[str, ...]:
        """Paths of files that look different (size, time, the manifest's word) from when they were verified; cheap."""
        ...


class WeightFiles:
    """The weight files on the models volume."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._root = settings.paths.models
        self._level = settings.config.verify
        self._seen: dict[str, object] = {}

    async def full(self) -> WeightFaults:
        """See WeightsCheck."""
        self._seen = await asyncio.to_thread(self._look)
        states = await asyncio.to_thread(verify, self._model, self._root, self._level)

        def faults(preset: str) -> tuple[str, ...]:
            return tuple(state.message or state.path for state in states if not state.ok and state.preset == preset)

        return WeightFaults(faults(""), faults(Preset.FAST) if Preset.FAST in self._model.presets else None)

    async def changed(self) -> tuple[str, ...]:
        """See WeightsCheck."""
        found = await asyncio.to_thread(self._look)
        return tuple(path for path, mark in found.items() if mark != self._seen.get(path))

    def _look(self) -> dict[str, object]:
        """What tells that a file is another one. (No inotify: network volumes and object stores announce nothing.)"""
        records = read_manifest(self._root)
        found: dict[str, object] = {}
        for weight in self._model.weights:
            record = records.get(weight.path)
            try:
                status = os.stat(self._root / weight.path)
                found[weight.path] = (status.st_size, status.st_mtime_ns, record.sha256 if record else "")
            except OSError:
                found[weight.path] = None
        return found


class Health:
    """The facts, kept up to date by three loops; `run` is their sum."""

    def __init__(
        self,
        *,
        settings: Settings,
        model: Model,
        engine: Engine,
        supervisor: SupervisorClient,
        weights: WeightsCheck,
        metrics: Metrics,
        on_readiness: Callable[[Readiness], None],
        ask_container_oom: Callable[[], Awaitable[bool]],
        token_fault: str | None = None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._engine = engine
        self._supervisor = supervisor
        self._weights = weights
        self._metrics = metrics
        self._on_readiness = on_readiness
        self.ask_container_oom = ask_container_oom
        self._facts = Facts(token_fault=token_fault)
        self._probe: asyncio.Task[None] | None = None
        self._listeners: set[ProcessListener] = set()
        self._ready = asyncio.Event()
        self._serving = asyncio.Event()
        self._weights_doubted = asyncio.Event()
        self._exits_seen: tuple[str, int] | None = None
        self.process: EngineProcess | None = None
        self.readiness = assess(self._facts)

    # --- what others ask ----------------------------------------------------------------------------------------------

    async def until_ready(self) -> tuple[str, int]:
        """Wait until the engine takes a prompt (EngineReady is True); which process it is."""
        await self._ready.wait()
        return self._identity()

    async def until_sound(self) -> tuple[str, int]:
        """As `until_ready`, and the weight files are those that were verified: what a job waits for."""
        while True:
            identity = await self.until_ready()
            if not await self._weights_changed():
                return identity

    async def until_serving(self) -> tuple[str, int]:
        """Wait until the engine answers, ready for new jobs or not; which process it is."""
        await self._serving.wait()
        return self._identity()

    @property
    def cuda_fault(self) -> bool:
        """Whether the engine's CUDA context broke: this pod renders no more."""
        return self._facts.cuda_fault is not None

    def listen(self, listener: ProcessListener) -> None:
        """Be told of every change of the engine's process; None while its container does not answer."""
        self._listeners.add(listener)

    def unlisten(self, listener: ProcessListener) -> None:
        """No more."""
        self._listeners.discard(listener)

    def drain(self) -> None:
        """The pod goes."""
        self._set(draining=True)

    def latch_cuda_fault(self, message: str) -> None:
        """Until this pod is replaced."""
        self._set(cuda_fault=message)

    async def restart_engine(self, reason: str) -> None:
        """Have the supervisor restart the engine, trying until it answers. Returns when the old one is gone."""
        self._metrics.engine_restarts.labels(reason=reason).inc()
        before = self._identity() if self.process else None
        log.warning("restarting the engine: %s", reason)
        self._set(engine_answers=False)
        gone = asyncio.Event()

        def look(process: EngineProcess | None) -> None:
            if process is not None and process.identity != before:
                gone.set()

        self.listen(look)
        try:
            while True:
                try:
                    await self._supervisor.restart()
                    break
                except SupervisorUnavailable:
                    if gone.is_set():
                        return  # the whole container was started anew meanwhile
                    await asyncio.sleep(self._settings.times.engine_probe)
            await gone.wait()
        finally:
            self.unlisten(look)

    # --- the loops ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Gather until cancelled."""
        self._set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_weights())
                group.create_task(self._watch_process())
        finally:
            if self._probe is not None:
                self._probe.cancel()

    async def _watch_weights(self) -> None:
        times = self._settings.times
        while True:
            faults = await self._weights.full()
            if self._facts.weights_changed and not faults.required:
                with suppress(EngineUnavailable):  # what the engine has loaded of the former file must go
                    await self._engine.free(unload_models=True, free_memory=True)
            self._set(
                weights_checked=True,
                weight_faults=faults.required,
                fast_faults=faults.fast,
                weights_were_good=self._facts.weights_were_good or not faults.required,
                weights_changed=(),
            )
            if faults.required:
                await asyncio.sleep(times.weights_missing)
                continue
            while not await self._weights_changed():
                self._weights_doubted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(times.weights_present):
                        await self._weights_doubted.wait()

    async def _weights_changed(self) -> bool:
        """Look cheaply; a file that changed ends readiness until it is verified."""
        changed = await self._weights.changed()
        if changed:
            self._set(weights_changed=changed)
            self._weights_doubted.set()
        return bool(changed)

    async def _watch_process(self) -> None:
        async for process in self._supervisor.watch():
            before = self.process
            self.process = process
            if process is None:
                self._stop_probe()
                self._set(supervisor_answers=False, process_runs=False, engine_answers=False)
            else:
                self._note_exits(process)
                self._metrics.engine_memory.set(process.memory_bytes or 0)
                if not process.is_running:
                    self._stop_probe()
                    self._set(supervisor_answers=True, process_runs=False, engine_answers=False)
                elif before is None or before.identity != process.identity or not before.is_running:
                    self._set(supervisor_answers=True, process_runs=True, engine_answers=False)
                    self._start_probe()
            for listener in tuple(self._listeners):
                listener(process)

    def _note_exits(self, process: EngineProcess) -> None:
        """Count the exits that are new to this agent; those of before it came are not its own to count."""
        latest = process.exits[-1] if process.exits else None
        if latest is None:
            return
        seen = (process.boot, latest.incarnation)
        if seen == self._exits_seen:
            return
        first = self._exits_seen is None
        last = self._exits_seen[1] if self._exits_seen and self._exits_seen[0] == process.boot else 0
        self._exits_seen = seen
        new = [ended for ended in process.exits if ended.incarnation > last]
        for ended in new if not first else ():
            self._metrics.engine_exits.labels(how="requested" if ended.requested else describe_exit(ended)).inc()
        by_itself = [ended for ended in new if not ended.requested]
        if by_itself:
            self._set(exits=self._facts.exits + len(by_itself), last_exit=describe_exit(by_itself[-1]))

    def _start_probe(self) -> None:
        self._stop_probe()
        self._probe = asyncio.create_task(self._probe_engine())

    def _stop_probe(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    async def _probe_engine(self) -> None:
        """Wait for a new engine's first answer; nothing else tells that it serves."""
        while True:
            with suppress(EngineUnavailable):
                classes = (await self._engine.object_info()).keys()
                missing = tuple(name for name in self._model.required_node_classes if name not in classes)
                self._set(engine_answers=True, missing_nodes=missing, exits=0, was_up=True)
                return
            await asyncio.sleep(self._settings.times.engine_probe)

    def _set(self, **changes: object) -> None:
        self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]
        self.readiness = assess(self._facts)
        (self._serving.set if self._facts.engine_answers else self._serving.clear)()
        (self._ready.set if self.readiness.ready else self._ready.clear)()
        self._metrics.engine_ready.set(1 if self.readiness.ready else 0)
        self._metrics.engine.ready(self.readiness.ready)
        self._on_readiness(self.readiness)

    def _identity(self) -> tuple[str, int]:
        if self.process is None:
            raise RuntimeError("the engine's process is not known yet; wait for it first")
        return self.process.identity


def describe_exit(ended: EngineExit) -> str:
    """How an engine ended, in a few fixed words (a metric's label too)."""
    if ended.signal is not None:
        return f"signal {ended.signal}" + (" (out of memory)" if ended.oom_kills else "")
    return f"exit code {ended.exit_code}"
