"""A user's picture -> the PNG that an engine reads: upright, eight bits, opaque. Pillow and numpy; no paths."""

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from kinora.media.info import MediaError, Normalised
from kinora.media.inspect import MAX_PIXELS, open_image

_PAPER = (255, 255, 255)


def normalise_image(file: BinaryIO, output: BinaryIO, max_pixels: int = MAX_PIXELS) -> Normalised:
    """Decode `file`, turn it as its EXIF says, flatten it on white, write PNG to `output`. Raises MediaError.

    Flattened, because ComfyUI's LoadImage drops alpha and shows whatever colour lies under it. An animation
    is refused: which of its pictures is meant would be a guess.
    """
    with open_image(file, max_pixels) as image:
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise MediaError(f"an animated {image.format} is no single picture")
        image.load()
        turned = ImageOps.exif_transpose(image)
        actions = [] if turned.size == image.size and turned.tobytes() == image.tobytes() else ["turned upright (EXIF)"]
        upright = eight_bits(turned, actions)
        flat = _opaque(upright, actions)
    flat.save(output, format="PNG", compress_level=1)
    output.flush()
    return Normalised(flat.width, flat.height, tuple(actions))


def eight_bits(image: Image.Image, actions: list[str]) -> Image.Image:
    """The picture with eight bits a channel. Sixteen are scaled: Pillow's own conversion would clip them to white."""
    if image.mode.startswith("I") or image.mode == "F":
        actions.append("reduced to 8 bits")
        values = np.asarray(image, dtype=np.float64)
        top = 255.0 if image.mode == "F" and values.max(initial=0) <= 255 else 65535.0
        return Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8))
    return image


def _opaque(image: Image.Image, actions: list[str]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    actions.append("flattened on white")
    layer = image.convert("RGBA")
    paper = Image.new("RGB", layer.size, _PAPER)
    paper.paste(layer, mask=layer.getchannel("A"))
    return paper
