"""Starting, recording, checking and ending processes.

A process is known by its pid and its start time together, so that a pid that
the kernel gave to somebody else since is never taken for ours.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .paths import Layout
from .steps import ClusterError, tail


def start_time(pid: int) -> int | None:
    """When a live process began, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name in brackets may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class Process:
    """A process that was started for a cluster."""

    name: str
    pid: int
    started: int
    boot: str
    log: Path

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.started

    def why_dead(self) -> str | None:
        """The end of its log when it ended, else None."""
        return None if self.alive else f"{self.name} ended; the end of {self.log}:\n{tail(self.log)}"


def boot_id() -> str:
    """Start times count from boot: they say nothing after the next one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start(layout: Layout, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Process:
    """Start a program in a session of its own, its output in the cluster's logs."""
    log = layout.logs / f"{name}.log"
    with log.open("ab") as out:
        child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, env={**os.environ, **(env or {})}, cwd="/",
        )  # fmt: skip
    return record(layout, name, child.pid, log)


def record(layout: Layout, name: str, pid: int, log: Path) -> Process:
    started = start_time(pid)
    if started is None:
        raise ClusterError(f"{name} ended at once; the end of {log}:\n{tail(log)}")
    process = Process(name, pid, started, boot_id(), log)
    entry = {"name": name, "pid": pid, "started": started, "boot": process.boot, "log": str(log)}
    path = layout.run / f"{name}.json"
    path.write_text(json.dumps(entry))
    return process


def recorded(layout: Layout) -> list[Process]:
    """Every process that was started for this cluster, alive or not."""
    found = []
    for path in sorted(layout.run.glob("*.json")):
        try:
            entry = json.loads(path.read_text())
            found.append(Process(entry["name"], entry["pid"], entry["started"], entry["boot"], Path(entry["log"])))
        except (ValueError, KeyError):
            continue  # written half when the machine went down; boot or lock tells the rest
    return found


def end(processes: Sequence[Process], *, grace: float) -> None:
    """End processes: SIGTERM, and SIGKILL for what is left after the grace time."""
    for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        alive = [process for process in processes if process.alive]
        for process in alive:
            try:
                os.kill(process.pid, sign)
            except ProcessLookupError:
                continue
        until = time.monotonic() + patience
        while any(process.alive for process in alive) and time.monotonic() < until:
            reap()
            time.sleep(0.02)
    left = [f"{process.name} (pid {process.pid})" for process in processes if process.alive]
    if left:
        raise ClusterError(f"these processes do not end: {', '.join(left)}; see ps, then run down again")


def reap() -> None:
    """Collect children of this very program that ended, so that they do not look alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
