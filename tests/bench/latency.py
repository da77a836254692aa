"""How long a job takes to reach an idle pod: create -> bound -> the engine's start -> finished, on the dev cluster.

Usage: make bench, or PYTHONPATH=hack:tests python tests/bench/latency.py [--name kinora] [--jobs 50]
Needs the demo up (`make demo`). One job after the other, each small, so that the pod is idle every time. All clocks are
this machine's. Prints milliseconds; sends nothing anywhere but to the dev cluster's API server.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import secrets
from typing import Any

from demo.install import DevCluster
from kinora.api.transitions import parse_time
from kinora.kube.client import KubeClient
from kinora.kube.config import connect
from kinora.kube.resources import VIDEOJOB
from waiting import phase, video_job, wait_for

POINTS = {"bound": ("assignment", "boundTime"), "engine starts": ("startTime",), "finished": ("completionTime",)}


def _milliseconds(status: dict[str, Any], path: tuple[str, ...], since: dt.datetime) -> float:
    value: Any = status
    for part in path:
        value = value[part]
    return (parse_time(value) - since).total_seconds() * 1000


async def measure(cluster: DevCluster, namespace: str, jobs: int) -> dict[str, list[float]]:
    """Milliseconds from each create to each point."""
    found: dict[str, list[float]] = {name: [] for name in POINTS}
    async with KubeClient(connect(kubeconfig=cluster.kubeconfig)) as kube:
        for _ in range(jobs):
            name = f"latency-{secrets.token_hex(4)}"
            body = video_job(name, parameters={"width": 128, "height": 128, "frames": 5, "steps": 1})
            since = dt.datetime.now(dt.UTC)
            await kube.create(VIDEOJOB, namespace, body)
            job = await wait_for(kube, VIDEOJOB, namespace, name, phase("Succeeded", "Failed"), deadline=60)
            for point, path in POINTS.items():
                found[point].append(_milliseconds(job["status"], path, since))
            await kube.delete(VIDEOJOB, namespace, name)
    return found


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="kinora")
    parser.add_argument("--namespace", default="kinora-demo")
    parser.add_argument("--jobs", type=int, default=50)
    arguments = parser.parse_args()
    found = asyncio.run(measure(DevCluster.find(arguments.name), arguments.namespace, arguments.jobs))
    print(f"{arguments.jobs} jobs, one after the other, idle pod; milliseconds after the create request was sent")
    print(f"{'':<14}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
    for point, values in found.items():
        ordered = sorted(values)
        cells = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95, 0.99)]
        print(f"{point:<14}" + "".join(f"{value:>8.0f}" for value in (*cells, ordered[-1])))


if __name__ == "__main__":
    main()
