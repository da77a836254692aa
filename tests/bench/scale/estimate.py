"""How long a run will take, from what phases took on two cores; and how long each may take at most. Pure."""

from __future__ import annotations

import argparse

PHASES = ("steady", "burst", "bare", "plain", "restart", "finished")
SETUP = "set-up"
_SLACK = 60.0


def seconds(arguments: argparse.Namespace, chosen: list[str]) -> dict[str, float]:
    """Expected seconds of each part of the run, in its order, on two cores that do nothing else."""
    jobs, pods = arguments.jobs, arguments.pods
    bare, plain = arguments.bare_jobs or jobs, arguments.plain_jobs or jobs
    all_of_them = {
        "steady": arguments.steady_seconds + 10,
        "burst": jobs / 30 + 10,
        "bare": (bare + 5 * trial(bare)) / 40 + 15,
        "plain": plain / 25 + 10,
        "restart": (jobs + pods) / 70 + 45,
        "finished": arguments.finished_jobs / 600 + 45,
    }
    return {SETUP: 15 + pods / 8, **{name: all_of_them[name] for name in PHASES if name in chosen}}


def trial(jobs: int) -> int:
    """Bare lives of a trial of one width."""
    return max(20, min(jobs // 10, 200))


def limit(expected: float, most: float) -> float:
    """Seconds after which a phase ends with what it has."""
    return min(most, 2 * expected + _SLACK)


def told(expected: dict[str, float]) -> str:
    """For people, before the run."""
    parts = ", ".join(f"{name} {value:.0f}" for name, value in expected.items())
    return f"estimate: {sum(expected.values()) / 60:.1f} min on two cores that do nothing else (s: {parts})"
