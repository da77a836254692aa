"""Tokens for listening: one pod, one attempt, one minute."""

from __future__ import annotations

import dataclasses

import pytest

from kinora.engine.livetoken import LIFETIME_SECONDS, LONGEST_SECONDS, SCHEME, BadToken, Listening, sign, verify

KEY, OTHER, NOW = b"k" * 32, b"o" * 32, 1_800_000_000.0
WHAT = Listening("pod-uid", "job-uid", 2)


def test_a_token_opens_what_it_was_made_for_until_it_expires() -> None:
    token = sign(KEY, WHAT, NOW)
    for later in (0, 1, LIFETIME_SECONDS):
        verify([OTHER, KEY], token, WHAT, NOW + later)
    with pytest.raises(BadToken, match="expired"):
        verify([KEY], token, WHAT, NOW + LIFETIME_SECONDS + 1)


@pytest.mark.parametrize("change", [{"pod_uid": "another"}, {"job_uid": "another"}, {"attempt": 1}, {"attempt": 22}])
def test_it_opens_nothing_else(change: dict[str, object]) -> None:
    with pytest.raises(BadToken, match="something else"):
        verify([KEY], sign(KEY, WHAT, NOW), dataclasses.replace(WHAT, **change), NOW)  # type: ignore[arg-type]


def test_another_key_signs_nothing() -> None:
    with pytest.raises(BadToken, match="not signed by the key"):
        verify([KEY], sign(OTHER, WHAT, NOW), WHAT, NOW)
    with pytest.raises(BadToken):
        verify([], sign(KEY, WHAT, NOW), WHAT, NOW)


def test_its_time_cannot_be_changed_and_is_never_long() -> None:
    token = sign(KEY, WHAT, NOW)
    longer = token.replace(str(int(NOW) + LIFETIME_SECONDS), str(int(NOW) + LIFETIME_SECONDS + 60))
    with pytest.raises(BadToken, match="not signed"):
        verify([KEY], longer, WHAT, NOW)
    with pytest.raises(BadToken, match="begins later"):
        verify([KEY], sign(KEY, WHAT, NOW + LONGEST_SECONDS), WHAT, NOW)


@pytest.mark.parametrize(
    "header", ["", "Bearer x", SCHEME, f"{SCHEME} expires=1", f"{SCHEME} expires=-1,signature={'0' * 64}",
               f"{SCHEME} expires={'9' * 40},signature={'0' * 64}", f"{SCHEME} expires=1,signature={'g' * 64}"],
)  # fmt: skip
def test_what_is_no_token_is_none(header: str) -> None:
    with pytest.raises(BadToken, match="there is no token"):
        verify([KEY], header, WHAT, NOW)
