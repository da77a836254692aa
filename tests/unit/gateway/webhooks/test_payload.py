"""What a webhook says: stable, small, and nothing that is nobody's business."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api.videojob_status import Artifact
from kinora.gateway.webhooks.payload import LIMIT, payload
from unit.gateway.webhooks.builders import ARTIFACT, ENDED, UID, job


def told(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_succeeded_job() -> None:
    body = payload(job(artifacts=[ARTIFACT]))
    assert told(body) == {
        "type": "video_job.succeeded",
        "timestamp": ENDED,
        "data": {
            "name": "lighthouse", "namespace": "films", "uid": UID, "id": UID, "phase": "Succeeded",
            "reason": "Completed", "message": "", "submitTime": "2026-05-01T11:50:00Z",
            "startTime": "2026-05-01T11:55:00.000Z", "completionTime": ENDED,
            "artifacts": [
                {
                    "uri": "pvc://artifacts/films/lighthouse/0.mp4", "contentType": "video/mp4", "bytes": 1234,
                    "sha256": "ab" * 32, "width": 832, "height": 480, "frames": 81, "fps": 16,
                    "durationSeconds": 5.0625, "filename": "lighthouse_00001.mp4",
                }
            ],
            "artifactsOmitted": 0,
        },
    }  # fmt: skip
    assert b"secret plan" not in body
    assert body == payload(job(artifacts=[ARTIFACT], webhook={"state": "Pending", "attempts": 4})), "the same each time"


@pytest.mark.parametrize(("phase", "kind"), [("Failed", "video_job.failed"), ("Cancelled", "video_job.cancelled")])
def test_what_ended_otherwise_says_why(phase: str, kind: str) -> None:
    found = told(payload(job(phase, reason="InvalidSpec", message="spec.model is wan9", startTime=None)))
    assert (found["type"], found["data"]["phase"]) == (kind, phase)
    assert (found["data"]["reason"], found["data"]["message"]) == ("InvalidSpec", "spec.model is wan9")
    assert found["data"]["startTime"] is None
    assert found["data"]["artifacts"] == []


def test_a_job_of_the_gateway_has_the_id_that_its_client_knows() -> None:
    made = job(name=f"gw-0123456789-{UID[:-1]}0")
    assert told(payload(made))["data"]["id"] == f"{UID[:-1]}0"
    assert told(payload(made))["data"]["uid"] == UID


def test_no_signature_leaves_with_a_uri() -> None:
    signed = {**ARTIFACT, "uri": "https://bucket.example/0.mp4?X-Amz-Signature=secret"}
    assert told(payload(job(artifacts=[signed])))["data"]["artifacts"][0]["uri"] == "https://bucket.example/0.mp4"


def test_a_job_that_goes_on_has_none() -> None:
    with pytest.raises(ValueError, match=r"status\.phase is Running; allowed: Succeeded, Failed, Cancelled"):
        payload(job("Running"))


TEXT = st.sampled_from(["\x01", "ä", "視", "\U0001f3a5", "x"])


def _artifact(draw: Any, unit: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(ARTIFACT)
    for field in Artifact.model_fields.values():
        limit = next((one.max_length for one in field.metadata if getattr(one, "max_length", None)), None)
        if limit:
            found[str(field.alias)] = unit * draw(st.sampled_from([0, 1, limit]))
    return found


@settings(deadline=None)
@given(st.data())
def test_it_is_never_larger_than_said_and_says_what_it_left_out(data: st.DataObject) -> None:
    unit = data.draw(TEXT)
    artifacts = [_artifact(data.draw, unit) for _ in range(data.draw(st.integers(0, 8)))]
    body = payload(job(name="n" * 253, artifacts=artifacts, message=unit * 1024, reason=unit * 256))
    assert len(body) <= LIMIT
    found = told(body)["data"]
    assert len(found["artifacts"]) + found["artifactsOmitted"] == len(artifacts)
