"""check(VideoJob): accepted with all that was resolved, refused with the field, or not decided yet."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.api.base import MESSAGE_LIMIT
from kinora.controller.queues import read_queues
from kinora.controller.videojob.check import Accepted, Around, Refused, Undecided, check
from unit.controller.builders import VACE, catalogue, job

I2V = "wan2.1-i2v-14b-480p"


def verdict(servers: dict[str, str] | None = None, **spec: Any) -> Accepted | Refused | Undecided:
    return check(job(**spec), catalogue(), Around(servers or {}, queues=read_queues("")))


def test_an_accepted_job_is_resolved_without_its_prompt() -> None:
    found = verdict(prompt="a red lighthouse")
    assert isinstance(found, Accepted)
    assert found.model == VACE
    assert found.resolved["frames"] == 49
    assert "lighthouse" not in str(found.resolved)


@pytest.mark.parametrize(
    ("spec", "reason", "told"),
    [
        ({"model": "wan9"}, "InvalidSpec", ["spec.model is wan9", VACE, I2V]),
        (
            {"model": "wan2.1-vace-plus"},
            "InvalidSpec",
            ["spec.model is wan2.1-vace-plus", "no administrator has mapped"],
        ),
        ({"task": "Fly"}, "InvalidSpec", ["spec.task", "Fly", "TextToVideo"]),
        ({"parameters": {"frames": 80}}, "InvalidSpec", ["spec.parameters.frames is 80", "77 or 81"]),
        ({"parameters": {"width": 100}}, "InvalidSpec", ["spec.parameters.width", "100"]),
        ({"parameters": {"width": 1024, "height": 1024}}, "InvalidSpec", ["1024x1024", "399360"]),
        ({"task": "ImageToVideo"}, "InvalidSpec", ["spec.inputs.image is not set"]),
        ({"prompt": "  "}, "InvalidSpec", ["spec.prompt"]),
        ({"queue": "gold"}, "InvalidSpec", ["spec.queue is gold", "default in namespace films"]),
        ({"task": None, "workflow": {"inline": "{}"}}, "InvalidSpec", ["spec.workflow is a graph without nodes"]),
        ({"task": "Inpaint"}, "InvalidSpec", ["spec.inputs.video is not set", "spec.inputs.mask is not set"]),
    ],
)
def test_a_wrong_job_is_refused_with_field_value_and_what_is_allowed(
    spec: dict[str, Any], reason: str, told: list[str]
) -> None:
    found = verdict(**spec)
    assert isinstance(found, Refused), found
    assert found.reason == reason
    for words in told:
        assert words in found.message


def test_every_fault_is_named_at_once_and_a_real_fault_outweighs_a_missing_feature() -> None:
    found = verdict(queue="gold", parameters={"frames": 80, "width": 2048})
    assert isinstance(found, Refused)
    assert found.reason == "InvalidSpec"
    for field in ("spec.queue", "spec.parameters.frames", "spec.parameters.width"):
        assert field in found.message


def test_a_server_name_waits_for_its_server_and_then_takes_its_model() -> None:
    spec = {"model": None, "modelServerName": "vace"}
    waiting = verdict(**spec)
    assert isinstance(waiting, Undecided)
    assert "vace" in waiting.message
    found = verdict({"vace": VACE}, **spec)
    assert isinstance(found, Accepted)
    assert found.model == VACE
    wrong = verdict({"vace": I2V}, **spec)
    assert isinstance(wrong, Refused)
    assert I2V in wrong.message


def test_a_message_is_bounded_however_long_the_value() -> None:
    found = verdict(parameters={"frames": "9" * 5000})
    assert isinstance(found, Refused)
    assert len(found.message) <= MESSAGE_LIMIT
