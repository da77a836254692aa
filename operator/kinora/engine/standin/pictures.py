"""Arithmetic on pictures that several nodes share: resizing, edges, colours. Pure functions on uint8 arrays."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = TypeVar("Pixels", bound=npt.NDArray[np.uint8])

METHODS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROPS = {"center": (0.5, 0.5), "top": (0.5, 0.0), "bottom": (0.5, 1.0), "left": (0.0, 0.5), "right": (1.0, 0.5)}


def resize(pictures: Pixels, width: int, height: int, method: str = "bilinear") -> Pixels:
    """Images or masks, stretched to the size. What has it already is given back as it is."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    how = METHODS.get(method, Image.Resampling.BICUBIC)
    resized: Any = np.empty((len(pictures), height, width, *pictures.shape[3:]), np.uint8)
    for at, picture in enumerate(pictures):
        resized[at] = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), how))
    return resized  # type: ignore[no-any-return]


def common_upscale(pictures: Pixels, width: int, height: int, method: str, crop: str) -> Pixels:
    """ComfyUI's common_upscale: cropped to the proportion (unless `crop` is "disabled"), then stretched."""
    if crop == "disabled":
        return resize(pictures, width, height, method)
    old_height, old_width = pictures.shape[1:3]
    keep_width = min(old_width, round(old_height * width / height))
    keep_height = min(old_height, round(old_width * height / width))
    across, down = _CROPS.get(crop, (0.5, 0.5))
    left, top = round((old_width - keep_width) * across), round((old_height - keep_height) * down)
    cropped: Any = pictures[:, top : top + keep_height, left : left + keep_width]
    return resize(cropped, width, height, method)  # type: ignore[no-any-return]


def luma(picture: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Brightness 0 to 1 of one picture [height, width, 3] (values to 255, BT.601)."""
    weights = np.array([0.299, 0.587, 0.114], np.float32) / 255
    return np.asarray(picture.astype(np.float32) @ weights, np.float32)


def gradient(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Strength of the slope at each pixel of [height, width]."""
    down, across = np.gradient(values)
    return np.asarray(np.hypot(down, across), np.float32)


def canny(images: npt.NDArray[np.uint8], low: float, high: float) -> npt.NDArray[np.uint8]:
    """White edges on black [frames, height, width, 3]: strong ones, and weak ones beside them."""
    result = np.zeros(images.shape, np.uint8)
    for at, picture in enumerate(images):
        slope = gradient(luma(picture)) * 4
        strong, weak = slope > high, slope > low
        padded = np.pad(strong, 1)
        beside = np.zeros_like(strong)
        for down in (0, 1, 2):
            for across in (0, 1, 2):
                beside |= padded[down : down + slope.shape[0], across : across + slope.shape[1]]
        result[at] = ((strong | (weak & beside)) * np.uint8(255))[..., None]
    return result


def dominant_colours(picture: npt.NDArray[np.uint8], count: int) -> list[tuple[float, float, float]]:
    """The `count` commonest colours of a picture [height, width, 3], commonest first, each 0 to 1."""
    small = Image.fromarray(np.ascontiguousarray(picture)).resize((64, 64), Image.Resampling.BOX)
    reduced = small.quantize(count, method=Image.Quantize.MEDIANCUT)
    palette = reduced.getpalette() or []
    shares = sorted(reduced.getcolors() or [], reverse=True)
    colours = []
    for _, index in shares:
        red, green, blue = palette[int(index) * 3 : int(index) * 3 + 3]  # type: ignore[call-overload]
        colours.append((red / 255, green / 255, blue / 255))
    return colours
