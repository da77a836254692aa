"""Mask nodes. Masks are uint8 [frames, height, width], 255 for white."""

import numpy as np
from PIL import Image, ImageFilter

from kinora.engine.standin.pictures import resize
from kinora.engine.standin.registry import node
from kinora.engine.standin.values import Context, Images, Masks, NodeError, Output


@node("SolidMask")
def solid_mask(_context: Context, *, value: float, width: int, height: int) -> Output:
    """MASK of one value."""
    return Output((np.full((1, height, width), round(value * 255), np.uint8),))


@node("MaskToImage")
def mask_to_image(_context: Context, *, mask: Masks) -> Output:
    """IMAGE in greys; shares the mask's memory."""
    return Output((np.broadcast_to(mask[..., None], (*mask.shape, 3)),))


@node("ImageToMask")
def image_to_mask(_context: Context, *, image: Images, channel: str) -> Output:
    """MASK from a channel; a batch has no alpha here."""
    if channel == "alpha":
        raise NodeError("index 3 is out of bounds for dimension 3 with size 3", "IndexError")
    return Output((image[..., ("red", "green", "blue").index(channel)],))


@node("InvertMask")
def invert_mask(_context: Context, *, mask: Masks) -> Output:
    """MASK, inverted."""
    return Output((255 - mask,))


@node("GrowMask")
def grow_mask(_context: Context, *, mask: Masks, expand: int, tapered_corners: bool) -> Output:
    """MASK with its white grown (or, below 0, shrunk) by `expand` pixels."""
    if not expand:
        return Output((mask,))
    extreme = ImageFilter.MaxFilter if expand > 0 else ImageFilter.MinFilter
    grown = []
    for frame in mask:
        picture = Image.fromarray(frame)
        for _ in range(abs(expand)):
            picture = _tapered(picture, expand > 0) if tapered_corners else picture.filter(extreme(3))
        grown.append(np.asarray(picture))
    return Output((np.stack(grown),))


def _tapered(picture: Image.Image, grow: bool) -> Image.Image:
    """One step in the four directions only, so that corners become diagonal."""
    padded = np.pad(np.asarray(picture), 1, mode="edge")
    parts = (padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    stacked = np.stack(parts)
    return Image.fromarray(stacked.max(axis=0) if grow else stacked.min(axis=0))


@node("ImageCompositeMasked")
def image_composite(
    _context: Context,
    *,
    destination: Images,
    source: Images,
    x: int,
    y: int,
    resize_source: bool,
    mask: Masks | None = None,
) -> Output:
    """IMAGE: `source` on `destination` at (x, y) where `mask` is white; source and mask repeat over the frames."""
    count, height, width, _ = destination.shape
    if resize_source:
        source = resize(source, width, height, "bilinear")
    x, y = min(x, width), min(y, height)
    wide, high = min(source.shape[2], width - x), min(source.shape[1], height - y)
    result = destination.copy()
    if mask is not None and mask.shape[1:] != source.shape[1:3]:
        mask = resize(mask, source.shape[2], source.shape[1], "bilinear")
    for at in range(count):
        part = result[at, y : y + high, x : x + wide]
        above = source[at % len(source), :high, :wide]
        if mask is None:
            part[:] = above
            continue
        weight = mask[at % len(mask), :high, :wide, None].astype(np.uint16)
        part[:] = (above * weight + part * (255 - weight) + 127) // 255
    return Output((result,))
