"""The end of videos of the gateway's jobs that are gone, and of inputs that no unfinished job names, by the stager."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from integration.stager.bench import PHOTO, StagerBench
from kinora.kube.resources import VIDEOJOB
from kinora.storage.keys import artifact_key
from rawserver import file_answer
from waiting import Object, job_status, until, video_job

pytestmark = pytest.mark.integration
DAY = 86_400.0
STARTED = 60.0  # seconds for what a stager does that starts first
SHA = hashlib.sha256(PHOTO).hexdigest()


def gateway_name(number: int) -> str:
    return f"gw-0123456789-5f9f4bb2-8f5c-4f0e-9d0c-3b1a3f6f2c{number:02x}"


def put(bench: StagerBench, job: Object, *, days: float, attempt: int = 1) -> Path:
    """The video of an attempt of a job, as its agent would have put it so many days ago."""
    metadata = job["metadata"]
    key = artifact_key(
        namespace=bench.namespace, name=metadata["name"], uid=metadata["uid"], attempt=attempt, filename="cup.mp4"
    )
    return aged(bench.store() / key, days)


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(b"film")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


async def made(bench: StagerBench, name: str, *, then: str | None) -> Object:
    """A job that has ended so; `then` None: it was deleted afterwards."""
    job = await bench.kube.create(VIDEOJOB, bench.namespace, video_job(name))
    await job_status(bench.kube, bench.namespace, name, {"phase": then or "Succeeded"})
    if then is None:
        await bench.kube.delete(VIDEOJOB, bench.namespace, name)
    return job


async def test_videos_of_the_gateways_jobs_go_with_their_records_and_no_others(bench: StagerBench) -> None:
    gone = put(bench, await made(bench, gateway_name(1), then=None), days=8)
    retried = put(bench, await made(bench, gateway_name(2), then=None), days=8, attempt=2)
    young = put(bench, await made(bench, gateway_name(3), then=None), days=6)
    recorded = put(bench, await made(bench, gateway_name(4), then="Succeeded"), days=80)
    running = put(bench, await made(bench, gateway_name(5), then="Running"), days=80)
    own = put(bench, await made(bench, "cup", then=None), days=80)
    await bench.start()
    await until(lambda: not gone.exists() and not retried.exists(), STARTED)
    marker = put(bench, await made(bench, gateway_name(6), then=None), days=8)
    await until(lambda: not marker.exists())  # so that one more sweep has ended than that which removed the first
    assert [path.exists() for path in (young, recorded, running, own)] == [True] * 4
    assert not gone.parents[2].exists(), "its folders went along"
    await bench.says("/metrics", 'kinora_store_removed_total{why="job gone"} 3.0')


async def test_inputs_that_no_unfinished_job_names_go_and_what_is_asked_for_again_is_young(bench: StagerBench) -> None:
    bench.web.answers["/photo.jpg"] = file_answer(PHOTO, "image/jpeg")
    await bench.start()
    await bench.ask(suspend=True)
    await bench.told()
    named = bench.store() / "inputs" / SHA
    assert named.exists()
    unused = aged(bench.store() / "inputs" / hashlib.sha256(b"x").hexdigest(), 15)
    fresh = aged(bench.store() / "inputs" / hashlib.sha256(b"y").hexdigest(), 13)
    foreign = aged(bench.store() / "inputs" / "read.me", 90)
    aged(named, 90)
    await until(lambda: not unused.exists())
    assert [path.exists() for path in (named, fresh, foreign)] == [True] * 3
    await bench.ask("again", suspend=True)
    await bench.told("again")
    assert named.stat().st_mtime > time.time() - 600, "brought again: used now"
    for name in ("job", "again"):
        await job_status(bench.kube, bench.namespace, name, {"phase": "Succeeded"})
    aged(named, 15)
    await until(lambda: not named.exists())
    assert fresh.exists()


async def test_a_sweep_that_was_killed_in_the_middle_is_made_good_by_the_next(bench: StagerBench) -> None:
    job = await made(bench, gateway_name(1), then=None)
    paths = [put(bench, job, days=8, attempt=attempt) for attempt in range(1, 301)]
    process = await bench.start()
    await until(lambda: not all(path.exists() for path in paths), STARTED)
    process.kill()
    await process.wait()
    await bench.start()
    await until(lambda: not any(path.exists() for path in paths), STARTED)
