"""How long a job will take: seconds = overhead + per_unit x (tokens x steps), learnt from jobs that ended. Pure.

One model for each ModelServer and pool. It starts from a prior (the catalogue's, scaled by what was measured in another
pool of the server) and is fitted by Theil and Sen's estimator: the median of the slopes between pairs of samples, which
does not move while fewer than 29 % of the samples are outliers (a cold engine, a slow volume, a shared card).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import median
from typing import Any, Final

from kinora.controller.scheduling.facts import Rate

KEEP: Final = 48
"Samples that count, the newest: 48 give 1,128 pairs, under a millisecond."
TRUST: Final = 3
"Samples that weigh as much as the prior."
_SPREAD: Final = 1.25
"Works must differ by this factor before overhead and slope can be told apart."


@dataclass(frozen=True, slots=True)
class Sample:
    """One render that ended well: its work and how long the engine had it, in seconds."""

    work: float
    seconds: float


@dataclass(frozen=True)
class Learnt:
    """What is known of one ModelServer and pool. ``errors``: relative errors of the last predictions, newest last."""

    prior: Rate
    samples: tuple[Sample, ...] = ()
    errors: tuple[float, ...] = ()

    @cached_property
    def rate(self) -> Rate:
        """The model to predict with. Fitted once: it is asked for again for every busy pod of every decision."""
        return fit(self.samples, self.prior)

    @property
    def error(self) -> float | None:
        """The median of |predicted - measured| / measured, of the last predictions."""
        return median(self.errors) if self.errors else None

    def with_sample(self, sample: Sample) -> Learnt:
        """One more ended render; first its prediction is held against it."""
        if sample.work <= 0 or sample.seconds <= 0:
            return self
        error = abs(self.rate.seconds(sample.work) - sample.seconds) / sample.seconds
        return Learnt(self.prior, (*self.samples, sample)[-KEEP:], (*self.errors, error)[-KEEP:])

    def to_status(self) -> dict[str, Any]:
        """What status.performance keeps, so that a restarted operator goes on from it."""
        rate = self.rate
        told: dict[str, Any] = {
            "overheadSeconds": round(rate.overhead, 3),
            "secondsPerMillionTokenSteps": round(rate.per_unit * 1e6, 6),
            "samples": len(self.samples),
        }
        if self.error is not None:
            told["relativeError"] = round(self.error, 3)
        return told

    @classmethod
    def from_status(cls, told: Mapping[str, Any], prior: Rate) -> Learnt:
        """The stored model as prior; a status that cannot be read counts for nothing."""
        overhead, per_million = told.get("overheadSeconds"), told.get("secondsPerMillionTokenSteps")
        if not isinstance(overhead, int | float) or not isinstance(per_million, int | float):
            return cls(prior)
        if overhead < 0 or per_million < 0 or overhead + per_million == 0:
            return cls(prior)
        return cls(Rate(float(overhead), float(per_million) / 1e6))


def fit(samples: Sequence[Sample], prior: Rate) -> Rate:
    """The model that fits the samples; the prior fades out as they come in."""
    if not samples:
        return prior
    works = [sample.work for sample in samples]
    if len(samples) > TRUST and max(works) >= _SPREAD * min(works):
        slopes = [
            (two.seconds - one.seconds) / (two.work - one.work)
            for one, two in combinations(samples, 2)
            if one.work != two.work
        ]
        per_unit = median(slopes)
        overhead = median(sample.seconds - per_unit * sample.work for sample in samples)
        if per_unit > 0 and overhead >= 0:
            return Rate(overhead, per_unit)
    return _scaled(samples, prior)


def _scaled(samples: Sequence[Sample], prior: Rate) -> Rate:
    """The prior, made faster or slower by the typical ratio of measured to predicted."""
    ratios = [sample.seconds / max(prior.seconds(sample.work), 1e-9) for sample in samples]
    ratio = median([*ratios, *(1.0 for _ in range(max(0, TRUST - len(samples))))])
    return Rate(prior.overhead * ratio, prior.per_unit * ratio)


def remaining(predicted: float, elapsed: float, percent: float | None) -> float:
    """Seconds until a running job ends: by its own progress once that says something, else by the prediction.

    One that is overdue is expected to take a tenth of what it took so far.
    """
    left = predicted - elapsed
    if percent is not None and percent >= 10 and elapsed > 0:
        left = elapsed * (100.0 - min(percent, 100.0)) / percent
    return left if left > 0 else max(0.1 * elapsed, 0.5) if percent is None or percent < 100 else 0.5
