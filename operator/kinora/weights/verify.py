"""Are a model's weight files on the volume, and are they what the catalogue says? Read-only; no model is loaded.

Levels build on each other: Size (there, not empty, of the known size), Header (a sound safetensors file with the right
keys and types), Hash (its sha256 where the catalogue or the volume's manifest knows it).
"""

import hashlib
import os
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from kinora.api.modelserver import VerifyLevel
from kinora.catalogue.model import Model, Proof, Weight
from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.weights.header import Header, HeaderError, parse_header
from kinora.weights.manifest import Record, read_manifest

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
    sha256: str = ""
    "Where it was read for it."
    dtype: str = ""
    "Of the first matrix that proves the file; empty where the header was not read."
    mtime_ns: int = 0
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
    records = read_manifest(root)
    return [
        replace(verify_weight(weight, root, level, records.get(weight.path)), preset=str(weight.preset or ""))
        for weight in model.weights
    ]


def verify_weight(weight: Weight, root: Path, level: VerifyLevel, record: Record | None = None) -> FileState:
    """The state of one weight file. `record` is what the manifest says of it, where the catalogue does not know."""
    known = weight.sha256 or (record.sha256 if record else None)
    try:
        with open_beneath(root, weight.path) as file:
            return check_file(weight, file, level, known, size=record.bytes if record else None)
    except FileNotThere:
        message = f"{weight.path}: not on the volume; expected from {weight.source}"
        return FileState(weight.path, weight.role, State.MISSING, message)
    except FileRefused as refused:
        return FileState(weight.path, weight.role, State.UNREADABLE, str(refused))


def check_file(
    weight: Weight,
    file: BinaryIO,
    level: VerifyLevel,
    sha256: str | None = None,
    *,
    size: int | None = None,
    must_hash: bool = False,
) -> FileState:
    """The state of an open file. `sha256`, `size`: what is known of it; `must_hash`: tell its sha256 in any case."""
    status = os.fstat(file.fileno())
    found = FileState(weight.path, weight.role, State.PRESENT, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    try:
        _check_size(weight, status.st_size, size, file, level)
        if level is not VerifyLevel.SIZE:
            header = parse_header(file)
            demo = header.metadata.get(DEMO_KEY) == DEMO_VALUE
            found = replace(found, demo=demo, message="demo weights" if demo else "", dtype=_main_dtype(weight, header))
            _check_header(weight, header)
        if must_hash or (level is VerifyLevel.HASH and sha256):
            found = replace(found, sha256=hash_of(file))
            _check_hash(found.sha256, sha256)
    except _Found as fault:
        return replace(found, state=fault.state, message=f"{weight.path}: {fault.message}")
    except (HeaderError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return replace(found, state=State.UNREADABLE, message=f"{weight.path}: {reason}")
    return found


def _main_dtype(weight: Weight, header: Header) -> str:
    prefix, _ = _best_prefix(weight.proof, header)
    proven = (header.tensors.get(prefix + key) for key in weight.proof.typed)
    matrices = (tensor for tensor in header.tensors.values() if len(tensor.shape) == 2)
    return next((tensor.dtype for tensor in (*proven, *matrices) if tensor is not None), "")


def _check_size(weight: Weight, size: int, recorded: int | None, file: BinaryIO, level: VerifyLevel) -> None:
    """Demo weights are small by nature and say so in their header; where hashes are asked for nothing is excused."""
    expected = weight.size_bytes or recorded
    if size == 0:
        raise _Found(State.WRONG_SIZE, "0 bytes")
    if expected is not None and size != expected and (level is VerifyLevel.HASH or not _demo(file)):
        raise _Found(State.WRONG_SIZE, f"{size} bytes, expected {expected}")


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


def _check_hash(found: str, expected: str | None) -> None:
    if expected and found != expected:
        raise _Found(State.WRONG_HASH, f"sha256 {found}, expected {expected}")


def hash_of(file: BinaryIO) -> str:
    """The sha256 of an open file, read from its beginning. Raises OSError."""
    found = hashlib.sha256()
    file.seek(0)
    buffer = bytearray(_CHUNK)
    while length := file.readinto(buffer):  # type: ignore[attr-defined]
        found.update(memoryview(buffer)[:length])
    return found.hexdigest()
