"""`kinora artifacts gc`: its options, and what serves a claim's objects in the pod."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from kinora.cli.artifacts import GcError, seconds_of
from kinora.cli.artifacts_pod import application
from kinora.cli.main import main

UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
KEY = f"films/cup/{UID}/1/0-cup.mp4"
TOKEN = {"X-Kinora-Token": "open sesame"}
HASH = hashlib.sha256(b"open sesame").hexdigest()


def test_ages() -> None:
    assert [seconds_of(age) for age in ("3600s", "90m", "1h", "7d")] == [3600, 5400, 3600, 604800]
    for age, words in (("59m", "1h or more"), ("0d", "1h or more"), ("7", "allowed: a number"), ("-1d", "allowed")):
        with pytest.raises(GcError, match=words):
            seconds_of(age)


def test_an_age_that_is_too_short_is_refused_before_anything_is_asked() -> None:
    told = CliRunner().invoke(main, ["artifacts", "gc", "--older-than", "5m", "--delete"])
    assert told.exit_code == 1
    assert "--older-than is 5m; allowed: 1h or more" in told.output


async def test_the_pod_lists_and_removes_for_whoever_has_its_token_alone(tmp_path: Path) -> None:
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_bytes(b"film")
    os.utime(tmp_path / KEY, (time.time() - 7200,) * 2)
    async with TestClient(TestServer(application(tmp_path, HASH))) as client:
        assert (await client.get("/")).status == 200
        for headers in ({}, {"X-Kinora-Token": HASH}, {"X-Kinora-Token": ""}):
            assert (await client.get("/objects", headers=headers)).status == 403
            assert (await client.post("/remove", headers=headers, data=b"")).status == 403
        lines = (await (await client.get("/objects", headers=TOKEN)).read()).splitlines()
        assert [json.loads(line)[:2] for line in lines] == [[KEY, 4]]
        os.utime(tmp_path / KEY)
        stale = await client.post("/remove", headers=TOKEN, data=lines[0])
        assert (stale.status, await stale.read()) == (200, b""), "it was used since it was listed"
        for wrong in (b"not JSON", b'["../x", 1, 9e9]', b'["films/x"]', b"{}"):
            assert (await client.post("/remove", headers=TOKEN, data=wrong)).status == 400, wrong
        (line,) = (await (await client.get("/objects", headers=TOKEN)).read()).splitlines()
        gone = await client.post("/remove", headers=TOKEN, data=line)
        assert [json.loads(one)[0] for one in (await gone.read()).splitlines()] == [KEY]
    assert not (tmp_path / KEY).exists()
    assert list((tmp_path / "films").iterdir()) == []


async def test_while_a_large_volume_is_listed_empty_lines_say_that_it_goes_on(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"films/cup/{UID}/{number + 1}").mkdir(parents=True)
        (tmp_path / f"films/cup/{UID}/{number + 1}/0-cup.mp4").write_bytes(b"film")
    async with TestClient(TestServer(application(tmp_path, HASH, pause=0))) as client:
        lines = (await (await client.get("/objects", headers=TOKEN)).read()).split(b"\n")
    assert lines[0] == b""
    assert len([json.loads(line) for line in lines if line]) == 300


async def test_a_pod_that_was_given_no_token_serves_nobody(tmp_path: Path) -> None:
    async with TestClient(TestServer(application(tmp_path, ""))) as client:
        assert (await client.get("/objects", headers={"X-Kinora-Token": ""})).status == 403
