"""What is remembered of undelivered webhooks: little, and never an older state in place of a newer one."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kinora.gateway.webhooks.backlog import Backlog, shard_of, trim
from kinora.gateway.webhooks.decide import Wait, decide
from kinora.gateway.webhooks.lanes import Place
from unit.gateway.webhooks.builders import ARTIFACT, NOW, UID, Object, job


def at(version: int, **changes: object) -> Object:
    found = job()
    found["metadata"].update({"resourceVersion": str(version), **changes})
    return found


def test_little_is_kept_of_a_job_and_enough_to_decide_by() -> None:
    webhook = {"state": "Pending", "attempts": 2, "nextAttemptTime": "2026-05-01T13:00:00.000Z"}
    whole = job(webhook=webhook, artifacts=[ARTIFACT] * 8, message="m" * 1024)
    kept = trim(whole)
    assert len(json.dumps(kept)) < 600
    assert "plan" not in json.dumps(kept)
    assert decide(kept, NOW) == decide(whole, NOW)
    assert isinstance(decide(kept, NOW), Wait)


def test_a_job_waits_in_the_lane_of_its_host() -> None:
    backlog = Backlog(8)
    key = backlog.apply(job())
    assert key == "films/lighthouse"
    entry = backlog.get("films/lighthouse")
    assert entry is not None
    assert entry.place == Place("films", "receiver.example")
    odd = job()
    odd["spec"]["webhook"]["url"] = "https://user@127.1/"
    assert (backlog.apply({**odd, "metadata": {**odd["metadata"], "resourceVersion": "9"}})) == key
    entry = backlog.get(key)
    assert entry is not None
    assert entry.place == Place("films", ""), "what cannot be sent to takes no receiver's place"


def test_an_echo_changes_nothing() -> None:
    backlog = Backlog(8)
    assert backlog.apply(at(7))
    assert backlog.apply(at(7)) is None
    assert backlog.apply(at(6)) is None
    assert backlog.apply(at(8))
    backlog.remove(at(9))
    assert backlog.get("films/lighthouse") is None
    assert backlog.apply(at(9)) is None, "settled already"
    assert backlog.apply(at(3, uid="another")), "a new job of the same name"


def test_a_list_replaces_what_is_not_newer_than_it() -> None:
    backlog = Backlog(8)
    for name, version in (("old", 5), ("new", 12)):
        backlog.apply(at(version, name=name, uid=name))
    backlog.apply(at(5, name="other", uid="other", namespace="elsewhere"))
    assert backlog.replace([at(10, name="listed", uid="listed")], "films", 10) == ["films/listed"]
    assert [backlog.get(f"films/{name}") is not None for name in ("old", "new", "listed")] == [False, True, True]
    assert backlog.get("elsewhere/other") is not None, "the list was of one namespace"


def test_a_shard_has_its_keys() -> None:
    backlog = Backlog(4)
    for number in range(40):
        backlog.apply(at(1, name=f"j{number}", uid=f"u{number}"))
    keys = [key for shard in range(4) for key in backlog.of(shard)]
    assert len(keys) == len(set(keys)) == 40
    assert backlog.count(range(4)) == 40
    assert sum(backlog.count([shard]) for shard in range(4)) == 40


@given(st.integers(1, 64))
def test_a_job_is_in_one_shard_for_whoever_asks(count: int) -> None:
    assert shard_of(UID, count) == shard_of(UID, count)
    assert 0 <= shard_of(UID, count) < count


def test_shards_are_about_even() -> None:
    found = Counter(shard_of(f"uid-{number}", 8) for number in range(8000))
    assert all(800 < found[shard] < 1200 for shard in range(8))
