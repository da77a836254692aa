"""What read_header accepts and refuses, and that nothing but HeaderError ever comes out of it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.weights.header import Header, HeaderError, Tensor, header_from_bytes, read_header


def _file(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def _entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SOUND = {
    "__metadata__": {"format": "pt"},
    "b": _entry("F16", [2], 6, 10),
    "a": _entry("F8_E4M3", [2, 3], 0, 6),
    "empty": _entry("F32", [0, 7], 10, 10),
    "scalar": _entry("U8", [], 10, 11),
}


def test_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file(SOUND, bytes(11)))
    header = read_header(path)
    assert header.tensors["a"] == Tensor("F8_E4M3", (2, 3), 0, 6)
    assert header.tensors["scalar"].shape == ()
    assert header.metadata == {"format": "pt"}
    assert header.data_bytes == 11
    assert isinstance(header, Header)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "truncated"),
        (b"\x05\0\0", "truncated"),
        (b"\xff" * 16, "at most 100000000"),
        (_file(SOUND, bytes(10)), "outside the file"),
        (_file(SOUND, bytes(12)), "belong to none"),
        (_file(SOUND)[:40], "truncated"),
        (_file(b"  {}"), "does not begin"),
        (_file(b'{"a": 1'), "not JSON"),
        (_file(b'{"\xff": 1}'), "not UTF-8"),
        (_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
        (_file(b'{"a": NaN}'), "not JSON"),
        (_file(b'{"a": {}, "a": {}}'), "twice"),
        (_file(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
        (_file({"__metadata__": {"a": 1}}), "strings"),
        (_file({"a": [1]}), "exactly dtype"),
        (_file({"a": {**_entry("F16", [1], 0, 2), "more": 1}}, bytes(2)), "exactly dtype"),
        (_file({"a": _entry("F8", [1], 0, 1)}, bytes(1)), "unknown dtype"),
        (_file({"a": _entry("F16", [2], 0, 2)}, bytes(2)), "does not fill"),
        (_file({"a": _entry("F4", [3], 0, 1)}, bytes(1)), "does not fill"),
        (_file({"a": _entry("F16", [-1], 0, 2)}, bytes(2)), "natural number"),
        (_file({"a": _entry("U8", [True], 0, 1)}, bytes(1)), "natural number"),  # type: ignore[list-item]
        (_file({"a": _entry("U8", [1.0], 0, 1)}, bytes(1)), "natural number"),  # type: ignore[list-item]
        (_file({"a": _entry("U8", [1] * 40, 0, 1)}, bytes(1)), "dimensions"),
        (_file({"a": _entry("U8", [1], 1, 0)}, bytes(1)), "outside"),
        (_file({"a": _entry("U8", [2], 0, 2), "b": _entry("U8", [2], 1, 3)}, bytes(3)), "overlaps"),
        (_file({"a": _entry("U8", [1], 0, 1), "b": _entry("U8", [1], 2, 3)}, bytes(3)), "hole of 1"),
    ],
)
def test_defects_are_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "secret-name.safetensors"
    path.write_bytes(content)
    with pytest.raises(HeaderError, match=word) as caught:
        read_header(path)
    assert "secret-name" not in str(caught.value)


def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(_file({}))
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    read_header(tmp_path / "real")
    for name in ("link", "folder", "pipe", "absent"):
        with pytest.raises(HeaderError):
            read_header(tmp_path / name)


def _only_header_errors(raw: bytes, data_bytes: int) -> None:
    try:
        header = header_from_bytes(raw, data_bytes)
    except HeaderError:
        return
    assert sum(tensor.end - tensor.start for tensor in header.tensors.values()) == data_bytes


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 100))
def test_bytes_never_crash(raw: bytes, data_bytes: int) -> None:
    _only_header_errors(b"{" + raw, data_bytes)


_ODD = st.sampled_from([None, True, -1, 0, 2**64, 1.5, "", "F16", [], [[]], {}, {"a": "b"}, [1, "x"]])
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F8_E4M3", "F16", "F4", "X"]) | _ODD,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | _ODD,
        "data_offsets": st.lists(st.integers(-1, 12), min_size=2, max_size=2) | _ODD,
    }
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), _ENTRY | _ODD), st.integers(0, 20))
def test_entries_never_crash(entries: object, data_bytes: int) -> None:
    _only_header_errors(json.dumps(entries).encode(), data_bytes)
