"""`kinora simulate`: a trace of arrivals played on made-up clusters; their results as a table, JSON and a plot.

The decisions are the operator's own (`controller.scheduling.decide`). The plot needs matplotlib, an extra.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from kinora.catalogue.load import load_catalogue
from kinora.cli.models import table
from kinora.controller.simulate.cluster import SimulatedCluster, with_speeds
from kinora.controller.simulate.play import Played, Simulation
from kinora.controller.simulate.report import Summary, summarise
from kinora.controller.simulate.trace import Arrival, TraceError, read


class SimulationError(Exception):
    """Something given cannot be used: names the file, the field, the value and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One cluster: the summary, and what happened moment by moment."""

    summary: Summary
    played: Played


def load_trace(path: Path) -> tuple[Arrival, ...]:
    """The arrivals of a CSV file. Raises SimulationError."""
    try:
        return read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SimulationError(f"{path}: {error}") from None
    except TraceError as error:
        raise SimulationError(f"{path}: {error}") from None


def load_clusters(paths: Sequence[Path]) -> list[SimulatedCluster]:
    """Every YAML document of the files is one cluster. Raises SimulationError."""
    found: list[SimulatedCluster] = []
    for path in paths:
        try:
            documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SimulationError(f"{path}: {error}") from None
        for number, document in enumerate(documents, 1):
            try:
                found.append(with_speeds(SimulatedCluster.model_validate(document), load_catalogue()))
            except ValidationError as error:
                raise SimulationError("\n".join(_faults(path, number, error))) from None
            except ValueError as error:
                raise SimulationError(f"{path}: document {number}: {error}") from None
    return found


def _faults(path: Path, number: int, error: ValidationError) -> list[str]:
    return [
        f"{path}: document {number}: {'.'.join(map(str, fault['loc'])) or 'the document'}: {fault['msg']}"
        for fault in error.errors()
    ]


def simulate(arrivals: Sequence[Arrival], clusters: Sequence[SimulatedCluster]) -> list[Result]:
    """Play the trace on each cluster. Raises SimulationError when the trace names a ModelServer that is not there."""
    results = []
    for cluster in clusters:
        names = {server.name for server in cluster.servers}
        unknown = sorted({arrival.server for arrival in arrivals} - names)
        if unknown:
            allowed = ", ".join(sorted(names))
            raise SimulationError(f"the trace names server {unknown[0]}; allowed in cluster {cluster.name}: {allowed}")
        played = Simulation(cluster, arrivals).play()
        results.append(Result(summarise(played), played))
    return results


_HEAD = (
    "CLUSTER",
    "QUEUE",
    "JOBS",
    "LEFT",
    "WAIT P50",
    "P95",
    "MAX",
    "USE",
    "PODS",
    "COST",
    "A VIDEO",
    "LOST",
    "STOPPED",
)


def as_table(results: Sequence[Result]) -> str:
    """One line a cluster, and one a queue beneath it. Times as h:mm:ss."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for result in results:
        summary = result.summary
        for index, waits in enumerate(summary.waits):
            first = index == 0
            rows.append(
                (
                    summary.cluster if first else "",
                    waits.queue,
                    str(waits.jobs),
                    str(waits.unfinished),
                    *(_clock(seconds) for seconds in (waits.p50, waits.p95, waits.longest)),
                    f"{summary.utilisation:.0%}" if first else "",
                    str(summary.peak_pods) if first else "",
                    f"{summary.cost:.2f}" if first else "",
                    f"{summary.cost_per_video:.3f}" if first else "",
                    str(summary.lost) if first else "",
                    str(summary.preempted) if first else "",
                )
            )
    return table(rows)


def as_json(results: Sequence[Result]) -> str:
    """The summaries, every figure in seconds and units of price."""
    return json.dumps([dataclasses.asdict(result.summary) for result in results], indent=2)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw pods, busy pods and waiting jobs over the hours, one row a cluster, as PNG. Raises SimulationError."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
    except ImportError:
        raise SimulationError("--plot needs matplotlib; pip install 'kinora[simulate]'") from None
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, rows = plt.subplots(len(results), 1, figsize=(11, 2.4 * len(results) + 0.6), squeeze=False, sharex=True)
    for axis, result in zip(rows[:, 0], results, strict=True):
        hours = [moment.time / 3600 for moment in result.played.moments]
        waiting = axis.twinx()
        waiting.fill_between(hours, [moment.waiting for moment in result.played.moments], color="#d9a441", alpha=0.35)
        waiting.set_ylabel("waiting jobs", color="#8a6414")
        axis.step(hours, [moment.pods for moment in result.played.moments], where="post", color="#9aa7b1", label="pods")
        axis.step(hours, [moment.busy for moment in result.played.moments], where="post", color="#1f6f8b", label="busy")
        axis.set_ylabel("pods")
        axis.set_ylim(bottom=0)
        waiting.set_ylim(bottom=0)
        summary = result.summary
        axis.set_title(
            f"{summary.cluster}: wait p95 {_clock(summary.waits[0].p95)}, GPU use {summary.utilisation:.0%}, "
            f"cost {summary.cost:.0f}",
            fontsize=10, loc="left",
        )  # fmt: skip
        axis.legend(loc="upper left", fontsize=8)
    rows[-1, 0].set_xlabel("hour")
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise SimulationError(f"{path}: {error}") from None
    plt.close(figure)
