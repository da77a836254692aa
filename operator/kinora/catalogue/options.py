"""Options of the engine that belong to the hardware and not to a job: those of ComfyUI-WanVideoWrapper's nodes.

Names, ranges and words are the nodes' own (a test holds them to the node contract); the defaults are what the second
document prints. No I/O.
"""

from typing import Annotated, Literal

from pydantic import Field

from kinora.catalogue.entry import Entry

_Tile = Annotated[int, Field(ge=40, le=2048, multiple_of=8)]
_Stride = Annotated[int, Field(ge=32, le=2040, multiple_of=8)]


class BlockSwap(Entry):
    """WanVideoBlockSwap: transformer blocks that wait in host memory and are brought to the GPU one by one."""

    blocks_to_swap: int = Field(10, ge=0, le=40)
    offload_img_emb: bool = False
    offload_txt_emb: bool = False
    use_non_blocking: bool = True
    vace_blocks_to_swap: int = Field(0, ge=0, le=15)


class TorchCompile(Entry):
    """WanVideoTorchCompileSettings: the first render of each size takes minutes more, the others less."""

    backend: Literal["inductor", "cudagraphs"] = "inductor"
    fullgraph: bool = False
    mode: Literal["default", "max-autotune", "max-autotune-no-cudagraphs", "reduce-overhead"] = "default"
    dynamic: bool = False
    dynamo_cache_size_limit: int = Field(64, ge=0, le=1024)
    compile_transformer_blocks_only: bool = True
    dynamo_recompile_limit: int = Field(128, ge=0, le=1024)


class TiledDecode(Entry):
    """WanVideoDecode in tiles, in pixels: less GPU memory, more time."""

    tile_x: _Tile = 272
    tile_y: _Tile = 272
    tile_stride_x: _Stride = 144
    tile_stride_y: _Stride = 128


class EngineOptions(Entry):
    """All of them. None for a part: the node is left out, or does without."""

    attention_mode: Literal[
        "sdpa", "flash_attn_2", "flash_attn_3", "sageattn", "sageattn_3", "flex_attention", "radial_sage_attention"
    ] = "sageattn"
    base_precision: Literal["fp32", "bf16", "fp16", "fp16_fast"] = "bf16"
    load_device: Literal["main_device", "offload_device"] = "offload_device"
    block_swap: BlockSwap | None = BlockSwap()
    tiled_decode: TiledDecode | None = TiledDecode()
    torch_compile: TorchCompile | None = None
    "The document prints these settings and wires them to nothing: what it renders is rendered without."
