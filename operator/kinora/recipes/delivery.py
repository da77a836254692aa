"""What is delivered: render size and delivered size are two things, and a key prefix stays below its root."""

from dataclasses import dataclass

from kinora.api.videojob import Output, Parameters
from kinora.catalogue.model import Defaults

_GRID = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """Pixels: rendered, and delivered after a centred crop."""

    width: int
    height: int
    output_width: int
    output_height: int


def sizes(parameters: Parameters, output: Output, defaults: Defaults) -> Sizes:
    """The render size is what is asked for, else the delivered size rounded up to 16, else the model's default."""
    width = parameters.width or _round_up(output.width) or defaults.width
    height = parameters.height or _round_up(output.height) or defaults.height
    return Sizes(width, height, output.width or width, output.height or height)


def _round_up(side: int | None) -> int | None:
    return None if side is None else -(-side // _GRID) * _GRID


def crop_only(rendered: int, delivered: int) -> bool:
    """Whether the delivered side is the rendered one less what rounding up to 16 added: a crop, no scaling."""
    return 0 <= rendered - delivered < _GRID


def key_prefix_fault(prefix: str) -> str | None:
    """Why a key prefix is refused, or None. It is a relative path of plain names."""
    if not prefix:
        return None
    if prefix.startswith("/"):
        return "a relative path"
    if any(part in ("", ".", "..") for part in prefix.removesuffix("/").split("/")):
        return "a path without empty, '.' or '..' parts"
    if not prefix.isascii() or not all(character.isalnum() or character in "-._/" for character in prefix):
        return "letters, digits, '-', '.', '_' and '/'"
    return None
