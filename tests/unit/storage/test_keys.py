"""Keys: a function of job and attempt, and no way out of the store."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.storage.keys import KeyRefused, artifact_key, checked_key

JOB = {"namespace": "team-a", "name": "cat", "uid": "0b7c8a52-6f7e", "filename": "kinora_00001_.mp4"}


def test_layout() -> None:
    assert artifact_key(**JOB, attempt=2) == "team-a/cat/0b7c8a52-6f7e/2/0-kinora_00001_.mp4"  # type: ignore[arg-type]
    key = artifact_key(**JOB, attempt=1, index=3, prefix="films/spring/")  # type: ignore[arg-type]
    assert key == "films/spring/team-a/cat/0b7c8a52-6f7e/1/3-kinora_00001_.mp4"


@pytest.mark.parametrize("filename", ["../../etc/passwd", "a b.mp4", "übung.mp4", "x" * 300 + ".mp4", "", ".", "\0"])
def test_file_names_are_made_plain(filename: str) -> None:
    key = artifact_key(**{**JOB, "filename": filename}, attempt=1)  # type: ignore[arg-type]
    assert key.count("/") == 4
    assert checked_key(key) == key


@pytest.mark.parametrize("prefix", ["..", "a/../b", "/abs", "a//b", "./a", "a b", "ä", "a\n", "-a" + "/.", "/"])
def test_prefixes_stay_below_the_root(prefix: str) -> None:
    with pytest.raises(KeyRefused, match="prefix"):
        artifact_key(**JOB, attempt=1, prefix=prefix)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"namespace": ".."}, {"name": ""}, {"uid": "a/b"}, {"uid": "."}, {"name": "x" * 300}]
)
def test_identities_are_plain_names(change: dict[str, str]) -> None:
    with pytest.raises(KeyRefused):
        artifact_key(**{**JOB, **change}, attempt=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("attempt", "index"), [(0, 0), (-1, 0), (1, -1)])
def test_numbers_are_in_range(attempt: int, index: int) -> None:
    with pytest.raises(KeyRefused):
        artifact_key(**JOB, attempt=attempt, index=index)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_refused_or_plain(key: str) -> None:
    try:
        checked_key(key)
    except KeyRefused:
        return
    assert all(part and part[0] not in ".-" for part in key.split("/"))
