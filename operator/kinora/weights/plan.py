"""What is to be done for each weight file that has a source, from facts about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kinora.weights.manifest import Record
from kinora.weights.sources import Source
from kinora.weights.verify import FileState, State


class Step(StrEnum):
    """What to do for one file."""

    KEEP = "Keep"
    "It is right."
    COMPARE = "Compare"
    "It looks right, and nothing says where it is from: right if it is as long as the file at the source."
    FETCH = "Fetch"


@dataclass(frozen=True, slots=True)
class Found:
    """One file on the volume: what verifying says, and what the manifest says of it."""

    state: FileState
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The step, and why."""

    step: Step
    why: str = ""


def choose(source: Source, found: Found) -> Choice:
    """What to do for one file."""
    state, record = found.state, found.record
    if not state.ok:
        why = "not on the volume" if state.state is State.MISSING else state.message.removeprefix(f"{state.path}: ")
        return Choice(Step.FETCH, why)
    if source.weight.sha256 and state.sha256 == source.weight.sha256:
        return Choice(Step.KEEP)
    if record is None:
        if source.sha256:
            same = state.sha256 == source.sha256
            return Choice(Step.KEEP) if same else Choice(Step.FETCH, "its sha256 is another than its source's")
        return Choice(Step.COMPARE)
    if source.sha256 and source.sha256 not in {record.sha256, record.source_sha256}:
        return Choice(Step.FETCH, "the sha256 of its source is another one now")
    if not source.sha256 and record.source != source.shown:
        return Choice(Step.FETCH, "its source is another one now")
    return Choice(Step.KEEP)


def bytes_needed(sizes: Iterable[tuple[int, int, bool]]) -> int:
    """Room for all files: each its size at the source, bytes that are there of it, whether it will be quantized.

    A quantized file has half the source's bytes and a little more, and both are there at the end.
    """
    return sum(size - there + (size * 9 // 16 if quantized else 0) for size, there, quantized in sizes)


def human(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


class Rate:
    """Bytes a second over the last seconds."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._span = seconds
        self._seen: list[tuple[float, int]] = []

    def see(self, count: int, now: float) -> None:
        """`count` bytes have come by now."""
        self._seen = [(at, had) for at, had in self._seen if now - at <= self._span and had <= count]
        self._seen.append((now, count))

    @property
    def value(self) -> float:
        """Bytes a second."""
        (first, had), (last, have) = self._seen[0], self._seen[-1]
        return (have - had) / (last - first) if last > first else 0.0
