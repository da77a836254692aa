"""Colours and the small stamp of a stand-in picture, from text and numbers alone. Pure."""

import colorsys
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[float, float, float]
LEVELS = 1024  # entries of a colour table
_STOP_VALUES = (0.20, 0.46, 0.74, 0.93, 1.0)  # brightness rises, so that a picture painted with it keeps its forms
_STOP_SATURATIONS = (0.8, 0.85, 0.75, 0.55, 0.25)
_SHARE_OF_REFERENCE = 0.9


def generator(seed: int, *texts: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the texts, and on nothing else."""
    digest = hashlib.sha256("\0".join([str(seed), *texts]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def prompt_colours(numbers: np.random.Generator) -> list[Colour]:
    """Five colours from dark to light that go together."""
    hue = float(numbers.random())
    spread = float(numbers.uniform(0.06, 0.12)) * float(numbers.choice((-1.0, 1.0)))
    return [
        colorsys.hsv_to_rgb((hue + at * spread) % 1.0, saturation, value)
        for at, (saturation, value) in enumerate(zip(_STOP_SATURATIONS, _STOP_VALUES, strict=True))
    ]


def with_reference(colours: Sequence[Colour], reference: Sequence[Colour]) -> list[Colour]:
    """The colours, mostly replaced by those of a reference, dark ones first."""
    ordered = sorted(reference, key=lambda colour: 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2])
    if not ordered:
        return list(colours)
    chosen = [ordered[round(at * (len(ordered) - 1) / (len(colours) - 1))] for at in range(len(colours))]
    share = _SHARE_OF_REFERENCE
    return [
        (own[0] + share * (seen[0] - own[0]), own[1] + share * (seen[1] - own[1]), own[2] + share * (seen[2] - own[2]))
        for own, seen in zip(colours, chosen, strict=True)
    ]


def table(colours: Sequence[Colour]) -> npt.NDArray[np.float32]:
    """[LEVELS, 3] from 0 to 255, running smoothly through the colours."""
    stops = np.array(colours, np.float32) * 255
    place = np.linspace(0, len(stops) - 1, LEVELS, dtype=np.float32)
    left = np.minimum(place.astype(np.int64), len(stops) - 2)
    part = place - left
    eased = (part * part * (3 - 2 * part))[:, None]
    return np.asarray(stops[left] * (1 - eased) + stops[left + 1] * eased, np.float32)


def stamp(prompt: str, width: int, height: int) -> npt.NDArray[np.float32]:
    """Opacity 0 to 1 of the words "stand-in" and the prompt's beginning, as an array of at most [height, width].

    The font has Latin letters only: a prompt without any is shown by the beginning of its hash.
    """
    font = ImageFont.load_default(size=max(9, min(20, height // 30)))
    shown = "".join(letter for letter in prompt if letter.isprintable() and ord(letter) < 256).strip()
    shown = shown or ("#" + hashlib.sha256(prompt.encode()).hexdigest()[:8] if prompt else "")
    text = f"stand-in  {shown}"
    while len(text) > len("stand-in") and font.getlength(text) > width - 6:
        text = text[:-1]
    left, top, right, bottom = font.getbbox(text.rstrip())
    picture = Image.new("L", (min(width, int(right - left) + 2), min(height, int(bottom - top) + 2)))
    ImageDraw.Draw(picture).text((1 - left, 1 - top), text.rstrip(), fill=255, font=font)
    return np.asarray(picture, np.float32) / np.float32(255)
