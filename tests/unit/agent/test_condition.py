"""The condition on the pod: the newest word stands, whatever else asks the API server about the pod meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kinora.agent.condition import ConditionWriter
from kinora.agent.readiness import Readiness
from kinora.agent.settings import Identity, Times
from kinora.kube.client import UnreachableError
from unit.agent.made import NOW, POD
from waiting import DEADLINE, until

Object = dict[str, Any]
READY = Readiness("EngineReady", "it answers")
DOWN = Readiness("EngineDown", "it died")


class SlowPods:
    """An API server that takes its time with one write. `said`: the reasons, as they came to stand on the pod."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.asked = 0
        self.let = asyncio.Event()

    async def patch(self, _resource: Any, _namespace: str, _name: str, body: Object, **_options: Any) -> Object:
        self.asked += 1
        if self.asked == 2:
            await self.let.wait()
        [condition] = body["status"]["conditions"]
        self.said.append(condition["reason"])
        return {"metadata": {}, "status": body["status"]}


async def test_a_question_about_the_engines_end_brings_no_older_word_back() -> None:
    """It is asked by writing what stands already, in the very moment in which that stops being so."""
    server = SlowPods()
    writer = ConditionWriter(server, Identity("ns", "vace-0", POD), Times(), lambda: NOW, lambda _pod: None)  # type: ignore[arg-type]
    running = asyncio.create_task(writer.run())
    writer.want(READY)
    await until(lambda: server.said == ["EngineReady"])
    asking = asyncio.create_task(writer.engine_was_oom_killed())
    await until(lambda: server.asked == 2)
    writer.want(DOWN)
    for _ in range(10):
        await asyncio.sleep(0)
    server.let.set()
    await until(lambda: len(server.said) >= 3)
    assert server.said[:3] == ["EngineReady", "EngineReady", "EngineDown"]
    for task in (asking, running):
        task.cancel()
    await asyncio.gather(asking, running, return_exceptions=True)


class LostAnswers(SlowPods):
    """The second write is taken, and its answer is lost."""

    def __init__(self, lost: Callable[[], None]) -> None:
        super().__init__()
        self.lost = lost

    async def patch(self, *where: Any, **options: Any) -> Object:
        self.let.set()
        pod = await super().patch(*where, **options)
        if self.asked == 2:
            self.lost()
            raise UnreachableError("reset")
        return pod


async def test_a_write_that_may_have_been_taken_is_made_good_also_where_it_is_as_before_again() -> None:
    """An engine that was down for a moment, while the API server was away."""
    server = LostAnswers(lambda: writer.want(READY))
    times = Times(write_retry=0.001)
    writer = ConditionWriter(server, Identity("ns", "vace-0", POD), times, lambda: NOW, lambda _pod: None)  # type: ignore[arg-type]
    running = asyncio.create_task(writer.run())
    writer.want(READY)
    await until(lambda: server.said == ["EngineReady"])
    writer.want(DOWN)
    await until(lambda: server.said == ["EngineReady", "EngineDown", "EngineReady"])
    async with asyncio.timeout(DEADLINE):
        await writer.settled()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
