"""One run: the phases that were asked for, in an order in which each finds what it needs, on one world."""

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

from bench.scale import phases
from bench.scale.world import Size, World, world
from kinora.kube.client import ApiError, UnreachableError
from kinora_cluster import ROOT, cluster

Object = dict[str, Any]
PHASES = ("steady", "burst", "bare", "plain", "restart", "finished")


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
        try:
            await _run(made, chosen, arguments, results, say or (lambda text: print(text, file=sys.stderr, flush=True)))
        except (ApiError, UnreachableError, RuntimeError, TimeoutError) as error:  # the phases before it still count
            results["error"] = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:  # told to end: what was measured is shown
            results["error"] = "ended from outside"
    return results


def faulty(results: Object) -> bool:
    """Whether the run broke off, or anything was seen that must not happen."""
    loads = [results[name] for name in ("steady", "burst") if name in results]
    return "error" in results or any(any(one["faults"].values()) for one in loads)


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
