"""PvcStore: create-only, whole or not at all, read back."""

import asyncio
import hashlib
import io
import os
from pathlib import Path

import pytest

from kinora.storage.keys import KeyRefused
from kinora.storage.pvc import PvcStore
from kinora.storage.store import ArtifactStore, NotStoredError, StoreError

KEY = "ns/cat/uid/1/0-cat.mp4"
CONTENT = b"film" * 500_000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store on an empty volume."""
    return PvcStore(tmp_path, "artifacts")


async def test_put_and_read_back(store: ArtifactStore, tmp_path: Path) -> None:
    source = io.BytesIO(CONTENT)
    source.read(7)
    stored = await store.put(KEY, source)
    assert (stored.uri, stored.bytes, stored.sha256, stored.created) == (
        f"pvc://artifacts/{KEY}",
        len(CONTENT),
        SHA,
        True,
    )
    assert os.listdir((tmp_path / KEY).parent) == ["0-cat.mp4"]
    found = await store.read_back(KEY)
    assert (found.bytes, found.sha256) == (len(CONTENT), SHA)
    assert await store.size(KEY) == len(CONTENT)
    with await store.open_read(KEY) as file:
        assert file.read() == CONTENT


async def test_a_key_is_written_once(store: ArtifactStore) -> None:
    await store.put(KEY, io.BytesIO(CONTENT))
    again = await store.put(KEY, io.BytesIO(b"another"))
    assert (again.created, again.sha256) == (False, SHA)


async def test_of_many_writers_one_creates(store: ArtifactStore, tmp_path: Path) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    stored = await asyncio.gather(*(store.put(KEY, io.BytesIO(content)) for content in contents))
    assert sum(item.created for item in stored) == 1
    assert {item.sha256 for item in stored} == {hashlib.sha256((tmp_path / KEY).read_bytes()).hexdigest()}
    assert os.listdir((tmp_path / KEY).parent) == ["0-cat.mp4"]


async def test_what_is_not_there(store: ArtifactStore, tmp_path: Path) -> None:
    assert await store.size(KEY) is None
    with pytest.raises(NotStoredError):
        await store.read_back(KEY)
    with pytest.raises(StoreError):
        await PvcStore(tmp_path / "unmounted", "a").put(KEY, io.BytesIO(b"x"))


@pytest.mark.parametrize("key", ["../out", "/abs", "a/../b", "", "a//b", ".hidden"])
async def test_no_key_leads_out(store: ArtifactStore, key: str) -> None:
    for attempt in (store.put(key, io.BytesIO(b"x")), store.read_back(key), store.size(key), store.open_read(key)):
        with pytest.raises(KeyRefused):
            await attempt
    with pytest.raises(KeyRefused):
        store.uri(key)


async def test_links_on_the_way_are_not_followed(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ns").symlink_to("elsewhere")
    with pytest.raises(StoreError):
        await store.put(KEY, io.BytesIO(b"x"))
    assert os.listdir(tmp_path / "elsewhere") == []


class _Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 0:
            raise OSError(28, "No space left on device")
        return super().read(size)


async def test_a_failed_put_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left") as caught:
        await store.put(KEY, _Broken(CONTENT))
    assert str(tmp_path) not in str(caught.value)
    assert os.listdir((tmp_path / KEY).parent) == []
    assert (await store.put(KEY, io.BytesIO(CONTENT))).created
