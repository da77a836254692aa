"""What the store keeps of an object."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from kinora.controller.compact import compact

WAITING: dict[str, Any] = {
    "metadata": {"name": "cat", "uid": "u", "managedFields": [{"manager": "kubectl"}]},
    "spec": {"prompt": "a cat " * 60, "model": "wan2.1-vace-14b", "parameters": {"width": 832, "steps": 20.5}},
    "status": {
        "phase": "Queued",
        "conditions": [{"type": "Ready", "status": "False", "message": "no pod is idle"}] * 6,
    },
}


def parsed(**status: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps({**WAITING, "status": {**WAITING["status"], **status}}))
    return found


def test_nothing_but_managed_fields_is_lost_and_the_object_is_not_touched() -> None:
    for given in (parsed(), parsed(assignment={"podUID": "p"})):
        before = json.dumps(given)
        kept = compact(given)
        assert kept == {**given, "metadata": {"name": "cat", "uid": "u"}}
        assert json.dumps(given) == before


def test_equal_texts_are_kept_once() -> None:
    first, second = compact(parsed()), compact(parsed())
    assert first["status"]["conditions"][0]["message"] is second["status"]["conditions"][5]["message"]
    assert all(one is other for one, other in zip(first["spec"], second["spec"], strict=True))


def test_a_queue_of_such_jobs_weighs_half() -> None:
    def weight(keep: Any) -> int:
        tracemalloc.start()
        try:
            kept = [keep(parsed()) for _ in range(200)]
            size = tracemalloc.get_traced_memory()[0]
            assert len(kept) == 200
            return size
        finally:
            tracemalloc.stop()

    assert weight(compact) < 0.6 * weight(lambda one: one)
