"""One prompt through an engine in memory: what is no verdict, what is one, and what is done to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kinora.agent.drive import Drive, Ticket
from kinora.agent.events import EventPump
from kinora.agent.follow import Follow, View
from kinora.agent.metrics import Metrics
from kinora.agent.settings import Times
from kinora.agent.stop import Stop, Stopped, StopSignal
from kinora.agent.verdict import Kind, Refusal
from kinora.engine import base
from kinora.engine.supervisor_client import EngineExit, EngineProcess
from unit.agent.made import job

PROMPT = "p"
GRAPH = {"1": {"class_type": "UNETLoader"}, "2": {"class_type": "KSampler"}}
FILE = base.OutputFile("32", "gifs", "a.mp4", "f", "output")
PROCESS = EngineProcess("boot", "Running", False, 1, 7, 1.0, None, None)


class MemoryEngine:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.result: base.Outcome | Exception = base.Unknown()
        self.stream: asyncio.Queue[base.EngineEvent] = asyncio.Queue()
        self.calls: list[str] = []
        self.refusal: Exception | None = None
        self.submitted = asyncio.Event()
        self.accepted: base.Outcome = base.Running()
        self.asked = 0
        self.obeys = True

    async def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str) -> None:
        self.calls.append("submit")
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        self.result = self.accepted
        self.submitted.set()

    async def outcome(self, prompt_id: str) -> base.Outcome:
        self.asked += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def interrupt(self, prompt_id: str) -> None:
        self.calls.append("interrupt")
        if self.obeys:
            self.result = base.Interrupted()

    async def delete_pending(self, prompt_id: str) -> None:
        self.calls.append("delete")

    async def free(self, *, unload_models: bool, free_memory: bool) -> None:
        self.calls.append("free")

    async def events(self, client_id: str) -> AsyncIterator[base.EngineEvent]:
        yield base.Connected()
        while True:
            yield await self.stream.get()


class StillHealth:
    """The engine's process, moved by the test."""

    def __init__(self) -> None:
        self.process: EngineProcess | None = PROCESS
        self.listeners: list[Any] = []
        self.restarts: list[str] = []
        self.fault = ""
        self.oom = False

    def listen(self, listener: Any) -> None:
        self.listeners.append(listener)

    def unlisten(self, listener: Any) -> None:
        self.listeners.remove(listener)

    async def until_serving(self) -> tuple[str, int]:
        assert self.process is not None
        return self.process.identity

    async def restart_engine(self, reason: str) -> None:
        self.restarts.append(reason)

    async def ask_container_oom(self) -> bool:
        return self.oom

    def latch_cuda_fault(self, message: str) -> None:
        self.fault = message

    def becomes(self, process: EngineProcess | None) -> None:
        self.process = process
        for listener in self.listeners:
            listener(process)


class Notes:
    """The reporter's place."""

    def __init__(self) -> None:
        self.starts = 0
        self.views: list[View] = []

    def started(self) -> None:
        self.starts += 1

    def progress(self, view: View) -> None:
        self.views.append(view)


class Scene:
    """A drive with everything around it."""

    def __init__(
        self, *, resumed: bool = False, deadline: float = 60, scale: float = 1.0, waited: float = 0.0, **times: float
    ) -> None:
        self.engine, self.health, self.notes, self.stop = MemoryEngine(), StillHealth(), Notes(), StopSignal()
        self.freed: list[bool] = []
        self.follow = Follow(GRAPH, 100, asyncio.get_running_loop().time() - waited, scale)
        pump = EventPump(self.engine, "client")  # type: ignore[arg-type]
        self.pumping = asyncio.ensure_future(pump.run())
        self.drive = Drive(
            Ticket(PROMPT, "client", GRAPH, job(), resumed, deadline, lambda: self.freed.append(True)),
            self.follow,
            self.notes,  # type: ignore[arg-type]
            self.stop,
            engine=self.engine,  # type: ignore[arg-type]
            health=self.health,  # type: ignore[arg-type]
            pump=pump,
            times=replace(Times(interrupt=0.05, outcome=30, engine_probe=0.001), **times),
            metrics=Metrics(),
        )
        self.running = asyncio.ensure_future(self.drive.run())

    def say(self, *events: base.EngineEvent) -> None:
        for event in events:
            self.engine.stream.put_nowait(event)

    async def begun(self) -> None:
        async with asyncio.timeout(10):
            await self.engine.submitted.wait()
        self.say(base.ExecutionStart(PROMPT), base.NodeStarted(PROMPT, "2"))

    async def end(self) -> Any:
        try:
            async with asyncio.timeout(10):
                return await self.running
        finally:
            self.pumping.cancel()

    async def refusal(self) -> Refusal:
        with pytest.raises(Refusal) as raised:
            await self.end()
        return raised.value


async def turn(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - it is nobody's event
            await asyncio.sleep(0)


async def test_success_is_told_by_the_stream_and_confirmed_by_the_engine() -> None:
    scene = Scene()
    await scene.begun()
    scene.say(base.Progress(PROMPT, "2", 1, 2))
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.ExecutionSuccess(PROMPT))
    assert await scene.end() == (FILE,)
    assert scene.engine.calls == ["submit"]
    assert scene.notes.views[-1] == View(52, "Sample", 1, 2)
    assert scene.freed == [True]
    assert scene.health.listeners == []


async def test_an_engine_that_says_running_after_the_end_is_asked_again_soon_and_less_and_less_often() -> None:
    """It tells of the end before its history knows it."""
    scene = Scene(outcome=30)
    await scene.begun()
    scene.say(base.ExecutionSuccess(PROMPT))
    before = scene.engine.asked
    await turn(lambda: scene.engine.asked >= before + 4)
    took = asyncio.get_running_loop().time() - (scene.follow.ended_at or 0.0)
    assert 0.07 <= took < 5, "10, 20 and 40 ms lie between the first four questions"
    scene.engine.result = base.Succeeded((FILE,))
    assert await scene.end() == (FILE,)


async def test_a_stream_that_says_nothing_hides_no_end() -> None:
    scene = Scene(outcome=0.01)
    await scene.engine.submitted.wait()
    scene.engine.result = base.Succeeded((FILE,))
    assert await scene.end() == (FILE,)
    assert scene.notes.starts >= 1


async def test_a_broken_stream_and_a_deaf_engine_are_no_verdict() -> None:
    scene = Scene(outcome=0.005)
    await scene.begun()
    scene.engine.result = base.EngineUnavailable("busy")
    scene.say(base.Disconnected())
    unanswered = scene.engine.asked + 3
    await turn(lambda: scene.engine.asked >= unanswered)
    assert not scene.running.done()
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.Connected())
    assert await scene.end() == (FILE,)


async def test_other_prompts_are_none_of_its_business() -> None:
    scene = Scene()
    await scene.begun()
    scene.say(base.ExecutionError("other", base.EngineError("1", "X", "E", "m")))
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.ExecutionSuccess(PROMPT))
    assert await scene.end() == (FILE,)


async def test_a_refused_graph_is_permanent() -> None:
    scene = Scene()
    scene.engine.refusal = base.GraphRefused("node 1: value_not_in_list", {})
    refusal = await scene.refusal()
    assert (refusal.verdict.kind, refusal.verdict.reason) == (Kind.PERMANENT, "GraphRefused")


async def test_an_engine_that_does_not_answer_yet_is_asked_again() -> None:
    scene = Scene()
    scene.engine.refusal = base.EngineUnavailable("starting")
    await scene.begun()
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.ExecutionSuccess(PROMPT))
    assert await scene.end() == (FILE,)
    assert scene.engine.calls == ["submit", "submit"]


@pytest.mark.parametrize(
    ("error", "reason", "calls", "fault"),
    [
        (base.EngineError("2", "KSampler", "E", "m"), "NodeError", [], ""),
        (base.EngineError("2", "KSampler", "E", "m", is_oom=True), "OutOfMemory", ["free"], ""),
        (base.EngineError("2", "KSampler", "E", "m", is_cuda_fault=True), "CudaError", [], "KSampler: m"),
    ],
)
async def test_a_failed_node_cannot_poison_the_next_job(
    error: base.EngineError, reason: str, calls: list[str], fault: str
) -> None:
    scene = Scene()
    await scene.begun()
    scene.engine.result = base.Failed(error)
    scene.say(base.ExecutionError(PROMPT, error))
    assert (await scene.refusal()).verdict.reason == reason
    assert scene.freed == []  # what went wrong is mended first
    assert scene.engine.calls[1:] == calls
    assert scene.health.fault == fault


async def test_an_engine_that_dies_rendering_ends_the_attempt_by_how_it_died() -> None:
    scene = Scene()
    await scene.begun()
    await turn(lambda: scene.follow.started_at is not None)
    scene.health.becomes(replace(PROCESS, phase="Backoff", exits=(EngineExit(1, 3, None, 0, False, 9.0),)))
    verdict = (await scene.refusal()).verdict
    assert (verdict.reason, verdict.exit_code) == ("EngineExited", 3)


@pytest.mark.parametrize(("oom", "kind"), [(False, Kind.DISRUPTION), (True, Kind.FAILURE)])
async def test_a_container_that_dies_is_asked_about(oom: bool, kind: Kind) -> None:
    scene = Scene()
    await scene.begun()
    await turn(lambda: scene.follow.started_at is not None)
    scene.health.oom = oom
    scene.health.becomes(None)
    scene.health.becomes(replace(PROCESS, boot="another"))
    assert (await scene.refusal()).verdict.kind is kind


async def test_an_engine_that_dies_before_it_has_begun_costs_nothing() -> None:
    scene = Scene()
    scene.engine.accepted = base.Pending()
    await scene.engine.submitted.wait()
    await turn(lambda: scene.engine.asked > 0)
    scene.health.becomes(replace(PROCESS, incarnation=2, exits=(EngineExit(1, None, 9, 0, False, 9.0),)))
    scene.engine.submitted.clear()
    await scene.begun()
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.ExecutionSuccess(PROMPT))
    assert await scene.end() == (FILE,)
    assert scene.engine.calls == ["submit", "submit"]


async def test_a_forgotten_prompt_was_stopped_by_somebody() -> None:
    scene = Scene(outcome=0.005)
    await scene.begun()
    scene.engine.result = base.Unknown()
    assert (await scene.refusal()).verdict.kind is Kind.DISRUPTION


async def test_resuming_asks_first_and_submits_nothing() -> None:
    scene = Scene(resumed=True)
    assert (await scene.refusal()).verdict.kind is Kind.DISRUPTION
    assert scene.engine.calls == []


@pytest.mark.parametrize("why", [Stop.CANCEL, Stop.LOST, Stop.DRAIN_OVER])
async def test_stopping_interrupts_and_waits_for_the_engine(why: Stop) -> None:
    scene = Scene()
    await scene.begun()
    scene.stop.set(why)
    with pytest.raises(Stopped) as raised:
        await scene.end()
    assert raised.value.why is why
    assert scene.engine.calls == ["submit", "delete", "interrupt"]
    assert scene.health.restarts == []


async def test_an_interrupt_that_does_not_work_becomes_a_restart() -> None:
    scene = Scene()
    scene.engine.obeys = False
    await scene.begun()
    scene.stop.set(Stop.CANCEL)
    with pytest.raises(Stopped):
        await scene.end()
    assert scene.health.restarts == ["cancel"]


async def test_a_hand_back_is_too_late_once_the_engine_has_it() -> None:
    scene = Scene()
    await scene.begun()
    scene.stop.set(Stop.HAND_BACK)
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.ExecutionSuccess(PROMPT))
    assert await scene.end() == (FILE,)


async def test_the_deadline_frees_the_engine() -> None:
    scene = Scene(deadline=0.02)
    await scene.begun()
    assert (await scene.refusal()).verdict.reason == "ActiveDeadlineExceeded"
    assert "interrupt" in scene.engine.calls


async def test_after_success_the_engine_is_left_to_the_next_prompt() -> None:
    scene = Scene(deadline=1.0, outcome=0.005)
    await scene.engine.submitted.wait()
    scene.engine.result = base.EngineUnavailable("busy with the next")
    scene.say(base.ExecutionStart(PROMPT), base.ExecutionSuccess(PROMPT))
    await turn(lambda: bool(scene.freed))
    scene.follow.scale = 1 / 400  # 1.5 s until it must have said what came of it: longer than the deadline was
    verdict = (await scene.refusal()).verdict
    assert (verdict.kind, verdict.reason) == (Kind.DISRUPTION, "EngineSilent")
    assert scene.freed
    assert scene.health.restarts == []
    assert "interrupt" not in scene.engine.calls


async def test_the_wait_for_an_engine_that_takes_the_prompt_is_not_its_silence() -> None:
    scene = Scene(waited=1000)  # it was starting
    scene.engine.accepted = base.Pending()
    await turn(lambda: scene.engine.asked > 0)
    await scene.begun()
    scene.engine.result = base.Succeeded((FILE,))
    scene.say(base.ExecutionSuccess(PROMPT))
    assert await scene.end() == (FILE,)
    assert scene.health.restarts == []


async def test_silence_restarts_the_engine() -> None:
    scene = Scene(scale=1e-4)
    await scene.begun()
    verdict = (await scene.refusal()).verdict
    assert (verdict.kind, verdict.reason) == (Kind.DISRUPTION, "EngineSilent")
    assert scene.health.restarts == ["silent"]
