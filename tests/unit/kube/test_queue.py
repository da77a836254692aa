"""The work queue on a clock that the test turns: nothing here waits for a real second."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from typing import Any

import pytest

from kinora.kube.queue import WorkQueue


class TurnedLoop:
    """As much of an event loop as the queue uses: a clock, and timers that ``turn`` fires."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._real = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._real)
        heapq.heappush(self.timers, (when, len(self.timers), handle))
        return handle

    @property
    def waiting(self) -> int:
        return sum(not handle.cancelled() for _, _, handle in self.timers)

    def turn(self, seconds: float) -> None:
        self.now += seconds
        while self.timers and self.timers[0][0] <= self.now:
            handle = heapq.heappop(self.timers)[2]
            if not handle.cancelled():
                handle._run()


@pytest.fixture
async def loop() -> TurnedLoop:
    return TurnedLoop()


@pytest.fixture
async def queue(loop: TurnedLoop, monkeypatch: pytest.MonkeyPatch) -> WorkQueue[str]:
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "get_running_loop", lambda: loop)
        return WorkQueue()


def ready(queue: WorkQueue[str]) -> str | None:
    """The key that ``get`` hands out at once; None when it would wait."""
    getting = queue.get()
    try:
        getting.send(None)  # type: ignore[attr-defined]
    except StopIteration as done:
        return str(done.value)
    getting.close()
    return None


def drain(queue: WorkQueue[str]) -> Iterator[str]:
    while (key := ready(queue)) is not None:
        yield key
        queue.done(key)


async def test_a_key_that_is_added_often_is_handed_out_once(queue: WorkQueue[str]) -> None:
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 1
    assert list(drain(queue)) == ["a"]
    assert ready(queue) is None


async def test_a_key_is_never_in_flight_twice(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert ready(queue) == "a"
    queue.add("a")
    queue.add("a")
    assert ready(queue) is None, "it is in flight"
    queue.done("a")
    assert ready(queue) == "a", "it was added while it was in flight"
    queue.done("a")
    assert ready(queue) is None


async def test_an_earlier_due_time_wins_and_the_later_one_is_forgotten(queue: WorkQueue[str], loop: TurnedLoop) -> None:
    queue.add("a", 60)
    queue.add("a", 10)
    queue.add("a", 30)
    loop.turn(9.9)
    assert ready(queue) is None
    loop.turn(0.2)
    assert list(drain(queue)) == ["a"]
    loop.turn(100)
    assert ready(queue) is None, "one look, at the earliest time"


async def test_keys_come_in_the_order_of_their_due_times(queue: WorkQueue[str], loop: TurnedLoop) -> None:
    for key, delay in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("now", 0.0)):
        queue.add(key, delay)
    loop.turn(5)
    assert list(drain(queue)) == ["now", "a", "b", "c"]


async def test_a_due_time_asked_for_in_flight_counts_from_then(queue: WorkQueue[str], loop: TurnedLoop) -> None:
    queue.add("a")
    assert ready(queue) == "a"
    queue.add("a", 10)
    loop.turn(4)
    queue.done("a")
    loop.turn(5.9)
    assert ready(queue) is None
    loop.turn(0.2)
    assert ready(queue) == "a"


async def test_a_failed_key_comes_back_after_a_pause_that_grows_to_30_seconds(
    queue: WorkQueue[str], loop: TurnedLoop
) -> None:
    queue.add("a")
    pauses = []
    for _ in range(14):
        assert ready(queue) == "a"
        queue.done("a", failed=True)
        due = min(when for when, _, handle in loop.timers if not handle.cancelled())
        pauses.append(round(due - loop.now, 3))
        loop.turn(pauses[-1] + 0.001)
    assert pauses[0] <= 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(30)
    assert ready(queue) == "a"
    queue.done("a")
    queue.add("a")
    assert ready(queue) == "a"
    queue.done("a", failed=True)
    loop.turn(pauses[0] + 0.001)
    assert ready(queue) == "a", "success forgets the failures"


async def test_an_event_cuts_a_failed_keys_pause_short(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert ready(queue) == "a"
    queue.done("a", failed=True)
    queue.add("a")
    assert ready(queue) == "a"


async def test_a_key_that_is_looked_at_often_leaves_no_timers_behind(queue: WorkQueue[str], loop: TurnedLoop) -> None:
    """A running job: a look at its deadline in two hours, and an event every 5 s before that."""
    for _ in range(50):
        queue.add("a")
        assert ready(queue) == "a"
        queue.add("a", 7260)
        queue.done("a")
        loop.turn(5)
    assert loop.waiting == 1


async def test_the_queue_runs_on_the_real_loop() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("later", 0.01)
    queue.add("now")
    assert [await queue.get(), await queue.get()] == ["now", "later"]


async def test_a_closed_queue_forgets_what_waits_and_takes_nothing_in(queue: WorkQueue[str], loop: TurnedLoop) -> None:
    queue.add("waits")
    queue.add("later", 5)
    queue.close()
    queue.add("late")
    loop.turn(10)
    assert ready(queue) is None
    assert (len(queue), loop.waiting) == (0, 0)
    queue.open()
    queue.add("waits")
    assert ready(queue) == "waits"


async def test_what_is_in_flight_lands_though_the_queue_is_closed(queue: WorkQueue[str], loop: TurnedLoop) -> None:
    for key in ("a", "b"):
        queue.add(key)
        assert ready(queue) == key
    queue.add("a")
    queue.close()
    landed = asyncio.ensure_future(queue.landed())
    queue.done("a", failed=True)
    await asyncio.sleep(0)
    assert not landed.done(), "b is in flight"
    queue.done("b")
    await asyncio.wait_for(landed, 1)
    loop.turn(60)
    assert ready(queue) is None, "a failed key does not come back"


async def test_an_urgent_key_goes_before_those_that_came_first() -> None:
    queue: WorkQueue[str] = WorkQueue(urgent=lambda key: key.startswith("bind"))
    for key in ("job 1", "job 2", "bind a", "job 3", "bind b"):
        queue.add(key)
    assert [await queue.get() for _ in range(5)] == ["bind a", "bind b", "job 1", "job 2", "job 3"]
