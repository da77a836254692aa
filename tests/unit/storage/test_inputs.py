"""Inputs in the store: whole or invisible, one object a content, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kinora.storage import drafts
from kinora.storage.inputs import PvcInputs
from kinora.storage.keys import KeyRefused, input_key, intake_key, upload_key
from kinora.storage.store import NotStoredError, StoreError
from waiting import DEADLINE, until

CONTENT = b"film" * 50_000
SHA = hashlib.sha256(CONTENT).hexdigest()
UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"


@pytest.fixture
def inputs(tmp_path: Path) -> PvcInputs:
    """The inputs on an empty volume."""
    return PvcInputs(tmp_path, "videos", "films")


def listed(root: Path) -> list[str]:
    return sorted(os.listdir(root / "inputs"))


async def test_one_that_is_not_wanted_any_more_while_it_is_opened_leaves_nothing(
    inputs: PvcInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread cannot be stopped; its lock would keep every sweep from the draft for as long as the process lives."""
    made, go = threading.Event(), threading.Event()

    def slow(*place: Any) -> drafts.Draft:
        draft = opened(*place)
        made.set()
        go.wait(DEADLINE)
        return draft

    opened = drafts._open
    monkeypatch.setattr(drafts, "_open", slow)

    async def write() -> None:
        async with inputs.draft():
            raise AssertionError("nobody wants it")

    writing = asyncio.create_task(write())
    await until(made.is_set)
    writing.cancel()
    await asyncio.wait({writing}, timeout=DEADLINE)
    assert writing.cancelled()
    assert len(listed(tmp_path)) == 1
    go.set()
    await until(lambda: not listed(tmp_path))


async def test_a_draft_is_hidden_and_becomes_an_object_whole(inputs: PvcInputs, tmp_path: Path) -> None:
    async with inputs.draft() as draft:
        draft.file.write(CONTENT)
        with draft.reading() as file:
            assert file.read() == CONTENT
            assert not file.writable()
        assert [name.startswith(".") for name in listed(tmp_path)] == [True]
        assert await draft.keep(SHA) == f"inputs/{SHA}"
    assert listed(tmp_path) == [SHA]
    assert (tmp_path / "inputs" / SHA).read_bytes() == CONTENT
    assert await inputs.renew(SHA) == len(CONTENT)
    assert inputs.root == "pvc://videos/"


async def test_a_draft_that_is_not_kept_leaves_nothing(inputs: PvcInputs, tmp_path: Path) -> None:
    async with inputs.draft() as draft:
        draft.file.write(CONTENT)
        draft.file.flush()
        assert len(listed(tmp_path)) == 1
    assert listed(tmp_path) == []
    assert await inputs.renew(SHA) is None


async def test_the_same_content_twice_is_one_object(inputs: PvcInputs, tmp_path: Path) -> None:
    for _ in range(2):
        async with inputs.draft() as draft:
            draft.file.write(CONTENT)
            await draft.keep(SHA)
    assert listed(tmp_path) == [SHA]


async def test_an_object_that_is_not_its_content_is_not_taken_for_it(inputs: PvcInputs, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / SHA).write_bytes(b"short")
    async with inputs.draft() as draft:
        draft.file.write(CONTENT)
        with pytest.raises(StoreError, match="has 5 bytes"):
            await draft.keep(SHA)


async def test_drafts_of_the_living_stay_and_those_of_the_dead_go(inputs: PvcInputs, tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys; from pathlib import Path; from kinora.storage.inputs import PvcInputs\n"
        "async def main():\n"
        "    async with PvcInputs(Path(sys.argv[1]), 'videos', 'films').draft() as draft:\n"
        "        draft.file.write(b'half'); draft.file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path))
    assert await asyncio.wait_for(process.wait(), 60) == -9
    assert len(listed(tmp_path)) == 1
    async with inputs.draft() as draft:
        assert await inputs.sweep([]) == 1
        assert listed(tmp_path) == [draft.name]
        draft.file.write(CONTENT)
        await draft.keep(SHA)
    assert await inputs.sweep([]) == 0
    assert listed(tmp_path) == [SHA]


async def test_notes_are_kept_for_unfinished_jobs(inputs: PvcInputs, tmp_path: Path) -> None:
    await inputs.note(UID, "references[1]", {"sha256": SHA})
    await inputs.note(UID, "references[1]", {"sha256": "again"})
    assert await inputs.recall(UID, "references[1]") == {"sha256": "again"}
    assert await inputs.recall(UID, "image") is None
    (tmp_path / intake_key("films", UID, "image")).write_text("no json")
    assert await inputs.recall(UID, "image") is None
    await inputs.sweep([UID])
    assert await inputs.recall(UID, "references[1]") is not None
    await inputs.sweep([])
    assert await inputs.recall(UID, "references[1]") is None
    await inputs.note(UID, "image", {})
    await inputs.forget(UID)
    assert not (tmp_path / "intake/films" / UID).exists()


async def test_an_upload_is_the_namespaces_own(inputs: PvcInputs, tmp_path: Path) -> None:
    for namespace in ("films", "other"):
        folder = tmp_path / "uploads" / namespace
        folder.mkdir(parents=True)
        (folder / "cup.jpg").write_text(namespace)
    (tmp_path / "uploads/films/link.jpg").symlink_to(tmp_path / "uploads/other/cup.jpg")
    with await inputs.open_upload("cup.jpg") as file:
        assert file.read() == b"films"
    with pytest.raises(NotStoredError, match=r"^none\.jpg: not in the store"):
        await inputs.open_upload("none.jpg")
    with pytest.raises(StoreError) as caught:
        await inputs.open_upload("link.jpg")
    assert str(tmp_path) not in str(caught.value)
    for upload in ("../other/cup.jpg", "/etc/passwd", "a//b", ".hidden", "", "a\0b"):
        with pytest.raises(KeyRefused):
            await inputs.open_upload(upload)


def test_keys_are_functions_of_what_they_hold() -> None:
    assert input_key(SHA) == f"inputs/{SHA}"
    assert upload_key("films", "a/b.png") == "uploads/films/a/b.png"
    assert intake_key("films", UID, "references[1]") == f"intake/films/{UID}/references_1_.json"
    for wrong in ("", "0" * 63, "../" + "0" * 61, "A" * 64):
        with pytest.raises(KeyRefused):
            input_key(wrong)


async def test_an_input_that_is_brought_again_or_known_counts_as_used(inputs: PvcInputs, tmp_path: Path) -> None:
    async with inputs.draft() as draft:
        draft.file.write(CONTENT)
        await draft.keep(SHA)
    path, long_ago = tmp_path / "inputs" / SHA, time.time() - 86_400
    os.utime(path, (long_ago, long_ago))
    async with inputs.draft() as draft:
        draft.file.write(CONTENT)
        await draft.keep(SHA)
    assert path.stat().st_mtime > time.time() - 600
    os.utime(path, (long_ago, long_ago))
    assert await inputs.renew(SHA) == len(CONTENT)
    assert path.stat().st_mtime > time.time() - 600
