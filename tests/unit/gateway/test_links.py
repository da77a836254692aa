"""Links that open without a key: what they say, whom they are for, how long, and that nobody can make or change one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.links import Grant, Kind, LinkExpired, LinkRefused, is_ours, read, token

KEY, OLD, STRANGER = bytes(range(32)), bytes(32), b"x" * 32
NOW = 1_700_000_000.0
GRANT = Grant(Kind.ARTIFACT, "tenant ü", "films", ("0b7c8a52", 0), int(NOW) + 100)


@given(
    st.sampled_from(Kind),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=100),
    st.text(max_size=63, alphabet="abc-"),
    st.lists(
        st.one_of(st.integers(0, 2**53), st.text(st.characters(exclude_categories=("Cs",)), max_size=30)), max_size=4
    ),
    st.booleans(),
)
def test_a_token_says_what_was_granted(kind: Kind, tenant: str, namespace: str, what: list[Any], account: bool) -> None:
    grant = Grant(kind, tenant, namespace, tuple(what), int(NOW) + 1, account=account)
    assert read([KEY], token(KEY, grant), kind, NOW) == grant


def test_it_ends_when_it_says_and_its_owner_may_still_ask_what_it_was() -> None:
    text = token(KEY, GRANT)
    assert read([KEY], text, Kind.ARTIFACT, GRANT.expires - 0.1) == GRANT
    with pytest.raises(LinkExpired):
        read([KEY], text, Kind.ARTIFACT, GRANT.expires)
    assert read([KEY], text, Kind.ARTIFACT, GRANT.expires + 1e6, expired_too=True) == GRANT


def test_a_link_of_one_kind_opens_no_other() -> None:
    for kind in set(Kind) - {Kind.ARTIFACT}:
        with pytest.raises(LinkRefused, match="something else"):
            read([KEY], token(KEY, GRANT), kind, NOW)


def test_during_a_change_of_keys_both_are_good_and_afterwards_the_new_one_alone() -> None:
    old = token(OLD, GRANT)
    assert read([KEY, OLD], old, Kind.ARTIFACT, NOW) == GRANT
    assert is_ours([KEY, OLD], old)
    for keys in ([KEY], [STRANGER], []):
        assert not is_ours(keys, old)
        with pytest.raises(LinkRefused, match="signature"):
            read(keys, old, Kind.ARTIFACT, NOW)


FIELDS: dict[str, Any] = {
    "v": 2,
    "k": "upload",
    "t": "other",
    "n": "other",
    "w": ["0b7c8a53", 0],
    "e": int(NOW) + 10**6,
    "a": 1,
}


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_can_be_changed_without_the_key(field: str) -> None:
    payload, _, mac = token(KEY, GRANT).partition(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=="))
    said[field] = FIELDS[field]
    changed = base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")
    with pytest.raises(LinkRefused, match="signature"):
        read([KEY], f"{changed}.{mac}", Kind.ARTIFACT, NOW)


@given(st.data())
def test_no_character_can_be_changed(data: st.DataObject) -> None:
    text = token(KEY, GRANT)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_."))
    changed = text[:place] + other + text[place + 1 :]
    if changed != text:
        with pytest.raises(LinkRefused):
            read([KEY], changed, Kind.ARTIFACT, NOW)


@given(st.text(max_size=300))
def test_any_other_text_is_refused_and_never_ours(text: str) -> None:
    assert not is_ours([KEY], text)
    with pytest.raises(LinkRefused):
        read([KEY], text, Kind.ARTIFACT, NOW)


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"{", b"\xff", b'{"v":1}', b'{"v":9,"k":"artifact"}', b"7"])
def test_what_is_signed_and_says_nothing_is_refused_all_the_same(payload: bytes) -> None:
    import hashlib
    import hmac

    text = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    mac = hmac.new(KEY, b"kinora-link-1." + text.encode(), hashlib.sha256).digest()
    signed = f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert is_ours([KEY], signed)
    with pytest.raises(LinkRefused):
        read([KEY], signed, Kind.ARTIFACT, NOW)
