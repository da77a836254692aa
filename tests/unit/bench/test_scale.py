"""What the scale harness computes and shows, and that its hollow parts keep the contracts of what they stand for."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.scale import estimate, report
from bench.scale.__main__ import parser
from bench.scale.hollow import HollowEngine, HollowMedia, HollowSupervisor, Ledger, MemoryStore, Pace
from bench.scale.load import Course, Ended
from bench.scale.measure import cpu_seconds, memory_mib, percentiles, samples, writes
from bench.scale.run import begun
from bench.scale.world import Size
from kinora.engine import base
from kinora.storage.keys import KeyRefused
from kinora.storage.store import NotStoredError

GRAPH: dict[str, Any] = {
    "17": {"class_type": "WanVaceToVideo", "inputs": {"width": 832, "height": 480, "length": ["21", 0]}},
    "21": {"class_type": "INTConstant", "inputs": {"value": 81}},
    "24": {"class_type": "KSampler", "inputs": {}},
    "32": {"class_type": "VHS_VideoCombine", "inputs": {"frame_rate": 16, "filename_prefix": "job-1/job-1"}},
}


def engine_in(folder: Path, pace: Pace | None = None) -> tuple[HollowEngine, Ledger]:
    ledger = Ledger()
    return HollowEngine(folder, {"KSampler": {}}, pace or Pace(0.0), ledger), ledger


async def events_until(engine: HollowEngine, last: type[Any]) -> list[base.EngineEvent]:
    seen: list[base.EngineEvent] = []
    async with asyncio.timeout(5):
        async for event in engine.events("client"):
            seen.append(event)
            if isinstance(event, last):
                break
    return seen


async def test_a_hollow_render_tells_its_story_and_leaves_a_file_that_can_be_proven(tmp_path: Path) -> None:
    engine, ledger = engine_in(tmp_path)
    story = asyncio.create_task(events_until(engine, base.ExecutionSuccess))
    await asyncio.sleep(0)  # the stream stands
    await engine.submit(GRAPH, "p", "client")
    kinds = [type(event).__name__ for event in await story]
    assert kinds == ["Connected", "ExecutionStart", "NodeStarted", "Progress", "NodeExecuted", "ExecutionSuccess"]
    outcome = await engine.outcome("p")
    assert isinstance(outcome, base.Succeeded)
    (output,) = outcome.outputs
    proof = await HollowMedia().prove((tmp_path / output.subfolder / output.filename).open("rb"))
    assert (proof.width, proof.height, proof.frames, proof.fps) == (832, 480, 81, 16.0)
    assert list(ledger.accepted) == ["p"]


async def test_a_prompt_that_is_known_is_not_rendered_twice_and_that_is_noted(tmp_path: Path) -> None:
    engine, ledger = engine_in(tmp_path)
    await engine.submit(GRAPH, "p", "client")
    await engine.submit(GRAPH, "p", "client")
    assert ledger.again == {"p": 1}


async def test_a_held_render_ends_when_released_or_interrupted(tmp_path: Path) -> None:
    pace = Pace(0.0)
    pace.hold()
    engine, _ = engine_in(tmp_path, pace)
    started = asyncio.create_task(events_until(engine, base.NodeStarted))
    story = asyncio.create_task(events_until(engine, base.ExecutionInterrupted))
    await asyncio.sleep(0)  # both streams stand
    await engine.submit(GRAPH, "p", "client")
    await started
    assert isinstance(await engine.outcome("p"), base.Running)
    await engine.interrupt("p")
    await story
    assert isinstance(await engine.outcome("p"), base.Interrupted)
    assert pace.release() == []


async def test_a_released_pod_is_not_held_before_the_next_hold(tmp_path: Path) -> None:
    pace = Pace(0.0)
    pace.hold()
    first, other = asyncio.create_task(pace.render("pod-1")), asyncio.create_task(pace.render("pod-2"))
    await asyncio.sleep(0)  # both are held
    assert pace.release(1) == ["pod-1"]
    await first
    await pace.render("pod-1")  # what is staged there ends, too
    assert not other.done()
    pace.hold()
    again = asyncio.create_task(pace.render("pod-1"))
    await asyncio.sleep(0)
    assert pace.release() == ["pod-2", "pod-1"]
    await asyncio.gather(other, again)


async def test_a_restarted_engine_has_forgotten_its_prompts(tmp_path: Path) -> None:
    pace = Pace(0.0)
    pace.hold()
    engine, _ = engine_in(tmp_path, pace)
    supervisor = HollowSupervisor(engine)
    await engine.submit(GRAPH, "p", "client")
    before = await supervisor.stats()
    after = await supervisor.restart()
    assert after.identity != before.identity
    assert after.exit_of(before.identity) is not None
    assert isinstance(await engine.outcome("p"), base.Unknown)


async def test_the_store_in_memory_creates_a_key_once_and_counts_it_for_its_job() -> None:
    ledger = Ledger()
    store = MemoryStore(ledger)
    first = await store.put("ns/name/uid/1/0-a.mp4", io.BytesIO(b"one"))
    second = await store.put("ns/name/uid/1/0-a.mp4", io.BytesIO(b"two"))
    assert (first.created, second.created, second.sha256) == (True, False, first.sha256)
    assert ledger.published == {"uid": 1}
    with pytest.raises(NotStoredError):
        await store.open_read("ns/name/uid/2/0-a.mp4")
    with pytest.raises(KeyRefused):
        await store.put("../a", io.BytesIO(b""))


def test_percentiles_are_by_nearest_rank_in_milliseconds() -> None:
    assert percentiles([]) == {}
    assert percentiles(index / 1000 for index in range(1, 101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_a_process_is_read_from_proc() -> None:
    assert cpu_seconds(os.getpid()) > 0
    assert 0 < memory_mib(os.getpid())[0] <= memory_mib(os.getpid())[1]
    assert cpu_seconds(2**30) == 0


def test_samples_and_writes_read_an_api_servers_metrics() -> None:
    text = (
        "# HELP apiserver_request_total x\n"
        'apiserver_request_total{code="200",resource="videojobs",subresource="status",verb="PATCH"} 7\n'
        'apiserver_request_total_bucket{code="200"} 1\n'
    )
    ((labels, value),) = samples(text, "apiserver_request_total")
    assert (labels["verb"], labels["subresource"], value) == ("PATCH", "status", 7.0)
    counted = {
        "PATCH videojobs/status 200": 7,
        "PATCH videojobs/status 409": 2,
        "LIST pods 200": 3,
        "PUT leases 200": 9,
    }
    assert writes(counted) == {"PATCH videojobs/status": 7}


def ended(**changes: Any) -> Ended:
    values = {"phase": "Succeeded", "attempt": 1, "failures": 0, "disruptions": 0, "artifacts": 1, "bound": 2.0}
    return Ended(**{**values, "seen": 3.0, **changes})


def test_every_fault_of_a_course_is_counted() -> None:
    course = Course(created={"a": 1.0, "b": 1.0, "c": 1.0}, ended={"a": ended(), "b": ended(attempt=2, failures=1)})
    faults = course.faults({"p": 1}, {"a": 2}, in_time=True)
    assert {name for name, count in faults.items() if count} == {
        "lost", "published twice", "submitted twice", "retries charged", "second attempts",
    }  # fmt: skip
    assert course.faults({}, {}, in_time=False)["lost"] == 0
    assert course.bind_seconds() == [1.0, 1.0]


def test_the_table_fits_and_names_the_ratio() -> None:
    load = {
        "jobs": 10, "ended": 10, "inTime": True, "createSeconds": 1.0, "jobsPerSecond": 30.0, "createToBound": {},
        "createToPrompt": {"p50": 1.0}, "statusWritesPerJob": 3.9, "writes": {f"PATCH thing-{n}": n for n in range(40)},
        "conflicts": 0, "cpuSeconds": {"operator": 1.0}, "operatorMiB": {"now": 1, "peak": 2}, "watchLag": {},
        "faults": {"lost": 0}, "reads": {}, "queuedMillisecondsPerRequest": 0.5,
    }  # fmt: skip
    bare = {
        "jobs": 10,
        "sideBySide": 8,
        "jobsPerSecond": 40.0,
        "writesPerSecond": 196.0,
        "trials": [],
        "cpuSeconds": {},
    }
    assert any(
        "CPU ms a job" in line and "100.0" in line
        for line in report.table({"machine": "m", "burst": load, "errors": {}}).splitlines()
    )
    shown = report.table({"machine": "m", "burst": load, "bare": bare, "errors": {"plain": "TimeoutError: "}})
    assert "75%" in shown
    assert "plain broke off: TimeoutError" in shown
    assert all(len(line) <= report.WIDTH for line in shown.splitlines())


def arguments(*more: str) -> argparse.Namespace:
    return parser().parse_args(["--jobs", "100", "--pods", "10", *more])


def test_the_estimate_names_the_chosen_phases_and_grows_with_the_jobs() -> None:
    small = estimate.seconds(arguments(), ["burst", "plain"])
    large = estimate.seconds(parser().parse_args(["--jobs", "10000"]), ["burst", "plain"])
    assert list(small) == ["set-up", "burst", "plain"]
    assert all(small[name] < large[name] for name in small)
    assert estimate.limit(large["burst"], 100.0) == 100.0
    assert estimate.limit(small["burst"], 900.0) > small["burst"]


def test_a_run_in_pieces_adds_to_what_earlier_pieces_found(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    size = Size(100, 10, 2, 1.0)
    first = begun(arguments("--results", str(kept)), size)
    kept.write_text(json.dumps({**first, "burst": {"jobsPerSecond": 30.0}, "errors": {"plain": "it broke off"}}))
    again = begun(arguments("--results", str(kept)), size)
    assert again["burst"] == {"jobsPerSecond": 30.0}
    assert again["errors"] == {}
    with pytest.raises(SystemExit, match="another size"):
        begun(arguments("--results", str(kept)), Size(200, 10, 2, 1.0))
