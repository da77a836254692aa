"""What each queue has used: hourly buckets of GPU-seconds and of delivered video; shares and limits rest on it.

Pure values; who keeps them (a ConfigMap beside the operator) stands elsewhere. Never derived from VideoJobs, which
users may delete (decisions.md, 9).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kinora.controller.scheduling.facts import Usage

HOUR: Final = 3600.0
HALF_LIFE: Final = 6 * HOUR
"After that long a GPU-second counts half for the share."
KEEP_HOURS: Final = 48
_DAY_HOURS: Final = 24


@dataclass
class Bucket:
    """One queue's use in one hour."""

    gpu_seconds: float = 0.0
    video_seconds: float = 0.0


@dataclass
class Ledger:
    """Queue -> hour (since the epoch) -> bucket. ``changed``: there is something to be written."""

    hours: dict[str, dict[int, Bucket]] = field(default_factory=dict)
    changed: bool = False

    def charge(self, queue: str, now: float, *, gpu_seconds: float = 0.0, video_seconds: float = 0.0) -> None:
        """Add to the present hour; negative amounts correct an estimate that was too high."""
        if not gpu_seconds and not video_seconds:
            return
        bucket = self.hours.setdefault(queue, {}).setdefault(int(now // HOUR), Bucket())
        bucket.gpu_seconds += gpu_seconds
        bucket.video_seconds += video_seconds
        self.changed = True

    def usage(self, queue: str, now: float, running: int = 0) -> Usage:
        """The queue's use as the decision needs it: GPU-seconds that fade, video of the last 24 hours."""
        gpu = video = 0.0
        for hour, bucket in self.hours.get(queue, {}).items():
            age = max(0.0, now - hour * HOUR)
            gpu += bucket.gpu_seconds * 0.5 ** (age / HALF_LIFE)
            if hour > now // HOUR - _DAY_HOURS:
                video += bucket.video_seconds
        return Usage(max(gpu, 0.0), max(video, 0.0), running)

    def prune(self, now: float) -> None:
        """Forget what is older than KEEP_HOURS."""
        oldest = int(now // HOUR) - KEEP_HOURS
        for queue in list(self.hours):
            kept = {hour: bucket for hour, bucket in self.hours[queue].items() if hour > oldest}
            if kept:
                self.hours[queue] = kept
            else:
                del self.hours[queue]

    def to_text(self) -> str:
        """JSON: {queue: {hour: [GPU-seconds, video-seconds]}}."""
        told = {
            queue: {
                str(hour): [round(bucket.gpu_seconds, 1), round(bucket.video_seconds, 2)]
                for hour, bucket in sorted(buckets.items())
            }
            for queue, buckets in sorted(self.hours.items())
        }
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Ledger:
        """What `to_text` wrote. Raises ValueError for anything else: a ledger is not started anew by accident."""
        try:
            told: Any = json.loads(text)
            return cls({queue: _buckets(hours) for queue, hours in told.items()})
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"the usage ledger cannot be read: {error}; allowed: what an operator wrote") from None


def _buckets(hours: Mapping[str, Any]) -> dict[int, Bucket]:
    return {int(hour): Bucket(float(pair[0]), float(pair[1])) for hour, pair in hours.items()}
