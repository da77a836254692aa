"""Draws the sample picture of RunComfy's dialect: a figure in a yellow jacket before ruins at sunset. CC0, like its
output. `python hack/sample_picture.py FILE.png` writes the very file that the package carries.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT, SCALE = 480, 640, 2
SKY = ((0.0, (52, 66, 110)), (0.45, (196, 120, 96)), (0.62, (250, 196, 112)), (1.0, (252, 224, 160)))
RUINS = ((0, 250, 70), (60, 300, 60), (110, 215, 46), (150, 330, 80), (300, 290, 50), (345, 200, 64), (400, 320, 80))


def sky() -> Image.Image:
    """A sky that is warm at the horizon, with contrails."""
    places, colours = zip(*SKY, strict=True)
    rows = np.linspace(0, 1, HEIGHT * SCALE)
    column = np.stack([np.interp(rows, places, [colour[channel] for colour in colours]) for channel in range(3)], 1)
    picture = Image.fromarray(np.repeat(column[:, None, :], WIDTH * SCALE, 1).astype(np.uint8))
    trails = Image.new("L", picture.size)
    pen = ImageDraw.Draw(trails)
    for x, y, length in ((30, 70, 260), (150, 130, 300), (-40, 190, 210)):
        pen.line(_scaled(x, y, x + length, y - length // 5), fill=90, width=5 * SCALE)
    picture.paste((255, 236, 214), mask=trails.filter(ImageFilter.GaussianBlur(3 * SCALE)))
    return picture


def ruins(picture: Image.Image) -> None:
    """Broken walls, a rusted silo, rubble."""
    pen = ImageDraw.Draw(picture)
    for index, (x, top, width) in enumerate(RUINS):
        shade = (74 + 6 * (index % 3), 56 + 4 * (index % 3), 60)
        edge = [(x, HEIGHT), (x, top), (x + width // 3, top + 24), (x + width // 2, top + 6), (x + width, top + 40)]
        pen.polygon([(a * SCALE, b * SCALE) for a, b in (*edge, (x + width, HEIGHT))], fill=shade)
        for row in range(top + 60, 470, 46):
            pen.rectangle(_scaled(x + 12, row, x + 24, row + 20), fill=(48, 38, 46))
    pen.rounded_rectangle(_scaled(318, 120, 352, 520), radius=16 * SCALE, fill=(126, 72, 48))
    for row in range(150, 480, 44):
        pen.line(_scaled(318, row, 352, row), fill=(92, 52, 38), width=2 * SCALE)
    pen.polygon(
        [v * SCALE for v in (0, 500, 90, 470, 220, 496, 330, 462, 480, 500, 480, 640, 0, 640)], fill=(58, 46, 44)
    )


def figure(picture: Image.Image) -> None:
    """From below and in the middle: boots, black trousers with pouches, a yellow jacket, pack, mask and visor."""
    pen = ImageDraw.Draw(picture)
    black, yellow, dark = (34, 34, 38), (226, 176, 44), (180, 134, 30)
    for x in (196, 244):
        pen.rounded_rectangle(_scaled(x, 430, x + 38, 598), radius=10 * SCALE, fill=black)
        pen.rounded_rectangle(_scaled(x - 6, 584, x + 46, 612), radius=10 * SCALE, fill=(20, 20, 22))
        pen.rounded_rectangle(_scaled(x + 6, 470, x + 32, 502), radius=4 * SCALE, fill=(66, 62, 58))
    pen.rounded_rectangle(_scaled(160, 262, 196, 400), radius=14 * SCALE, fill=(62, 66, 56))
    pen.rounded_rectangle(_scaled(178, 250, 300, 446), radius=26 * SCALE, fill=yellow)
    for x in (158, 286):
        pen.rounded_rectangle(_scaled(x, 264, x + 34, 420), radius=16 * SCALE, fill=dark if x > 200 else yellow)
        pen.ellipse(_scaled(x + 4, 408, x + 30, 436), fill=black)
    pen.rectangle(_scaled(180, 404, 298, 420), fill=black)
    for x in (190, 224, 258):
        pen.rounded_rectangle(_scaled(x, 400, x + 24, 432), radius=4 * SCALE, fill=(70, 60, 48))
    pen.line(_scaled(200, 262, 278, 404), fill=black, width=7 * SCALE)
    pen.ellipse(_scaled(198, 168, 280, 262), fill=(46, 46, 50))
    pen.rounded_rectangle(_scaled(208, 194, 270, 222), radius=12 * SCALE, fill=(120, 196, 210))
    pen.ellipse(_scaled(222, 222, 256, 258), fill=(78, 78, 84))
    pen.rectangle(_scaled(230, 150, 250, 170), fill=(24, 24, 26))


def _scaled(*values: float) -> list[float]:
    return [value * SCALE for value in values]


def main() -> None:
    """Write the picture."""
    picture = sky()
    ruins(picture)
    figure(picture)
    small = picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    small.quantize(160, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
