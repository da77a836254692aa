"""A contact sheet: frames of a video side by side with their times, as one PNG. For the demo and the docs.

`python -m kinora.media.contact_sheet IN.mp4 OUT.png [--frames N] [--title TEXT]`. It trusts its input: it looks at
our own outputs.
"""

import argparse
import sys
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageDraw, ImageFont

from kinora.media.info import MediaError, MediaInfo
from kinora.media.inspect import decode, open_video, probe
from kinora.media.stills import spread, upright

_CELL, _GAP, _CAPTION, _HEAD = 240, 8, 20, 30  # pixels
_PAPER, _INK, _FAINT = (24, 26, 30), (236, 238, 240), (150, 156, 164)


def contact_sheet(file: BinaryIO, frames: int = 8, columns: int = 4, title: str = "") -> Image.Image:
    """`frames` pictures, evenly spread, first and last included. Raises MediaError."""
    info = probe(file)
    if info.kind != "Video":
        raise MediaError("a contact sheet is made of a video")
    numbers = spread(info.frames, frames)
    pictures = _pictures(file, set(numbers))
    width = min(_CELL, info.width)
    height = max(round(width * info.height / info.width), 1)
    columns = min(columns, len(numbers))
    rows = -(-len(numbers) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + _GAP) + _GAP, _HEAD + rows * (height + _CAPTION + _GAP) + _GAP),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), _title(info, title), font=ImageFont.load_default(14), fill=_INK)
    for place, number in enumerate(numbers):
        left = _GAP + place % columns * (width + _GAP)
        top = _HEAD + place // columns * (height + _CAPTION + _GAP)
        sheet.paste(pictures[number].resize((width, height), Image.Resampling.LANCZOS), (left, top))
        time = f"{number / info.fps:.2f} s" if info.fps else ""
        caption = f"frame {number + 1}   {time}"
        draw.text((left, top + height + 3), caption, font=ImageFont.load_default(12), fill=_FAINT)
    return sheet


def _title(info: MediaInfo, title: str) -> str:
    facts = f"{info.width}x{info.height}, {info.frames} frames at {info.fps:g} fps, {info.codec}"
    return f"{title}: {facts}" if title else facts


def _pictures(file: BinaryIO, numbers: set[int]) -> dict[int, Image.Image]:
    with open_video(file) as (container, stream):
        return {number: upright(frame) for number, frame in enumerate(decode(container, stream)) if number in numbers}


def main(arguments: list[str] | None = None) -> int:
    """The command. 0: written; 1: the video cannot be read or the sheet not written."""
    parser = argparse.ArgumentParser(prog="python -m kinora.media.contact_sheet")
    parser.add_argument("video", type=Path, metavar="IN.mp4")
    parser.add_argument("sheet", type=Path, metavar="OUT.png")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--title", default="", help="default: the video's file name")
    options = parser.parse_args(arguments)
    try:
        with options.video.open("rb") as file:
            sheet = contact_sheet(file, options.frames, options.columns, options.title or options.video.stem)
        sheet.save(options.sheet, format="PNG", optimize=True)
    except (MediaError, OSError) as error:
        print(f"{options.video}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
