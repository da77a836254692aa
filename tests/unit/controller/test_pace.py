"""How often a ModelServer's status is written."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.controller.modelserver.pace import COUNT_SECONDS, Pace

Object = dict[str, Any]


def status(**changes: Any) -> Object:
    said = {"type": "Available", "status": "True", "reason": "AllReady", "message": "3 of 4 pods serve"}
    return {
        "observedGeneration": 1, "conditions": [said], "replicas": 4, "readyReplicas": 3, "busyReplicas": 2,
        "backlog": 9, "pools": [{"name": "default", "replicas": 4}], **changes,
    }  # fmt: skip


def said(**changes: Any) -> Object:
    return {"conditions": [{**status()["conditions"][0], **changes}]}


def waiting(patch: Object, *, after: float) -> float:
    pace = Pace()
    pace.wrote("films/vace", 100.0)
    return pace.wait("films/vace", status(), {**status(), **patch}, 100.0 + after)


@pytest.mark.parametrize(
    "counts",
    [
        {"busyReplicas": 3, "backlog": 8, "backlogSeconds": 77},
        {"replicas": 5, "readyReplicas": 4, "pools": [{"name": "default", "replicas": 5}]},
        {"performance": {"default": {"samples": 3}}},
        said(message="4 of 4 pods serve"),
        {"lastScale": None},
    ],
)
def test_other_counts_wait_for_their_turn_and_are_written_then(counts: Object) -> None:
    assert waiting(counts, after=1.0) == pytest.approx(COUNT_SECONDS - 1.0)
    assert waiting(counts, after=COUNT_SECONDS) == 0.0


@pytest.mark.parametrize(
    "news",
    [
        {"observedGeneration": 2},
        said(status="False"),
        said(reason="PodRefused"),
        said(message="pool spot: no capacity"),
        {"pools": [{"name": "default", "replicas": 4, "message": "quota exceeded"}]},
        {"lastScale": [{"toReplicas": 8}]},
        {"weights": {"phase": "Ready"}},
    ],
)
def test_news_are_written_at_once(news: Object) -> None:
    assert waiting(news, after=0.1) == 0.0


def test_the_first_write_and_the_one_after_a_new_object_of_the_name_wait_for_nothing() -> None:
    pace = Pace()
    assert pace.wait("films/vace", {}, status(), 0.0) == 0.0
    pace.wrote("films/vace", 0.0)
    pace.forget("films/vace")
    assert pace.wait("films/vace", status(), status(backlog=0), 0.1) == 0.0
