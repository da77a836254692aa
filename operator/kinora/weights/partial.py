"""A file that is on its way: its bytes under a temporary name, and beside it which of them have landed.

The notes are written after the bytes are synced, so that what they say is true after a crash. They hold only for the
file that they were begun for: another size, validator or address at the source begins anew. No network here.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kinora.weights.manifest import write_durably
from kinora.weights.origin import Remote

PART = 64 << 20  # bytes


@dataclass(slots=True)
class Part:
    """A stretch of the file: `done` of its bytes from `start` on have landed."""

    start: int
    end: int
    done: int = 0

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.end - self.start - self.done


@dataclass(slots=True)
class Partial:
    """The temporary file of `target` and what is known of it."""

    target: Path
    remote: Remote
    address: str
    part_bytes: int = PART
    parts: list[Part] = field(init=False)
    descriptor: int = field(init=False, default=-1)
    _noted: str = field(init=False, default="")

    def __post_init__(self) -> None:
        size = self.remote.size
        step = self.part_bytes if self.remote.ranges else size
        self.parts = [Part(at, min(at + step, size)) for at in range(0, size, step)] or [Part(0, 0)]

    def landed_before(self) -> int:
        """Bytes that an earlier process has brought of this very file."""
        return sum(self._known() or ())

    def open(self) -> None:
        """Go on with what is there of the same file, or begin. Raises OSError."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        known = self._known()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(self.path, flags | (0 if known else os.O_TRUNC), 0o644)
        for part, done in zip(self.parts, known or (), strict=bool(known)):
            part.done = done
        os.ftruncate(self.descriptor, self.remote.size)

    @property
    def path(self) -> Path:
        """Where the bytes are."""
        return partial_path(self.target)

    @property
    def _notes(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def bytes_done(self) -> int:
        """Bytes that have landed."""
        return sum(part.done for part in self.parts)

    @property
    def prefix(self) -> int:
        """Bytes from the file's beginning on that have landed without a gap."""
        reached = 0
        for part in self.parts:
            reached = part.start + part.done
            if part.left:
                break
        return reached

    def note(self) -> None:
        """Sync what has landed, then say so. Blocks; raises OSError."""
        done = [part.done for part in self.parts]  # before the sync: what lands during it may not be in it
        text = json.dumps({**self._identity(), "partBytes": self.parts[0].end, "done": done})
        if text == self._noted:
            return
        os.fdatasync(self.descriptor)
        write_durably(self._notes, text.encode())
        self._noted = text

    def finish(self) -> None:
        """Give the file its name, durably. Raises OSError."""
        os.fsync(self.descriptor)
        self._close()
        self.path.replace(self.target)
        with suppress(FileNotFoundError):
            self._notes.unlink()

    def leave(self) -> None:
        """Close it to be gone on with later, unless it has its name. Blocks."""
        if self.descriptor >= 0:
            with suppress(OSError):
                self.note()
            self._close()

    def _close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1

    def _identity(self) -> dict[str, object]:
        return {"size": self.remote.size, "validator": self.remote.validator, "address": self.address}

    def _known(self) -> list[int] | None:
        """Bytes landed in each part, where the notes speak of this very file and these parts."""
        if not (self.remote.ranges and self.remote.validator):
            return None
        try:
            notes = json.loads(self._notes.read_bytes())
            size = self.path.stat(follow_symlinks=False).st_size
        except (OSError, ValueError):
            return None
        if not isinstance(notes, dict) or size != self.remote.size:
            return None
        if any(notes.get(name) != value for name, value in self._identity().items()):
            return None
        done = notes.get("done")
        if notes.get("partBytes") != self.parts[0].end or not isinstance(done, list) or len(done) != len(self.parts):
            return None
        sound = (type(n) is int and 0 <= n <= part.end - part.start for n, part in zip(done, self.parts, strict=True))
        return done if all(sound) else None


def partial_path(target: Path) -> Path:
    """The temporary name of a file on its way to `target`."""
    return target.with_name(f".{target.name}.partial")


def discard(target: Path) -> None:
    """Remove what is there of a file on its way."""
    path = partial_path(target)
    for name in (path, path.with_name(f"{path.name}.json")):
        with suppress(FileNotFoundError):
            name.unlink()
