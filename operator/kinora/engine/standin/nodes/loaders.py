"""Loaders of weights, text encoding and the switches around a model. Which files are accepted: weights.py."""

from dataclasses import replace
from typing import Any

from kinora.engine.standin import weights
from kinora.engine.standin.registry import node
from kinora.engine.standin.values import Conditioning, Context, NodeError, Output, Weights


@node("UNETLoader")
def unet_loader(context: Context, *, unet_name: str, weight_dtype: str) -> Output:
    """MODEL. The recipes load Wan VACE with it, so that is what must be in the file."""
    model = weights.load(context.folders, ("diffusion_models",), unet_name, weights.VACE_MODEL, weight_dtype)
    return Output((model,))


@node("LoraLoaderModelOnly")
def lora_loader(context: Context, *, model: Weights, lora_name: str, strength_model: float) -> Output:
    """MODEL with the LoRA on it: it changes what a sampler paints. At strength 0 the file is not even read."""
    if not strength_model:
        return Output((model,))
    return Output((_with_lora(context, model, lora_name, strength_model),))


def _with_lora(context: Context, model: Weights, name: str, strength: float) -> Weights:
    weights.load(context.folders, ("loras",), name, weights.LORA)
    return replace(model, loras=(*model.loras, f"{name} at {strength:g}"))


@node("WanVideoLoraSelect")
def wan_lora_select(
    _context: Context, *, lora: str, strength: float, prev_lora: tuple[tuple[str, float], ...] = (), **_options: Any
) -> Output:
    """WANVIDLORA: names and strengths, for the model loader to read."""
    chosen = (*prev_lora, (lora, strength)) if strength else tuple(prev_lora)
    return Output((chosen,))


@node("CLIPLoader")
def clip_loader(context: Context, *, clip_name: str, type: str, device: str = "default") -> Output:  # noqa: ARG001
    """CLIP: a UMT5 text encoder, the one that Wan has."""
    if type != "wan":
        raise NodeError(f"the stand-in loads text encoders of type wan, not {type}", "NotImplementedError")
    return Output((weights.load(context.folders, ("text_encoders",), clip_name, weights.UMT5),))


@node("VAELoader")
def vae_loader(context: Context, *, vae_name: str) -> Output:
    """VAE: the one of Wan 2.1."""
    return Output((weights.load(context.folders, ("vae",), vae_name, weights.WAN_VAE),))


@node("CLIPTextEncode")
def clip_text_encode(_context: Context, *, text: str, clip: Weights) -> Output:  # noqa: ARG001
    """CONDITIONING: the text itself."""
    return Output((Conditioning(text),))


@node("ModelSamplingSD3")
def model_sampling(_context: Context, *, model: Weights, shift: float) -> Output:
    """MODEL with the shift of its noise schedule. 0 divides by zero in ComfyUI when it samples."""
    return Output((replace(model, shift=shift),))


@node("INTConstant")
def int_constant(_context: Context, *, value: int) -> Output:
    """INT."""
    return Output((value,))


@node("FloatConstant")
def float_constant(_context: Context, *, value: float) -> Output:
    """FLOAT."""
    return Output((value,))


@node("WanVideoVAELoader")
def wan_vae_loader(context: Context, *, model_name: str, **_options: Any) -> Output:
    """WANVAE."""
    return Output((weights.load(context.folders, ("vae",), model_name, weights.WAN_VAE),))


@node("LoadWanVideoClipTextEncoder")
def wan_clip_loader(context: Context, *, model_name: str, **_options: Any) -> Output:
    """CLIP_VISION: open-clip's vision tower, wherever of two folders it lies."""
    places = ("clip_vision", "text_encoders")
    return Output((weights.load(context.folders, places, model_name, weights.CLIP_VISION),))


@node("LoadWanVideoT5TextEncoder")
def wan_t5_loader(context: Context, *, model_name: str, **_options: Any) -> Output:
    """WANTEXTENCODER."""
    return Output((weights.load(context.folders, ("text_encoders",), model_name, weights.WRAPPER_T5),))


@node("WanVideoBlockSwap")
@node("WanVideoTorchCompileSettings")
def settings(_context: Context, **options: Any) -> Output:
    """Options for the model loader, without effect here."""
    return Output((options,))


@node("WanVideoModelLoader")
def wan_model_loader(
    context: Context,
    *,
    model: str,
    quantization: str,
    lora: tuple[tuple[str, float], ...] = (),
    **_options: Any,
) -> Output:
    """WANVIDEOMODEL, its LoRAs on it."""
    found = weights.load(context.folders, ("diffusion_models",), model, weights.WAN_VIDEO_MODEL, quantization)
    for name, strength in lora:
        found = _with_lora(context, found, name, strength)
    return Output((found,))
