"""What a VideoJob's attempts have used of GPUs, and what that cost: status.gpuSeconds, lostGPUSeconds, cost. Pure.

Each attempt is added once, by the write that ends it, with the price that its pool had when it was bound. What an agent
tells (`released.gpuSeconds`, its last write) is exact. Of an attempt that nobody could tell of any more (its pod is
lost) it is known that the engine was held from `startTime` to the last sign of progress, and that much is counted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from kinora.api.base import integral

Status = Mapping[str, Any]
Patch = dict[str, Any]
_HOUR = 3600.0


def price_of(status: Status) -> float | None:
    """What the present assignment's pod costs an hour; None where its pool has no price."""
    price = (status.get("assignment") or {}).get("pricePerHour")
    return None if price is None else float(price)


def cost_of(seconds: float, price: float | None) -> float:
    """Of so many seconds; 0 without a price."""
    return 0.0 if price is None else seconds * price / _HOUR


def seconds_of_last(status: Status) -> float:
    """Of a job that ended: GPU-seconds of its last attempt; the others are in lostGPUSeconds."""
    return max(0.0, float(status.get("gpuSeconds") or 0.0) - float(status.get("lostGPUSeconds") or 0.0))


def known_of_present(status: Status) -> float:
    """GPU-seconds of the present attempt, as far as its status tells: to be asked of one that nobody ends any more."""
    released = status.get("released") or {}
    if released and released.get("attempt") == status.get("attempt"):
        return float(released.get("gpuSeconds") or 0.0)
    started, last = status.get("startTime"), (status.get("progress") or {}).get("lastUpdateTime")
    if not started or not last:
        return 0.0
    return max(0.0, (_moment(last) - _moment(started)).total_seconds())


def ended(status: Status, seconds: float) -> Patch:
    """The job ends with the present attempt, which took so long of a GPU."""
    if not seconds:
        return {}
    told: Patch = {"gpuSeconds": round(float(status.get("gpuSeconds") or 0.0) + seconds, 3)}
    price = price_of(status)
    if price is not None or status.get("cost") is not None:
        told["cost"] = round(float(status.get("cost") or 0.0) + cost_of(seconds, price), 6)
    return {name: integral(value) for name, value in told.items()}


def lost(status: Status, seconds: float) -> Patch:
    """The present attempt took so long of a GPU and brought nothing; the job goes on."""
    if not seconds:
        return {}
    before = float(status.get("lostGPUSeconds") or 0.0)
    return {**ended(status, seconds), "lostGPUSeconds": integral(round(before + seconds, 3))}


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
