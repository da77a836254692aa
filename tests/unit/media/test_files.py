"""open_beneath: what it opens and what it refuses."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.media.files import FileNotThere, FileRefused, open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file in a folder, and everything that must not be opened."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "file").write_text("content")
    (root / "link").symlink_to("inner/file")
    (root / "outside").symlink_to(tmp_path / "secret")
    (root / "linked").symlink_to("inner")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    return root


def test_a_file_is_opened(root: Path) -> None:
    with open_beneath(root, "inner/file") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize(
    "path",
    ["", "/inner/file", "inner/../inner/file", "../secret", "./inner/file", "inner//file", "inner/file/", "inner",
     "link", "outside", "linked/file", "up/secret", "pipe", "a\0b", "inner/file/more", "x" * 5000, "x" * 300],
)  # fmt: skip
def test_refused(root: Path, path: str) -> None:
    with pytest.raises(FileRefused) as caught:
        open_beneath(root, path)
    assert str(root) not in str(caught.value)
    assert not isinstance(caught.value, FileNotThere)


@pytest.mark.parametrize("path", ["absent", "absent/file", "inner/absent"])
def test_not_there(root: Path, path: str) -> None:
    with pytest.raises(FileNotThere):
        open_beneath(root, path)
    with pytest.raises(FileNotThere):
        open_beneath(root / "no such root", path)


def test_a_socket_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(FileRefused):
            open_beneath(root, "s")


def test_a_root_may_be_a_link_and_no_descriptor_leaks(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    before = len(os.listdir("/proc/self/fd"))
    for path in ("inner/file", "link", "absent", "inner", "pipe", "linked/file"):
        try:
            open_beneath(tmp_path / "alias", path).close()
        except FileRefused:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without files."""
    return tmp_path_factory.mktemp("empty")


@settings(deadline=None)
@given(path=st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "", "etc", "passwd"])).map("/".join))
def test_any_text_opens_nothing_outside(empty: Path, path: str) -> None:
    with pytest.raises(FileRefused):
        open_beneath(empty, path)
