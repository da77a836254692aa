"""What the tests of the hosted APIs' dialects share: the documents' own requests, Kinora's verdict on a spec, jobs."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kinora.api.findings import findings
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.cli.validate import job_faults
from kinora.gateway.jobs import Artifact, Job, State
from kinora.recipes.resolve import resolve
from kinora.recipes.resolved import Resolved

DOCUMENTS = Path(__file__).resolve().parents[4] / "shared" / "seeds"
ID = "7a1c6b0e-4f6f-4d53-9a8e-0d8e7c0a4b11"
SUBMITTED = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)


def document(number: str) -> str:
    """The text of one of the documents of the hosted APIs, where they lie beside the checkout."""
    found = sorted(DOCUMENTS.glob(f"{number}_*.txt"))
    if not found:
        pytest.skip(f"the document {number} of the hosted APIs is not beside this checkout")
    return found[0].read_text(encoding="utf-8")


def printed_bodies(number: str) -> list[dict[str, Any]]:
    """Each JSON body that a document's curl lines send."""
    return [json.loads(text) for text in re.findall(r"--data(?:-raw)? '(\{.*?\})'", document(number), re.S)]


def validated(spec: dict[str, Any]) -> Resolved:
    """What `kinora validate`, the shape's rules and the resolver make of a spec; it must be without fault."""
    assert findings(VideoJobSpec, spec, "spec") == ()
    assert list(job_faults({"spec": spec}, {}, load_catalogue())) == []
    parsed = VideoJobSpec.model_validate(spec)
    model = load_catalogue().get(parsed.model)
    assert model is not None
    return resolve(parsed, model, ID)


def artifact(index: int = 0, **more: Any) -> Artifact:
    """A finished video."""
    made = Artifact(
        index=index,
        uri=f"pvc://artifacts/ns/gw/{index}.mp4",
        content_type="video/mp4",
        bytes=1000,
        sha256="0" * 64,
        width=832,
        height=480,
        frames=81,
        fps=16,
        duration_seconds=5.0625,
        node="9",
        list="gifs",
        filename=f"video_{index}.mp4",
        subfolder="",
        type="output",
    )
    return dataclasses.replace(made, **more)


def job(state: State = State.QUEUED, **more: Any) -> Job:
    """A job in that state."""
    made = Job(
        id=ID,
        namespace="ns",
        name=f"gw-0123456789-{ID}",
        uid="uid",
        tenant="0123456789",
        dialect="wavespeed",
        note={},
        request="",
        model="wan2.1-vace-14b",
        model_server="",
        task="TextToVideo",
        state=state,
        phase="",
        reason="",
        message="",
        submit_time=SUBMITTED,
        start_time=None if state is State.QUEUED else SUBMITTED + timedelta(seconds=5),
        completion_time=SUBMITTED + timedelta(seconds=65) if state.finished else None,
        percent=0,
        stage=None,
        step=None,
        steps=None,
        attempt=1,
        pod=None,
        position=None,
        estimated_start=None,
        artifacts=(artifact(),) if state is State.SUCCEEDED else (),
        timings={"renderedSeconds": 42.0625} if state is State.SUCCEEDED else {},
        gpu_seconds=None,
        cancel_asked=False,
    )
    return dataclasses.replace(made, **more)
