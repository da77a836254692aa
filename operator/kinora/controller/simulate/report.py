"""What a played trace says: waiting times, use of the GPUs, cost. Values only; tables and plots are made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles

from kinora.controller.simulate.play import Outcome, Played


@dataclass(frozen=True)
class Waits:
    """Seconds from arrival to the first start, of the jobs of one queue (or all)."""

    queue: str
    jobs: int
    unfinished: int
    p50: float
    p95: float
    longest: float


@dataclass(frozen=True)
class Summary:
    """One cluster's result. ``utilisation``: busy GPU-seconds of all that were paid for, 0 to 1."""

    cluster: str
    waits: tuple[Waits, ...]
    utilisation: float
    cost: float
    cost_per_video: float
    peak_pods: int
    lost: int
    preempted: int
    taken_back: int
    forecast_error: float | None
    "Median of |told - real| / the wait that was told, of forecasts of more than a minute."


def summarise(played: Played) -> Summary:
    """Fold the outcomes; the first entry of ``waits`` is over all queues."""
    queues = sorted({outcome.arrival.queue for outcome in played.outcomes})
    ended = sum(1 for outcome in played.outcomes if outcome.end is not None)
    waits = [_waits("all", played.outcomes)]
    if len(queues) > 1:
        waits += [_waits(queue, [one for one in played.outcomes if one.arrival.queue == queue]) for queue in queues]
    return Summary(
        cluster=played.cluster,
        waits=tuple(waits),
        utilisation=played.busy_seconds / played.pod_seconds if played.pod_seconds else 0.0,
        cost=played.cost,
        cost_per_video=played.cost / ended if ended else 0.0,
        peak_pods=max((moment.pods for moment in played.moments), default=0),
        lost=played.lost,
        preempted=played.preempted,
        taken_back=played.taken_back,
        forecast_error=_forecast_error(played.outcomes),
    )


def _waits(name: str, outcomes: list[Outcome]) -> Waits:
    waited = sorted(one.start - one.arrival.arrival for one in outcomes if one.start is not None)
    unfinished = sum(1 for one in outcomes if one.end is None)
    if not waited:
        return Waits(name, len(outcomes), unfinished, 0.0, 0.0, 0.0)
    p95 = quantiles(waited, n=20, method="inclusive")[-1] if len(waited) > 1 else waited[0]
    return Waits(name, len(outcomes), unfinished, median(waited), p95, waited[-1])


def _forecast_error(outcomes: list[Outcome]) -> float | None:
    errors = [
        abs(one.forecast - one.start) / (one.forecast - one.forecast_at)
        for one in outcomes
        if one.forecast is not None and one.start is not None and one.forecast - one.forecast_at > 60
    ]
    return median(errors) if errors else None
