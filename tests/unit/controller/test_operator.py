"""The operator's bookkeeping between events and decisions. What it does to a cluster is tests/integration's."""

from __future__ import annotations

import pytest

from kinora.controller.afterwards import OBSERVED_LIMIT
from kinora.controller.operator import Operator
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from unit.controller.builders import SETTINGS, VACE, ago, catalogue, job


@pytest.fixture
async def operator() -> Operator:
    nowhere = Connection("http://127.0.0.1:1", None, lambda: None, "films")
    return Operator(KubeClient(nowhere), catalogue(), SETTINGS)


def finished(operator: Operator, phase: str = "Failed") -> float:
    labels = {"phase": phase, "model": VACE}
    return operator.metrics.registry.get_sample_value("kinora_videojobs_finished_total", labels) or 0.0


async def test_a_finished_job_is_counted_once_however_often_it_is_told(operator: Operator) -> None:
    """The answer of the operator's own write, and then the watch: a finished job leaves its selection."""
    ended = job({"phase": "Failed", "completionTime": ago(1)})
    for _ in range(3):
        operator.afterwards.observe(ended)
    assert finished(operator) == 1


async def test_what_was_counted_is_remembered_within_a_bound(operator: Operator) -> None:
    for number in range(OBSERVED_LIMIT + 10):
        ended = job({"phase": "Failed", "completionTime": ago(1)})
        ended["metadata"]["uid"] = f"uid-{number}"
        ended["spec"]["model"] = "wan9"
        operator.afterwards.observe(ended)
    assert len(operator.afterwards.observed) == OBSERVED_LIMIT


async def test_a_finished_job_leaves_the_store_and_an_echo_does_not_bring_it_back(operator: Operator) -> None:
    running = job({"phase": "Queued"})
    operator.deliver("job", "ADDED", running)
    ended = job({"phase": "Failed"})
    ended["metadata"]["resourceVersion"] = "9"
    operator.deliver("job", "MODIFIED", ended)
    operator.deliver("job", "MODIFIED", running)
    assert operator.store.jobs.entries == {}
    assert operator.store.waiting == {}


async def test_an_end_that_is_seen_is_counted_without_reading_the_job_again(operator: Operator) -> None:
    """There is no API server at that address: a read would fail."""
    operator.deliver("job", "ADDED", job({"phase": "Running"}))
    ended = job({"phase": "Succeeded", "completionTime": ago(1)})
    ended["metadata"]["resourceVersion"] = "9"
    operator.deliver_end(ended)
    assert operator.store.jobs.entries == {}
    await operator.afterwards.look("films/cat")
    assert finished(operator, "Succeeded") == 1
    assert operator.afterwards.ends == {}


async def test_a_standby_keeps_no_ends(operator: Operator) -> None:
    operator.stand_by()
    operator.deliver_end(job({"phase": "Succeeded", "completionTime": ago(1)}))
    assert operator.afterwards.ends == {}


async def test_a_job_that_left_is_read_unless_its_end_was_seen(operator: Operator) -> None:
    ended = job({"phase": "Succeeded", "completionTime": ago(1)})
    operator.afterwards.observe(ended)
    operator.deliver("job", "DELETED", ended)
    assert len(operator._queue) == 0
    unseen = job({"phase": "Running"})
    unseen["metadata"]["uid"] = "another"
    operator.deliver("job", "DELETED", unseen)
    assert len(operator._queue) == 1
