"""The store service's files on a volume: uploads once, names that move, links not followed, an end for all of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from kinora.storage import drafts
from kinora.storage.keys import KeyRefused
from kinora.storage.service.model import SMALLEST_CHARGE, Name, NameTaken, OverLimit, Usage, name_digest
from kinora.storage.store import NotStoredError, StoreError
from kinora.storage.uploads import PvcContent, PvcFiles
from waiting import until

TENANT, OTHER = "0123456789", "abcdef0123"
CONTENT = b"film" * 50_000
SHA = hashlib.sha256(CONTENT).hexdigest()
KEY = f"uploads/films/{TENANT}/{SHA}"


@pytest.fixture
def files(tmp_path: Path) -> PvcFiles:
    return PvcFiles(tmp_path, "artifacts", "films")


async def put(files: PvcFiles, content: bytes = CONTENT, tenant: str = TENANT) -> str:
    async with files.draft(tenant) as draft:
        draft.file.write(content)
        return await draft.keep(hashlib.sha256(content).hexdigest())


def age(path: Path, seconds: float = 7200) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


async def opened(files: PvcFiles, key: str) -> PvcContent:
    found = await files.open(key, redirect=True)
    assert isinstance(found, PvcContent)
    return found


async def test_an_upload_lies_under_its_tenant_and_its_content(files: PvcFiles, tmp_path: Path) -> None:
    assert await put(files) == await put(files) == KEY
    assert (tmp_path / KEY).read_bytes() == CONTENT
    assert os.listdir((tmp_path / KEY).parent) == [SHA]
    content = await opened(files, KEY)
    assert (content.size, content.etag, content.head) == (len(CONTENT), SHA, CONTENT[:64])
    assert b"".join([chunk async for chunk in content.read(5, 100_000)]) == CONTENT[5:100_005]
    await content.close()


async def test_two_writers_at_once_make_one_upload(files: PvcFiles, tmp_path: Path) -> None:
    assert set(await asyncio.gather(*(put(files) for _ in range(8)))) == {KEY}
    assert os.listdir((tmp_path / KEY).parent) == [SHA]


async def test_a_draft_that_nobody_waits_for_any_more_is_closed(
    files: PvcFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, on, made = threading.Event(), threading.Event(), list[drafts.Draft]()

    def slow(root: Path, place: str) -> drafts.Draft:
        begun.set()
        on.wait()
        made.append(open_draft(root, place))
        return made[0]

    open_draft = drafts._open
    monkeypatch.setattr(drafts, "_open", slow)
    writing = asyncio.create_task(put(files))
    await until(begun.is_set)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    on.set()
    await until(lambda: bool(made) and made[0].file.closed)
    assert os.listdir((tmp_path / KEY).parent) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0].folder)


async def test_what_lies_in_the_way_is_not_followed(files: PvcFiles, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / SHA).write_bytes(b"secret")
    (tmp_path / "uploads/films").mkdir(parents=True)
    (tmp_path / "uploads/films" / TENANT).symlink_to(outside)
    with pytest.raises(StoreError):
        await put(files)
    with pytest.raises(StoreError):
        await files.open(KEY)
    with pytest.raises(StoreError):
        await files.remove(TENANT, SHA)
    with pytest.raises(StoreError):
        await files.usage(TENANT)
    assert os.listdir(outside) == [SHA]
    (tmp_path / "uploads/films" / OTHER).mkdir()
    (tmp_path / "uploads/films" / OTHER / SHA).symlink_to(outside / SHA)
    with pytest.raises(StoreError, match="not a regular file"):
        await files.open(f"uploads/films/{OTHER}/{SHA}")
    assert await files.usage(OTHER) == Usage(0, 0)
    os.mkfifo(tmp_path / "uploads/films" / OTHER / ("1" * 64))
    with pytest.raises(StoreError, match="not a regular file"):
        await files.open(f"uploads/films/{OTHER}/{'1' * 64}")


@pytest.mark.parametrize("tenant", ["", "..", "0123456789/..", "0123456789a", "ABCDEF0123", "a/b"])
async def test_only_a_digest_is_a_tenant(files: PvcFiles, tmp_path: Path, tenant: str) -> None:
    for ask in (
        files.usage(tenant),
        files.renew(tenant, SHA),
        files.names(tenant, "inputs"),
        files.remove(tenant, SHA),
    ):
        with pytest.raises(KeyRefused):
            await ask
    with pytest.raises(KeyRefused):
        files.draft(tenant)
    assert os.listdir(tmp_path) == []


async def test_only_what_is_the_namespaces_is_opened(files: PvcFiles, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / SHA).write_bytes(CONTENT)
    for key in (f"inputs/{SHA}", f"uploads/other/{TENANT}/{SHA}", "../x", f"{KEY}/../{SHA}"):
        with pytest.raises(KeyRefused):
            await files.open(key)
    with pytest.raises(NotStoredError):
        await files.open(KEY)


async def test_use_is_counted_a_small_file_as_a_block_and_drafts_not_at_all(files: PvcFiles) -> None:
    assert await files.usage(TENANT) == Usage(0, 0)
    await put(files)
    await put(files, b"small")
    async with files.draft(TENANT) as draft:
        draft.file.write(CONTENT)
        assert await files.usage(TENANT) == Usage(len(CONTENT) + SMALLEST_CHARGE, 2)
    assert await files.usage(OTHER) == Usage(0, 0)
    assert await files.remove(TENANT, SHA)
    assert not await files.remove(TENANT, SHA)
    assert await files.usage(TENANT) == Usage(SMALLEST_CHARGE, 1)


async def test_unused_uploads_go_and_renewed_used_and_strange_ones_stay(files: PvcFiles, tmp_path: Path) -> None:
    kept = {name: (await put(files, name.encode())).rpartition("/")[2] for name in ("old", "used", "renewed", "new")}
    folder = (tmp_path / KEY).parent
    (folder / "by-hand.png").write_bytes(b"x")
    for path in folder.iterdir():
        if path.name != kept["new"]:
            age(path)
    assert await files.renew(TENANT, kept["renewed"]) == len("renewed")
    used = {f"{TENANT}/{kept['used']}"}
    assert await files.sweep_uploads(3600, used.__contains__) == 1
    left = {kept[name] for name in ("used", "renewed", "new")} | {"by-hand.png"}
    assert set(os.listdir(folder)) == left
    assert await files.renew(TENANT, kept["old"]) is None


async def test_a_draft_that_is_being_written_survives_the_sweep_and_one_that_was_left_does_not(
    files: PvcFiles, tmp_path: Path
) -> None:
    async with files.draft(TENANT) as draft:
        draft.file.write(CONTENT)
        left = (tmp_path / KEY).parent / ".0123.draft"
        left.write_bytes(b"half")
        assert await files.sweep_uploads(3600, lambda _: False) == 0
        assert not left.exists()
        assert await draft.keep(SHA) == KEY


# --- names


def pointing(name: str, content: bytes = CONTENT) -> Name:
    return Name(name, {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})


async def test_a_name_moves_unless_it_is_only_to_be_made(files: PvcFiles) -> None:
    await put(files)
    await put(files, b"other")
    await files.put_name(TENANT, "inputs", pointing("a"), create=True)
    await files.put_name(TENANT, "inputs", pointing("a"), create=True)
    with pytest.raises(NameTaken) as taken:
        await files.put_name(TENANT, "inputs", pointing("a", b"other"), create=True)
    assert taken.value.value["sha256"] == SHA
    await files.put_name(TENANT, "inputs", pointing("a", b"other"), create=False)
    assert await files.get_name(TENANT, "inputs", name_digest("a")) == pointing("a", b"other")


async def test_a_name_whose_upload_has_expired_is_free_again(files: PvcFiles) -> None:
    await put(files, b"other")
    await files.put_name(TENANT, "inputs", pointing("a"), create=True)
    await files.put_name(TENANT, "inputs", pointing("a", b"other"), create=True)
    assert (await files.get_name(TENANT, "inputs", name_digest("a"))).value["bytes"] == 5


async def test_names_are_of_a_tenant_and_a_scope_and_end_with_their_upload(files: PvcFiles, tmp_path: Path) -> None:
    await put(files)
    await files.put_name(TENANT, "inputs", pointing("b"), create=False)
    await files.put_name(TENANT, "inputs", pointing("../a\n"), create=False)
    await files.put_name(TENANT, "tickets", pointing("gone", b"gone"), create=False)
    assert [one.name for one in await files.names(TENANT, "inputs")] == ["../a\n", "b"]
    assert await files.names(OTHER, "inputs") == await files.names(TENANT, "masks") == []
    for path in (tmp_path / "names").rglob("*"):
        age(path)
    await files.sweep_uploads(3600, lambda _: False)
    assert len(await files.names(TENANT, "inputs")) == 2
    assert await files.names(TENANT, "tickets") == []
    assert await files.remove_name(TENANT, "inputs", name_digest("b"))
    assert not await files.remove_name(TENANT, "inputs", name_digest("b"))
    with pytest.raises(NotStoredError):
        await files.get_name(TENANT, "inputs", name_digest("b"))


async def test_many_at_once_make_one_name_and_it_is_whole(files: PvcFiles, tmp_path: Path) -> None:
    contents = [bytes([65 + number]) for number in range(8)]
    for content in contents:
        await put(files, content)
    tried = await asyncio.gather(
        *(files.put_name(TENANT, "inputs", pointing("a", content), create=True) for content in contents),
        return_exceptions=True,
    )
    assert sum(result is None for result in tried) == 1
    assert sum(isinstance(result, NameTaken) for result in tried) == 7
    assert len(os.listdir(tmp_path / f"names/films/{TENANT}/inputs")) == 1


async def test_a_tenant_has_no_more_names_than_allowed(files: PvcFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinora.storage.service.model.MAX_NAMES", 2)
    for name in ("a", "b"):
        await files.put_name(TENANT, "inputs", pointing(name), create=False)
    await files.put_name(TENANT, "inputs", pointing("a", b"other"), create=False)
    with pytest.raises(OverLimit, match="more than 2 names"):
        await files.put_name(TENANT, "inputs", pointing("c"), create=False)


async def test_what_is_no_name_that_a_stager_wrote_is_none(files: PvcFiles, tmp_path: Path) -> None:
    folder = tmp_path / f"names/films/{TENANT}/inputs"
    folder.mkdir(parents=True)
    (folder / name_digest("a")).write_text("{")
    (folder / name_digest("b")).symlink_to("/etc/passwd")
    assert await files.names(TENANT, "inputs") == []
    await files.put_name(TENANT, "inputs", pointing("b"), create=False)
    assert [one.name for one in await files.names(TENANT, "inputs")] == ["b"]
