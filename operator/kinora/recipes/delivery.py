"""What is delivered: render size and delivered size are two things, and a key prefix stays below its root."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from kinora.api.videojob import Output, Parameters
from kinora.catalogue.model import Model, SizeLimits

_GRID = 16
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")

MIN_SIDE, MAX_SIDE = 16, 4096  # of what is delivered
MAX_PIXELS = 4096 * 2304  # the largest picture of H.264 level 5.2, the last that browsers decode everywhere
MAX_RATE_FACTOR = 8  # delivered over generated frames per second: of more, nearly everything would be invented
MAX_FRAMES = 20_000  # of a delivered video: it is read back to its end


@dataclass(frozen=True, slots=True)
class Sizes:
    """Pixels: rendered, and delivered."""

    width: int
    height: int
    output_width: int
    output_height: int


def sizes(parameters: Parameters, output: Output, model: Model) -> Sizes:
    """Both sizes of a job, from what it asks for and the model's default and limits.

    The render size is what is asked for; else the delivered size rounded up to 16 where the model renders that; else
    the largest size of about those proportions that it renders. Of a delivered size with one side the other follows.
    """
    width, height = _rendered(parameters, output, model)
    wide, high = output.width, output.height
    if wide is not None and high is None:
        high = height if crop_only(width, wide) else _even(height * wide / width)
    if high is not None and wide is None:
        wide = width if crop_only(height, high) else _even(width * high / height)
    return Sizes(width, height, wide or width, high or height)


def _rendered(parameters: Parameters, output: Output, model: Model) -> tuple[int, int]:
    default, limits = model.defaults, model.limits.size
    width, height = parameters.width, parameters.height
    wide, high = output.width, output.height
    if width is not None and height is None and wide and high and not crop_only(width, wide):
        height = max(round(width * high / wide / _GRID), 1) * _GRID
    if height is not None and width is None and wide and high and not crop_only(height, high):
        width = max(round(height * wide / high / _GRID), 1) * _GRID
    if width is not None or height is not None:
        return (
            width or _round_up(wide) or default.width,
            height or _round_up(high) or default.height,
        )
    if wide and high:
        return render_size(wide, high, limits)
    rounded = (_round_up(wide) or default.width, _round_up(high) or default.height)
    return rounded if _fits(*rounded, limits) else (default.width, default.height)


def render_size(wide: int, high: int, limits: SizeLimits) -> tuple[int, int]:
    """What is rendered for a delivered size: that, rounded up to 16, or the nearest size that the model renders."""
    rounded = (_round_up(wide) or 0, _round_up(high) or 0)
    return rounded if _fits(*rounded, limits) else _nearest(wide, high, limits)


def _fits(width: int, height: int, limits: SizeLimits) -> bool:
    sides = all(limits.min_side <= side <= limits.max_side for side in (width, height))
    return sides and width * height <= limits.max_pixels


def _nearest(wide: int, high: int, limits: SizeLimits) -> tuple[int, int]:
    """Of the sizes that the model renders and that are about this large at most, the one of the nearest proportions."""
    scale = min(1.0, limits.max_side / max(wide, high), (limits.max_pixels / (wide * high)) ** 0.5)
    scale = max(scale, limits.min_side / min(wide, high))
    found = [pair for pair in product(_around(wide * scale), _around(high * scale)) if _fits(*pair, limits)]

    def error(pair: tuple[int, int]) -> float:
        return max(pair[0] * high / (pair[1] * wide), pair[1] * wide / (pair[0] * high))

    return min(found, key=error) if found else (_round_up(wide) or 0, _round_up(high) or 0)


def _around(side: float) -> Iterator[int]:
    below = int(side) // _GRID * _GRID
    yield from (below, below + _GRID)


def _round_up(side: int | None) -> int | None:
    return None if side is None else -(-side // _GRID) * _GRID


def _even(side: float) -> int:
    return max(round(side / 2) * 2, 2)


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
