"""Measure Kinora at scale on a control plane without a kubelet.

Usage: make bench-scale, or PYTHONPATH=hack:tests python -m bench.scale [--jobs 10000] [--pods 500] [--phases ...].
Needs `python3 hack/cluster up --control-plane-only --name NAME`. Everything that is made is taken away at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.scale import phases, report
from bench.scale.world import Size, World, world
from kinora_cluster import ROOT, cluster

Object = dict[str, Any]
PHASES = ("steady", "burst", "bare", "plain", "restart", "finished")


def parser() -> argparse.ArgumentParser:
    """The options."""
    top = argparse.ArgumentParser(
        prog="bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--name", default="kinora-scale", help="the control plane (default: kinora-scale)")
    top.add_argument("--jobs", type=int, default=10_000)
    top.add_argument("--pods", type=int, default=500)
    top.add_argument("--phases", default="steady,burst,bare,plain,restart", help=f"of {','.join(PHASES)}")
    top.add_argument("--render-seconds", type=float, default=1.0, help="of each render (default: 1)")
    top.add_argument("--rate", type=float, default=5.0, help="jobs/s of steady (default: 5)")
    top.add_argument("--steady-seconds", type=float, default=60.0)
    top.add_argument("--bare-jobs", type=int, help="default: as many as --jobs")
    top.add_argument("--plain-jobs", type=int, help="default: as many as --jobs")
    top.add_argument("--finished-jobs", type=int, default=20_000, help="for finished (default: 20000)")
    top.add_argument("--phase-seconds", type=float, default=600.0, help="no phase lasts longer (default: 600)")
    top.add_argument("--node-processes", type=int, default=2)
    top.add_argument("--profile", type=Path, help="write a cProfile of the operator's process here, and only load it")
    top.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return top


async def measure(arguments: argparse.Namespace, state: Path, say: Any = None) -> Object:
    """Run the phases that were asked for; their results by name."""
    chosen = arguments.phases.split(",")
    unknown = set(chosen) - set(PHASES)
    if unknown:
        raise SystemExit(f"--phases {','.join(sorted(unknown))}: allowed are {', '.join(PHASES)}")
    size = Size(arguments.jobs, arguments.pods, arguments.node_processes, arguments.render_seconds)
    results: Object = {"machine": machine(), "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    results["size"] = {"jobs": size.jobs, "pods": size.pods, "renderSeconds": size.render_seconds}
    async with world(cluster(arguments.name), state, size, arguments.profile) as made:
        await _run(made, chosen, arguments, results, say or (lambda text: print(text, file=sys.stderr, flush=True)))
    return results


async def _run(made: World, chosen: list[str], arguments: argparse.Namespace, results: Object, say: Any) -> None:
    limit = arguments.phase_seconds
    course = None
    say(f"{made.size.pods} server pods are ready")
    if "steady" in chosen:
        count = max(1, int(arguments.rate * arguments.steady_seconds))
        results["steady"], course = await phases.steady(made, arguments.rate, count, limit)
        await phases.clean(made)
        say("steady: done")
    if {"burst", "bare", "finished"} & set(chosen):
        results["burst"], course = await phases.burst(made, made.size.jobs, limit)
        await phases.clean(made)
        say(f"burst: {results['burst']['jobsPerSecond']} jobs/s")
    if "bare" in chosen and course is not None and course.sample is not None:
        writes = results["burst"]["statusWritesPerJob"]
        count = arguments.bare_jobs or made.size.jobs
        results["bare"] = await phases.bare(made, course.sample, max(writes, 3.0), count, limit)
        say(f"bare: {results['bare']['jobsPerSecond']} jobs/s")
    if "plain" in chosen:
        results["plain"] = await phases.plain_jobs(made, arguments.plain_jobs or made.size.jobs, limit)
        say(f"plain: {results['plain']['jobsPerSecond']} jobs/s")
    if "restart" in chosen:
        results["restart"] = await phases.restart(made, made.size.jobs, limit)
        say(f"restart: first bind after {results['restart']['firstBindSeconds']} s")
    if "finished" in chosen and course is not None and course.sample is not None:
        results["finished"] = await phases.finished_memory(made, course.sample, arguments.finished_jobs, limit)
        say("finished: done")


def machine() -> str:
    """Cores, memory, load: what the figures have to be read with."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} before the run"


def state_of(name: str) -> Path:
    """Where the control plane keeps its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack/cluster"), "env", "--name", name], capture_output=True, text=True, check=True
    )
    return Path(json.loads(done.stdout)["state"])


def main() -> None:
    """Measure and print."""
    arguments = parser().parse_args()
    cluster(arguments.name)  # says how to start it
    results = asyncio.run(measure(arguments, state_of(arguments.name)))
    print(json.dumps(results, indent=1) if arguments.output == "json" else report.table(results))


if __name__ == "__main__":
    main()
