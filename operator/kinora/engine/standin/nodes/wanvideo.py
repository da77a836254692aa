"""Image to video with the nodes of ComfyUI-WanVideoWrapper. The pictures come from paint.py."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinora.engine.standin.nodes.sampling import decoded, latent_frames, pictures_of, sample
from kinora.engine.standin.paint import Scene
from kinora.engine.standin.pictures import resize
from kinora.engine.standin.registry import node
from kinora.engine.standin.values import Context, Images, Latent, NodeError, Output, Weights


@dataclass(frozen=True)
class TextEmbeds:
    """Both prompts."""

    positive: str
    negative: str


@dataclass(frozen=True)
class ImageEmbeds:
    """A start image at the render size, and how many pictures are to follow."""

    start: Images
    frames: int
    strength: float


@node("WanVideoTextEncode")
def text_encode(_context: Context, *, positive_prompt: str, negative_prompt: str, **options: Any) -> Output:
    """WANVIDEOTEXTEMBEDS."""
    if options.get("t5") is None:
        raise NodeError("No cached text embeds found for prompts, please provide a T5 encoder.", "ValueError")
    return Output((TextEmbeds(positive_prompt, negative_prompt),))


@node("WanVideoImageClipEncode")
def image_clip_encode(
    _context: Context,
    *,
    image: Images,
    generation_width: int,
    generation_height: int,
    num_frames: int,
    adjust_resolution: bool = True,
    latent_strength: float = 1.0,
    **_options: Any,
) -> Output:
    """WANVIDIMAGE_EMBEDS. With adjust_resolution the size follows the image's proportion, not the one asked for."""
    width, height = generation_width, generation_height
    if adjust_resolution:
        width, height = adjusted_size(image.shape[2], image.shape[1], width * height)
    start = resize(image[:1], width, height, "lanczos")
    return Output((ImageEmbeds(start, pictures_of(latent_frames(num_frames)), latent_strength),))


def adjusted_size(width: int, height: int, area: int) -> tuple[int, int]:
    """The size, in multiples of 16, of about `area` pixels with the proportion of an image."""
    proportion = height / width
    rows = int(math.sqrt(area * proportion) // 8 // 2 * 2)
    columns = int(math.sqrt(area / proportion) // 8 // 2 * 2)
    return columns * 8, rows * 8


@node("WanVideoSampler")
def sampler(
    context: Context,
    *,
    model: Weights,
    image_embeds: ImageEmbeds,
    steps: int,
    cfg: float,
    shift: float,
    seed: int,
    text_embeds: TextEmbeds | None = None,
    denoise_strength: float = 1.0,
    **_options: Any,
) -> Output:
    """LATENT: the start image as the first picture, then a camera that moves, in the prompt's light."""
    frames, (height, width) = image_embeds.frames, image_embeds.start.shape[1:3]
    if height % 16 or width % 16:
        raise NodeError(f"the render size {width}x{height} is no multiple of 16", "ValueError")
    text = text_embeds or TextEmbeds("", "")
    control = np.broadcast_to(np.uint8(128), (frames - 1, height, width, 3))
    masks = np.broadcast_to(np.array([0] + [255] * (frames - 1), np.uint8)[:, None, None], (frames, height, width))
    scene = Scene(
        width=width,
        height=height,
        frames=frames,
        prompt=text.positive,
        negative=text.negative,
        seed=seed,
        guidance=cfg,
        shift=shift,
        steps=steps,
        control=np.concatenate([image_embeds.start, control]),
        masks=masks,
        strength=image_embeds.strength,
        overlay=denoise_strength,
        marks=model.loras,
    )
    return Output((Latent(width, height, latent_frames(frames), pixels=sample(context, scene)),))


@node("WanVideoDecode")
def decode(_context: Context, *, samples: Latent, **_options: Any) -> Output:
    """IMAGE."""
    return Output((decoded(samples),))
