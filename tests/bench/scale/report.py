"""The results as a table of at most 120 columns, and against the goals. Values in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]
WIDTH = 120
_NAME = 39  # columns of a row's name ...
_GOAL = 92  # ... and where its goal begins


def table(results: Object) -> str:
    """Every phase that ran."""
    lines = [_rule("Scale", results["machine"])]
    shown = {
        "steady": _steady,
        "burst": _burst,
        "bare": _bare,
        "plain": _plain,
        "restart": _restart,
        "finished": _finished,
    }
    for name, show in shown.items():
        if name in results:
            lines += ["", *show(results)]
    for name, why in results["errors"].items():
        lines += ["", _rule(f"{name} broke off", why)]
    return "\n".join(line[:WIDTH] for row in lines for line in row.split("\n"))


def _rule(title: str, text: str = "") -> str:
    return f"{title}: {text}" if text else title


def _row(name: str, value: object, goal: str = "") -> str:
    lines = textwrap.wrap(str(value), _GOAL - _NAME - 4) or [""]
    first = f"  {name:<{_NAME}} {lines[0]}"
    more = [f"  {'':<{_NAME}} {line}" for line in lines[1:]]
    return "\n".join([f"{first:<{_GOAL}} {goal}".rstrip(), *more])


def _steady(results: Object) -> Iterable[str]:
    found = results["steady"]
    yield _rule("Steady", f"{found['jobs']} jobs at {found['rate']:g}/s on idle pods")
    yield from _latencies(found, "p99 <= 250 ms to the prompt")
    yield from _costs(found)


def _burst(results: Object) -> Iterable[str]:
    found = results["burst"]
    yield _rule("Burst", f"{found['jobs']} jobs at once; created in {found['createSeconds']} s")
    if not found["inTime"]:
        yield _row("ended before the time was over", found["ended"], "all")
    yield _row("jobs/s, create to Succeeded", found["jobsPerSecond"], "40 expected, 100 aimed at")
    yield from _latencies(found)
    yield from _costs(found)


def _latencies(found: Object, goal: str = "") -> Iterable[str]:
    for name, key in (("create -> bound, ms", "createToBound"), ("create -> prompt accepted, ms", "createToPrompt")):
        yield _row(name, _percentiles(found[key]), goal if key == "createToPrompt" else "")


def _percentiles(found: Object) -> str:
    return "  ".join(f"{name} {value:g}" for name, value in found.items()) or "none"


def _costs(found: Object) -> Iterable[str]:
    yield _row("status writes a job", found["statusWritesPerJob"], "<= 4 besides progress")
    yield _row("  all writes", _few(found["writes"]))
    yield _row("  answered 409", found["conflicts"])
    yield _row("  reads", _few(found["reads"]) or "none")
    yield _row("waited in the API server's queues, ms", f"{found['queuedMillisecondsPerRequest']:g} a request")
    yield from _cpu(found, found["ended"])
    yield _row("operator's memory, MiB", f"{found['operatorMiB']['now']}, peak {found['operatorMiB']['peak']}")
    yield _row("watch lag, ms", _percentiles(found["watchLag"]))
    wrong = {name: count for name, count in found["faults"].items() if count}
    yield _row("lost, twice, retries, operator's ends", _few(wrong) or "0, 0, 0, 0", "0")


def lives(found: Object) -> int:
    """Bare lives, those of the trials too: the CPU is that of all of them."""
    return int(found["jobs"]) + sum(int(one["jobs"]) for one in found["trials"])


def _cpu(found: Object, jobs: int) -> Iterable[str]:
    """What a job costs in CPU: of a busy machine this says more than the clock."""
    each = {name: 1000 * seconds / max(jobs, 1) for name, seconds in found["cpuSeconds"].items()}
    parts = ", ".join(f"{name} {value:.1f}" for name, value in each.items())
    yield _row("CPU ms a job", f"{sum(each.values()):.1f}: {parts}")


def _few(found: Object) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in found.items())


def _bare(results: Object) -> Iterable[str]:
    found = results["bare"]
    yield _rule("Bare writes", f"{found['jobs']} lives of as many status writes, {found['sideBySide']} side by side")
    yield _row("lives/s (writes/s)", f"{found['jobsPerSecond']} ({found['writesPerSecond']})")
    trials = "  ".join(f"{one['sideBySide']}: {one['jobsPerSecond']:g}" for one in found["trials"])
    yield _row("  by width", trials)
    yield from _cpu(found, lives(found))
    if "burst" in results:
        burst = results["burst"]
        share = sum(found["cpuSeconds"].values()) / lives(found) / sum(burst["cpuSeconds"].values()) * burst["ended"]
        yield _row("a bare life's CPU to a job's", f"{share:.0%}")
        yield _row("Kinora reaches of it", f"{ratio(results['burst'], found):.0%}", ">= 60 %")


def _plain(results: Object) -> Iterable[str]:
    found = results["plain"]
    yield _rule("A batch/v1 Job per item", f"{found['ended']} of {found['jobs']} ended in {found['seconds']} s")
    yield _row("jobs/s", found["jobsPerSecond"])
    yield _row("writes a job", f"{found['writesPerJob']}: {_few(found['writes'])}")
    yield from _cpu(found, found["ended"])
    if "burst" in results:
        yield _row("Kinora against it", f"{ratio(results['burst'], found):.2f} times")


def ratio(found: Object, other: Object) -> float:
    """Jobs a second against jobs a second."""
    return float(found["jobsPerSecond"]) / max(float(other["jobsPerSecond"]), 1e-9)


def _restart(results: Object) -> Iterable[str]:
    found = results["restart"]
    yield _rule(
        "Restart", f"{found['unfinished']} unfinished jobs, {found['pods']} pods, {found['idlePods']} of them idle"
    )
    memory = found["unfinishedMiB"]
    yield _row("operator's memory before, MiB", f"{memory['now']}, peak {memory['peak']}", "<= 384, 256 aimed at")
    memory = found["afterRestartMiB"]
    yield _row("operator's memory after, MiB", f"{memory['now']}, peak {memory['peak']}", "<= 384, 256 aimed at")
    yield _row("process start -> first bind, s", found["firstBindSeconds"], "<= 10, 5 aimed at")
    yield _row("CPU until it had nothing to do, s", found["startCpuSeconds"])
    yield _row("status patches, changes seen", f"{found['statusPatches']}, {found['changes']}")
    yield _row("  by the operator itself", _few(found["operatorWrites"]) or "none")
    yield _row("patches of unchanged objects", found["patchesOfUnchanged"], "0")
    if not found["settled"]:
        yield _row("the queue had not settled before", f"figures are of a system under way: {_few(found['phases'])}")
    if not found["calm"]:
        yield _row("the operator was still busy", "when its writes were counted")


def _finished(results: Object) -> Iterable[str]:
    found = results["finished"]
    yield _rule("Finished jobs", f"{found['finished']} present, made in {found['fillSeconds']} s")
    memory = found["operatorMiB"]
    yield _row("operator's memory, MiB", f"{memory['now']}, peak {memory['peak']}", "<= 512 with 100,000")
    yield _row("process start -> ready, s", found["readySeconds"])
    yield _row("CPU until it had nothing to do, s", found["startCpuSeconds"])
    if not found["calm"]:
        yield _row("the operator was still busy", "when its memory was read")
