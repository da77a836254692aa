"""Which weight files a loader accepts: by key names and dtypes of the safetensors header, as real loaders tell models.

No tensor is read. Facts: ComfyUI 0.3.64 (model and VAE detection), ComfyUI-WanVideoWrapper's loaders.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kinora.engine.standin.folders import Folders
from kinora.engine.standin.values import NodeError, Weights
from kinora.weights.header import Header, HeaderError, Tensor, read_header

FP8 = {"fp8_e4m3fn": "F8_E4M3", "fp8_e4m3fn_fast": "F8_E4M3", "fp8_e5m2": "F8_E5M2"}
SAFETENSORS_ERROR = "safetensors._safetensors_rust.SafetensorError"
_MATRIX = re.compile(r"^(?:model\.diffusion_model\.)?(?:vace_)?blocks\.\d+\..*\.weight$")


@dataclass(frozen=True)
class Role:
    """What a loader looks for: every key of `keys` must be there (after an optional prefix)."""

    name: str
    keys: tuple[str, ...]
    refusal: str
    part: str = ""
    "What one key at least must hold."


VACE_MODEL = Role(
    "Wan VACE model", ("head.modulation", "vace_patch_embedding.weight"), "ERROR: Could not detect model type of"
)
WAN_VIDEO_MODEL = Role(
    "WanVideo model", ("patch_embedding.weight", "head.modulation"), "Invalid WanVideo model selected"
)
UMT5 = Role("UMT5 text encoder", ("shared.weight", "spiece_model"), "ERROR: clip input is invalid")
WAN_VAE = Role("Wan VAE", ("decoder.middle.0.residual.0.gamma",), "ERROR: VAE is invalid")
WRAPPER_T5 = Role("UMT5 text encoder", ("token_embedding.weight",), "Invalid T5 text encoder model")
CLIP_VISION = Role("CLIP vision encoder", ("log_scale",), "Invalid CLIP model")
LORA = Role("LoRA", (), "ERROR: LoRA is invalid", part=".lora_")

PREFIXES = ("", "model.", "model.diffusion_model.")


def load(folders: Folders, places: tuple[str, ...], name: str, role: Role, precision: str = "default") -> Weights:
    """The file `name` of the first of `places` that has it, as a `role`. NodeError when it is no such thing.

    `precision` is the loader's own option: an fp8 one asks for matrices in that type.
    """
    header = _header(folders, places, name)
    missing = [key for key in role.keys if not any(prefix + key in header.tensors for prefix in PREFIXES)]
    if missing:
        raise NodeError(f"{role.refusal}: {name} is no {role.name}: it has no key {missing[0]!r}")
    if not any(role.part in key for key in header.tensors):
        raise NodeError(f"{role.refusal}: {name} is no {role.name}: none of its keys holds {role.part!r}")
    if precision in FP8:
        _check_matrices(header.tensors, name, precision)
    return Weights(role.name, name, tensors=len(header.tensors))


def _header(folders: Folders, places: tuple[str, ...], name: str) -> Header:
    path = next((found for place in places if (found := folders.model(place, name)) is not None), None)
    if path is None:
        raise NodeError(f"Model in folder '{places[0]}' with filename '{name}' not found.", "FileNotFoundError")
    if path.stat().st_size < 8:
        raise NodeError("Error while deserializing header: header too small", SAFETENSORS_ERROR)
    try:
        return read_header(path)
    except HeaderError as exc:
        raise NodeError(f"Error while deserializing header: {exc}", SAFETENSORS_ERROR) from exc


def _check_matrices(tensors: Mapping[str, Tensor], name: str, precision: str) -> None:
    for key, tensor in tensors.items():
        if len(tensor.shape) == 2 and _MATRIX.match(key) and tensor.dtype != FP8[precision]:
            raise NodeError(f"{name} does not hold {precision} weights: {key} is {tensor.dtype}, not {FP8[precision]}")
