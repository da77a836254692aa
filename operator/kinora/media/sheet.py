"""Several reference pictures on one: the node that takes references takes one picture.

Objects lie whole on white, as the official code does with references; a background fills its tile.
"""

from collections.abc import Sequence

import numpy as np

from kinora.media.frames import WHITE, Frame, cover, letterbox


def sheet(pictures: Sequence[tuple[Frame, bool]], width: int, height: int) -> Frame:
    """The pictures (with whether each is a background) in reading order, in tiles of one size."""
    page = np.full((height, width, 3), WHITE, np.uint8)
    columns, rows = grid(len(pictures), width, height)
    for place, (picture, background) in enumerate(pictures):
        row, column = divmod(place, columns)
        top, bottom = height * row // rows, height * (row + 1) // rows
        left, right = width * column // columns, width * (column + 1) // columns
        fit = cover if background else letterbox
        page[top:bottom, left:right] = fit(picture, right - left, bottom - top)
    return page


def grid(count: int, width: int, height: int) -> tuple[int, int]:
    """Columns and rows: the split whose tiles are nearest to squares, with the fewest left empty."""
    splits = [(columns, -(-count // columns)) for columns in range(1, count + 1)]

    def worth(split: tuple[int, int]) -> tuple[float, int]:
        columns, rows = split
        side = min(width / columns, height / rows)
        return -side, columns * rows

    return min(splits, key=worth)
