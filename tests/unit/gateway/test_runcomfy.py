"""RunComfy's dialect: its document's request and schema, key by key, and the answers with their four states."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.gateway.errors import InvalidInput, NotFound
from kinora.gateway.jobs import Job, State
from kinora.gateway.mapping import parse, size_of
from kinora.gateway.runcomfy import answer
from kinora.gateway.runcomfy.errors import fault
from kinora.gateway.runcomfy.places import Places
from kinora.gateway.runcomfy.request import LOCAL, SAMPLE, Inference, draft
from kinora.gateway.tenants import Tenant

from .hosted import ID, SUBMITTED, artifact, document, job, printed_bodies, validated

LINK = "https://media.example.com/a.png"
PROPERTIES = Inference.model_json_schema(by_alias=True)["properties"]
URLS = answer.Urls(request_id=ID, status_url="s", result_url="r", cancel_url="c")


def made(**given: Any) -> dict[str, Any]:
    return draft(parse(Inference, {"56_text": "a fox", "118_image": LINK, **given}), LOCAL).spec


def schemas() -> list[dict[str, Any]]:
    """The input's and the output's schema, as printed."""
    found, text = [], document("002")
    for match in re.finditer(r"^\{$", text, re.M):
        found.append(json.JSONDecoder().raw_decode(text[match.start() :])[0])
    return found


def test_the_printed_call_is_a_valid_videojob_with_the_documents_defaults() -> None:
    for body in printed_bodies("002"):
        asked = parse(Inference, body)
        assert asked.image == SAMPLE
        spec = draft(asked, LOCAL).spec
        spec["inputs"] = {"references": [{"source": {"upload": "sample.png"}}]}
        resolved = validated(spec)
        assert (resolved.width, resolved.height, resolved.frames, resolved.fps) == (1024, 576, 81, 16)
        assert (resolved.seed, resolved.steps, resolved.guidance, resolved.shift) == (96860978, 12, 3.5, 8)


def test_the_schema_is_the_documents_key_by_key() -> None:
    printed = schemas()[0]
    ours = Inference.model_json_schema(by_alias=True)
    assert ours["required"] == printed["required"]
    assert list(PROPERTIES) == list(printed["properties"])
    for key, schema in printed["properties"].items():
        for word in ("title", "enum", "minimum"):
            if word in schema:
                assert PROPERTIES[key][word] == schema[word], (key, word)
        if key == "98_seed":
            continue  # without bounds in the document; a VideoJob holds 53 bits
        if "maximum" in schema:
            assert PROPERTIES[key]["maximum"] == schema["maximum"], key
        if key not in printed["required"]:
            assert PROPERTIES[key]["default"] == schema["default"], key
        assert PROPERTIES[key]["type"] == {"float": "number"}.get(schema["type"], schema["type"]), key


def test_the_output_is_the_documents() -> None:
    printed = schemas()[1]["output"]["properties"]
    assert set(answer.Output.model_fields) == set(printed)


@pytest.mark.parametrize("resolution", PROPERTIES["4_valuex3_value"]["enum"])
def test_every_resolution_is_delivered_exactly(resolution: str) -> None:
    resolved = validated(made(**{"4_valuex3_value": resolution}))
    assert (resolved.output_width, resolved.output_height) == size_of(resolution)
    assert (resolved.width % 16, resolved.height % 16) == (0, 0)
    assert not resolved.scaled  # rounded up and cropped, not stretched


def test_the_frame_rate_does_not_change_the_number_of_frames() -> None:
    resolved = validated(made(**{"25_value": 141, "38_value": 24}))
    assert (resolved.frames, resolved.fps, resolved.delivered_frames) == (141, 24, 141)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"56_text": None}, "56_text"),
        ({"56_text": " "}, "56_text"),
        ({"118_image": None}, "118_image"),
        ({"118_image": ""}, "118_image"),
        ({"4_valuex3_value": "1024x576"}, "4_valuex3_value"),
        ({"25_value": 80}, "25_value"),
        ({"38_value": 11}, "38_value"),
        ({"38_value": 25}, "38_value"),
        ({"98_seed": -1}, "98_seed"),
        ({"98_seed": 2**53}, "98_seed"),
        ({"47_value": 1}, "47_value"),
        ({"108_cfg": 10.5}, "108_cfg"),
        ({"41_value": 0}, "41_value"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        made(**given)
    assert caught.value.field == field
    assert "; allowed: " in caught.value.message


_KEYS = {
    "4_valuex3_value": st.sampled_from(PROPERTIES["4_valuex3_value"]["enum"]),
    "25_value": st.sampled_from([81, 141]),
    "38_value": st.integers(12, 24),
    "98_seed": st.integers(0, 2**53 - 1),
    "47_value": st.integers(2, 40),
    "108_cfg": st.floats(0, 10),
    "41_value": st.floats(1, 30),
}


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60).filter(str.strip), st.fixed_dictionaries({}, optional=_KEYS))
def test_every_valid_request_is_a_valid_videojob_from_which_it_can_be_read_back(
    prompt: str, given_: dict[str, Any]
) -> None:
    spec = made(**{"56_text": prompt, **given_})
    validated(spec)
    parameters, output = spec["parameters"], spec["output"]
    back = {
        "56_text": spec["prompt"],
        "118_image": spec["inputs"]["references"][0]["source"]["url"],
        "4_valuex3_value": f"{output['width']}x{output['height']}",
        "25_value": parameters["frames"],
        "38_value": parameters["fps"],
        "98_seed": parameters["seed"],
        "47_value": parameters["steps"],
        "108_cfg": parameters["guidance"],
        "41_value": parameters["shift"],
    }
    for key, value in {"56_text": prompt, "118_image": LINK, **given_}.items():
        assert back[key] == (value.partition(" ")[0] if key == "4_valuex3_value" else value)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.QUEUED, "in_queue"),
        (State.RUNNING, "in_progress"),
        (State.SUCCEEDED, "completed"),
        (State.FAILED, "cancelled"),
        (State.CANCELLED, "cancelled"),
    ],
)
def test_a_state_is_one_of_the_four_documented_words(state: State, status: str) -> None:
    told = answer.status(job(state, message="the engine gave up"), URLS, 3)
    assert (told.status, told.request_id, told.cancel_url) == (status, ID, "c")
    assert told.queue_position == (3 if state is State.QUEUED else None)
    assert told.error == ("the engine gave up" if state is State.FAILED else None)


def test_a_result_before_the_end_is_the_status() -> None:
    told = answer.result(job(State.RUNNING), URLS, ())
    assert (told.status, told.output, told.finished_at) == ("in_progress", None, None)


def test_a_result_has_the_video_and_both_times() -> None:
    told = answer.result(job(State.SUCCEEDED), URLS, ["https://h/0"])
    assert told.output == answer.Output(video="https://h/0")
    assert (told.created_at, told.finished_at) == ("2026-11-21T12:30:15.123Z", "2026-11-21T12:31:20.123Z")


def test_several_outputs_are_told_by_kind() -> None:
    done = job(
        State.SUCCEEDED,
        artifacts=(artifact(0), artifact(1, content_type="image/png"), artifact(2)),
    )
    found = answer.result(done, URLS, ["v0", "i1", "v2"]).output
    assert found == answer.Output(video="v0", videos=["v0", "v2"], image="i1")


def test_a_failure_is_never_completed_and_has_no_output() -> None:
    told = answer.result(job(State.FAILED, reason="NodeError", message="spec.inputs.references[0] is broken"), URLS, ())
    assert (told.status, told.output, told.error) == ("cancelled", None, "118_image is broken")
    assert answer.result(job(State.CANCELLED), URLS, ()).error is None


def test_only_what_is_queued_can_be_cancelled() -> None:
    assert answer.cancelled(job()).model_dump(exclude_none=True) == {
        "request_id": ID,
        "status": "cancelled",
        "outcome": "cancelled",
    }
    told = answer.not_cancellable(job(State.RUNNING))
    assert (told.status, told.outcome) == ("in_progress", "not_cancellable")
    assert "in_queue" in (told.message or "")


def test_a_place_in_the_queue_is_the_schedulers_else_among_the_tenants_own_counted_once_a_second() -> None:
    now, counts = [100.0], [0]
    queue = [job(id=f"id-{index}", submit_time=SUBMITTED + timedelta(seconds=index)) for index in (2, 0, 1)] + [
        job(State.RUNNING, id="running", submit_time=SUBMITTED - timedelta(seconds=9))
    ]

    def jobs(_tenant: Tenant) -> list[Job]:
        counts[0] += 1
        return queue

    places, tenant = Places(jobs, lambda: now[0]), Tenant("a", "ns")
    assert [places.before(tenant, one) for one in queue] == [2, 0, 1, None]
    assert places.before(tenant, job(id="id-2", position=1)) == 0
    assert counts == [1]
    queue.pop(1)
    assert places.before(tenant, queue[0]) == 2
    now[0] += 1.5
    assert places.before(tenant, queue[0]) == 1
    queue.append(job(id="new", submit_time=SUBMITTED + timedelta(seconds=60)))
    assert places.before(tenant, queue[-1]) == 2


def test_an_error_names_the_numbered_key() -> None:
    told = fault(InvalidInput("spec.parameters.steps", "spec.parameters.steps is 99; allowed: 2 to 40"))
    assert told.model_dump() == {"error": "47_value is 99; allowed: 2 to 40", "field": "47_value"}
    assert fault(NotFound("no job")).model_dump() == {"error": "no job", "field": None}
