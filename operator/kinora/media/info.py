"""What is told of a picture or a video: plain records that cross the pipe from the child as JSON. No decoding here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self


class MediaError(Exception):
    """A file that cannot be used: a permanent fault of the input. The message holds no path."""


class InputError(MediaError):
    """A MediaError of one of several inputs, by its name."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


@contextmanager
def about(name: str) -> Iterator[None]:
    """What goes wrong inside is the fault of this input. Raises InputError."""
    try:
        yield
    except InputError:
        raise
    except MediaError as error:
        raise InputError(name, str(error)) from None


@dataclass(frozen=True, slots=True)
class _Record:
    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict. TypeError for other keys."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class MediaInfo(_Record):
    """A probed file. `width` and `height` are as it is shown, after `rotation` (degrees).

    `kind` is Image or Video; an image has one frame, no rate, and its format as `codec`. `frames` were really decoded.
    """

    kind: str
    width: int
    height: int
    frames: int
    fps: float
    duration_seconds: float
    codec: str
    rotation: int = 0
    has_audio: bool = False
    pix_fmt: str = ""


@dataclass(frozen=True, slots=True)
class Proof(_Record):
    """What was found in a finished output when it was read back and decoded to its end."""

    frames: int
    fps: float
    width: int
    height: int
    duration_seconds: float
    codec: str
    sha256: str
    bytes: int
    has_audio: bool = False


@dataclass(frozen=True, slots=True)
class Normalised(_Record):
    """A picture made ready for an engine: its size in pixels, and what was done to it, in words for status."""

    width: int
    height: int
    actions: tuple[str, ...] = ()
