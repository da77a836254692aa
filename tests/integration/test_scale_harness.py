"""The scale harness itself, small: what it says of a run is what happened, and it leaves nothing behind."""

from __future__ import annotations

from bench.scale import report
from bench.scale.__main__ import parser
from bench.scale.run import faulty, measure, state_of
from kinora.kube.client import KubeClient
from kinora.kube.resources import NAMESPACE, NODE
from kinora_cluster import Cluster


async def test_a_small_run_loses_nothing_and_leaves_nothing(cluster: Cluster, kube: KubeClient) -> None:
    arguments = parser().parse_args(
        f"--name {cluster.name} --jobs 20 --pods 4 --phases burst --render-seconds 0.05 --node-processes 1".split()
    )
    results = await measure(arguments, state_of(cluster.name), say=lambda _text: None)
    burst = results["burst"]
    assert not faulty(results), results
    assert burst["ended"] == 20
    assert 3 <= burst["statusWritesPerJob"] <= 4.5
    assert burst["createToPrompt"]["p50"] >= burst["createToBound"]["p50"] > 0
    assert burst["cpuSeconds"]["operator"] > 0
    assert all(len(line) <= 120 for line in report.table(results).splitlines())
    nodes, _ = await kube.list(NODE)
    assert not [one for one in nodes if one["metadata"]["name"].startswith("hollow-")]
    namespaces, _ = await kube.list(NAMESPACE)
    left = [one for one in namespaces if one["metadata"]["name"].startswith("scale-")]
    assert all(one["metadata"].get("deletionTimestamp") for one in left)
