"""differs: whether a merge patch would change what is stored; nothing that is already true is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.controller.executor import differs


@pytest.mark.parametrize(
    ("current", "patch", "changes"),
    [
        ({"a": 1}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": 1}, {"a": 2}, True),
        ({}, {"a": 1}, True),
        ({"a": 1}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, False),
        ({"a": {"b": 1}}, {"a": {"b": None}}, True),
        ({"a": {}}, {"a": {"b": None}}, False),
        ({"a": 1}, {"a": {"b": 1}}, True),
        ({}, {"a": {}}, True),
        ({"a": {"b": 1}}, {"a": {}}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, False),
        ({"a": [1, 2]}, {"a": [1]}, True),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": 5}, {"a": 5.0}, False),
        ({"a": "True"}, {"a": True}, True),
        ({}, {}, False),
    ],
)
def test_differs(current: Any, patch: Any, changes: bool) -> None:
    assert differs(current, patch) is changes


def merged(current: Any, patch: Any) -> Any:
    """RFC 7386, written out."""
    if not isinstance(patch, dict):
        return patch
    result = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


LEAVES = st.one_of(st.integers(0, 3), st.sampled_from(["x", "y"]), st.lists(st.integers(0, 2), max_size=2))
NAMES = st.sampled_from(["a", "b"])
OBJECTS = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=2), max_leaves=6)
PATCHES = st.recursive(st.none() | LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=2), max_leaves=6)


@settings(deadline=None)
@given(st.dictionaries(NAMES, OBJECTS), st.dictionaries(NAMES, PATCHES))
def test_differs_says_what_the_merge_says(current: dict[str, Any], patch: dict[str, Any]) -> None:
    assert differs(current, patch) is (merged(current, patch) != current)


@settings(deadline=None)
@given(st.dictionaries(NAMES, OBJECTS), st.dictionaries(NAMES, PATCHES))
def test_the_second_time_nothing_differs(current: dict[str, Any], patch: dict[str, Any]) -> None:
    assert not differs(merged(current, patch), patch)
