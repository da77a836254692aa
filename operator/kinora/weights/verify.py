"""Are a model's weight files on the volume, and are they what the catalogue says? Read-only; no model is loaded.

Levels build on each other: Size (there, not empty, of the known size), Header (a sound safetensors file with the right
keys and types), Hash (its sha256 where the catalogue knows it).
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from kinora.api.modelserver import VerifyLevel
from kinora.catalogue.model import Model, Proof, Weight
from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.weights.header import Header, HeaderError, parse_header

DEMO_KEY = "kinora"
DEMO_VALUE = "demo weights: small random tensors, no model"
_CHUNK = 1 << 20
_NAMED = 3  # keys named in a message


class State(StrEnum):
    """What was found. Everything but Present keeps a server from being ready."""

    PRESENT = "Present"
    MISSING = "Missing"
    WRONG_DTYPE = "WrongDtype"
    MISSING_KEYS = "MissingKeys"
    WRONG_SIZE = "WrongSize"
    WRONG_HASH = "WrongHash"
    UNREADABLE = "Unreadable"


@dataclass(frozen=True, slots=True)
class FileState:
    """One file: `path` is relative to the volume, `message` tells what was found and what is expected."""

    path: str
    role: str
    state: State
    message: str = ""
    size_bytes: int = 0
    demo: bool = False
    preset: str = ""
    "Only jobs of this preset need it."

    @property
    def ok(self) -> bool:
        """Whether the file may be loaded."""
        return self.state is State.PRESENT


class _Found(Exception):  # noqa: N818 - a verdict on the way out
    def __init__(self, state: State, message: str) -> None:
        self.state, self.message = state, message
        super().__init__(message)


def verify(model: Model, root: Path, level: VerifyLevel) -> list[FileState]:
    """The state of each weight file of `model` on the volume at `root`, in the catalogue's order.

    It never raises for a file. It reads, with Hash every byte of the files whose hash is known: run it in a thread.
    """
    return [replace(_verify_file(weight, root, level), preset=str(weight.preset or "")) for weight in model.weights]


def _verify_file(weight: Weight, root: Path, level: VerifyLevel) -> FileState:
    size, demo = 0, False
    try:
        with open_beneath(root, weight.path) as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(weight, size, file, level)
            if level is not VerifyLevel.SIZE:
                header = parse_header(file)
                demo = header.metadata.get(DEMO_KEY) == DEMO_VALUE
                _check_header(weight, header)
            if level is VerifyLevel.HASH and weight.sha256:
                _check_hash(weight, file)
    except _Found as found:
        return FileState(weight.path, weight.role, found.state, f"{weight.path}: {found.message}", size, demo)
    except FileNotThere:
        message = f"{weight.path}: not on the volume; expected from {weight.source}"
        return FileState(weight.path, weight.role, State.MISSING, message)
    except FileRefused as refused:
        return FileState(weight.path, weight.role, State.UNREADABLE, str(refused), size)
    except (HeaderError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return FileState(weight.path, weight.role, State.UNREADABLE, f"{weight.path}: {reason}", size)
    return FileState(weight.path, weight.role, State.PRESENT, "demo weights" if demo else "", size, demo)


def _check_size(weight: Weight, size: int, file: BinaryIO, level: VerifyLevel) -> None:
    """Demo weights are small by nature and say so in their header; where hashes are asked for nothing is excused."""
    if size == 0:
        raise _Found(State.WRONG_SIZE, "0 bytes")
    if weight.size_bytes is not None and size != weight.size_bytes and (level is VerifyLevel.HASH or not _demo(file)):
        raise _Found(State.WRONG_SIZE, f"{size} bytes, expected {weight.size_bytes}")


def _demo(file: BinaryIO) -> bool:
    try:
        return parse_header(file).metadata.get(DEMO_KEY) == DEMO_VALUE
    except HeaderError:
        return False


def _check_header(weight: Weight, header: Header) -> None:
    prefix, missing = _best_prefix(weight.proof, header)
    if missing:
        raise _Found(State.MISSING_KEYS, f"{len(missing)} of the expected keys are missing: {_some(missing)}")
    allowed = ", ".join(weight.dtypes)
    wrong = [
        f"{key} is {header.tensors[prefix + key].dtype}"
        for key in weight.proof.typed
        if header.tensors[prefix + key].dtype not in tuple(weight.dtypes)
    ]
    if wrong:
        raise _Found(State.WRONG_DTYPE, f"{_some(wrong)}; expected {allowed}")
    for key, dtype in weight.proof.extra.items():
        if header.tensors[prefix + key].dtype != dtype:
            raise _Found(State.WRONG_DTYPE, f"{key} is {header.tensors[prefix + key].dtype}; expected {dtype}")
    _check_endings(weight, header)


def _check_endings(weight: Weight, header: Header) -> None:
    for group in weight.proof.endings:
        found = [key for key in header.tensors if key.endswith(group)]
        if not found:
            raise _Found(State.MISSING_KEYS, f"no key ends in {' or '.join(group)}")
        wrong = [key for key in found if header.tensors[key].dtype not in tuple(weight.dtypes)]
        if wrong:
            raise _Found(
                State.WRONG_DTYPE,
                f"{wrong[0]} is {header.tensors[wrong[0]].dtype}; expected {', '.join(weight.dtypes)}",
            )


def _best_prefix(proof: Proof, header: Header) -> tuple[str, list[str]]:
    """The allowed prefix under which the fewest keys are missing, and those."""
    wanted = (*proof.keys, *proof.typed, *proof.extra)
    tried = [(prefix, [key for key in wanted if prefix + key not in header.tensors]) for prefix in proof.prefixes]
    return min(tried, key=lambda item: len(item[1]))


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check_hash(weight: Weight, file: BinaryIO) -> None:
    found = hashlib.sha256()
    for chunk in _chunks(file):
        found.update(chunk)
    if found.hexdigest() != weight.sha256:
        raise _Found(State.WRONG_HASH, f"sha256 {found.hexdigest()}, expected {weight.sha256}")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk
