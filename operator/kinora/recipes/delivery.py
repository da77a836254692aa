"""What is delivered: render size and delivered size are two things, and a key prefix stays below its root."""

import re
from dataclasses import dataclass

from kinora.api.videojob import Output, Parameters
from kinora.catalogue.model import Defaults

_GRID = 16
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


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


def is_plain_name(part: str) -> bool:
    """Whether this may be one step of a key: ASCII letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`."""
    return _PLAIN.fullmatch(part) is not None


def key_prefix_fault(prefix: str) -> str | None:
    """What is allowed instead of this key prefix, or None. It is a relative path of plain names; one `/` may end it."""
    if not prefix or all(is_plain_name(part) for part in prefix.removesuffix("/").split("/")):
        return None
    return "a relative path whose parts begin with a letter, a digit or '_' and hold only those, '-' and '.': no '..'"
