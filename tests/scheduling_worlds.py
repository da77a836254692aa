"""Small worlds for the tests of scheduling, and hypothesis strategies that draw larger ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from kinora.controller.scheduling.facts import AGING_SECONDS, Held, Job, Lane, Pod, Queue, Rate, Usage, World, place

NOW = 1_800_001_800.0  # the middle of an aging period


Served = tuple[frozenset[str], Job]  # a job, and the ModelServers that can render it


def job(name: str, *, queue: str = "default", servers: str = "a", priority: int = 0, waited: float = 0.0,
        work: float = 100.0, losses: int = 0, video_seconds: float = 5.0, preset: str = "") -> Served:  # fmt: skip
    made = Job(name, f"uid-{name}", queue, priority, NOW - waited, work, video_seconds, losses, preset)
    return frozenset(servers.split()), made


def held(name: str, *, running: bool = True, remaining: float | None = 1000.0, level: int = 0,
         queue: str = "default", elapsed: float = 10.0, leaving: bool = False) -> Held:  # fmt: skip
    return Held(name, f"uid-{name}", queue, level, running, remaining, elapsed, leaving)


def pod(name: str, *holding: Held, server: str = "a", pool: str = "main", spot: bool = False, serves: bool = True,
        price: float = 1.0, ready_in: float = 0.0, presets: str = "") -> Pod:  # fmt: skip
    has = frozenset(presets.split())
    return Pod(name, f"uid-{name}", "node", server, pool, serves, True, spot, price, tuple(holding), ready_in, has)


def lanes(jobs: Iterable[Served], aging: float = AGING_SECONDS) -> tuple[Lane, ...]:
    groups: dict[tuple[str, frozenset[str], str], list[Job]] = defaultdict(list)
    for servers, one in jobs:
        groups[one.queue, servers, one.preset].append(one)
    return tuple(
        Lane(queue, servers, tuple(sorted(group, key=lambda one: place(one, aging))))
        for (queue, servers, _), group in groups.items()
    )


def world(jobs: Iterable[Served] = (), pods: Iterable[Pod] = (), *, queues: Iterable[Queue] = (),
          usage: dict[str, Usage] | None = None, aging: float = AGING_SECONDS, rate: float = 1.0,
          spot_life: dict[tuple[str, str], float] | None = None) -> World:  # fmt: skip
    pods = tuple(pods)
    rates = {(one.server, one.pool): Rate(0.0, rate) for one in pods}
    return World(
        now=NOW,
        lanes=lanes(jobs, aging),
        pods=pods,
        queues={queue.name: queue for queue in queues},
        usage=usage or {},
        rates=rates,
        spot_life=spot_life or {},
        aging_seconds=aging,
    )


@st.composite
def any_world(draw: st.DrawFn) -> World:
    """Up to 30 jobs in three queues for three servers, up to 12 pods in every state."""
    queues = [
        Queue("default", max_running=draw(st.none() | st.integers(0, 5))),
        Queue("batch", weight=draw(st.sampled_from([0.5, 1.0, 3.0])), preemptible=draw(st.booleans())),
        Queue("urgent", preempts=draw(st.booleans())),
    ]
    names = [queue.name for queue in queues]
    jobs = [
        job(
            f"j{index}",
            queue=draw(st.sampled_from(names)),
            servers=draw(st.sampled_from(["a", "b", "a b", "c"])),
            priority=draw(st.integers(-3, 3)),
            waited=draw(st.floats(0, 20_000)),
            work=draw(st.floats(1, 500)),
            losses=draw(st.integers(0, 3)),
            preset=draw(st.sampled_from(["", "", "Fast"])),
        )
        for index in range(draw(st.integers(0, 30)))
    ]
    pods = []
    for index in range(draw(st.integers(0, 12))):
        first = held(f"r{index}", remaining=draw(st.floats(0, 100)), level=draw(st.integers(-500_003, -499_990)),
                     queue=draw(st.sampled_from(names)))  # fmt: skip
        second = replace(first, key=f"s{index}", uid=f"uid-s{index}", running=False, remaining=None)
        holding = draw(st.sampled_from([(), (first,), (first, second)]))
        pods.append(
            pod(
                f"p{index}",
                *holding,
                server=draw(st.sampled_from(["a", "b"])),
                spot=draw(st.booleans()),
                serves=draw(st.booleans()),
                presets=draw(st.sampled_from(["", "Fast"])),
                price=draw(st.floats(0, 3)),
            )
        )
    usage = {name: Usage(gpu_seconds=draw(st.floats(0, 1000))) for name in names}
    return world(jobs, pods, queues=queues, usage=usage)
