"""Conditioning, sampling and decoding of Wan VACE with ComfyUI's own nodes. The pictures come from paint.py.

Sizes are checked where, and with the words with which, ComfyUI fails on them (recorded traces vace-width-70, -72).
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from kinora.engine.standin.paint import Painter, Scene
from kinora.engine.standin.pictures import common_upscale
from kinora.engine.standin.registry import node
from kinora.engine.standin.values import (
    Conditioning,
    Context,
    Images,
    Latent,
    Masks,
    NodeError,
    Output,
    VaceConditioning,
    Weights,
)

SPATIAL, TEMPORAL = 8, 4  # pixels and frames of one latent cell of Wan 2.1


def latent_frames(length: int) -> int:
    """Latent frames for `length` pictures: what does not fit 4n+1 is cut off without a word."""
    return (length - 1) // TEMPORAL + 1


def pictures_of(latent: int) -> int:
    """Pictures that `latent` latent frames stand for."""
    return (latent - 1) * TEMPORAL + 1


@node("WanVaceToVideo")
def wan_vace_to_video(
    _context: Context,
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Weights,  # noqa: ARG001
    width: int,
    height: int,
    length: int,
    batch_size: int,
    strength: float,
    control_video: Images | None = None,
    control_masks: Masks | None = None,
    reference_image: Images | None = None,
) -> Output:
    """positive, negative, latent, trim_latent. Missing frames of the control video become grey, of the mask white."""
    if batch_size != 1:
        raise NodeError("the stand-in renders one video at a time: batch_size must be 1", "NotImplementedError")
    rows, columns = height // SPATIAL, width // SPATIAL
    if rows * SPATIAL != height or columns * SPATIAL != width:
        shape = [length, rows, SPATIAL, columns, SPATIAL]
        raise NodeError(f"shape '{shape}' is invalid for input of size {length * height * width}")
    steps = latent_frames(length)
    frames = pictures_of(steps)
    reference = None
    if reference_image is not None:
        reference = common_upscale(reference_image[:1], width, height, "bilinear", "center")
    vace = VaceConditioning(
        control=_control(control_video, width, height, frames),
        masks=_masks(control_masks, width, height, frames),
        reference=reference,
        strength=strength,
    )
    lead = 0 if reference is None else 1
    latent = Latent(width, height, steps + lead, lead=lead)
    return Output((replace(positive, vace=vace), replace(negative, vace=vace), latent, lead))


def _control(video: Images | None, width: int, height: int, frames: int) -> Images | None:
    if video is None:
        return None
    fitted = common_upscale(video[:frames], width, height, "bilinear", "center")
    if len(fitted) == frames:
        return fitted
    return np.concatenate([fitted, np.full((frames - len(fitted), height, width, 3), 128, np.uint8)])


def _masks(masks: Masks | None, width: int, height: int, frames: int) -> Masks | None:
    if masks is None:
        return None
    fitted = common_upscale(masks[:frames], width, height, "bilinear", "center")
    if len(fitted) == frames:
        return fitted
    return np.concatenate([fitted, np.full((frames - len(fitted), height, width), 255, np.uint8)])


@node("EmptyLatentImage")
def empty_latent_image(_context: Context, *, width: int, height: int, batch_size: int) -> Output:
    """LATENT of a still picture."""
    return Output((Latent(width // 8 * 8, height // 8 * 8, batch_size),))


@node("KSampler")
def ksampler(
    context: Context,
    *,
    model: Weights,
    seed: int,
    steps: int,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float,
    **_options: Any,
) -> Output:
    """LATENT with its pictures. A side that is no multiple of 16 fails here, as the model's patches of 2x2 do."""
    rows, columns = latent_image.height // SPATIAL, latent_image.width // SPATIAL
    whole = latent_image.steps * (rows // 2) * (columns // 2)
    covered = latent_image.steps * -(-rows // 2) * -(-columns // 2)
    if whole != covered:
        message = f"The size of tensor a ({whole}) must match the size of tensor b ({covered})"
        raise NodeError(f"{message} at non-singleton dimension 1")
    vace = positive.vace or VaceConditioning(None, None, None, 0.0)
    scene = Scene(
        width=latent_image.width,
        height=latent_image.height,
        frames=pictures_of(latent_image.steps - latent_image.lead),
        prompt=positive.text,
        negative=negative.text,
        seed=seed,
        guidance=cfg,
        shift=model.shift,
        steps=steps,
        control=vace.control,
        masks=vace.masks,
        reference=vace.reference,
        strength=vace.strength,
        denoise=denoise,
        marks=(*latent_image.marks, *model.loras),
    )
    lead = None if vace.reference is None else vace.reference[:1]
    return Output((replace(latent_image, pixels=sample(context, scene), lead_pixels=lead),))


@node("KSamplerAdvanced")
def ksampler_advanced(
    context: Context,
    *,
    model: Weights,
    add_noise: str,
    noise_seed: int,
    steps: int,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
    **options: Any,
) -> Output:
    """LATENT after a part of the steps. A stage that leaves noise gives grey pictures; the one that ends paints them.

    A stage that neither adds noise nor gets a latent with some left has nothing to take away, and says so.
    """
    last = min(end_at_step, steps)
    if add_noise == "disable" and not latent_image.noisy:
        raise NodeError("the latent has no noise left and none is added", "ValueError")
    count = max(last - start_at_step, 1)
    if return_with_leftover_noise == "enable" and last < steps:
        tokens = latent_image.steps * (latent_image.height // 16) * (latent_image.width // 16)
        for step in range(count):
            context.pace.step(time.monotonic(), tokens)
            context.progress(step + 1, count)
        marks = tuple(f"first stage: {lora}" for lora in model.loras)
        return Output((replace(latent_image, noisy=True, marks=marks),))
    whole = replace(latent_image, noisy=False)
    return ksampler(
        context, model=model, seed=noise_seed, steps=count, cfg=cfg, positive=positive, negative=negative,
        latent_image=whole, denoise=1.0, **options,
    )  # fmt: skip


def sample(context: Context, scene: Scene) -> Images:
    """Paints the scene, a share of its frames in each step, and reports the steps."""
    painter = Painter(scene)
    pixels = np.empty((scene.frames, scene.height, scene.width, 3), np.uint8)
    tokens = latent_frames(scene.frames) * (scene.height // 16) * (scene.width // 16)
    for step in range(scene.steps):
        started = time.monotonic()
        for at in range(scene.frames * step // scene.steps, scene.frames * (step + 1) // scene.steps):
            pixels[at] = painter.frame(at)
        context.pace.step(started, tokens)
        context.progress(step + 1, scene.steps)
    return pixels


@node("TrimVideoLatent")
def trim_video_latent(_context: Context, *, samples: Latent, trim_amount: int) -> Output:
    """LATENT without its first `trim_amount` latent frames: the reference's first, then four pictures each."""
    lead = max(0, samples.lead - trim_amount)
    beyond = max(0, trim_amount - samples.lead)
    pixels = None if samples.pixels is None else samples.pixels[beyond * TEMPORAL :]
    return Output((replace(samples, steps=samples.steps - trim_amount, lead=lead, pixels=pixels),))


@node("VAEDecode")
@node("VAEDecodeTiled")
def vae_decode(_context: Context, *, samples: Latent, vae: Weights, **_options: Any) -> Output:  # noqa: ARG001
    """IMAGE. A reference that was not trimmed away comes out as four pictures at the front."""
    return Output((decoded(samples),))


def decoded(samples: Latent) -> Images:
    """The pictures of a latent; grey ones where nothing was sampled."""
    if samples.pixels is None:
        shape = (pictures_of(samples.steps), samples.height, samples.width, 3)
        return np.broadcast_to(np.uint8(128), shape)
    if not samples.lead or samples.lead_pixels is None:
        return samples.pixels
    lead = np.broadcast_to(samples.lead_pixels, (samples.lead * TEMPORAL, *samples.pixels.shape[1:]))
    return np.concatenate([lead, samples.pixels])
