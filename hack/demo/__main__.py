"""``make demo`` and ``make demo-down``: from nothing to three MP4s, with every step and its time shown.

Usage: python hack/demo up|down [--name CLUSTER] [--output DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import manifests
from demo.install import EXAMPLES, ROOT, DevCluster, StepError, install_chart, prepare, run, uninstall

JOBS = ("text-to-video", "image-to-video", "video-to-video")
MODELS = ["wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p"]
RENDER_SECONDS = 600


class Steps:
    """Prints each step when it begins and how long it took."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self._started = time.monotonic()

    def do(self, title: str, work: Callable[[], None]) -> None:
        """One step."""
        self._number += 1
        print(f"[{self._number}/{self._total}] {title} ...", flush=True)
        started = time.monotonic()
        work()
        print(f"      {time.monotonic() - started:6.1f} s", flush=True)

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self._started


def _cluster_command(*arguments: str) -> None:
    """hack/cluster tells its own progress; its lines are shown as they come."""
    done = subprocess.run([sys.executable, str(ROOT / "hack/cluster"), *arguments], check=False)
    if done.returncode != 0:
        raise StepError(f"hack/cluster {' '.join(arguments)}: exit {done.returncode}")


def up(name: str, output: Path) -> None:
    """Everything, from nothing to the videos."""
    steps = Steps(7)
    steps.do("Kubernetes", lambda: _cluster_command("up", "--name", name))
    steps.do("images", lambda: _cluster_command("images", "--name", name))
    cluster = DevCluster.find(name)
    namespace = manifests.NAMESPACE
    steps.do("chart: CRDs, operator, RBAC, admission policies", lambda: install_chart(cluster))
    steps.do(
        "volumes, inputs, small FP8 weight files",
        lambda: prepare(cluster, namespace, MODELS),
    )
    steps.do("ModelServers", lambda: _start_servers(cluster, namespace))
    steps.do("VideoJobs", lambda: _render(cluster, namespace))
    steps.do("videos and contact sheets", lambda: _collect(cluster, namespace, output))
    print()
    print(cluster.kube("get", "videojobs", "-n", namespace))
    print(cluster.kube("get", "modelservers", "-n", namespace))
    for path in sorted(output.iterdir()):
        print(f"  {os.path.relpath(path)}")
    print(f"\nDone in {steps.seconds:.0f} s. Look into it:")
    print(f"  export KUBECONFIG={cluster.kubeconfig}")
    print(f"  {cluster.kubectl} describe videojob -n {namespace} video-to-video")
    print("The engine is the CPU stand-in: it speaks ComfyUI's protocol and is no model. `make demo-down` removes all.")


def _start_servers(cluster: DevCluster, namespace: str) -> None:
    cluster.kube("apply", "-n", namespace, "-f", str(EXAMPLES / "modelservers.yaml"))
    try:
        cluster.kube(
            *("wait", "-n", namespace, "--for=condition=Ready", "modelserver", "--all", "--timeout=150s"), timeout=200
        )
    except StepError as error:
        told = cluster.kube("get", "modelservers,pods", "-n", namespace, "-o", "wide")
        raise StepError(f"{error}\n{told}") from error


def _render(cluster: DevCluster, namespace: str) -> None:
    """Apply the jobs, show each change of each job, until all have finished."""
    cluster.kube("delete", "videojobs", "-n", namespace, "--ignore-not-found", *JOBS)
    for job in JOBS:
        cluster.kube("apply", "-n", namespace, "-f", str(EXAMPLES / f"{job}.yaml"))
    started = time.monotonic()
    watch = subprocess.Popen(
        [cluster.kubectl, "get", "videojobs", "-n", namespace, "--watch", "-o", "json", "--request-timeout=0"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    overdue = threading.Timer(RENDER_SECONDS, watch.kill)
    overdue.start()
    try:
        phases = _follow(watch, started)
    finally:
        overdue.cancel()
        watch.kill()
        watch.wait()
    failed = [name for name, phase in phases.items() if phase != "Succeeded"]
    if failed:
        raise StepError(cluster.kube("describe", "videojobs", "-n", namespace, *failed))


def _follow(watch: subprocess.Popen[str], started: float) -> dict[str, str]:
    phases: dict[str, str] = {}
    shown: dict[str, str] = {}
    decoder, rest = json.JSONDecoder(), ""
    assert watch.stdout is not None
    for line in watch.stdout:
        rest += line
        if line.rstrip() != "}":
            continue
        job, _ = decoder.raw_decode(rest.lstrip())
        rest = ""
        name, status = job["metadata"]["name"], job.get("status") or {}
        progress = status.get("progress") or {}
        step = f" step {progress['step']} of {progress['steps']}" if progress.get("step") else ""
        told = f"{status.get('phase', ''):<10} {progress.get('percent', 0):>3} %  {progress.get('stage', '')}{step}"
        if shown.get(name) != told:
            shown[name] = told
            print(f"      {time.monotonic() - started:6.1f} s  {name:<16} {told}", flush=True)
        phases[name] = status.get("phase", "")
        if len(phases) == len(JOBS) and all(phase in {"Succeeded", "Failed", "Cancelled"} for phase in phases.values()):
            return phases
    raise StepError(f"not finished after {time.monotonic() - started:.0f} s: {phases}")


def _collect(cluster: DevCluster, namespace: str, output: Path) -> None:
    """Bring each video by `kinora fetch`, and draw its contact sheet."""
    output.mkdir(parents=True, exist_ok=True)
    processes = []
    for job in JOBS:
        target = output / f"{job}.mp4"
        fetch = [sys.executable, "-m", "kinora.cli", "fetch", f"vj/{job}", "-n", namespace, "-o", str(target)]
        processes.append(subprocess.Popen(fetch, env=cluster.environment))
    if any(process.wait() for process in processes):
        raise StepError("kinora fetch failed")
    for job in JOBS:
        sheet = [sys.executable, "-m", "kinora.media.contact_sheet", str(output / f"{job}.mp4")]
        run([*sheet, str(output / f"{job}.png"), "--title", job])


def down(name: str, output: Path) -> None:
    """Remove every trace: the cluster that the demo started, or what it put into a cluster that stays."""
    if os.environ.get("KINORA_CLUSTER"):
        uninstall(DevCluster.find(name), manifests.NAMESPACE)
    else:
        _cluster_command("down", "--name", name)
    shutil.rmtree(output, ignore_errors=True)


def main() -> None:
    """Parse and run; a failed step is told in full and is exit status 1."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--name", default="kinora", help="the dev cluster's name")
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output")
    arguments = parser.parse_args()
    try:
        {"up": up, "down": down}[arguments.command](arguments.name, arguments.output)
    except StepError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
