"""Carrying out binds: what a job that vanished, or that is being written already, must not do to the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kinora.controller.operator import Operator
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection
from unit.controller.builders import SETTINGS, VACE, ago, assigned, catalogue, job, server
from unit.controller.test_gather import ready_pod

Object = dict[str, Any]


@pytest.fixture
async def operator() -> Operator:
    nowhere = Connection("http://127.0.0.1:1", None, lambda: None, "films")
    operator = Operator(KubeClient(nowhere), catalogue(), SETTINGS)
    operator.store.servers.apply(server())
    ready_pod(operator._gatherer, operator.store)
    operator.deliver("job", "ADDED", job({"phase": "Queued"}))
    return operator


async def test_a_job_that_is_gone_before_its_bind_holds_no_pod(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any) -> None:
        return None

    monkeypatch.setattr(operator._executor, "patch_status", gone)
    await operator._binder.run("films")
    assert operator.store.jobs.entries == {}
    assert len(operator._gatherer.waiting) == 0
    assert operator._binder.reserved == frozenset()


async def test_while_a_bind_is_on_its_way_nothing_else_is_written_of_the_job(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, was_asked, asked = asyncio.Event(), asyncio.Event(), 0

    async def slow(_: Any, obj: Object, status: Object) -> Object:
        nonlocal asked
        asked += 1
        was_asked.set()
        await may_answer.wait()
        version = str(int(obj["metadata"]["resourceVersion"]) + 1)
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}, "status": status}

    monkeypatch.setattr(operator._executor, "patch_status", slow)
    binding = asyncio.create_task(operator._binder.run("films"))
    await was_asked.wait()
    assert operator._binder.is_moving("films/cat")
    await operator._reconcile_job("films/cat")
    may_answer.set()
    await binding
    assert asked == 1
    assert not operator._binder.is_moving("films/cat")
    assert operator.store.jobs.entries["films/cat"].obj["status"]["phase"] == "Scheduled"


async def test_an_end_that_is_seen_before_the_answer_to_the_bind_stands_and_is_charged_once(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short job may be over before the API server's answer to its bind is taken in."""
    may_answer, was_asked = asyncio.Event(), asyncio.Event()

    async def slow(_: Any, obj: Object, status: Object) -> Object:
        was_asked.set()
        await may_answer.wait()
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "10"}, "status": status}

    monkeypatch.setattr(operator._executor, "patch_status", slow)
    binding = asyncio.create_task(operator._binder.run("films"))
    await was_asked.wait()
    ended = job({**assigned("Succeeded"), "gpuSeconds": 7.0, "completionTime": ago(0)})
    ended["metadata"]["resourceVersion"] = "13"
    operator.deliver_end(ended)
    await operator._handle("finished", "films/cat")
    may_answer.set()
    await binding
    await operator._handle("finished", "films/cat")
    assert operator.store.jobs.entries == {}, "the late answer does not bring the job back"
    assert operator._gatherer.waiting.counts() == {}
    assert sum(hour.gpu_seconds for hour in operator._gatherer.ledger.hours["default"].values()) == pytest.approx(7)
    operator.deliver_end(ended)
    await operator._handle("finished", "films/cat")
    labels = {"phase": "Succeeded", "model": VACE}
    assert operator.metrics.registry.get_sample_value("kinora_videojobs_finished_total", labels) == 1


async def test_a_bind_waits_for_a_write_of_the_job_that_is_on_its_way(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, was_asked = asyncio.Event(), asyncio.Event()
    versions: list[str] = []

    async def slow(_: Any, obj: Object, status: Object) -> Object:
        versions.append(obj["metadata"]["resourceVersion"])
        if not was_asked.is_set():
            was_asked.set()
            await may_answer.wait()
        version = str(int(obj["metadata"]["resourceVersion"]) + 1)
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}, "status": status}

    monkeypatch.setattr(operator._executor, "patch_status", slow)
    old = job({"phase": "Pending"})
    old["metadata"]["resourceVersion"] = "7"
    operator.deliver("job", "MODIFIED", old)
    operator.store.jobs.entries["films/cat"].seen -= 60  # long enough ago to be told that it waits
    queueing = asyncio.create_task(operator._reconcile_job("films/cat"))
    await was_asked.wait()
    binding = asyncio.create_task(operator._binder.run("films"))
    await asyncio.sleep(0)  # the bind has begun, and waits
    assert operator._binder.is_moving("films/cat")
    may_answer.set()
    await asyncio.gather(queueing, binding)
    assert versions == ["7", "8"], "the bind rests on what the other write answered"
    assert operator.store.jobs.entries["films/cat"].obj["status"]["phase"] == "Scheduled"


async def test_a_bind_waits_for_every_write_of_the_job_and_writes_may_overlap(operator: Operator) -> None:
    """A place in the queue is told while a change of the job is written: this ended the operator once."""
    binder, order = operator._binder, []

    async def bind(_: Any) -> None:
        order.append("bind")

    with binder.writing("films/cat"):
        with binder.writing("films/cat"):
            waiting = asyncio.create_task(binder._in_turn("films/cat", bind, None))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        order.append("one has ended")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    order.append("both have ended")
    await waiting
    assert order == ["one has ended", "both have ended", "bind"]
