"""One attempt of one job, from bound to its last write: stage, wait for the engine, render, publish, prove, conclude.

It reads top to bottom in `_work`. Whatever ends it early is an exception that carries a verdict; what is written then
is verdict.py's. Which attempt gets the engine is decided elsewhere (jobs.py).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kinora.agent import verdict as verdicts
from kinora.agent.drive import Drive, Ticket
from kinora.agent.events import EventPump
from kinora.agent.follow import Follow
from kinora.agent.graphcheck import graph_faults
from kinora.agent.health import Health
from kinora.agent.jobs import Hold, Key
from kinora.agent.manifest import Manifest, read_manifest, write_manifest
from kinora.agent.metrics import Metrics
from kinora.agent.publish import Published, Publisher
from kinora.agent.reporter import Reporter
from kinora.agent.settings import Settings
from kinora.agent.staging import Staged, Stager, StoredInputs
from kinora.agent.stop import Stop, Stopped, StopSignal
from kinora.agent.verdict import Kind, Refusal, Verdict, permanent
from kinora.agent.workflow import Workflows
from kinora.agent.workflow_outputs import WorkflowOutputs
from kinora.agent.writer import Lost, StatusWriter
from kinora.api import names, reasons, transitions
from kinora.api.reasons import Phase
from kinora.api.videojob import Preset, VideoJobSpec
from kinora.catalogue.model import Model
from kinora.engine.base import Engine, EngineUnavailable, OutputFile
from kinora.kube.metrics import exemplar
from kinora.media.child import IsolationError
from kinora.recipes.build import build, planned_hash
from kinora.recipes.faults import InvalidSpec
from kinora.recipes.needs import named_inputs
from kinora.recipes.resolve import prompts_of, resolve
from kinora.recipes.resolved import Resolved
from kinora.storage.broker.signer import working_on
from kinora.storage.store import StoreError
from kinora.workflows.allow import allowed_classes
from kinora.workflows.resolved import ResolvedWorkflow

log = logging.getLogger(__name__)

Object = dict[str, Any]


@dataclass(frozen=True)
class Tools:
    """What every attempt works with."""

    settings: Settings
    now: Callable[[], dt.datetime]
    model: Model
    engine: Engine
    health: Health
    pump: EventPump
    writer: StatusWriter
    stager: Stager
    workflows: Workflows
    workflow_outputs: WorkflowOutputs
    publisher: Publisher
    metrics: Metrics


@dataclass(frozen=True)
class Plan:
    """Everything that rendering needs."""

    resolved: Resolved | ResolvedWorkflow
    graph: Mapping[str, Mapping[str, Any]]
    staged: Staged | None
    "Of a task: what its result is finished by. None: a raw workflow, whose files are delivered as they are saved."
    inputs: list[Object]
    staged_seconds: float
    told: Object
    "`status.resolved`, the sizes that the inputs decide among it."


class Attempt:
    """One attempt. `hold` says how far it is; `changed` is called when that changes."""

    def __init__(self, key: Key, job: Object, tools: Tools, changed: Callable[[], None]) -> None:
        self.key = key
        self.hold = Hold.WAITING
        self.stop = StopSignal()
        self._first = job
        self._tools = tools
        self._changed = changed
        self._folder = names.job_folder(key.uid, key.attempt)
        self._resumed = transitions.phase_of(job["status"]) in (Phase.RUNNING, Phase.FINALIZING)
        self._granted = asyncio.Event()
        self._reporter: Reporter | None = None
        self._follow: Follow | None = None
        self._drive: Drive | None = None
        self._loop = asyncio.get_running_loop()
        self._staged_at = math.inf

    def grant(self) -> None:
        """The engine is this attempt's."""
        if self.hold is Hold.WAITING:
            self.hold = Hold.ENGINE
            self._granted.set()

    def hand_back(self) -> None:
        """Drain: give it up unless the engine has it already."""
        if not self._resumed and (self._drive is None or not self._drive.submitted):
            self.stop.set(Stop.HAND_BACK)

    async def run(self) -> None:
        """Everything, to the last write. Only a cancelled task leaves something to be resumed."""
        metadata = self._first["metadata"]
        try:
            with working_on(metadata["name"], self.key.uid, self.key.attempt, self._delayed):
                await self._to_the_end()
        finally:
            if self._reporter is not None:
                await self._reporter.abandon()

    def _delayed(self, words: str | None) -> None:
        if self._reporter is not None:
            self._reporter.delayed(words)

    async def _to_the_end(self) -> None:
        name = f"{self._first['metadata']['name']} attempt {self.key.attempt}"
        result = "Lost"
        try:
            verdict = await self._judged()
            self._free_engine()
            if self._reporter is not None:
                await self._reporter.close()
            if verdict is None:
                result = "Succeeded"
            elif self.stop.why is not Stop.LOST:
                log.info("%s: %s: %s: %s", name, verdict.kind, verdict.reason, verdict.message)
                await self._conclude(verdict)
                result = str(verdict.kind)
        except Lost as lost:
            log.info("%s: %s", name, lost)
            self._free_engine()
            if self._reporter is not None:
                await self._reporter.close()
        self._tools.metrics.attempts.labels(result=result).inc()
        await self._tidy()

    async def _judged(self) -> Verdict | None:
        """Work; None when it succeeded and that is written."""
        try:
            await self._work()
        except Stopped as stopped:
            return verdicts.of_stop(stopped.why)
        except Refusal as refusal:
            return refusal.verdict
        except (StoreError, IsolationError, OSError) as error:
            log.exception("attempt %s", self.key)
            reason = reasons.STORE_FAILED if isinstance(error, StoreError) else reasons.AGENT_ERROR
            words = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
            return Verdict(Kind.FAILURE, reason, f"the agent could not go on: {words}")
        except Lost:
            raise
        except Exception as error:  # whatever it is, the job must not hang
            log.exception("attempt %s", self.key)
            return Verdict(Kind.FAILURE, reasons.AGENT_ERROR, f"the agent failed: {type(error).__name__}")
        return None

    async def _work(self) -> None:
        plan = await self.stop.unless(self._plan())
        self._staged_at = self._loop.time()
        await self.stop.unless(self._turn())
        self._check_preset(plan.resolved)
        outputs = await self._render(plan)
        self._free_engine()
        began = self._loop.time()
        published = await self._publish(plan, outputs)
        await self._succeed(plan, published, self._loop.time() - began)

    # --- staging ------------------------------------------------------------------------------------------------------

    async def _plan(self) -> Plan:
        model, job = self._tools.model, self._first
        try:
            spec = VideoJobSpec.model_validate(job["spec"])
            if spec.workflow is not None:
                return await self._workflow_plan(spec)
            resolved = Resolved.from_status(job["status"].get("resolved") or {}) or resolve(spec, model, self.key.uid)
        except (InvalidSpec, ValidationError) as invalid:
            raise permanent(reasons.INVALID_SPEC, str(invalid)) from None
        self._check_preset(resolved)
        manifest = await self._staged(spec, resolved)
        resolved = manifest.staged.resolved
        prefix = f"{self._folder}/{self._folder}"
        graph = build(model, resolved, prompts_of(spec, model), manifest.staged.files, prefix)
        self._must_be_allowed(graph, {*model.node_classes, *(self._tools.settings.config.allowed_node_classes or ())})
        told = {**resolved.to_status(), "graphHash": planned_hash(model, resolved, prompts_of(spec, model))}
        return Plan(resolved, graph, manifest.staged, list(manifest.staged.facts), manifest.seconds, told)

    def _check_preset(self, resolved: Resolved | ResolvedWorkflow) -> None:
        """The preset's files may have gone since the bind: another pod may have them. Looked at again when it is ready.

        (An agent that has just come has not seen the files when it stages.)
        """
        lacking = self._tools.health.readiness.fast
        if isinstance(resolved, Resolved) and resolved.preset == Preset.FAST and lacking and not self._resumed:
            raise Refusal(Verdict(Kind.DISRUPTION, reasons.RELEASED_PRESET_GONE, f"preset Fast: {lacking}"))

    async def _workflow_plan(self, spec: VideoJobSpec) -> Plan:
        """The user's own graph instead of a recipe's."""
        prepared = await self._tools.workflows.prepared(self._first, spec, self._folder)
        more = self._tools.settings.config.allowed_node_classes
        self._must_be_allowed(prepared.graph, allowed_classes(self._tools.model.node_classes, more))
        resolved = prepared.resolved
        return Plan(resolved, prepared.graph, None, list(prepared.facts), prepared.seconds, resolved.to_status())

    def _must_be_allowed(self, graph: Mapping[str, Mapping[str, Any]], classes: Collection[str]) -> None:
        faults = graph_faults(graph, classes, self._folder)
        if faults:
            raise permanent(reasons.NOT_ALLOWED, "; ".join(faults))

    async def _staged(self, spec: VideoJobSpec, resolved: Resolved) -> Manifest:
        folder = self._tools.settings.paths.input / self._folder
        known = await asyncio.to_thread(read_manifest, folder)
        if known is not None:
            return known
        began = self._loop.time()
        stored = StoredInputs.of(self._first["status"])
        staged = await self._tools.stager.stage(
            named_inputs(spec), resolved, self._tools.model, self._folder, stored=stored
        )
        manifest = Manifest(staged, self._loop.time() - began)
        await asyncio.to_thread(write_manifest, folder, manifest)
        self._tools.metrics.stage_seconds.labels(stage="staged").observe(manifest.seconds, exemplar(self.key.uid))
        return manifest

    # --- the engine ---------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        await self._granted.wait()
        if not self._resumed:
            await self._tools.health.until_sound()

    async def _render(self, plan: Plan) -> tuple[OutputFile, ...]:
        tools, spec = self._tools, self._first["spec"]
        self._follow = Follow(plan.graph, plan.resolved.tokens, self._loop.time(), tools.settings.times.silence_scale)
        self._reporter = Reporter(
            self.key,
            tools.writer,
            now=tools.now,
            times=tools.settings.times,
            inputs=plan.inputs,
            resolved=plan.told,
            on_lost=self._lost,
        )
        if self._resumed:
            self._follow.resumed(self._loop.time(), self._running_since())
            self._reporter.started()
        ticket = Ticket(
            prompt_id=names.prompt_id(self.key.uid, self.key.attempt),
            client_id=tools.settings.identity.client_id,
            graph=plan.graph,
            job=self._first,
            resumed=self._resumed,
            deadline_seconds=float(spec.get("activeDeadlineSeconds", 7200)),
            done=self._free_engine,
            staged_at=self._staged_at,
        )
        self._drive = Drive(
            ticket,
            self._follow,
            self._reporter,
            self.stop,
            engine=tools.engine,
            health=tools.health,
            pump=tools.pump,
            times=tools.settings.times,
            metrics=tools.metrics,
        )
        return await self._drive.run()

    def _running_since(self) -> float:
        """Seconds since the status went to Running, by the wall clock: the monotonic one began anew with this agent."""
        started = self._first["status"].get("startTime")
        if not started:
            return 0.0
        return max(0.0, (self._tools.now() - transitions.parse_time(started)).total_seconds())

    def _lost(self) -> None:
        self.stop.set(Stop.LOST)

    def _free_engine(self) -> None:
        if self.hold is not Hold.AFTER:
            self.hold = Hold.AFTER
            self._changed()

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _publish(self, plan: Plan, outputs: tuple[OutputFile, ...]) -> Published:
        if self._reporter is not None:
            self._reporter.publishing()
        job = self._tools.writer.store.get(self.key.uid) or self._first
        if isinstance(plan.resolved, ResolvedWorkflow):
            saved = self._tools.workflow_outputs.publish(job, self.key.attempt, outputs, self._folder)
            return Published(await self.stop.unless(saved), [])
        assert plan.staged is not None
        work = self._tools.publisher.publish(job, self.key.attempt, plan.staged, outputs, self._folder)
        return await self.stop.unless(work)

    async def _succeed(self, plan: Plan, published: Published, took: float) -> None:
        if self._reporter is not None:
            await self._reporter.close()
        seconds = self._stage_seconds(plan, took)
        message = f"{_proven(published.artifacts)}, read back from the store and proven"
        message = "; ".join((message, *published.actions))

        def succeeded(job: Object) -> Object:
            now = self._tools.now()
            if job["spec"].get("cancel"):
                return verdicts.patch(job, verdicts.CANCELLED, now, self._gpu_seconds())
            timings = {**self._queued(job, now), **seconds}
            return transitions.ended_by_agent(
                job,
                Phase.SUCCEEDED,
                reasons.COMPLETED,
                message,
                now,
                artifacts=published.artifacts,
                timings=timings,
                gpu_seconds=self._gpu_seconds(),
            )

        await self._tools.writer.write(self.key, "Succeeded", succeeded)
        for name in ("loaded", "rendered", "published"):
            observed = self._tools.metrics.stage_seconds.labels(stage=name)
            observed.observe(seconds[f"{name}Seconds"], exemplar(self.key.uid))
        self._tools.metrics.gpu_seconds.inc(self._gpu_seconds() or 0.0)

    async def _conclude(self, verdict: Verdict) -> None:
        self._tools.metrics.gpu_seconds.inc(self._gpu_seconds() or 0.0)

        def concluded(job: Object) -> Object:
            return verdicts.patch(job, verdict, self._tools.now(), self._gpu_seconds())

        await self._tools.writer.write(self.key, str(verdict.kind), concluded)

    def _stage_seconds(self, plan: Plan, published: float) -> dict[str, float]:
        follow = self._follow
        if follow is None or follow.started_at is None or follow.ended_at is None:
            return {}
        sampling = follow.sampling_at if follow.sampling_at is not None else follow.started_at
        return {
            "stagedSeconds": plan.staged_seconds,
            "loadedSeconds": sampling - follow.started_at,
            "renderedSeconds": follow.ended_at - sampling,
            "publishedSeconds": published,
        }

    @staticmethod
    def _queued(job: Object, now: dt.datetime) -> dict[str, float]:
        created = transitions.parse_time(job["metadata"]["creationTimestamp"])
        bound = transitions.parse_time(job["status"]["assignment"].get("boundTime") or transitions.rfc3339(now))
        return {
            "queuedSeconds": max(0.0, (bound - created).total_seconds()),
            "totalSeconds": max(0.0, (now - created).total_seconds()),
        }

    def _gpu_seconds(self) -> float | None:
        follow = self._follow
        if follow is None or follow.started_at is None:
            return None
        return (follow.ended_at or self._loop.time()) - follow.started_at

    async def _tidy(self) -> None:
        """Remove the attempt's folders and its entry in the history: the engine never cleans up after itself."""
        paths = self._tools.settings.paths
        if self._drive is not None and self._drive.submitted:
            with suppress(EngineUnavailable):
                await self._tools.engine.forget(names.prompt_id(self.key.uid, self.key.attempt))
        for root in (paths.input, paths.output):
            with suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, root / self._folder, ignore_errors=True)


def _proven(artifacts: Sequence[Mapping[str, Any]]) -> str:
    """What was made, in words for the message."""
    told = []
    for one in artifacts if len(artifacts) <= 3 else ():
        size = f"{one['width']}x{one['height']}"
        told.append(
            f"{one['frames']} frames of {size} at {one['fps']:g} fps" if "fps" in one else f"a picture of {size}"
        )
    return ", ".join(told) or f"{len(artifacts)} files"
