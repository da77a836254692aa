"""Image nodes: loading, resizing, batching, cropping, saving. Images are uint8 [frames, height, width, 3]."""

import json
import random
import string
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from kinora.engine.standin.pictures import canny, common_upscale, resize
from kinora.engine.standin.registry import node
from kinora.engine.standin.values import Context, Images, Masks, NodeError, Output

SAVE_COUNTER = r"{name}_(\d+)_"


def open_picture(context: Context, name: str) -> Image.Image:
    """The uploaded picture `name`, turned as its EXIF says. NodeError when it is none."""
    try:
        return ImageOps.exif_transpose(Image.open(context.folders.upload(name)))
    except UnidentifiedImageError as exc:
        raise NodeError(f"cannot identify image file {name!r}", "PIL.UnidentifiedImageError") from exc
    except (OSError, ValueError) as exc:
        raise NodeError(f"cannot read {name!r}: {type(exc).__name__}", "OSError") from exc


@node("LoadImage")
def load_image(context: Context, *, image: str, **_more: Any) -> Output:
    """IMAGE, and MASK from its alpha (255 where it is transparent; 64x64 of 0 where it has none)."""
    picture = open_picture(context, image)
    mask = np.zeros((1, 64, 64), np.uint8)
    if "A" in picture.getbands():
        mask = 255 - np.asarray(picture.getchannel("A"))[None]
    return Output((np.asarray(picture.convert("RGB"))[None], mask))


@node("LoadImageMask")
def load_image_mask(context: Context, *, image: str, channel: str) -> Output:
    """MASK from one channel; alpha is inverted, as ComfyUI does."""
    picture = open_picture(context, image).convert("RGBA")
    values = np.asarray(picture.getchannel(channel[0].upper()))[None]
    return Output((255 - values if channel == "alpha" else values,))


@node("EmptyImage")
def empty_image(_context: Context, *, width: int, height: int, batch_size: int, color: int) -> Output:
    """IMAGE of one colour 0xRRGGBB. All frames share one pixel of memory."""
    pixel = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], np.uint8)
    return Output((np.broadcast_to(pixel, (batch_size, height, width, 3)),))


@node("ImageScale")
def image_scale(_context: Context, *, image: Images, upscale_method: str, width: int, height: int, crop: str) -> Output:
    """IMAGE of the size; 0 for one side keeps the proportion."""
    if not width and not height:
        return Output((image,))
    width = width or max(1, round(image.shape[2] * height / image.shape[1]))
    height = height or max(1, round(image.shape[1] * width / image.shape[2]))
    return Output((common_upscale(image, width, height, upscale_method, crop),))


@node("ImageResizeKJv2")
def image_resize(
    _context: Context,
    *,
    image: Images,
    width: int,
    height: int,
    upscale_method: str,
    keep_proportion: str,
    pad_color: str,
    crop_position: str,
    divisible_by: int,
    mask: Masks | None = None,
    **_more: Any,
) -> Output:
    """IMAGE, width, height, MASK: stretched, resized within, padded or cropped to the size."""
    width, height = width or image.shape[2], height or image.shape[1]
    if keep_proportion == "resize":
        scale = min(width / image.shape[2], height / image.shape[1])
        width, height = round(image.shape[2] * scale), round(image.shape[1] * scale)
    if divisible_by > 1:
        width, height = width - width % divisible_by, height - height % divisible_by
    if keep_proportion.startswith("pad") or keep_proportion == "pillarbox_blur":
        resized = _padded(image, width, height, upscale_method, pad_color)
    else:
        crop = crop_position if keep_proportion == "crop" else "disabled"
        resized = common_upscale(image, width, height, upscale_method, crop)
    mask = np.zeros((1, 64, 64), np.uint8) if mask is None else resize(mask, width, height, upscale_method)
    return Output((resized, width, height, mask))


def _padded(image: Images, width: int, height: int, method: str, color: str) -> Images:
    scale = min(width / image.shape[2], height / image.shape[1])
    inner_width, inner_height = max(1, round(image.shape[2] * scale)), max(1, round(image.shape[1] * scale))
    fill = np.array([int(part) for part in color.split(",")][:3], np.uint8)
    canvas = np.empty((len(image), height, width, 3), np.uint8)
    canvas[:] = fill
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas[:, top : top + inner_height, left : left + inner_width] = resize(image, inner_width, inner_height, method)
    return canvas


@node("ImageBatch")
def image_batch(_context: Context, *, image1: Images, image2: Images) -> Output:
    """IMAGE: both after each other; the second is brought to the size of the first."""
    if image1.shape[1:] != image2.shape[1:]:
        image2 = common_upscale(image2, image1.shape[2], image1.shape[1], "bilinear", "center")
    return Output((np.concatenate([image1, image2]),))


@node("RepeatImageBatch")
def repeat_image_batch(_context: Context, *, image: Images, amount: int) -> Output:
    """IMAGE `amount` times; one picture takes no more memory than one."""
    if len(image) == 1:
        return Output((np.broadcast_to(image, (amount, *image.shape[1:])),))
    return Output((np.tile(image, (amount, 1, 1, 1)),))


@node("ImageFromBatch")
def image_from_batch(_context: Context, *, image: Images, batch_index: int, length: int) -> Output:
    """IMAGE: `length` pictures from `batch_index`, both held within the batch."""
    start = min(len(image) - 1, batch_index)
    return Output((image[start : start + min(len(image) - start, length)],))


@node("RebatchImages", lists=True)
def rebatch_images(_context: Context, *, images: list[Images], batch_size: list[int]) -> Output:
    """A list of IMAGE batches of `batch_size`."""
    size = batch_size[0]
    return Output(([batch[at : at + size] for batch in images for at in range(0, len(batch), size)],))


@node("ImageInvert")
def image_invert(_context: Context, *, image: Images) -> Output:
    """IMAGE, inverted."""
    return Output((255 - image,))


@node("ImageCrop")
def image_crop(_context: Context, *, image: Images, width: int, height: int, x: int, y: int) -> Output:
    """IMAGE: the part at (x, y), as far as it lies within."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return Output((image[:, y : y + height, x : x + width],))


@node("GetImageSize")
def get_image_size(_context: Context, *, image: Images) -> Output:
    """width, height, number of frames."""
    return Output((image.shape[2], image.shape[1], len(image)))


@node("ImagePadForOutpaint")
def image_pad(
    _context: Context, *, image: Images, left: int, top: int, right: int, bottom: int, feathering: int
) -> Output:
    """IMAGE on a grey canvas, and MASK of one frame that is white where there was nothing (feathered inwards)."""
    count, height, width, _ = image.shape
    canvas = np.full((count, height + top + bottom, width + left + right, 3), 128, np.uint8)
    canvas[:, top : top + height, left : left + width] = image
    inner = np.zeros((height, width), np.float32)
    if feathering > 0 and feathering * 2 < min(height, width):
        far = max(height, width)
        rows, columns = np.arange(height)[:, None], np.arange(width)[None]
        edges = (
            rows if top else far, height - rows if bottom else far,
            columns if left else far, width - columns if right else far,
        )  # fmt: skip
        nearest = np.minimum(np.minimum(edges[0], edges[1]), np.minimum(edges[2], edges[3]))
        inner = np.square(np.clip((feathering - nearest) / feathering, 0, 1)).astype(np.float32)
    mask = np.full((1, *canvas.shape[1:3]), 255, np.uint8)
    mask[0, top : top + height, left : left + width] = np.round(inner * 255)
    return Output((canvas, mask))


@node("Canny")
def canny_node(_context: Context, *, image: Images, low_threshold: float, high_threshold: float) -> Output:
    """IMAGE of white edges on black."""
    return Output((canny(image, low_threshold, high_threshold),))


@node("DepthAnythingV2Preprocessor")
def depth(_context: Context, *, image: Images, resolution: int = 512, **_options: Any) -> Output:
    """IMAGE in greys, its shorter side `resolution` long: blurred brightness in the place of depth."""
    pictures = _preprocessed(image, resolution)
    blur = ImageFilter.GaussianBlur(max(1.0, min(pictures.shape[1:3]) / 60))
    greys = [np.asarray(Image.fromarray(picture).convert("L").filter(blur)) for picture in pictures]
    return Output((np.repeat(np.stack(greys)[..., None], 3, axis=3),))


@node("DWPreprocessor")
def pose(_context: Context, *, image: Images, resolution: int = 512, **_options: Any) -> Output:
    """IMAGE of strokes on black, its shorter side `resolution` long: edges in the place of limbs. POSE_KEYPOINT."""
    return Output((canny(_preprocessed(image, resolution), 0.2, 0.4), None))


def _preprocessed(image: Images, resolution: int) -> Images:
    height, width = image.shape[1:3]
    scale = resolution / min(height, width)
    return resize(image, round(width * scale), round(height * scale))


@node("ColorMatch")
def color_match(
    _context: Context, *, image_ref: Images, image_target: Images, method: str, strength: float = 1.0, **_more: Any
) -> Output:
    """IMAGE: the target with the reference's mean and spread of each channel, whatever the method."""
    if len(image_ref) not in (1, len(image_target)):
        raise NodeError(f"ColorMatch ({method}) takes one reference picture, or as many as there are pictures")
    target, wanted = image_target.astype(np.float32), image_ref.astype(np.float32)
    mean, spread = target.mean((1, 2), keepdims=True), target.std((1, 2), keepdims=True)
    scale = wanted.std((1, 2), keepdims=True) / np.maximum(spread, 1.0)
    matched = (target - mean) * scale + wanted.mean((1, 2), keepdims=True)
    return Output((np.clip(target + strength * (matched - target) + 0.5, 0, 255).astype(np.uint8),))


@node("SaveImage")
def save_image(context: Context, *, images: Images, filename_prefix: str) -> Output:
    """PNG files in the output folder: name_00001_.png and on."""
    return _saved(context, images, filename_prefix, "output", compress_level=4)


@node("PreviewImage")
def preview_image(context: Context, *, images: Images) -> Output:
    """PNG files in the temp folder."""
    letters = "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - a file name, no secret
    return _saved(context, images, f"ComfyUI_temp_{letters}", "temp", compress_level=1)


def _saved(context: Context, images: Images, prefix: str, kind: str, compress_level: int) -> Output:
    place = context.folders.save_place(prefix, kind, SAVE_COUNTER)
    info = PngInfo()
    if context.metadata:
        info.add_text("prompt", json.dumps(context.graph))
    entries = []
    for number, picture in enumerate(images, place.counter):
        name = f"{place.name}_{number:05}_.png"
        Image.fromarray(picture).save(place.folder / name, pnginfo=info, compress_level=compress_level)
        entries.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return Output(ui={"images": entries})
