"""How ComfyUI names files: "photo.png [output]", "photo (1).png", "clip_00001.mp4". Pure; nothing is looked up."""

import re
from collections.abc import Iterator
from itertools import count

_ANNOTATION = re.compile(r"^(?P<name>.*) \[(?P<kind>input|output|temp)\]$", re.DOTALL)


def annotated(text: str) -> tuple[str, str | None]:
    """A name as a loader node or a client gives it: the name itself, and its type where the text says one."""
    match = _ANNOTATION.match(text)
    return (match["name"], match["kind"]) if match else (text, None)


def numbered(filename: str) -> Iterator[str]:
    """The names under which an upload is stored: its own, or the first of "name (1).png", ... that is free."""
    stem, suffix = split(filename)
    yield filename
    for number in count(1):
        yield f"{stem} ({number}){suffix}"


def split(filename: str) -> tuple[str, str]:
    """Stem and suffix of a file name: "photo" and ".png". A name that only begins with a dot has no suffix."""
    stem, dot, suffix = filename.rpartition(".")
    return (stem, dot + suffix) if stem.strip(".") else (filename, "")


def parted(path: str) -> tuple[str, str]:
    """Subfolder and file name of a path with forward slashes."""
    subfolder, _, name = path.rpartition("/")
    return subfolder, name
