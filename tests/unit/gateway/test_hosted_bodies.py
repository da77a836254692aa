"""Whatever JSON comes, a hosted API's request is a VideoJob's spec that Kinora takes, or is refused with a field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.gateway.errors import InvalidInput
from kinora.gateway.mapping import Body, Draft, parse
from kinora.gateway.openai.request import CreateVideo, EditVideo, ExtendVideo, RemixVideo, create_draft
from kinora.gateway.runcomfy import request as runcomfy
from kinora.gateway.wavespeed import listing, uploads
from kinora.gateway.wavespeed import request as wavespeed

from .hosted import validated

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**60, 2**70),
    st.floats(),
    st.text(alphabet=st.characters(exclude_categories=())),
    st.sampled_from(["https://h/a.png", "832*480", "832x480", "81", "depth", "4", "data:,", "file:///etc/passwd"]),
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner), max_leaves=6
)


def _bodies(model: type[Body], valid: dict[str, Any]) -> st.SearchStrategy[object]:
    """Objects with the model's own keys above all, some of them as they should be."""
    names = list(model.model_json_schema(by_alias=True)["properties"])
    some = st.dictionaries(st.sampled_from(names) | st.text(), _values, max_size=5)
    return st.one_of(_values, some, some.map(lambda given_: {**valid, **given_}))


def _try(model: type[Body], body: object) -> Body | None:
    try:
        return parse(model, body)
    except InvalidInput as refused:
        _is_clear(refused)
    return None


def _is_clear(refused: InvalidInput) -> None:
    assert "; allowed: " in refused.message
    assert len(refused.message) < 2000


def _drafts() -> list[Any]:
    return [
        (wavespeed.Prediction, {"prompt": "a"}, lambda asked: wavespeed.draft(asked, wavespeed.LOCAL)),
        (runcomfy.Inference, {"56_text": "a", "118_image": "b"}, lambda asked: runcomfy.draft(asked, runcomfy.LOCAL)),
        (CreateVideo, {"prompt": "a"}, lambda asked: create_draft(asked, "wan2.1-vace-14b", None)),
    ]


@pytest.mark.parametrize(("model", "valid", "draft"), _drafts())
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_body_of_a_submit_is_refused_or_is_a_job(model: type[Body], valid: Any, draft: Any, data: Any) -> None:
    asked = _try(model, data.draw(_bodies(model, valid)))
    if asked is None:
        return
    try:
        made: Draft = draft(asked)
    except InvalidInput as refused:
        _is_clear(refused)
        return
    if not made.spec.get("inputs"):  # what is no URL is the submit's to refuse
        _validated_or_refused(made.spec)


def _validated_or_refused(spec: dict[str, Any]) -> None:
    """Ranges that depend on the model are its own; the shape is always right."""
    from kinora.api.findings import findings
    from kinora.api.videojob import VideoJobSpec

    found = [one.field for one in findings(VideoJobSpec, spec, "spec")]
    assert set(found) <= {"spec.output.width", "spec.output.height", "spec.parameters.frames"}
    if not found and spec["task"] == "TextToVideo" and spec["parameters"].get("durationSeconds") == 5:
        validated(spec)


@pytest.mark.parametrize(
    "model", [EditVideo, ExtendVideo, RemixVideo, listing.Query, listing.Deletion, uploads.Request]
)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_other_body_is_refused_or_read(model: type[Body], data: Any) -> None:
    _try(model, data.draw(_bodies(model, {})))
