"""The objects of a volume, listed and removed: what was used meanwhile stays, no link is followed, folders go along."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kinora.storage.inputs import PvcInputs
from kinora.storage.keys import KeyRefused
from kinora.storage.objects import PvcObjects
from waiting import until

UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
ARTIFACT = f"films/cup/{UID}/1/0-cup.mp4"
CONTENT = b"film" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def objects(tmp_path: Path) -> PvcObjects:
    for key in (ARTIFACT, f"inputs/{SHA}", f"uploads/films/0123456789/{SHA}", f"intake/films/{UID}/image.json"):
        put(tmp_path, key)
    return PvcObjects(tmp_path, "videos")


def put(root: Path, key: str, age: float = 7200) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(CONTENT)
    os.utime(root / key, (time.time() - age,) * 2)


async def keys(objects: PvcObjects, place: str = "") -> list[str]:
    return sorted(one.key for one in await objects.listed(place))


async def test_artifacts_and_inputs_are_listed_with_their_times(objects: PvcObjects) -> None:
    assert await keys(objects) == [ARTIFACT, f"inputs/{SHA}"]
    assert await keys(objects, "films/") == [ARTIFACT]
    assert await keys(objects, "inputs/") == [f"inputs/{SHA}"]
    assert await keys(objects, "other/") == []
    one = (await objects.listed("films/"))[0]
    assert one.bytes == len(CONTENT)
    assert 7190 < time.time() - one.used < 7300


async def test_what_takes_the_place_of_an_object_that_is_being_removed_stays(
    objects: PvcObjects, tmp_path: Path
) -> None:
    (old,) = await objects.listed("inputs/")
    place = tmp_path / old.key
    with place.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        removing = asyncio.create_task(objects.remove(old))
        inode = os.fstat(held.fileno()).st_ino
        await until(lambda: bool(re.search(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text())))
        place.unlink()
        put(tmp_path, old.key)
    assert not await removing
    assert place.exists()


async def test_what_is_removed_takes_its_empty_folders_along(objects: PvcObjects, tmp_path: Path) -> None:
    put(tmp_path, f"films/cup/{UID}/2/0-cup.mp4")
    first, second = sorted(await objects.listed("films/"), key=lambda one: one.key)
    assert await objects.remove(first)
    assert not await objects.remove(first), "gone already"
    assert os.listdir(tmp_path / f"films/cup/{UID}") == ["2"]
    assert await objects.remove(second)
    assert os.listdir(tmp_path / "films") == []
    assert (tmp_path / f"inputs/{SHA}").exists()


async def test_what_was_used_since_it_was_listed_stays(objects: PvcObjects, tmp_path: Path) -> None:
    listed = (await objects.listed("inputs/"))[0]
    assert await PvcInputs(tmp_path, "videos", "films").renew(SHA) == len(CONTENT)
    assert not await objects.remove(listed)
    assert (tmp_path / f"inputs/{SHA}").exists()


async def test_of_many_that_bring_and_remove_the_same_input_none_is_told_of_what_is_not_there(
    objects: PvcObjects, tmp_path: Path
) -> None:
    """Whoever was told that the input is there, after the last removal, finds it."""
    inputs = PvcInputs(tmp_path, "videos", "films")

    async def bring() -> None:
        async with inputs.draft() as draft:
            draft.file.write(CONTENT)
            await draft.keep(SHA)
        assert (tmp_path / f"inputs/{SHA}").stat().st_mtime > time.time() - 600

    async def sweep() -> None:
        for one in await objects.listed("inputs/"):
            if one.used < time.time() - 3600:
                await objects.remove(one)

    for _ in range(20):
        put(tmp_path, f"inputs/{SHA}")
        await asyncio.gather(*(bring() for _ in range(3)), sweep(), bring())
        assert (tmp_path / f"inputs/{SHA}").read_bytes() == CONTENT


async def test_links_are_not_followed_and_no_key_leads_out(objects: PvcObjects, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside" / "cup" / UID / "1"
    outside.mkdir(parents=True, exist_ok=True)
    (outside / "0-cup.mp4").write_bytes(CONTENT)
    (tmp_path / "linked").symlink_to(tmp_path.parent / "outside")
    assert await keys(objects, "linked/") == []
    listed = (await objects.listed("films/"))[0]
    later = replace(listed, used=time.time() + 60)
    assert not await objects.remove(replace(later, key=f"linked/cup/{UID}/1/0-cup.mp4"))
    for key in (f"../outside/cup/{UID}/1/0-cup.mp4", "/etc/passwd", "films//x", "films/./x"):
        with pytest.raises(KeyRefused):
            await objects.remove(replace(later, key=key))
    assert (outside / "0-cup.mp4").exists()
    (tmp_path / "films/link.mp4").symlink_to(outside / "0-cup.mp4")
    assert not await objects.remove(replace(later, key="films/link.mp4")), "a link is no object"
    assert (outside / "0-cup.mp4").exists()
