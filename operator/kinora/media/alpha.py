"""A picture as ComfyUI's editor asks for it: its alpha put on, or looked at alone; a smaller preview. Pillow; no paths.

Alpha is what a loader node takes for the mask: transparent is what is to be painted anew.
"""

from collections.abc import Mapping
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kinora.media.images import eight_bits
from kinora.media.info import MediaError, Normalised, about
from kinora.media.inspect import open_image

MAX_PIXELS = 4096 * 4096  # of one picture: what a graph may have, and what fits into a gateway
_MAX_TEXT = 1024 * 1024  # characters of a PNG's notes (editors keep a whole workflow there)


def put_alpha(inputs: Mapping[str, BinaryIO], outputs: Mapping[str, BinaryIO]) -> Normalised:
    """Write `image` with the alpha of `mask` to the output, as PNG with the image's notes. Raises InputError."""
    with about("image"), open_image(inputs["image"], MAX_PIXELS) as image:
        image.load()
        notes = _notes(image)
        picture = image.convert("RGBA")
    with about("mask"), open_image(inputs["mask"], MAX_PIXELS) as mask:
        mask.load()
        if mask.size != picture.size:
            sizes = f"{mask.width}x{mask.height}, and the picture {picture.width}x{picture.height}"
            raise MediaError(f"it is {sizes}: allowed is the same size")
        picture.putalpha(mask.convert("RGBA").getchannel("A"))
    picture.save(outputs["image"], format="PNG", compress_level=4, pnginfo=notes)
    outputs["image"].flush()
    return Normalised(picture.width, picture.height, ())


def channel(file: BinaryIO, output: BinaryIO, name: str) -> Normalised:
    """Write the colours alone (`rgb`), or the alpha alone (`a`), as PNG. Raises MediaError."""
    with open_image(file, MAX_PIXELS) as image:
        image.load()
        if name == "rgb":
            made = image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")
        else:
            made = Image.new("RGBA", image.size)
            made.putalpha(image.convert("RGBA").getchannel("A"))
    made.save(output, format="PNG", compress_level=1)
    output.flush()
    return Normalised(made.width, made.height, ())


def preview(file: BinaryIO, output: BinaryIO, kind: str, quality: int, opaque: bool) -> Normalised:
    """Write the picture as `kind` (webp or jpeg) of this quality (1 to 100); `opaque`: its colours alone."""
    with open_image(file, MAX_PIXELS) as image:
        image.load()
        plain = eight_bits(image, [])
        if opaque or kind == "jpeg":
            made = plain.convert("RGBA").convert("RGB") if plain.has_transparency_data else plain.convert("RGB")
        else:
            made = plain.convert("RGBA" if plain.has_transparency_data else "RGB")
        made.save(output, format=kind.upper(), quality=quality)
    output.flush()
    return Normalised(made.width, made.height, ())


def _notes(image: Image.Image) -> PngInfo:
    notes = PngInfo()
    room = _MAX_TEXT
    for key, text in getattr(image, "text", {}).items():
        room -= len(text)
        if room >= 0:
            notes.add_text(key, str(text))
    return notes
