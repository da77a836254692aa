"""Pictures that stand for a video: one of its frames, or many of them on one sheet. PyAV and Pillow; no paths."""

from typing import BinaryIO, Final

from av.video.frame import VideoFrame
from PIL import Image

from kinora.media.info import MediaError, Normalised
from kinora.media.inspect import decode, open_video

THUMBNAIL: Final = 640  # pixels of the longer side, at most
CELL: Final = 240  # of a frame on a sheet
COLUMNS: Final = 5
MOST_FRAMES: Final = 25  # on a sheet


def thumbnail(file: BinaryIO, output: BinaryIO) -> Normalised:
    """Write the frame in the middle of the video as WebP. Raises MediaError."""
    numbers = [count_frames(file) // 2]
    made = _frames(file, numbers, THUMBNAIL)[numbers[0]]
    made.save(output, format="WEBP", quality=85)
    output.flush()
    return Normalised(made.width, made.height, ())


def spritesheet(file: BinaryIO, output: BinaryIO) -> Normalised:
    """Write up to MOST_FRAMES frames as one JPEG: row by row, evenly spread, first and last included."""
    numbers = spread(count_frames(file), MOST_FRAMES)
    cells = _frames(file, numbers, CELL)
    width, height = cells[numbers[0]].size
    columns = min(COLUMNS, len(numbers))
    made = Image.new("RGB", (columns * width, -(-len(numbers) // columns) * height))
    for place, number in enumerate(numbers):
        made.paste(cells[number].resize((width, height)), (place % columns * width, place // columns * height))
    made.save(output, format="JPEG", quality=85)
    output.flush()
    return Normalised(made.width, made.height, ())


def count_frames(file: BinaryIO) -> int:
    """How many frames can be decoded; whatever the container says. Raises MediaError for none."""
    with open_video(file) as (container, stream):
        count = sum(1 for _ in decode(container, stream))
    if not count:
        raise MediaError("it holds no frame that can be decoded")
    return count


def spread(total: int, wanted: int) -> list[int]:
    """So many of the numbers below `total`, evenly spread, first and last included."""
    wanted = max(1, min(wanted, total))
    return [round(index * (total - 1) / max(wanted - 1, 1)) for index in range(wanted)]


def upright(frame: VideoFrame) -> Image.Image:
    """The frame as it is to be shown."""
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _frames(file: BinaryIO, numbers: list[int], side: int) -> dict[int, Image.Image]:
    """Those frames, counted from 0, made smaller so that no side is longer than `side`."""
    found: dict[int, Image.Image] = {}
    with open_video(file) as (container, stream):
        for number, frame in enumerate(decode(container, stream)):
            if number in numbers:
                found[number] = upright(frame)
                found[number].thumbnail((side, side), Image.Resampling.LANCZOS)
            if number == numbers[-1]:
                break
    if len(found) < len(numbers):
        raise MediaError("it decodes differently each time")
    return found
