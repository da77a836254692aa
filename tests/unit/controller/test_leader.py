"""What a standby is and shows, without a cluster. Two processes on a real API server: tests/integration."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from kinora.controller import settings
from kinora.controller.leader import ASSIGNED, EXIT_LOST, Leader
from kinora.controller.operator import Operator
from kinora.kube.client import KubeClient, WriteRefusedError
from kinora.kube.config import Connection
from kinora.kube.http import application
from kinora.kube.lease import LeaseHolder
from kinora.kube.resources import VIDEOJOB
from kinora_cluster import ROOT
from unit.controller.builders import SETTINGS, catalogue, job


@pytest.fixture
def client() -> KubeClient:
    return KubeClient(Connection("http://127.0.0.1:1", None, lambda: None, "films"))


@pytest.fixture
async def operator(client: KubeClient) -> Operator:
    return Operator(client, catalogue(), SETTINGS)


@pytest.fixture
async def leader(operator: Operator, client: KubeClient) -> Leader:
    return Leader(operator, client, LeaseHolder(client, "films", "kinora-operator", "pod-a"), SETTINGS)


@pytest.mark.usefixtures("leader")
async def test_a_standby_takes_events_into_its_store_and_puts_nothing_on_its_queue(operator: Operator) -> None:
    operator.deliver("job", "ADDED", job())
    operator.look_at_everything()
    assert len(operator.store.jobs.entries) == 1
    assert len(operator._queue) == 0
    operator.take_over()
    assert len(operator._queue) == 1
    assert await operator._queue.get() == ("bind", "films"), "an idle pod waits behind no other write"
    async with asyncio.timeout(5):
        assert await operator._queue.get() == ("job", "films/cat"), "then everything is looked at"


@pytest.mark.usefixtures("leader")
async def test_no_write_leaves_a_process_that_does_not_hold_the_lease(client: KubeClient) -> None:
    async with client:
        with pytest.raises(WriteRefusedError, match="films/kinora-operator is not held by pod-a but by nobody"):
            await client.patch(VIDEOJOB, "films", "cat", {})
        with pytest.raises(WriteRefusedError):
            await client.delete(VIDEOJOB, "films", "cat")


async def test_a_standby_says_what_it_is_and_tells_nothing_of_the_cluster(leader: Leader, operator: Operator) -> None:
    assert leader.role() == "standing by for a leader"
    told = {family.name for family in operator.metrics.registry.collect() if family.samples}
    assert {"kinora_leader", "kinora_leader_transitions", "kinora_build_info"} <= told
    assert not {"kinora_videojobs", "kinora_queue_depth", "kinora_modelserver_pods"} & told
    assert operator.metrics.registry.get_sample_value("kinora_leader") == 0


async def test_readyz_tells_of_the_store_and_of_the_role(operator: Operator, leader: Leader) -> None:
    endpoints = application(operator.metrics.registry, operator.store.obstacle, leader.role)
    async with TestClient(TestServer(endpoints)) as asker:
        cold = await asker.get("/readyz")
        assert (cold.status, "full list" in await cold.text()) == (503, True)
        operator.store.ready.set()
        warm = await asker.get("/readyz")
        assert (warm.status, await warm.text()) == (200, "ok: standing by for a leader\n")


def test_the_jobs_that_a_new_leader_reads_again_are_those_that_a_pod_may_have() -> None:
    excluded = {part.partition("!=")[2] for part in ASSIGNED.split(",")}
    assert excluded == {"Pending", "Queued", "Succeeded", "Failed", "Cancelled"}


def test_two_processes_outside_a_pod_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINORA_IMAGE", "kinora:1")
    monkeypatch.delenv("POD_NAME", raising=False)
    assert settings.from_environment().instance != settings.from_environment().instance
    monkeypatch.setenv("POD_NAME", "kinora-operator-abc")
    assert settings.from_environment().instance == "kinora-operator-abc"


def test_the_exit_code_is_documented() -> None:
    assert f"exits with {EXIT_LOST}" in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
