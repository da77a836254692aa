"""The objects of a bucket, listed and removed; when an input was last used is told by what lies beside it."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import AsyncIterator

import pytest

from kinora.s3.client import Pace, S3Client
from kinora.storage.objects import S3Objects
from kinora.storage.s3 import S3Store
from kinora.storage.s3_inputs import S3Inputs
from s3server import S3Server

pytestmark = pytest.mark.integration
UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
ARTIFACT = f"films/cup/{UID}/1/0-cup.mp4"
CONTENT = os.urandom(100_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
INPUT = f"inputs/{SHA}"
PREFIX = "out/"


@pytest.fixture
async def store(server: S3Server) -> AsyncIterator[S3Store]:
    bucket = server.bucket(prefix=PREFIX)
    async with S3Client(bucket, lambda: server.credentials, pace=Pace(first_pause=0.01)) as client:
        yield S3Store(client)


async def bring(store: S3Store) -> None:
    async with S3Inputs(store, "films").draft() as draft:
        draft.file.write(CONTENT)
        assert await draft.keep(SHA) == INPUT


def age(server: S3Server, key: str, seconds: float = 7200) -> None:
    os.utime(server.path(f"{PREFIX}{key}"), (time.time() - seconds,) * 2)


async def test_artifacts_and_inputs_are_listed_without_what_others_look_after(server: S3Server, store: S3Store) -> None:
    objects = S3Objects(store)
    for key in (ARTIFACT, f"uploads/films/0123456789/{SHA}", f"intake/films/{UID}/image.json"):
        await store.create(key, io.BytesIO(CONTENT))
    await bring(store)
    age(server, ARTIFACT)
    listed = {one.key: one for one in await objects.listed()}
    assert sorted(listed) == [ARTIFACT, INPUT]
    assert listed[ARTIFACT].bytes == len(CONTENT)
    assert 7100 < time.time() - listed[ARTIFACT].used < 7300
    assert [one.key for one in await objects.listed("films/")] == [ARTIFACT]
    assert await objects.remove(listed[ARTIFACT])
    assert not await objects.remove(listed[ARTIFACT])
    assert server.objects() == [
        f"{PREFIX}{key}" for key in (INPUT, f"intake/films/{UID}/image.json", f"uploads/films/0123456789/{SHA}")
    ]


async def test_an_input_that_was_brought_again_or_is_known_counts_as_used(server: S3Server, store: S3Store) -> None:
    objects, inputs = S3Objects(store), S3Inputs(store, "films")
    await bring(store)
    age(server, INPUT)
    (old,) = await objects.listed("inputs/")
    assert time.time() - old.used > 7000
    await bring(store)
    assert not await objects.remove(old), "used since it was listed"
    (again,) = await objects.listed("inputs/")
    assert time.time() - again.used < 600
    age(server, f"{INPUT}.used")
    assert await inputs.renew(SHA) == len(CONTENT)
    (known,) = await objects.listed("inputs/")
    assert time.time() - known.used < 600
    age(server, f"{INPUT}.used")
    (unused,) = await objects.listed("inputs/")
    assert await objects.remove(unused)
    assert server.objects() == [], "and what tells of its use goes along"
    assert await inputs.renew(SHA) is None
    assert server.objects() == []
