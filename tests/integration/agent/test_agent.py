"""The agent against a real API server, a real supervisor and the stand-in: whole jobs, and what may befall them."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.agent.bench import MODEL, Bench, Cable
from kinora.agent.manifest import NAME as MANIFEST
from kinora.api import names, transitions
from kinora.catalogue.load import load_catalogue
from kinora.engine.base import Interrupted, Succeeded, Unknown
from kinora.engine.client import ComfyClient
from kinora.kube.resources import CONFIGMAP, VIDEOJOB
from kinora.media.child import prove
from kinora.weights.tiny import write_demo_weights
from kinora_cluster import ROOT
from waiting import until, video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]

SMALL: Object = {"width": 128, "height": 128, "frames": 9, "steps": 2}
NEVER = 600.0  # seconds of a node that no test waits for
CLIP = ROOT / "examples/inputs/bunny.mp4"
PHOTO = ROOT / "examples/inputs/coffee.jpg"


def in_phase(*wanted: str) -> Callable[[Object], bool]:
    return lambda status: status.get("phase") in wanted


ENDED = in_phase("Succeeded", "Failed", "Cancelled")


def released(status: Object) -> bool:
    return bool(status.get("released"))


def writes(bench: Bench) -> dict[str, float]:
    """The agent's status writes by kind."""
    assert bench.agent is not None
    return {
        sample.labels["kind"]: sample.value
        for metric in bench.agent.metrics.writes.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def wrote(bench: Bench, **wanted: int) -> None:
    """The agent's status writes are these. Its count of the last one may come after the watch that shows the write."""
    try:
        await until(lambda: writes(bench) == wanted)
    except TimeoutError:
        assert writes(bench) == wanted


def is_empty(*folders: Path) -> Callable[[], bool]:
    return lambda: not any(list(folder.iterdir()) for folder in folders)


async def ready(bench: Bench, step_seconds: float = 0.0, node_seconds: float = 0.0) -> None:
    await bench.start_engine(step_seconds=step_seconds, node_seconds=node_seconds)
    await bench.start_agent()
    await bench.condition_when("EngineReady")


async def held(bench: Bench, name: str, **spec: Any) -> Object:
    """A job that the engine renders, and does not get on with before `bench.go()`; the job as it was bound."""
    bench.hold()
    job = await bench.bind(video_job(name, **spec))
    await bench.status_when(name, in_phase("Running"))
    return job


async def outcome_of(bench: Bench, job: Object, *wanted: type) -> None:
    """Wait until this is what the engine says of the job's first prompt."""
    prompt = names.prompt_id(job["metadata"]["uid"], 1)
    async with ComfyClient(bench.settings.engine_url) as engine, asyncio.timeout(30):
        while not isinstance(await engine.outcome(prompt), wanted):  # noqa: ASYNC110 - nobody listens
            await asyncio.sleep(0.02)


async def is_stopped(bench: Bench, job: Object) -> None:
    """Wait until the engine does not render it any more: stopped, and perhaps forgotten by now."""
    await outcome_of(bench, job, Interrupted, Unknown)


def staged(bench: Bench, job: Object) -> Path:
    """The file that says that the agent has the job's inputs ready."""
    return bench.root / "input" / names.job_folder(job["metadata"]["uid"], int(job["status"]["attempt"])) / MANIFEST


# --- the normal story -------------------------------------------------------------------------------------------------


async def test_a_bound_job_succeeds_with_proof_in_two_writes(bench: Bench) -> None:
    await ready(bench)
    job = await bench.bind(video_job("quick"))
    status = await bench.status_when("quick", ENDED)
    assert status["phase"] == "Succeeded", status
    [artifact] = status["artifacts"]
    path = bench.root / "artifacts" / artifact["uri"].removeprefix("pvc://artifacts/")
    with path.open("rb") as file:
        proof = await prove(file)
    assert (proof.sha256, proof.frames, proof.width, proof.height) == (artifact["sha256"], 9, 128, 128)
    assert (artifact["frames"], artifact["width"], artifact["height"]) == (9, 128, 128)
    assert artifact["filename"].startswith(job["metadata"]["uid"])
    stages = {"queuedSeconds", "stagedSeconds", "loadedSeconds", "renderedSeconds", "publishedSeconds", "totalSeconds"}
    assert set(status["timings"]) == stages
    assert status["progress"]["percent"] == 100
    assert status["gpuSeconds"] > 0
    await wrote(bench, Running=1, Succeeded=1)
    await until(is_empty(bench.root / "input", bench.root / "output"))


async def test_a_photograph_from_a_claim_and_a_clip_from_a_config_map(bench: Bench) -> None:
    shutil.copy(PHOTO, bench.root / "claims/media/coffee.jpg")
    clip = base64.b64encode(CLIP.read_bytes()).decode()
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clip"}, "binaryData": {"c.mp4": clip}}
    await bench.kube.create(CONFIGMAP, bench.namespace, config_map)
    await ready(bench)
    image = {"claim": {"name": "media", "path": "coffee.jpg"}}
    await bench.bind(video_job("photo", task="ImageToVideo", inputs={"image": image}))
    status = await bench.status_when("photo", ENDED)
    assert status["phase"] == "Succeeded", status
    [facts] = status["inputs"]
    assert (facts["name"], facts["bytes"]) == ("image", PHOTO.stat().st_size)
    assert facts["width"] > 0

    video = {"configMap": {"name": "clip", "key": "c.mp4"}}
    await bench.bind(video_job("clip", task="VideoToVideo", inputs={"video": video}))
    status = await bench.status_when("clip", ENDED)
    assert status["phase"] == "Succeeded", status
    [facts] = status["inputs"]
    assert facts["frames"] > 9
    assert facts["durationSeconds"] > 0

    artifact = {"artifact": {"videoJobName": "clip", "index": 0}}
    await bench.bind(video_job("again", task="VideoToVideo", inputs={"video": artifact}))
    status = await bench.status_when("again", ENDED)
    assert status["phase"] == "Succeeded", status


async def test_two_bound_jobs_run_one_after_the_other_and_the_second_is_staged_meanwhile(bench: Bench) -> None:
    await ready(bench)
    first = await held(bench, "first")
    second = await bench.bind(video_job("second"))
    await until(staged(bench, second).exists)
    assert (await bench.kube.get(VIDEOJOB, bench.namespace, "first"))["status"]["phase"] == "Running"
    bench.go()
    one = await bench.status_when("first", ENDED)
    two = await bench.status_when("second", ENDED)
    assert (one["phase"], two["phase"]) == ("Succeeded", "Succeeded")
    assert transitions.parse_time(two["startTime"]) > transitions.parse_time(one["startTime"])
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_progress_is_written_and_percent_never_falls(bench: Bench) -> None:
    bench.times = _faster(bench, progress=0.1)
    await ready(bench, 0.1)
    percents: list[int] = []

    def seen(holds: Callable[[Object], bool]) -> Callable[[Object], bool]:
        return lambda status: percents.append((status.get("progress") or {}).get("percent", 0)) or holds(status)

    bench.hold(12)
    await bench.bind(video_job("long", parameters={**SMALL, "steps": 30}))
    twelve = seen(lambda status: (status.get("progress") or {}).get("step") == 12)
    progress = (await bench.status_when("long", twelve))["progress"]
    assert (progress["stage"], progress["steps"], progress["percent"]) == ("Sample", 30, 15 + 75 * 12 // 30)
    bench.go()
    assert (await bench.status_when("long", seen(ENDED)))["phase"] == "Succeeded"
    assert (percents, percents[-1]) == (sorted(percents), 100)


# --- what users do ----------------------------------------------------------------------------------------------------


async def test_cancel_while_sampling(bench: Bench) -> None:
    await ready(bench)
    job = await held(bench, "unwanted")
    await bench.patch("unwanted", {"spec": {"cancel": True}})
    status = await bench.status_when("unwanted", ENDED)
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    await is_stopped(bench, job)
    bench.go()
    await bench.bind(video_job("wanted"))
    assert (await bench.status_when("wanted", ENDED))["phase"] == "Succeeded"


async def test_cancel_restarts_an_engine_that_does_not_hear(bench: Bench) -> None:
    bench.times = _faster(bench, interrupt=0.5)
    await ready(bench, node_seconds=NEVER)  # a node that cannot be interrupted
    before = await bench.engine_process()
    await bench.bind(video_job("stuck"))
    await bench.status_when("stuck", in_phase("Running"))
    await bench.patch("stuck", {"spec": {"cancel": True}})
    status = await bench.status_when("stuck", ENDED)
    assert status["phase"] == "Cancelled"
    assert await bench.engine_process() != before


async def test_a_job_cancelled_before_the_agent_came_is_cancelled(bench: Bench) -> None:
    await bench.bind(video_job("early", cancel=True))
    await ready(bench)
    assert (await bench.status_when("early", ENDED))["phase"] == "Cancelled"


async def test_a_deleted_job_frees_the_engine(bench: Bench) -> None:
    await ready(bench)
    job = await held(bench, "gone")
    await bench.kube.delete(VIDEOJOB, bench.namespace, "gone")
    await is_stopped(bench, job)
    bench.go()
    await bench.bind(video_job("next"))
    assert (await bench.status_when("next", ENDED))["phase"] == "Succeeded"
    await until(is_empty(bench.root / "input", bench.root / "output"))


async def test_a_job_taken_away_is_stopped_and_not_written(bench: Bench) -> None:
    await ready(bench)
    job = await held(bench, "moved")
    found = await bench.kube.get(VIDEOJOB, bench.namespace, "moved")
    taken = transitions.requeued(
        found, "Disrupted", "the pod was thought lost", dt.datetime.now(dt.UTC), disruption=True
    )
    await bench.kube.patch(VIDEOJOB, bench.namespace, "moved", {"status": taken}, subresource="status")
    await is_stopped(bench, job)
    bench.go()
    await bench.bind(video_job("next"))
    assert (await bench.status_when("next", ENDED))["phase"] == "Succeeded"
    after = (await bench.kube.get(VIDEOJOB, bench.namespace, "moved"))["status"]
    assert (after["phase"], after.get("released"), after.get("artifacts")) == ("Queued", None, None)


WRONG_INPUTS: tuple[tuple[Object, str], ...] = (
    ({"claim": {"name": "media", "path": "none.mp4"}}, "spec.inputs.video.claim.path is none.mp4: not there"),
    ({"claim": {"name": "other", "path": "a.mp4"}}, "spec.inputs.video.claim.name is other; allowed: media"),
    ({"claim": {"name": "media", "path": "../../models"}}, "spec.inputs.video.claim.path"),
    ({"claim": {"name": "media", "path": "link.mp4"}}, "symbolic link"),
    ({"claim": {"name": "media", "path": "text.mp4"}}, "allowed: one video"),
    ({"claim": {"name": "media", "path": "photo.jpg"}}, "allowed: one video"),
    ({"configMap": {"name": "none", "key": "a"}}, "spec.inputs.video.configMap.name is none"),
    ({"artifact": {"videoJobName": "none"}}, "spec.inputs.video.artifact.videoJobName is none"),
)


async def test_a_wrong_input_fails_for_good_and_names_the_field(bench: Bench) -> None:
    (bench.root / "claims/media/text.mp4").write_text("not a video")
    (bench.root / "claims/media/link.mp4").symlink_to(CLIP)
    shutil.copy(PHOTO, bench.root / "claims/media/photo.jpg")
    await ready(bench)
    for number, (source, _) in enumerate(WRONG_INPUTS):
        await bench.bind(video_job(f"wrong-{number}", task="VideoToVideo", inputs={"video": source}))
    for number, (_, said) in enumerate(WRONG_INPUTS):
        status = await bench.status_when(f"wrong-{number}", ENDED)
        assert (status["phase"], status["reason"]) == ("Failed", "InvalidInput")
        assert said in status["message"]
        assert str(bench.root) not in status["message"]
        assert "startTime" not in status
    await wrote(bench, Permanent=len(WRONG_INPUTS))


async def test_a_clip_that_is_too_short_fails_with_the_numbers(bench: Bench) -> None:
    shutil.copy(CLIP, bench.root / "claims/media/clip.mp4")
    await ready(bench)
    video = {"claim": {"name": "media", "path": "clip.mp4"}}
    parameters = {**SMALL, "frames": 81, "fps": 1}
    await bench.bind(video_job("short", task="VideoToVideo", inputs={"video": video}, parameters=parameters))
    status = await bench.status_when("short", ENDED)
    assert (status["phase"], status["reason"]) == ("Failed", "InvalidInput")
    assert "at least 81 frames" in status["message"]


# --- what befalls engine and agent ------------------------------------------------------------------------------------


async def test_an_engine_killed_while_sampling_is_a_disruption(bench: Bench) -> None:
    await ready(bench)
    await held(bench, "victim")
    os.kill(await bench.engine_process(), signal.SIGKILL)
    status = await bench.status_when("victim", released)
    assert status["released"]["reason"] == "EngineKilled"
    assert (status["phase"], status.get("failures")) == ("Running", None)
    await bench.condition_when("EngineReady")
    queued = transitions.requeued(
        await bench.kube.get(VIDEOJOB, bench.namespace, "victim"),
        "Disrupted",
        "",
        dt.datetime.now(dt.UTC),
        disruption=True,
    )
    again = await bench.kube.patch(VIDEOJOB, bench.namespace, "victim", {"status": queued}, subresource="status")
    again = await bench.bind(again)
    assert again["status"]["attempt"] == 2
    bench.go()
    status = await bench.status_when("victim", ENDED)
    assert (status["phase"], status.get("failures")) == ("Succeeded", None)


async def test_an_engine_that_aborts_while_sampling_is_a_failure_and_then_the_end(bench: Bench) -> None:
    await ready(bench)
    await held(bench, "crash", backoffLimit=0)
    os.kill(await bench.engine_process(), signal.SIGSEGV)
    status = await bench.status_when("crash", ENDED)
    assert (status["phase"], status["reason"], status["failures"]) == ("Failed", "BackoffLimitExceeded", 1)
    assert status["lastFailure"]["reason"] == "EngineExited"
    assert status["lastFailure"]["exitCode"] == 128 + signal.SIGSEGV


async def test_an_engine_killed_while_the_agent_was_away_is_found_out(bench: Bench) -> None:
    await ready(bench)
    await held(bench, "orphan")
    await bench.kill_agent()
    os.kill(await bench.engine_process(), signal.SIGKILL)
    await bench.start_agent()
    status = await bench.status_when("orphan", released)
    assert status["released"]["reason"] == "EngineKilled"


async def test_an_agent_restarted_while_sampling_resumes_the_same_prompt(bench: Bench) -> None:
    await ready(bench)
    job = await held(bench, "resumed")
    running = (await bench.kube.get(VIDEOJOB, bench.namespace, "resumed"))["status"]
    await bench.kill_agent()
    restarted = dt.datetime.now(dt.UTC)
    await bench.start_agent()
    bench.go()
    status = await bench.status_when("resumed", ENDED)
    assert status["phase"] == "Succeeded"
    assert (status["startTime"], status["attempt"]) == (running["startTime"], 1)
    before = (restarted - transitions.parse_time(running["startTime"])).total_seconds()
    assert status["timings"]["loadedSeconds"] + status["timings"]["renderedSeconds"] > before - 0.01, "all of it"
    assert status["assignment"]["promptID"] == names.prompt_id(job["metadata"]["uid"], 1)
    lines = (bench.root / "engine.log").read_text(errors="replace")
    assert "Running" not in writes(bench), lines


async def test_an_agent_that_was_away_when_the_render_ended_publishes_it(bench: Bench) -> None:
    await ready(bench)
    job = await held(bench, "late")
    await bench.kill_agent()
    bench.go()
    await outcome_of(bench, job, Succeeded)
    await bench.start_agent()
    assert (await bench.status_when("late", ENDED))["phase"] == "Succeeded"


async def test_a_drained_agent_finishes_what_renders_and_hands_back_the_rest(bench: Bench) -> None:
    await ready(bench)
    await held(bench, "running")
    await until(staged(bench, await bench.bind(video_job("staged"))).exists)
    assert bench.agent is not None
    bench.agent.drain()
    await bench.status_when("staged", released)
    assert not bench.agent_has_ended()
    bench.go()
    await bench.drained()
    done = (await bench.kube.get(VIDEOJOB, bench.namespace, "running"))["status"]
    back = (await bench.kube.get(VIDEOJOB, bench.namespace, "staged"))["status"]
    assert done["phase"] == "Succeeded"
    assert (back["phase"], back["released"]["reason"]) == ("Scheduled", "Drain")
    assert (await bench.condition_when("Draining"))["status"] == "False"


async def test_a_drain_that_has_had_its_time_hands_back_what_renders(bench: Bench) -> None:
    bench.drain_seconds = 1
    await ready(bench)
    await held(bench, "endless")
    await bench.drained()
    status = (await bench.kube.get(VIDEOJOB, bench.namespace, "endless"))["status"]
    assert (status["phase"], status["released"]["reason"]) == ("Running", "Drain")


async def test_an_idle_agent_does_not_wait_for_the_drains_time(bench: Bench) -> None:
    bench.drain_seconds = 3600
    await ready(bench)
    await bench.drained(60)


async def test_the_active_deadline_ends_an_attempt_for_good(bench: Bench) -> None:
    await ready(bench)
    bench.hold()
    await bench.bind(video_job("late", activeDeadlineSeconds=1))
    status = await bench.status_when("late", ENDED)
    assert (status["phase"], status["reason"]) == ("Failed", "ActiveDeadlineExceeded")
    assert status["lastFailure"]["reason"] == "ActiveDeadlineExceeded"


async def test_a_silent_engine_is_restarted_first_a_disruption_then_a_failure(bench: Bench) -> None:
    bench.times = _faster(bench, silence_scale=1 / 900)  # a second for loading
    await ready(bench, node_seconds=NEVER)
    before = await bench.engine_process()
    await bench.bind(video_job("silent"))
    status = await bench.status_when("silent", released)
    assert status["released"]["reason"] == "FirstSilence"
    assert status["lastFailure"]["reason"] == "EngineSilent"
    assert status.get("failures") is None
    assert await bench.engine_process() != before
    found = await bench.kube.get(VIDEOJOB, bench.namespace, "silent")
    queued = transitions.requeued(found, "Disrupted", "", dt.datetime.now(dt.UTC), disruption=True)
    again = await bench.kube.patch(VIDEOJOB, bench.namespace, "silent", {"status": queued}, subresource="status")
    await bench.bind(again)
    status = await bench.status_when("silent", lambda status: bool(status.get("failures")))
    assert status["released"]["reason"] == "EngineSilent"
    assert status["failures"] == 1


async def test_the_api_server_may_be_away_while_a_job_renders(bench: Bench) -> None:
    address = urlsplit(bench.connection.host)
    assert address.hostname is not None
    assert address.port is not None
    cable = Cable(address.hostname, address.port)
    bench.api_port = await cable.lay()
    await ready(bench)
    job = await held(bench, "cut-off")
    cable.cut()
    bench.go()
    folder = bench.root / "artifacts" / bench.namespace / "cut-off" / job["metadata"]["uid"] / "1"
    await until(lambda: folder.exists() and any(one.name.startswith("0-") for one in folder.iterdir()), 30)
    assert (await bench.kube.get(VIDEOJOB, bench.namespace, "cut-off"))["status"]["phase"] == "Running"
    cable.mend()
    assert (await bench.status_when("cut-off", ENDED))["phase"] == "Succeeded"


# --- readiness --------------------------------------------------------------------------------------------------------


async def test_a_missing_weight_file_is_named_and_its_coming_is_noticed(bench: Bench) -> None:
    model = load_catalogue().get(MODEL)
    assert model is not None
    gone = model.weights[0].path
    (bench.root / "models" / gone).unlink()
    await bench.start_engine()
    await bench.start_agent()
    condition = await bench.condition_when("WeightsMissing")
    assert condition["status"] == "False"
    assert gone in condition["message"]
    await bench.bind(video_job("patient"))
    write_demo_weights(model, bench.root / "models")
    await bench.condition_when("EngineReady")
    assert (await bench.status_when("patient", ENDED))["phase"] == "Succeeded"


async def test_a_weight_file_that_changes_ends_readiness_until_it_is_right_again(bench: Bench) -> None:
    bench.times = _faster(bench, weights_present=0.1)
    await ready(bench)
    model = load_catalogue().get(MODEL)
    assert model is not None
    file = bench.root / "models" / model.weights[0].path
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    condition = await bench.condition_when("WeightsChanged")
    assert condition["status"] == "False"
    assert model.weights[0].path in condition["message"]
    file.write_bytes(content)
    await bench.condition_when("EngineReady")


async def test_a_job_is_not_rendered_with_a_file_that_changed_since_the_last_look(bench: Bench) -> None:
    """The next look is half a minute away; the job makes the agent look."""
    await ready(bench)
    model = load_catalogue().get(MODEL)
    assert model is not None
    file = bench.root / "models" / model.weights[0].path
    content = file.read_bytes()
    file.write_bytes(b"")
    await bench.bind(video_job("careful"))
    await bench.condition_when("WeightsChanged")
    assert (await bench.kube.get(VIDEOJOB, bench.namespace, "careful"))["status"]["phase"] == "Scheduled"
    file.write_bytes(content)
    assert (await bench.status_when("careful", ENDED))["phase"] == "Succeeded"


async def test_the_lora_of_preset_fast_is_needed_by_jobs_of_that_preset_only(bench: Bench) -> None:
    model = load_catalogue().get(MODEL)
    assert model is not None
    [lora] = model.preset_weights("Fast")
    (bench.root / "models" / lora.path).unlink()
    bench.times = _faster(bench, weights_present=0.1)
    await ready(bench)
    condition = await bench.fast_when("False")
    assert (condition["reason"], lora.path in condition["message"]) == ("WeightsMissing", True)
    await bench.bind(video_job("plain"))
    assert (await bench.status_when("plain", ENDED))["phase"] == "Succeeded"
    await bench.bind(video_job("too-early", parameters={**SMALL, "preset": "Fast"}))
    early = await bench.status_when("too-early", released)
    assert (early["released"]["reason"], early.get("failures", 0)) == ("PresetWeightsGone", 0)
    write_demo_weights(model, bench.root / "models")
    await bench.fast_when("True")
    await bench.bind(video_job("fast", parameters={**SMALL, "preset": "Fast"}))
    done = await bench.status_when("fast", ENDED)
    assert (done["phase"], done["resolved"]["preset"]) == ("Succeeded", "Fast")


async def test_a_cuda_fault_hands_back_what_waits_and_asks_for_another_pod(bench: Bench) -> None:
    await ready(bench)
    await held(bench, "first")
    await bench.bind(video_job("second"))
    assert bench.agent is not None
    bench.agent.health.latch_cuda_fault("KSampler: an illegal memory access was encountered")
    assert "illegal memory access" in (await bench.condition_when("CudaFault"))["message"]
    assert (await bench.status_when("second", released))["released"]["reason"] == "Drain"
    bench.go()
    await bench.status_when("first", ENDED)
    assert not bench.agent_has_ended()


async def test_an_engine_that_dies_idle_is_down_and_then_ready_again(bench: Bench) -> None:
    await ready(bench)
    before = await bench.pod_version()
    os.kill(await bench.engine_process(), signal.SIGKILL)
    condition = await bench.condition_when("EngineDown", since=before)
    assert "signal 9" in condition["message"]
    await bench.condition_when("EngineReady")


async def test_a_restarted_agent_does_not_say_that_a_good_engine_starts(bench: Bench) -> None:
    bench.times = _faster(bench, settle=NEVER)
    await ready(bench)
    await bench.kill_agent()
    await bench.start_agent()
    assert bench.agent is not None
    condition = bench.agent._condition
    await until(lambda: condition.writes > 0)
    assert (await bench.condition_when("EngineReady"))["status"] == "True"
    assert condition.writes == 1, "it was the new agent's first word"


def _faster(bench: Bench, **changes: float) -> Any:
    return replace(bench.times, **changes)
