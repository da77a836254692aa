"""Arrivals of jobs: read from CSV, or drawn for a bursty day. Text in, values out; no files are opened here."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kinora.controller.scheduling.facts import DEFAULT_QUEUE

COLUMNS: Final = ("arrival", "server", "queue", "priority", "work", "video_seconds")
DAY: Final = 86_400.0
_TOKENS: Final = {"480p": 21 * 30 * 52, "720p": 21 * 45 * 80}
"Tokens of 81 frames: ((81-1)/4+1) x (height/16) x (width/16), at 832x480 and 1280x720."


class TraceError(ValueError):
    """A trace that cannot be read: names the line, the column, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job: seconds since the beginning of the trace, and what it asks for."""

    arrival: float
    server: str
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    work: float = 0.0
    video_seconds: float = 5.0


def read(text: str) -> tuple[Arrival, ...]:
    """Parse CSV with a header of COLUMNS (arrival, server and work are needed). Raises TraceError."""
    reader = csv.DictReader(io.StringIO(text))
    given = tuple(reader.fieldnames or ())
    missing = [name for name in ("arrival", "server", "work") if name not in given]
    unknown = [name for name in given if name not in COLUMNS]
    if missing or unknown:
        raise TraceError(f"line 1: columns are {', '.join(given) or 'none'}; allowed: {', '.join(COLUMNS)}")
    rows = [_arrival(row, reader.line_num) for row in reader]
    if not rows:
        raise TraceError("the trace has no rows; one line a job is needed")
    return tuple(sorted(rows, key=lambda row: row.arrival))


def _arrival(row: dict[str, str | None], line: int) -> Arrival:
    def number(name: str, default: float) -> float:
        text = row.get(name) or ""
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (value < 0 and name != "priority"):
            raise TraceError(f"line {line}: {name} is {text!r}; allowed: a number of 0 or more")
        return value

    server = (row.get("server") or "").strip()
    if not server:
        raise TraceError(f"line {line}: server is empty; allowed: the name of a ModelServer of the cluster file")
    return Arrival(
        arrival=number("arrival", 0.0),
        server=server,
        queue=(row.get("queue") or "").strip() or DEFAULT_QUEUE,
        priority=int(number("priority", 0.0)),
        work=number("work", 0.0),
        video_seconds=number("video_seconds", 5.0),
    )


def write(arrivals: Iterable[Arrival]) -> str:
    """The CSV that `read` reads."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in arrivals:
        writer.writerow(
            [f"{one.arrival:.1f}", one.server, one.queue, one.priority, f"{one.work:.0f}", one.video_seconds]
        )
    return out.getvalue()


def bursty_day(server: str, jobs: int, seed: int = 1) -> tuple[Arrival, ...]:
    """A day of three kinds of users: people by day, nightly batches, and now and then a campaign of many at once."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, repeatable by its seed
    out = [_person(server, chance) for _ in range(round(jobs * 0.5))]
    for start in (0.5 * 3600, 2.0 * 3600):
        out += [_batch(server, start + chance.expovariate(1 / 300), chance) for _ in range(round(jobs * 0.15))]
    while len(out) < jobs:
        start = chance.uniform(8, 22) * 3600
        burst = min(chance.randint(10, 40), jobs - len(out))
        out += [_campaign(server, start + chance.expovariate(1 / 60), chance) for _ in range(burst)]
    return tuple(sorted(out, key=lambda one: one.arrival))


def _person(server: str, chance: random.Random) -> Arrival:
    """Daylight: a cosine with its peak at 15:00, drawn by rejection."""
    while True:
        hour = chance.uniform(0, 24)
        if chance.random() < 0.5 + 0.5 * math.cos((hour - 15) / 24 * 2 * math.pi):
            return Arrival(hour * 3600, server, "interactive", 0, _work(chance, 0.25))


def _batch(server: str, moment: float, chance: random.Random) -> Arrival:
    return Arrival(moment, server, "batch", -10, _work(chance, 0.5))


def _campaign(server: str, moment: float, chance: random.Random) -> Arrival:
    return Arrival(moment, server, "campaign", 0, _work(chance, 0.5))


def _work(chance: random.Random, large: float) -> float:
    tokens = _TOKENS["720p" if chance.random() < large else "480p"]
    return float(tokens * chance.choice((8, 20, 30)))
