"""How ComfyUI names files."""

import os.path
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from kinora.engine.filenames import annotated, numbered, parted, split


def test_a_type_behind_a_name() -> None:
    assert annotated("a/b.png [output]") == ("a/b.png", "output")
    assert annotated("a.png") == ("a.png", None)
    assert annotated("a.png [elsewhere]") == ("a.png [elsewhere]", None)


def test_names_for_other_content() -> None:
    assert list(islice(numbered("a.tar.gz"), 3)) == ["a.tar.gz", "a.tar (1).gz", "a.tar (2).gz"]
    assert list(islice(numbered("plain"), 2)) == ["plain", "plain (1)"]


def test_folder_and_name() -> None:
    assert parted("a/b/c.png") == ("a/b", "c.png")
    assert parted("c.png") == ("", "c.png")


@given(st.text(alphabet="ab.", max_size=8))
def test_suffixes_are_those_of_the_library(name: str) -> None:
    assert split(name) == os.path.splitext(name)
