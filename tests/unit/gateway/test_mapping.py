"""What the hosted dialects share: bodies and their faults, sizes, sources, and words of a VideoJob in a request's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, StringConstraints

from kinora.catalogue.load import Catalogue, load_catalogue
from kinora.gateway.errors import InvalidInput, ModelNotFound
from kinora.gateway.mapping import (
    Body,
    compact,
    iso_milliseconds,
    local_model,
    parse,
    references,
    renamed,
    retold,
    settle,
    size_of,
    unknown_notes,
    url,
)


class Asked(Body):
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=10)]
    kind: Literal["depth", "pose"] = "depth"
    steps: int = Field(30, ge=1, le=40)
    scale: float | None = Field(None, gt=0, le=2)
    links: list[str] = Field([], max_length=2)
    title: str = Field("", alias="4_title")


def refused(**given: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse(Asked, given)
    return caught.value


def test_a_null_counts_as_not_given() -> None:
    assert parse(Asked, {"prompt": "a", "steps": None, "links": None}) == Asked(prompt="a")


def test_a_fault_tells_field_value_and_what_is_allowed() -> None:
    assert refused().message == "prompt is not set; allowed: text of 1 to 10 characters"
    assert refused().field == "prompt"
    assert refused(prompt="a", steps=41).message == "steps is 41; allowed: a whole number, 1 to 40"
    assert refused(prompt="a", kind="face").message == "kind is 'face'; allowed: depth, pose"
    assert refused(prompt="a", scale=float("nan")).message == "scale is nan; allowed: a number, above 0 to 2"
    assert refused(prompt="a", links="x").message == "links is 'x'; allowed: a list of at most 2, each text"
    assert refused(prompt="a", links=["x", 2]).message == "links[1] is 2; allowed: a list of at most 2, each text"
    assert refused(prompt="a", **{"4_title": 7}).field == "4_title"


def test_every_fault_is_told_at_once_and_a_long_value_is_cut() -> None:
    told = refused(prompt="a" * 500, steps=0).message
    assert "prompt is 'aaa" in told
    assert "steps is 0" in told
    assert len(told) < 250


@pytest.mark.parametrize("body", [[], "text", 1, None, True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidInput, match="no JSON object"):
        parse(Asked, body)


def test_a_text_that_is_no_unicode_is_refused() -> None:
    assert refused(prompt="\ud800").field == "prompt"


def test_unknown_keys_are_told_not_refused() -> None:
    assert unknown_notes(parse(Asked, {"prompt": "a", "safety": True})) == (
        "safety is no parameter of this model and was ignored",
    )


def test_sizes() -> None:
    assert size_of("832*480", "*") == (832, 480)
    assert size_of("540x960 (9:16)") == (540, 960)
    for text in ("832x", "x480", "832*480", "832x480px", "", "-832x480"):
        with pytest.raises(ValueError, match="is no size"):
            size_of(text)


async def test_every_text_that_names_a_file_is_settled_and_nothing_else() -> None:
    async def source(text: str) -> Mapping[str, Any]:
        return {"upload": text.rpartition("/")[2]}

    spec = {
        "prompt": "https://example.com/not-a-source",
        "inputs": {
            "video": url("https://h/v"),
            "mask": {"source": url("https://h/m"), "mode": "Fixed"},
            "references": references(["https://h/1", "https://h/2"]),
            "firstClip": {"artifact": {"videoJobName": "gw-1", "index": 0}},
        },
    }
    assert (await settle(spec, source)) == {
        "prompt": "https://example.com/not-a-source",
        "inputs": {
            "video": {"upload": "v"},
            "mask": {"source": {"upload": "m"}, "mode": "Fixed"},
            "references": [{"source": {"upload": "1"}}, {"source": {"upload": "2"}}],
            "firstClip": {"artifact": {"videoJobName": "gw-1", "index": 0}},
        },
    }
    assert await settle({"prompt": "a"}, source) == {"prompt": "a"}


def test_an_administrators_mapping_of_the_hosted_name_goes_first() -> None:
    packaged: Catalogue = load_catalogue()
    assert local_model("wan-2.1-14b-vace", "wan2.1-vace-14b", packaged) == "wan2.1-vace-14b"
    mapped = packaged.with_aliases({"wan-2.1-14b-vace": "wan2.1-vace-1.3b"})
    assert local_model("wan-2.1-14b-vace", "wan2.1-vace-14b", mapped) == "wan-2.1-14b-vace"


NAMES = {
    "spec.inputs.video": "video",
    "spec.inputs.references": "images",
    "spec.parameters.steps": "num_inference_steps",
    "spec.output": "size",
    "spec.output.width": "width",
}


def test_what_is_said_of_a_videojob_is_said_of_the_request() -> None:
    told = retold(
        "spec.inputs.references[1].source.url is x; spec.parameters.steps is 50; spec.output.width is 3", NAMES
    )
    assert told == "images[1] is x; num_inference_steps is 50; width is 3"
    assert retold("spec.inputs.videos and myspec.output stay", NAMES) == "spec.inputs.videos and myspec.output stay"


def test_a_verdict_keeps_its_kind_and_names_the_requests_field() -> None:
    found = renamed(ModelNotFound("spec.inputs.video.url", "spec.inputs.video.url is refused", attempted=True), NAMES)
    assert (type(found), found.field, found.message, found.attempted) == (
        ModelNotFound,
        "video",
        "video is refused",
        True,
    )
    assert renamed(InvalidInput("spec.priority", "spec.priority is x"), NAMES).field == "priority"
    assert renamed(InvalidInput("", "broken"), NAMES).field == ""


def test_what_is_not_asked_for_is_not_in_the_spec_and_whole_numbers_are_whole() -> None:
    assert compact({"a": None, "b": {}, "c": 5.0, "d": {"e": 3.5}, "f": ""}) == {"c": 5, "d": {"e": 3.5}, "f": ""}


def test_times_have_milliseconds() -> None:
    assert iso_milliseconds(datetime(2023, 4, 1, 12, 34, 56, 789999, tzinfo=UTC)) == "2023-04-01T12:34:56.789Z"
    assert iso_milliseconds(datetime(2023, 4, 1, tzinfo=UTC)) == "2023-04-01T00:00:00.000Z"
