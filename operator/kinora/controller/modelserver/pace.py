"""How often a ModelServer's status is written: news at once, mere counts every few seconds. No I/O, no clock.

Every bind and every end changes how many pods are busy and how many jobs wait: without this a burst would write the
status once a job, for numbers that nobody can read so fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

Object = Mapping[str, Any]
COUNT_SECONDS: Final = 3.0
_COUNTS: Final = frozenset(
    {"replicas", "readyReplicas", "busyReplicas", "backlog", "backlogSeconds", "performance", "coldStart"}
)
_NUMBER: Final = re.compile(r"\b\d+\b")


def meaning(status: Object) -> dict[str, Any]:
    """What of a status is more than a count: a change of it is news."""
    told = {name: value for name, value in status.items() if name not in _COUNTS}
    told["conditions"] = [_news(condition) for condition in status.get("conditions") or []]
    told["pools"] = [
        {name: value for name, value in pool.items() if name != "replicas"} for pool in status.get("pools") or []
    ]
    return told


def _news(condition: Object) -> tuple[object, ...]:
    """A condition without its times, and with a message in which only numbers change taken for the same."""
    message = _NUMBER.sub("#", str(condition.get("message", "")))
    return condition.get("type"), condition.get("status"), condition.get("reason"), message


class Pace:
    """Remembers when each ModelServer's status was written last."""

    def __init__(self) -> None:
        self._written: dict[str, float] = {}

    def wait(self, server: str, before: Object, patch: Object, now: float) -> float:
        """Seconds until ``patch`` may be written; 0: now. ``now`` is of any clock that does not jump."""
        left = self._written.get(server, float("-inf")) + COUNT_SECONDS - now
        if left <= 0 or meaning({**before, **_without_nulls(patch)}) != meaning(before):
            return 0.0
        return left

    def wrote(self, server: str, now: float) -> None:
        """The status was written."""
        self._written[server] = now

    def forget(self, server: str) -> None:
        """The ModelServer is gone."""
        self._written.pop(server, None)


def _without_nulls(patch: Object) -> dict[str, Any]:
    """A null in a merge patch removes: where nothing was, it is no news."""
    return {name: value for name, value in patch.items() if value is not None}
