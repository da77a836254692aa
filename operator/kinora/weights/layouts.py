"""The tensors of each kind of weight file under their real names, in toy sizes: what the demo's files hold.

Names as ComfyUI, ComfyUI-WanVideoWrapper and the models' own code use them. Only names, shapes and types; no bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from kinora.catalogue.model import Dtype, Role, Weight

DIM, FFN = 16, 32
Spec = tuple[str, tuple[int, ...]]


def layout(family: str, weight: Weight) -> dict[str, tuple[Dtype, tuple[int, ...]]]:
    """Key -> (type, shape) of a toy file of this kind. Matrices take the weight's type, the rest half precision.

    A family without a table gets the keys that prove it, and nothing else.
    """
    wide = next((dtype for dtype in weight.dtypes if dtype is not Dtype.F8_E4M3), Dtype.BF16)
    tensors = {
        name: (weight.dtypes[0] if len(shape) == 2 else wide, shape)
        for name, shape in LAYOUTS.get((family, weight.role), _nothing)()
    }
    for key in weight.proof.keys:
        tensors.setdefault(key, (wide, (DIM,)))
    for key in weight.proof.typed:
        tensors.setdefault(key, (weight.dtypes[0], (DIM, DIM)))
        tensors[key] = (weight.dtypes[0], tensors[key][1])
    for key, dtype in weight.proof.extra.items():
        tensors[key] = (dtype, (4 * DIM,))
    for group in weight.proof.endings:
        if not any(key.endswith(group) for key in tensors):
            tensors[f"blocks.0{group[0]}"] = (weight.dtypes[0], (DIM, DIM))
    return tensors


def _nothing() -> Iterator[Spec]:
    return iter(())


def _linear(name: str, outputs: int = DIM, inputs: int = DIM) -> Iterator[Spec]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _block(name: str, *, image: bool = False) -> Iterator[Spec]:
    for attention in ("self_attn", "cross_attn"):
        for part in "qkvo":
            yield from _linear(f"{name}.{attention}.{part}")
        for part in "qk":
            yield f"{name}.{attention}.norm_{part}.weight", (DIM,)
    if image:
        yield from _linear(f"{name}.cross_attn.k_img")
        yield from _linear(f"{name}.cross_attn.v_img")
        yield f"{name}.cross_attn.norm_k_img.weight", (DIM,)
    yield f"{name}.norm3.weight", (DIM,)
    yield f"{name}.norm3.bias", (DIM,)
    yield from _linear(f"{name}.ffn.0", FFN, DIM)
    yield from _linear(f"{name}.ffn.2", DIM, FFN)
    yield f"{name}.modulation", (1, 6, DIM)


def _diffusion(blocks: int, channels: int, *, image: bool = False) -> Iterator[Spec]:
    yield "patch_embedding.weight", (DIM, channels, 1, 2, 2)
    yield "patch_embedding.bias", (DIM,)
    for name in ("text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"):
        yield from _linear(name)
    yield from _linear("time_projection.1", 6 * DIM, DIM)
    for number in range(blocks):
        yield from _block(f"blocks.{number}", image=image)
    yield from _linear("head.head", 64, DIM)
    yield "head.modulation", (1, 2, DIM)


def _vace() -> Iterator[Spec]:
    yield from _diffusion(30, 16)
    yield "vace_patch_embedding.weight", (DIM, 96, 1, 2, 2)
    yield "vace_patch_embedding.bias", (DIM,)
    yield from _linear("vace_blocks.0.before_proj")
    for number in range(15):
        yield from _block(f"vace_blocks.{number}")
        yield from _linear(f"vace_blocks.{number}.after_proj")


def _i2v() -> Iterator[Spec]:
    yield from _diffusion(40, 36, image=True)
    for number, outputs in ((1, DIM), (3, DIM)):
        yield from _linear(f"img_emb.proj.{number}", outputs)
    for number in (0, 4):
        yield f"img_emb.proj.{number}.weight", (DIM,)
        yield f"img_emb.proj.{number}.bias", (DIM,)


def _umt5() -> Iterator[Spec]:
    yield "shared.weight", (4 * DIM, DIM)
    for number in range(24):
        layer = f"encoder.block.{number}.layer"
        for part in "qkvo":
            yield f"{layer}.0.SelfAttention.{part}.weight", (DIM, DIM)
        yield f"{layer}.0.SelfAttention.relative_attention_bias.weight", (DIM, 4)
        yield f"{layer}.0.layer_norm.weight", (DIM,)
        for part, shape in (("wi_0", (FFN, DIM)), ("wi_1", (FFN, DIM)), ("wo", (DIM, FFN))):
            yield f"{layer}.1.DenseReluDense.{part}.weight", shape
        yield f"{layer}.1.layer_norm.weight", (DIM,)
    yield "encoder.final_layer_norm.weight", (DIM,)


def _wan_t5() -> Iterator[Spec]:
    yield "token_embedding.weight", (4 * DIM, DIM)
    for number in range(24):
        for part in "qkvo":
            yield f"blocks.{number}.attn.{part}.weight", (DIM, DIM)
        for part, shape in (("gate.0", (FFN, DIM)), ("fc1", (FFN, DIM)), ("fc2", (DIM, FFN))):
            yield f"blocks.{number}.ffn.{part}.weight", shape
        for part in ("norm1", "norm2"):
            yield f"blocks.{number}.{part}.weight", (DIM,)
        yield f"blocks.{number}.pos_embedding.embedding.weight", (DIM, 4)
    yield "norm.weight", (DIM,)


def _vae() -> Iterator[Spec]:
    yield "conv1.weight", (32, 32, 1, 1, 1)
    yield "conv2.weight", (DIM, DIM, 1, 1, 1)
    yield "encoder.conv1.weight", (DIM, 3, 3, 3, 3)
    yield "decoder.conv1.weight", (DIM, DIM, 3, 3, 3)
    for side in ("encoder", "decoder"):
        for number in (0, 2):
            yield f"{side}.middle.{number}.residual.0.gamma", (DIM, 1, 1, 1)
            yield f"{side}.middle.{number}.residual.2.weight", (DIM, DIM, 3, 3, 3)
    yield "decoder.head.2.weight", (3, DIM, 3, 3, 3)


def _clip_vision() -> Iterator[Spec]:
    yield "log_scale", ()
    yield "visual.patch_embedding.weight", (DIM, 3, 14, 14)
    yield "visual.pos_embedding", (1, 257, DIM)
    for number in range(32):
        name = f"visual.transformer.{number}"
        yield from _linear(f"{name}.attn.to_qkv", 3 * DIM, DIM)
        yield from _linear(f"{name}.attn.proj")
        yield from _linear(f"{name}.mlp.0", FFN, DIM)
        yield from _linear(f"{name}.mlp.2", DIM, FFN)


def _lora(blocks: int) -> Callable[[], Iterator[Spec]]:
    """Pairs of thin matrices beside each attention and feed-forward matrix of a Wan model."""

    def pairs() -> Iterator[Spec]:
        for number in range(blocks):
            for part in ("self_attn.q", "self_attn.o", "cross_attn.k", "ffn.0", "ffn.2"):
                name = f"diffusion_model.blocks.{number}.{part}"
                wide = FFN if part == "ffn.0" else DIM
                yield f"{name}.lora_down.weight", (4, FFN if part == "ffn.2" else DIM)
                yield f"{name}.lora_up.weight", (wide, 4)

    return pairs


LAYOUTS: Mapping[tuple[str, Role], Callable[[], Iterator[Spec]]] = MappingProxyType(
    {
        ("wan-vace", Role.DIFFUSION): _vace,
        ("wan-vace", Role.DIFFUSION_LOW_NOISE): _vace,
        ("wan-vace", Role.FAST_LORA): _lora(30),
        ("wan-vace", Role.FAST_LORA_LOW_NOISE): _lora(30),
        ("wan-i2v-wrapper", Role.FAST_LORA): _lora(40),
        ("wan-vace", Role.TEXT_ENCODER): _umt5,
        ("wan-vace", Role.VAE): _vae,
        ("wan-i2v-wrapper", Role.DIFFUSION): _i2v,
        ("wan-i2v-wrapper", Role.TEXT_ENCODER): _wan_t5,
        ("wan-i2v-wrapper", Role.VAE): _vae,
        ("wan-i2v-wrapper", Role.CLIP_VISION): _clip_vision,
    }
)
