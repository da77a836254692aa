"""Which pods of spot pools count as lost; what a job that may not go there is told."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from kinora.controller.modelserver.snapshot import ServerPod, server_pod
from kinora.controller.spot import SpotWatch
from unit.controller.builders import NOW, ago, server

KEY = "films/vace"
POOLS = [{"name": "cheap", "capacity": "Spot"}, {"name": "own", "capacity": "Reserved"}]


def pod(uid: str, *, pool: str = "cheap", age: float = 600, phase: str = "Running", **metadata: Any) -> ServerPod:
    raw = {
        "metadata": {"name": uid, "uid": uid, "labels": {"kinora.dev/pool": pool}, "creationTimestamp": ago(age + 60),
                     **metadata},
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(age)}]},
    }  # fmt: skip
    return server_pod(raw, busy=False)


def watched(*steps: list[ServerPod]) -> SpotWatch:
    """Shown one state after the other, ten seconds apart, then none of them."""
    watch = SpotWatch()
    for number, pods in enumerate([*steps, []]):
        watch.see(KEY, {"cheap"}, pods, NOW + dt.timedelta(seconds=10 * number))
    return watch


def ended(watch: SpotWatch) -> list[tuple[float, bool]]:
    return [(life.seconds, life.lost) for life in watch.lives.ended.get(f"{KEY}/cheap", ())]


TERMINATING = {"deletionTimestamp": ago(-30)}


@pytest.mark.parametrize(
    ("steps", "seconds", "lost"),
    [
        ([[pod("a")], [replace(pod("a"), is_ending=True)], [pod("a", **TERMINATING)]], 610, True),
        ([[pod("a")], [pod("a", phase="Failed")]], 610, True),
        ([[pod("a")]], 610, True),
        ([[pod("a")], [pod("a", **TERMINATING)]], 620, False),
        ([[pod("a")], [pod("a", phase="Succeeded", **TERMINATING)]], 620, False),
        ([[pod("a")], [pod("a", deletionGracePeriodSeconds=0, **TERMINATING)]], 620, True),
        ([[pod("a")], [pod("a", **TERMINATING)], [pod("a", deletionGracePeriodSeconds=0, **TERMINATING)]], 630, False),
    ],
    ids=["notice", "failed", "vanished", "deleted", "deleted and ended in order", "by force", "at its end by force"],
)
def test_what_counts_as_lost_and_when(steps: list[list[ServerPod]], seconds: float, lost: bool) -> None:
    assert ended(watched(*steps)) == [(seconds, lost)]


def test_only_pods_that_had_a_node_in_a_spot_pool_count() -> None:
    assert watched([pod("own", pool="own"), replace(pod("pending"), placed=None)]).lives.ended == {}


def test_pods_that_live_are_counted_with_their_age() -> None:
    watch = SpotWatch()
    for index in range(3):
        watch.see(KEY, {"cheap"}, [pod(f"p{index}", age=100 + index)], NOW)
    watch.see(KEY, {"cheap"}, [], NOW)
    assert watch.life(KEY, "cheap", NOW.timestamp()) == 101
    old = [pod(f"old{index}", age=90_000) for index in range(4)]
    watch.see(KEY, {"cheap"}, old, NOW)
    later = NOW.timestamp() + 60
    assert watch.life(KEY, "cheap", later) is None, "most pods live on"
    watch.forget(KEY)
    assert watch.life(KEY, "cheap", later + 60) == 101, "they went with their server: nothing was taken away"


def told(lost: int, seconds: float, pools: list[dict[str, str]]) -> str:
    watch = watched([pod("a", age=100)], [pod("b", age=200)], [pod("c", age=300)])
    return watch.only_spot(
        {KEY: server(gpu={"count": 1, "pools": pools})}, lost=lost, seconds=lambda *_: seconds, now=NOW.timestamp()
    )


def test_a_job_with_nowhere_to_go_is_told_why() -> None:
    assert told(2, 10, POOLS[:1]) == "it was lost 2 times, and every pool is of spot capacity"
    assert told(0, 1000, POOLS[:1]) == "it takes about 1000 s, and pods of spot pool cheap live for 220 s"


def test_a_job_that_may_go_somewhere_is_not() -> None:
    assert told(2, 1000, POOLS) == ""
    assert told(0, 100, POOLS[:1]) == ""
    assert told(0, 1000, []) == "", "a server without pools has one of no provider, which is not spot"
