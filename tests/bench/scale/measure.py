"""What is read off the machine and off the API server: CPU and memory of processes, requests by verb and kind.

Reads /proc and /metrics only.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from kinora.kube.config import Connection

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:]+)\{(?P<labels>.*)\} (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory now and at its peak; 0 when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0, 0.0
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE))
    return int(found.get("VmRSS", 0)) / 1024, int(found.get("VmHWM", 0)) / 1024


def control_plane(state: Path) -> dict[str, int]:
    """Process ids of the dev cluster's own programs, by name, as ``hack/cluster`` recorded them."""
    entries = [json.loads(path.read_text()) for path in (state / "run").glob("*.json")]
    return {entry["name"]: int(entry["pid"]) for entry in entries}


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a set of processes at one moment."""

    seconds: Mapping[str, float]

    @classmethod
    def of(cls, processes: Mapping[str, Iterable[int]]) -> Cpu:
        """By name; several processes of one name are added up."""
        return cls({name: sum(cpu_seconds(pid) for pid in pids) for name, pids in processes.items()})

    def since(self, before: Cpu) -> dict[str, float]:
        """Seconds used in between."""
        return {name: round(value - before.seconds.get(name, 0.0), 2) for name, value in self.seconds.items()}


async def scrape(connection: Connection, url: str) -> str:
    """The text of a /metrics page."""
    tls = connection.tls if url.startswith("https") else False
    headers = {}
    authorization = connection.authorization()
    if authorization and url.startswith("https"):
        headers["Authorization"] = authorization
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, headers=headers, ssl=tls or False) as response,
    ):
        response.raise_for_status()
        return await response.text()


def samples(text: str, name: str) -> Iterable[tuple[dict[str, str], float]]:
    """Labels and value of each sample of one metric."""
    for line in text.splitlines():
        if line.startswith(name + "{"):
            found = _SAMPLE.match(line)
            if found:
                yield dict(_LABEL.findall(found["labels"])), float(found["value"])


async def server_requests(connection: Connection) -> Counter[str]:
    """Answered requests of the API server since its start: ``VERB resource[/subresource] code``."""
    text = await scrape(connection, connection.host + "/metrics")
    found: Counter[str] = Counter()
    for labels, value in samples(text, "apiserver_request_total"):
        kind = labels.get("resource", "") + ("/" + labels["subresource"] if labels.get("subresource") else "")
        found[f"{labels['verb']} {kind} {labels['code']}"] += int(value)
    return found


def writes(requests: Mapping[str, int]) -> dict[str, int]:
    """The writes among them that were taken, without those that every cluster makes by itself."""
    kept: Counter[str] = Counter()
    for name, count in requests.items():
        verb, kind, code = name.rsplit(" ", 2) if name.count(" ") == 2 else (name.split(" ")[0], "", "0")
        noise = kind in ("leases", "tokenreviews", "subjectaccessreviews", "serviceaccounts/token", "")
        if verb in WRITES and code.startswith("2") and not noise and count:
            kept[f"{verb} {kind}"] += count
    return dict(kept.most_common())


async def operator_requests(connection: Connection, port: int) -> Counter[str]:
    """Requests of the operator since its start: ``verb resource status``."""
    text = await scrape(connection, f"http://127.0.0.1:{port}/metrics")
    found: Counter[str] = Counter()
    for labels, value in samples(text, "kinora_api_request_seconds_count"):
        found[f"{labels['verb']} {labels['resource']} {labels['status']}"] += int(value)
    return found


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and max by nearest rank, in milliseconds of values in seconds; empty without values."""
    ordered = sorted(values)
    if not ordered:
        return {}

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 1)

    return {"p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99), "max": rank(1.0)}


@dataclass(frozen=True)
class Waits:
    """How long requests of service accounts waited in the API server's own queues (priority and fairness)."""

    seconds: float = 0.0
    count: int = 0

    def __sub__(self, before: Waits) -> Waits:
        return Waits(self.seconds - before.seconds, self.count - before.count)

    @property
    def mean(self) -> float:
        """Milliseconds a request."""
        return round(1000 * self.seconds / max(self.count, 1), 1)


async def waited(connection: Connection) -> Waits:
    """Since the API server's start."""
    text = await scrape(connection, connection.host + "/metrics")

    def total(part: str) -> float:
        found = samples(text, f"apiserver_flowcontrol_request_wait_duration_seconds_{part}")
        return sum(value for labels, value in found if labels.get("flow_schema") == "service-accounts")

    return Waits(total("sum"), int(total("count")))
