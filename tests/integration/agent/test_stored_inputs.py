"""What a stager has put into the store, an agent reads by what status says of it, and by nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from integration.agent.bench import MODEL, Bench
from integration.agent.test_agent import ENDED, PHOTO, ready, wrote
from integration.agent.test_workflows import small
from integration.test_workflows import raw_job
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.recipes.resolve import resolve
from unit.workflows.made import node
from waiting import video_job

pytestmark = pytest.mark.integration
Object = dict[str, Any]
SHA = hashlib.sha256(PHOTO.read_bytes()).hexdigest()
STORED: Object = {"inputStore": "pvc://artifacts/", "inputs": [{"name": "image", "sha256": SHA, "width": 600}]}
URL = {"image": {"url": "https://photos.example/cup.jpg?Signature=secret"}}


def stored(bench: Bench) -> Path:
    """The photograph where a stager puts it."""
    path = bench.root / "artifacts/inputs" / SHA
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PHOTO.read_bytes())
    return path


async def test_a_stored_url_is_rendered_as_it_was_resolved(bench: Bench) -> None:
    stored(bench)
    await ready(bench)
    job = video_job("cup", task="ImageToVideo", inputs=URL)
    model = load_catalogue().get(MODEL)
    assert model is not None
    resolved = {**resolve(VideoJobSpec.model_validate(job["spec"]), model, "uid").to_status(), "seed": 77}
    await bench.bind(job, {**STORED, "resolved": resolved})
    status = await bench.status_when("cup", ENDED)
    assert status["phase"] == "Succeeded", status
    assert status["resolved"]["seed"] == 77, "what the stager resolved was resolved anew"
    [facts] = status["inputs"]
    assert (facts["sha256"], facts["bytes"]) == (SHA, PHOTO.stat().st_size)
    assert status["inputStore"] == "pvc://artifacts/"
    await wrote(bench, Running=1, Succeeded=1)


async def test_a_stored_file_of_a_workflow_is_rendered(bench: Bench) -> None:
    stored(bench)
    await ready(bench)
    graph = small(n17={"reference_image": ["50", 0]})
    graph["50"] = node("LoadImage", image="cup.jpg", upload="image")
    file = {"name": "cup.jpg", "source": {"url": "https://photos.example/cup.jpg"}, "sha256": SHA}
    job = raw_job(workflow={"inline": json.dumps(graph), "files": [file]})
    await bench.bind(job, {**STORED, "inputs": [{"name": "files[0]", "sha256": SHA}]})
    status = await bench.status_when("raw", ENDED)
    assert status["phase"] == "Succeeded", status
    assert [(facts["name"], facts["sha256"]) for facts in status["inputs"]] == [("files[0]", SHA)]


@pytest.mark.parametrize("source", ["url", "upload"])
async def test_what_is_not_as_status_says_fails_for_good(bench: Bench, source: str) -> None:
    inputs = URL if source == "url" else {"image": {"upload": "cup.jpg"}}
    stored(bench).write_bytes(b"changed")
    await ready(bench)
    wrong = {**STORED, "inputs": [{"name": "image", "sha256": "0" * 64}]}
    escaping = {**STORED, "inputs": [{"name": "image", "sha256": "../models/x"}]}
    statuses: dict[str, tuple[Object, str]] = {
        "changed": (STORED, f"is stored with sha256 {hashlib.sha256(b'changed').hexdigest()}; allowed: sha256 {SHA}"),
        "gone": (wrong, "is no longer in the store"),
        "elsewhere": ({**STORED, "inputStore": "pvc://other/"}, "is in the store pvc://other/; allowed: pvc://artif"),
        "escaping": (escaping, "is no longer in the store"),
        "never": ({}, "no stager has fetched it"),
    }
    for name, (told, _) in statuses.items():
        await bench.bind(video_job(name, task="ImageToVideo", inputs=inputs), told)
    for name, (_, words) in statuses.items():
        status = await bench.status_when(name, ENDED)
        assert (status["phase"], status["reason"]) == ("Failed", "InvalidInput")
        assert status["message"].startswith(f"spec.inputs.image.{source} is ")
        assert words in status["message"]
        assert "secret" not in str(status)
