"""The scale harness itself, small: what it says of a run is what happened, and it leaves nothing behind."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.scale import report
from bench.scale.__main__ import parser
from bench.scale.run import faulty, measure, state_of
from kinora.controller.modelserver.pace import COUNT_SECONDS
from kinora.kube.client import KubeClient
from kinora.kube.resources import NAMESPACE, NODE
from kinora_cluster import Cluster


def given(cluster: Cluster, phases: str, *more: str) -> argparse.Namespace:
    small = "--jobs 20 --pods 4 --render-seconds 0.05 --node-processes 1"
    return parser().parse_args(["--name", cluster.name, "--phases", phases, *small.split(), *more])


async def test_a_small_run_loses_nothing_and_leaves_nothing(cluster: Cluster, kube: KubeClient) -> None:
    results = await measure(given(cluster, "burst"), state_of(cluster.name), say=lambda _text: None)
    burst = results["burst"]
    assert not faulty(results), results
    assert burst["ended"] == 20
    assert burst["conflicts"] == 0, "no write lost against another one"
    assert sum(burst["reads"].values()) <= 4, "an ended job is not read again, by operator or agent"
    news = 6
    counts = burst["seconds"] // COUNT_SECONDS
    assert burst["writes"].get("PATCH modelservers/status", 0) <= news + counts, "counts are written every few seconds"
    assert 3 <= burst["statusWritesPerJob"] <= 4.5
    assert burst["createToPrompt"]["p50"] >= burst["createToBound"]["p50"] > 0
    assert burst["cpuSeconds"]["operator"] > 0
    assert all(len(line) <= 120 for line in report.table(results).splitlines())
    nodes, _ = await kube.list(NODE)
    assert not [one for one in nodes if one["metadata"]["name"].startswith("hollow-")]
    namespaces, _ = await kube.list(NAMESPACE)
    left = [one for one in namespaces if one["metadata"]["name"].startswith("scale-")]
    assert all(one["metadata"].get("deletionTimestamp") for one in left)


async def test_a_restart_with_a_queue_writes_nothing_needless_and_finished_jobs_weigh_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    kept = tmp_path / "results.json"
    arguments = given(cluster, "burst,restart,finished", "--results", str(kept), "--finished-jobs", "300")
    results = await measure(arguments, state_of(cluster.name), say=lambda _text: None)
    assert not faulty(results), results
    restart = results["restart"]
    assert restart["settled"], restart
    assert restart["unfinished"] == 24
    assert restart["firstBindSeconds"] is not None
    assert restart["patchesOfUnchanged"] == 0
    assert restart["statusPatches"] <= 4 * restart["idlePods"]  # bound, Running, and one staged behind it
    assert results["finished"]["finished"] == 300
    assert results["finished"]["calm"]
    assert json.loads(kept.read_text())["restart"] == restart


async def test_a_phase_whose_time_is_over_is_told_and_the_others_are_shown(cluster: Cluster) -> None:
    arguments = given(cluster, "burst,restart", "--phase-seconds", "0.2")
    results = await measure(arguments, state_of(cluster.name), say=lambda _text: None)
    assert not results["burst"]["inTime"]
    assert not results["restart"]["settled"]
    assert "burst" in report.table(results).lower()
