"""A stand-in as a process of its own on a free loopback port, with its folders, small weight files and inputs.

Used by every test that needs a running engine: `with running_standin(tmp_path) as standin: ... standin.url`.
"""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kinora.engine.standin.encode import write_mp4

BYTES = {"F8_E4M3": 1, "U8": 1, "F16": 2, "BF16": 2, "F32": 4}
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]

VACE_MODEL: Tensors = {
    "head.modulation": ("F16", (1, 2, 8)),
    "vace_patch_embedding.weight": ("F16", (8, 96, 1, 2, 2)),
    "patch_embedding.weight": ("F16", (8, 16, 1, 2, 2)),
    "blocks.0.self_attn.q.weight": ("F8_E4M3", (8, 8)),
    "blocks.0.self_attn.q.bias": ("F16", (8,)),
}
I2V_MODEL: Tensors = {
    "head.modulation": ("F16", (1, 2, 8)),
    "patch_embedding.weight": ("F16", (8, 36, 1, 2, 2)),
    "blocks.0.self_attn.q.weight": ("F8_E4M3", (8, 8)),
    "blocks.0.cross_attn.k_img.weight": ("F8_E4M3", (8, 8)),
}
UMT5: Tensors = {"shared.weight": ("F16", (8, 8)), "spiece_model": ("U8", (16,))}
VAE: Tensors = {"decoder.middle.0.residual.0.gamma": ("F16", (8, 1, 1, 1))}

WEIGHTS: Mapping[str, Tensors] = {
    "diffusion_models/wan21_vace_1_3_b.safetensors": VACE_MODEL,
    "diffusion_models/Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors": I2V_MODEL,
    "text_encoders/umt5_xxl_fp8_e4m3fn.safetensors": UMT5,
    "text_encoders/wan2.1/umt5-xxl-enc-bf16.safetensors": {"token_embedding.weight": ("BF16", (8, 8))},
    "text_encoders/wan2.1/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors": {"log_scale": ("F16", ())},
    "vae/wan21_vace_vae.safetensors": VAE,
    "vae/wan2.1/Wan2_1_VAE_bf16.safetensors": VAE,
}


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """A sound safetensors file whose tensors hold zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + BYTES[dtype] * int(np.prod(shape, dtype=int))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))


def photo(width: int, height: int) -> np.ndarray:
    """A picture with a blue sky, a red house and green ground: [height, width, 3]."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = (110, 160, 230)
    picture[height * 2 // 3 :] = (40, 120, 50)
    picture[height // 3 : height * 2 // 3, width // 4 : width // 2] = (200, 40, 30)
    return picture


def clip(width: int, height: int, frames: int) -> np.ndarray:
    """A white square that moves over the photo: [frames, height, width, 3]."""
    result = np.stack([photo(width, height)] * frames)
    side = max(4, width // 5)
    for at in range(frames):
        left = (width - side) * at // max(1, frames - 1)
        result[at, height // 4 : height // 4 + side, left : left + side] = 255
    return result


@dataclass
class Standin:
    """A running stand-in."""

    url: str
    root: Path
    process: subprocess.Popen[str]

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.process.kill()
        self.process.wait(10)


def prepare(root: Path) -> None:
    """The folders, the weights of both models, and the uploads that the recorded graphs name."""
    for name in ("input", "output", "temp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, tensors in WEIGHTS.items():
        write_safetensors(root / "models" / name, tensors)
    Image.fromarray(photo(64, 64)).save(root / "input" / "ref.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).convert("RGB").save(root / "input" / "mask.png")
    write_mp4(root / "input" / "clip.mp4", clip(64, 64, 9), 16, crf=10, metadata={})
    write_mp4(root / "input" / "small.mp4", clip(32, 32, 9), 16, crf=10, metadata={})


@contextmanager
def running_standin(root: Path, *flags: str) -> Iterator[Standin]:
    """Starts a stand-in in `root` (filled by `prepare`) with more flags, and kills it at the end."""
    command = [sys.executable, "-m", "kinora.engine.standin", "--port", "0"]
    for name in ("input", "output", "temp", "models"):
        command += [f"--{name}-directory", str(root / name)]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
    try:
        yield Standin(_listening(process), root, process)
    finally:
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def _listening(process: subprocess.Popen[str]) -> str:
    for line in process.stdout or ():
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
    raise RuntimeError(f"the stand-in ended with {process.wait(10)}")
