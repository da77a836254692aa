"""What an operator tells Prometheus after a job has gone through it: scraped as Prometheus does, over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from integration.conftest import free_port
from integration.test_operator import ready_pods
from kinora.kube.client import KubeClient
from kinora.kube.resources import MODELSERVER, VIDEOJOB
from waiting import DEADLINE, job_status, model_server, phase, video_job, wait_for

pytestmark = pytest.mark.integration
Samples = dict[str, list[Any]]
ASKED = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
MODEL = "wan2.1-vace-1.3b"


async def scraped(port: int, holds: Callable[[Samples], bool]) -> Samples:
    """Scrape until it is as wanted."""
    async with httpx.AsyncClient(headers=ASKED, timeout=DEADLINE) as client, asyncio.timeout(DEADLINE):
        while True:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            samples: Samples = {}
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append(sample)
            if holds(samples):
                return samples
            await asyncio.sleep(0.1)


def count(samples: Samples, name: str, **labels: str) -> float:
    return sum(one.value for one in samples.get(name, []) if labels.items() <= one.labels.items())


@pytest.mark.usefixtures("claims")
async def test_a_job_leaves_its_times_its_cost_and_its_trace(
    kube: KubeClient, namespace: str, start_operator: Callable[..., Awaitable[Any]]
) -> None:
    port = free_port()
    await start_operator(http_port=port)
    pools = [{"name": "own", "pricePerHour": 36}]
    await kube.create(MODELSERVER, namespace, model_server(gpu={"count": 0, "pools": pools}))
    await ready_pods(kube, namespace)
    mine = {"namespace": namespace, "model": MODEL, "pool": "own"}
    await scraped(port, lambda found: count(found, "kinora_modelserver_pods", state="Idle", **mine) == 1)
    # Its ModelServer is looked at after the pass that finds the pod idle: from then on it is known since when it was.
    await wait_for(
        kube, MODELSERVER, namespace, "vace", lambda obj: bool(obj) and obj["status"].get("readyReplicas") == 1
    )
    await kube.create(VIDEOJOB, namespace, video_job())
    job = await wait_for(kube, VIDEOJOB, namespace, "job", phase("Scheduled"))
    await job_status(
        kube, namespace, "job", {"phase": "Succeeded", "reason": "Completed", "gpuSeconds": 100, "cost": 1}
    )
    cold = {"stage": "Total", "model": MODEL, "pool": "own"}
    found = await scraped(
        port,
        lambda found: (
            count(found, "kinora_videojobs_finished_total", model=MODEL) == 1
            and count(found, "kinora_cold_start_seconds_count", **cold) == 1
            and count(found, "kinora_watch_lag_seconds_count", resource="modelservers") > 0  # by a watch of its own
        ),
    )
    assert count(found, "kinora_gpu_seconds_total", result="Succeeded", **mine) == 100
    assert count(found, "kinora_cost_total", result="Succeeded", **mine) == 1
    assert count(found, "kinora_pool_price_per_hour", **mine) == 36
    assert count(found, "kinora_attempts_total", result="Succeeded", cause="Completed") == 1
    assert count(found, "kinora_dispatch_seconds_count") == 1, "the pod was idle before the job came"
    assert count(found, "kinora_api_request_seconds_count", verb="patch", resource="videojobs", status="200") >= 1
    traces = {
        one.exemplar.labels["videojob_uid"] for one in found["kinora_videojob_queue_seconds_bucket"] if one.exemplar
    }
    assert traces == {job["metadata"]["uid"]}
