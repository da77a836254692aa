"""Publishing real files: finished where asked for, proven as resolved, nothing left of what was cancelled."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from kinora.agent.publish import Published, Publisher, proof_faults
from kinora.agent.settings import Settings, settings_from
from kinora.agent.staging import MediaChild, Staged, Stager
from kinora.agent.verdict import Kind, Refusal
from kinora.api.agentconfig import Watermark
from kinora.api.videojob import ConfigMapSource, VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.engine.base import OutputFile
from kinora.media.frames import write_lossless
from kinora.media.info import Proof
from kinora.recipes.finishing import finishing
from kinora.recipes.needs import named_inputs
from kinora.recipes.resolve import resolve
from kinora.storage.pvc import PvcStore
from unit.agent.test_small import ENVIRONMENT
from unit.media.sounding import flashing

W, H, N = 96, 64, 9
FOLDER = "job-1"
JOB = {"metadata": {"namespace": "ns", "name": "film", "uid": "00000000-0000-0000-0000-000000000001"}, "spec": {}}
OUTPUT = OutputFile("32", "gifs", "out_00001.mkv", FOLDER, "output")
SECONDS = 60.0  # until what is waited for must have happened


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = settings_from(ENVIRONMENT)
    paths = replace(
        found.paths, input=tmp_path / "input", output=tmp_path / "output", artifacts=tmp_path / "store",
        claims=tmp_path / "claims",
    )  # fmt: skip
    for folder in (paths.input / FOLDER, paths.output / FOLDER, paths.artifacts, paths.claims / "films"):
        folder.mkdir(parents=True)
    return replace(found, paths=paths, config=found.config.model_copy(update={"input_claims": ["films"]}))


def _publisher(settings: Settings) -> Publisher:
    return Publisher(settings, PvcStore(settings.paths.artifacts, "artifacts"), MediaChild())


def _staged(**output: Any) -> Staged:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    asked = {"width": W, "height": H, "frames": N}
    spec = {"model": model.name, "task": "TextToVideo", "prompt": "p", "parameters": asked, "output": output}
    resolved = resolve(VideoJobSpec.model_validate(spec), model, "uid")
    plan = finishing(resolved, {}, {})
    return Staged({}, (), resolved, None if plan is None else plan.to_dict())


def _rendered(settings: Settings, frames: int = N, name: str = OUTPUT.filename) -> None:
    with (settings.paths.output / FOLDER / name).open("w+b") as file:
        write_lossless(file, [np.full((H, W, 3), 20 * at, np.uint8) for at in range(frames)], W, H, 16)


async def _published(settings: Settings, staged: Staged) -> Published:
    return await _publisher(settings).publish(JOB, 1, staged, (OUTPUT,), FOLDER)


async def test_a_finished_video_is_what_is_proven_and_published(settings: Settings) -> None:
    _rendered(settings)
    found = await _published(settings, _staged(fps=32, width=192, height=128, watermark=True))
    [artifact] = found.artifacts
    assert (artifact["width"], artifact["height"], artifact["frames"], artifact["fps"]) == (192, 128, 18, 32)
    assert artifact["durationSeconds"] == pytest.approx(N / 16)
    assert (artifact["filename"], artifact["contentType"]) == ("out_00001.mp4", "video/mp4")
    assert artifact["uri"].endswith(".mp4")
    assert found.actions == ["interpolated by optical flow", "watermark set"]
    again = await _published(settings, _staged(fps=32, width=192, height=128, watermark=True))
    assert again.artifacts == found.artifacts  # by an agent that was restarted


async def test_frames_that_are_missing_fail_the_attempt(settings: Settings) -> None:
    _rendered(settings, N - 1)
    with pytest.raises(Refusal, match="the engine made 8 frames instead of 9") as caught:
        await _published(settings, _staged(watermark=True))
    assert (caught.value.verdict.kind, caught.value.verdict.reason) == (Kind.FAILURE, "ProofFailed")
    assert not any(path.is_file() for path in settings.paths.artifacts.rglob("*"))


def _children() -> set[str]:
    """Media children of this process that run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        if parent == os.getpid() and b"kinora.media.worker" in command and b'"finish"' in command:
            found.add(path.name)
    return found


async def test_a_cancelled_finishing_leaves_no_child_and_publishes_nothing(settings: Settings) -> None:
    _rendered(settings)
    staged = _staged(fps=120, width=2048, height=1366)
    before = _children()
    task = asyncio.ensure_future(_published(settings, staged))
    async with asyncio.timeout(SECONDS):
        while not (_children() - before):
            assert not task.done()
            await asyncio.sleep(0)
        started = _children() - before
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not (_children() & started)
    assert not any(path.is_file() for path in settings.paths.artifacts.rglob("*"))


def test_a_result_without_the_sound_that_was_asked_for_is_no_proof() -> None:
    staged = _staged(fps=32)
    resolved = replace(staged.resolved, audio="Source")
    proof = Proof(18, 32.0, W, H, N / 16, "h264", "0" * 64, 1000, has_audio=False)
    assert proof_faults(proof, resolved) == ["no audio instead of the source's"]
    assert proof_faults(replace(proof, has_audio=True), resolved) == []
    assert proof_faults(replace(proof, frames=9, fps=16.0), staged.resolved) == [
        "9 frames instead of 18",
        "16 fps instead of 32",
    ]


# --- what staging makes of it -----------------------------------------------------------------------------------------


async def _stage(settings: Settings, client: Any = None, **output: Any) -> Staged:
    model = load_catalogue().get("wan2.1-vace-1.3b")
    assert model is not None
    spec = VideoJobSpec.model_validate(
        {
            "model": model.name,
            "task": "VideoToVideo",
            "prompt": "p",
            "inputs": {"video": {"claim": {"name": "films", "path": "clip.mp4"}}},
            "parameters": {"width": W, "height": H, "frames": N},
            "output": output,
        }
    )
    stager = Stager(settings, cast(Any, client), cast(Any, None), MediaChild())
    return await stager.stage(named_inputs(spec), resolve(spec, model, "uid"), model, FOLDER)


async def test_the_source_s_sound_is_looked_at_before_the_render(settings: Settings) -> None:
    clip = settings.paths.claims / "films/clip.mp4"
    flashing(clip, size=(W, H))
    staged = await _stage(settings, audio="Source")
    assert staged.finishing is not None
    assert [sound["input"] for sound in staged.finishing["sounds"]] == ["video"]
    assert staged.facts[0]["actions"][0] == "2.02 s of audio kept"
    clip.write_bytes(flashing(clip, codec="pcm_s16le", container="mov").read_bytes().replace(b"sowt", b"QDM9"))
    with pytest.raises(Refusal, match="audio") as caught:
        await _stage(settings, audio="Source")
    assert caught.value.verdict.reason == "InvalidInput"
    assert caught.value.verdict.message.startswith("spec.inputs.video is")


async def test_a_source_without_sound_is_said_and_no_failure(settings: Settings) -> None:
    with (settings.paths.claims / "films/clip.mp4").open("w+b") as file:
        write_lossless(file, [np.zeros((H, W, 3), np.uint8)] * N, W, H, 16)
    staged = await _stage(settings, audio="Source")
    assert staged.finishing is None
    assert staged.resolved.notes == ("the source has no audio: without audio",)
    assert staged.facts[0]["actions"][0] == "has no audio"


class _ConfigMaps:
    """The one question that staging a mark asks of the API server."""

    def __init__(self, **data: str) -> None:
        self._data = data

    async def find(self, _kind: object, _namespace: str, name: str) -> dict[str, Any] | None:
        return {"binaryData": self._data} if name == "logos" else None


@pytest.mark.parametrize("name", ["logos", "others"])
async def test_a_mark_that_is_no_picture_is_the_administrator_s_fault(settings: Settings, name: str) -> None:
    with (settings.paths.claims / "films/clip.mp4").open("w+b") as file:
        write_lossless(file, [np.zeros((H, W, 3), np.uint8)] * N, W, H, 16)
    marked = replace(settings, watermark=Watermark(image=ConfigMapSource(name=name, key="a.png")))
    with pytest.raises(Refusal, match=f"key a.png of ConfigMap {name}") as caught:
        await _stage(marked, _ConfigMaps(**{"a.png": "aGVsbG8="}), watermark=True)
    assert caught.value.verdict.kind is Kind.FAILURE
