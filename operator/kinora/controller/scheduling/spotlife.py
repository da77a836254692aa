"""How long the pods of spot pools live, from those that were lost and those that were not: Kaplan and Meier. Pure.

A pod that was let go, or that still lives, says only that pods live at least that long (censored): leaving it out would
make every pool look as short as its losses, and counting it as a loss the more so. The median of the survival curve is
what counts: a few pods that lasted for weeks, or fell at once, do not move it.

What is kept is bounded (KEEP pods a pool, POOLS pools, for KEEP_SECONDS), small, and text that a ConfigMap can hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

KEEP: Final = 48
POOLS: Final = 256
KEEP_SECONDS: Final = 7 * 86_400.0
"A market changes: what is older says nothing any more. It also gives a pool that was shunned another chance."
TRUST: Final = 3
"Losses before anything is said of a pool."


@dataclass(frozen=True, slots=True)
class Life:
    """One pod: how long it lived, whether its capacity was taken away then, and when that was (since the epoch)."""

    seconds: float
    lost: bool
    at: float = 0.0


def median_life(lives: Iterable[Life]) -> float | None:
    """The age that half of the pods reach; None while too few were lost, or fewer than half would be."""
    known = list(lives)
    losses = Counter(life.seconds for life in known if life.lost)
    if losses.total() < TRUST:
        return None
    ages = sorted((life.seconds for life in known), reverse=True)
    surviving = 1.0
    for seconds in sorted(losses):
        while ages and ages[-1] < seconds:
            ages.pop()
        surviving *= 1.0 - losses[seconds] / len(ages)
        if surviving <= 0.5:
            return seconds
    return None


@dataclass
class Lives:
    """Pool's key (namespace/server/pool) -> its pods that ended, newest last. ``changed``: something is to be kept."""

    ended: dict[str, tuple[Life, ...]] = field(default_factory=dict)
    changed: bool = False

    def add(self, pool: str, life: Life) -> None:
        """One pod that ended."""
        before = self.ended.pop(pool, ())  # the pool comes last again: the one that was quiet for longest goes first
        self.ended[pool] = (*before, life)[-KEEP:]
        while len(self.ended) > POOLS:
            del self.ended[next(iter(self.ended))]
        self.changed = True

    def median(self, pool: str, alive: Iterable[float], now: float) -> float | None:
        """Of the pool's pods, with the ages of those that live, in seconds."""
        fresh = (life for life in self.ended.get(pool, ()) if now - life.at < KEEP_SECONDS)
        return median_life([*fresh, *(Life(age, lost=False) for age in alive)])

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        for pool in list(self.ended):
            kept = tuple(life for life in self.ended[pool] if now - life.at < KEEP_SECONDS)
            if kept:
                self.ended[pool] = kept
            else:
                del self.ended[pool]

    def to_text(self) -> str:
        """JSON: {pool: [[seconds, 1 for a loss, hour since the epoch], ...]}."""
        told = {
            pool: [[round(life.seconds), int(life.lost), int(life.at // 3600)] for life in lives]
            for pool, lives in self.ended.items()
        }
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Lives:
        """What `to_text` wrote. Raises ValueError for anything else."""
        try:
            told: Any = json.loads(text)
            return cls(
                {
                    str(pool): tuple(Life(float(one[0]), bool(one[1]), float(one[2]) * 3600) for one in lives)[-KEEP:]
                    for pool, lives in list(told.items())[-POOLS:]
                }
            )
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"the lives of spot pods cannot be read: {error}; allowed: what an operator wrote"
            ) from None
