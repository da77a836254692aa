"""`kinora keys new`: the key once, the entry without it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from kinora.cli.main import main
from kinora.gateway.tenants import KeyRing, parse_entry


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["keys", "new", *arguments])
    return done.exit_code, done.stdout.strip(), done.stderr


def test_the_printed_entry_is_opened_by_the_printed_key_and_does_not_hold_it() -> None:
    code, key, advice = run(
        "studio", "-n", "films", "--queue", "batch", "--dialect", "openai", "--limit", "concurrent=3", "--days", "2"
    )
    assert code == 0
    assert key.startswith("kn-")
    assert len(key) > 40
    assert key not in advice
    patch = json.loads(advice.split(" -p ")[1].strip().strip("'"))
    text = patch["stringData"]["studio"]
    ring = KeyRing.of([("studio", parse_entry("studio", text))])
    now = datetime.now(UTC)
    found = ring.find(key, now)
    assert found is not None
    assert (found.namespace, found.queue, found.dialects, found.limits.concurrent) == ("films", "batch", {"openai"}, 3)
    assert ring.find(key, now + timedelta(days=3)) is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a b", "-n", "films"), "NAME"),
        (("a", "-n", "Films"), "namespace"),
        (("a", "-n", "films", "--dialect", "smtp"), "smtp"),
        (("a", "-n", "films", "--limit", "jobs=3"), "concurrent"),
        (("a", "-n", "films", "--limit", "concurrent=0"), "concurrent"),
    ],
)
def test_a_wrong_wish_is_told(arguments: tuple[str, ...], told: str) -> None:
    code, key, advice = run(*arguments)
    assert code == 1
    assert key == ""
    assert told in advice
