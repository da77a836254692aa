"""Measure Kinora at scale on a control plane without a kubelet.

Usage: make bench-scale, or PYTHONPATH=hack:tests python -m bench.scale [--jobs 10000] [--pods 500] [--phases ...].
Needs `python3 hack/cluster up --control-plane-only --name NAME`. Everything that is made is taken away at the end.

A long run in pieces: `--results FILE` keeps what was found, and later pieces of the same size add to it;
`--phases none` only shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from bench.scale import report
from bench.scale.estimate import PHASES
from bench.scale.run import faulty, measure, state_of
from kinora_cluster import cluster


def parser() -> argparse.ArgumentParser:
    """The options."""
    top = argparse.ArgumentParser(
        prog="bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--name", default="kinora-scale", help="the control plane (default: kinora-scale)")
    top.add_argument("--jobs", type=int, default=10_000)
    top.add_argument("--pods", type=int, default=500)
    default = "steady,burst,bare,plain,restart,finished"
    top.add_argument("--phases", default=default, help=f"of {','.join(PHASES)}; or none (default: all)")
    top.add_argument("--render-seconds", type=float, default=1.0, help="of each render (default: 1)")
    top.add_argument("--rate", type=float, default=5.0, help="jobs/s of steady (default: 5)")
    top.add_argument("--steady-seconds", type=float, default=60.0)
    top.add_argument("--bare-jobs", type=int, help="default: as many as --jobs")
    top.add_argument("--plain-jobs", type=int, help="default: as many as --jobs")
    top.add_argument("--finished-jobs", type=int, default=100_000, help="for finished (default: 100000)")
    top.add_argument("--phase-seconds", type=float, default=900.0, help="no phase lasts longer (default: 900)")
    top.add_argument("--node-processes", type=int, default=2)
    top.add_argument("--profile", type=Path, help="write cProfile's view of the operator here when it ends")
    top.add_argument("--results", type=Path, help="a JSON file that this run adds its results to")
    top.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return top


async def _until_told(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """A run that is ended from outside takes away what it made, as one that is not, and shows what it found."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def main() -> None:
    """Measure and print."""
    arguments = parser().parse_args()
    if arguments.phases == "none":
        results = json.loads(arguments.results.read_text())
    else:
        cluster(arguments.name)  # says how to start it
        results = asyncio.run(_until_told(measure(arguments, state_of(arguments.name))))
    print(json.dumps(results, indent=1) if arguments.output == "json" else report.table(results))
    sys.exit(1 if faulty(results) else 0)


if __name__ == "__main__":
    main()
