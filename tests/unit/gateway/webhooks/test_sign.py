"""Signatures of the Standard Webhooks specification, and what is a key."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.webhooks.decide import Unsigned
from kinora.gateway.webhooks.sign import headers, keys_of
from unit.gateway.webhooks.builders import KEY

# The specification's own example (its reference implementations are tested with it).
EXAMPLE_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
EXAMPLE_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def text(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def secret(labels: dict[str, str] | None = None, **entries: str) -> dict[str, Any]:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in entries.items()}
    labels = {"kinora.dev/webhook-secret": "true"} if labels is None else labels
    return {"metadata": {"name": "hooks", "labels": labels}, "data": data}


def test_the_example_of_the_specification() -> None:
    keys = keys_of(secret(key=EXAMPLE_KEY))
    assert isinstance(keys, tuple)
    assert headers(*EXAMPLE, keys) == {
        "webhook-id": EXAMPLE[0],
        "webhook-timestamp": "1614265330",
        "webhook-signature": EXAMPLE_SIGNATURE,
    }


def test_while_keys_are_replaced_each_of_them_signs() -> None:
    keys = keys_of(secret(new=EXAMPLE_KEY, old=text(KEY)))
    assert isinstance(keys, tuple)
    first, second = headers(*EXAMPLE, keys)["webhook-signature"].split(" ")
    assert first == EXAMPLE_SIGNATURE
    assert second.startswith("v1,")
    assert second != first


def test_without_a_key_there_is_no_signature() -> None:
    assert set(headers(*EXAMPLE, ())) == {"webhook-id", "webhook-timestamp"}


def test_a_line_end_after_the_key_is_no_part_of_it() -> None:
    assert keys_of(secret(key=f"{EXAMPLE_KEY}\n")) == keys_of(secret(key=EXAMPLE_KEY))


@pytest.mark.parametrize("labels", [{}, {"kinora.dev/webhook-secret": "false"}, {"webhook-secret": "true"}])
def test_a_secret_that_nobody_has_labelled_for_it_is_not_used(labels: dict[str, str]) -> None:
    refused = keys_of(secret(labels, key=EXAMPLE_KEY))
    assert isinstance(refused, Unsigned)
    assert refused.reason == "SecretNotLabelled"
    assert "kinora.dev/webhook-secret=true" in refused.message


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"key": ""},
        {"key": "hunter2"},
        {"key": "whsec_"},
        {"key": "whsec_not base64!"},
        {"key": text(bytes(23))},
        {"key": text(bytes(65))},
        {"key": EXAMPLE_KEY.removeprefix("whsec_")},
        {"key": "whsec_schlüssel"},
        {"key": EXAMPLE_KEY, "other": "hunter2"},
        {f"k{number}": EXAMPLE_KEY for number in range(5)},
    ],
)
def test_what_is_no_key_is_told_without_being_shown(entries: dict[str, str]) -> None:
    refused = keys_of(secret(**entries))
    assert isinstance(refused, Unsigned)
    assert refused.reason == "SecretInvalid"
    assert "allowed: " in refused.message
    for value in entries.values():
        assert not value or value not in refused.message.replace("whsec_ and base64", "")


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200))
def test_any_key_and_any_body(key: bytes, body: bytes) -> None:
    keys = keys_of(secret(key=text(key)))
    assert keys == (key,)
    found = headers("msg_1", 1, body, (key,))
    assert found["webhook-signature"] != headers("msg_2", 1, body, (key,))["webhook-signature"]
    assert found["webhook-signature"] != headers("msg_1", 2, body, (key,))["webhook-signature"]
    assert found["webhook-signature"] != headers("msg_1", 1, body + b" ", (key,))["webhook-signature"]


@given(st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=40), max_size=5))
def test_whatever_a_secret_holds(data: dict[str, str | None]) -> None:
    found = keys_of({"metadata": {"name": "s", "labels": {"kinora.dev/webhook-secret": "true"}}, "data": data})
    assert isinstance(found, tuple | Unsigned)
