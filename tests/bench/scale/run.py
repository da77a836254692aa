"""One run: the phases that were asked for, in an order in which each finds what it needs, on one world.

Whatever happens, what was measured until then is kept: each phase has a deadline of its own, a phase that breaks off
is told beside the others, and the results are written after each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from bench.scale import estimate, phases, unfinished
from bench.scale.estimate import PHASES
from bench.scale.world import Size, World, world
from kinora.kube.client import ApiError, UnreachableError
from kinora_cluster import ROOT, cluster

Object = dict[str, Any]
Say = Callable[[str], None]
_BROKEN = (
    *(ApiError, UnreachableError, RuntimeError, TimeoutError, OSError, aiohttp.ClientError, AssertionError),
    ExceptionGroup,  # of parts that worked side by side
)
_TIDY = 150.0  # seconds beyond a phase's own deadline to take away what it made
_TELL = 15.0  # seconds between two lines about how far it is


def aloud(text: str) -> None:
    """To people, beside the report."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def measure(arguments: argparse.Namespace, state: Path, say: Say = aloud) -> Object:
    """Run the phases that were asked for; their results by name, with those of earlier runs of ``--results``."""
    chosen = arguments.phases.split(",")
    unknown = set(chosen) - set(PHASES)
    if unknown:
        raise SystemExit(f"--phases {','.join(sorted(unknown))}: allowed are {', '.join(PHASES)}")
    size = Size(arguments.jobs, arguments.pods, arguments.node_processes, arguments.render_seconds)
    results = begun(arguments, size)
    if {"bare", "finished"} & set(chosen) and "burst" not in chosen and "sample" not in results:
        raise SystemExit("bare and finished need what burst saw: add burst to --phases, or give its --results")
    expected = estimate.seconds(arguments, chosen)
    say(estimate.told(expected))
    run = Run(arguments, results, expected, say)
    try:
        async with world(cluster(arguments.name), state, size, arguments.profile) as made:
            await run.go(made, chosen)
    except _BROKEN as error:
        results["errors"].setdefault(estimate.SETUP, f"{type(error).__name__}: {error}")
    except asyncio.CancelledError:  # told to end: what was measured is shown
        results["errors"][run.now] = "ended from outside"
    finally:
        run.save()
    return results


def begun(arguments: argparse.Namespace, size: Size) -> Object:
    """The results that the run adds to: new ones, or those in ``--results`` if they are of the same size."""
    fresh: Object = {
        "machine": machine(),
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "size": {"jobs": size.jobs, "pods": size.pods, "renderSeconds": size.render_seconds},
        "errors": {},
        "ran": {},
    }
    if arguments.results is None or not arguments.results.exists():
        return fresh
    known: Object = json.loads(arguments.results.read_text())
    if known.get("size") != fresh["size"]:
        raise SystemExit(f"--results {arguments.results}: it is of a run of another size, {known.get('size')}")
    return {**fresh, **{name: known[name] for name in (*PHASES, "sample", "ran") if name in known}}


def faulty(results: Object) -> bool:
    """Whether the run broke off, or anything was seen that must not happen."""
    loads = [results[name] for name in ("steady", "burst") if name in results]
    return bool(results["errors"]) or any(any(one["faults"].values()) for one in loads)


class Run:
    """The phases of one run, one after the other."""

    def __init__(self, arguments: argparse.Namespace, results: Object, expected: dict[str, float], say: Say) -> None:
        self.now = estimate.SETUP
        self._arguments = arguments
        self._results = results
        self._expected = expected
        self._say = say

    async def go(self, made: World, chosen: list[str]) -> None:
        """Every phase that was chosen; one that breaks off does not keep the next from its turn."""
        self._say(f"{made.size.pods} server pods are ready")
        works = self._works(made)
        for name in PHASES:
            if name in chosen:
                await self._phase(made, name, works[name])

    def _works(self, made: World) -> dict[str, Callable[[float], Awaitable[Object]]]:
        given, results = self._arguments, self._results

        async def steady(limit: float) -> Object:
            count = max(1, int(given.rate * given.steady_seconds))
            found, _ = await phases.steady(made, given.rate, count, limit)
            return found

        async def burst(limit: float) -> Object:
            found, course = await phases.burst(made, made.size.jobs, limit)
            if course.sample is not None:
                results["sample"] = course.sample
            return found

        async def bare(limit: float) -> Object:
            writes = max(results["burst"]["statusWritesPerJob"], 3.0)
            return await phases.bare(made, results["sample"], writes, given.bare_jobs or made.size.jobs, limit)

        return {
            "steady": steady,
            "burst": burst,
            "bare": bare,
            "plain": lambda limit: phases.plain_jobs(made, given.plain_jobs or made.size.jobs, limit),
            "restart": lambda limit: unfinished.restart(made, made.size.jobs, limit),
            "finished": lambda limit: unfinished.finished_memory(made, results["sample"], given.finished_jobs, limit),
        }

    async def _phase(self, made: World, name: str, work: Callable[[float], Awaitable[Object]]) -> None:
        """One phase, within its time; what it found, or why it found nothing, is written at once."""
        self.now = name
        limit = estimate.limit(self._expected[name], self._arguments.phase_seconds)
        self._say(f"{name}: begins; {self._expected[name]:.0f} s are expected, {limit:.0f} s allowed")
        began = time.monotonic()
        telling = asyncio.create_task(self._tell(made, name))
        self._results.pop(name, None)
        self._results["errors"].pop(name, None)
        try:
            async with asyncio.timeout(limit + _TIDY):
                self._results[name] = await work(limit)
                if name in ("steady", "burst"):
                    await phases.clean(made)
        except (*_BROKEN, KeyError) as error:
            self._results["errors"][name] = f"{type(error).__name__}: {error}"
            with suppress(*_BROKEN):
                async with asyncio.timeout(_TIDY):
                    await phases.clean(made)
        finally:
            telling.cancel()
            self._results["ran"][name] = {
                "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - began, 1),
                "load": round(os.getloadavg()[0], 1),
            }
            self.save()
        self._say(f"{name}: {self._results['errors'].get(name) or 'done'}, {time.monotonic() - began:.0f} s")

    async def _tell(self, made: World, name: str) -> None:
        while True:
            await asyncio.sleep(_TELL)
            self._say(f"{name}: {made.progress()}")

    def save(self) -> None:
        """Into ``--results``."""
        if self._arguments.results is not None:
            self._arguments.results.write_text(json.dumps(self._results, indent=1) + "\n")


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
