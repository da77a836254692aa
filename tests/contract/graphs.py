"""Small graphs in ComfyUI's API format for tests: Wan VACE with ComfyUI's nodes, Wan I2V with the wrapper's."""

from typing import Any

Graph = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node."""
    return {"class_type": class_type, "inputs": inputs}


def vace(
    *,
    prompt: str = "a red fox runs through snow",
    width: int = 64,
    height: int = 64,
    length: int = 9,
    steps: int = 3,
    seed: int = 7,
    weight_dtype: str = "fp8_e4m3fn",
    prefix: str = "job/out",
    save_metadata: bool = False,
    **wired: list[Any],
) -> Graph:
    """Text to video; `wired` adds control_video, control_masks or reference_image as links."""
    save = {"loop_count": 0, "format": "video/h264-mp4", "pix_fmt": "yuv420p", "crf": 10, "pingpong": False}
    return {
        "11": node("UNETLoader", unet_name="wan21_vace_1_3_b.safetensors", weight_dtype=weight_dtype),
        "13": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn.safetensors", type="wan"),
        "14": node("VAELoader", vae_name="wan21_vace_vae.safetensors"),
        "15": node("CLIPTextEncode", text=prompt, clip=["13", 0]),
        "16": node("CLIPTextEncode", text="blurry", clip=["13", 0]),
        "17": node(
            "WanVaceToVideo", positive=["15", 0], negative=["16", 0], vae=["14", 0],
            width=width, height=height, length=length, batch_size=1, strength=1.0, **wired,
        ),
        "27": node("ModelSamplingSD3", model=["11", 0], shift=8.0),
        "24": node(
            "KSampler", model=["27", 0], seed=seed, steps=steps, cfg=4.0, sampler_name="uni_pc", scheduler="simple",
            denoise=1.0, positive=["17", 0], negative=["17", 1], latent_image=["17", 2],
        ),
        "30": node("TrimVideoLatent", samples=["24", 0], trim_amount=["17", 3]),
        "31": node("VAEDecode", samples=["30", 0], vae=["14", 0]),
        "32": node(
            "VHS_VideoCombine", images=["31", 0], frame_rate=16.0, filename_prefix=prefix, save_output=True,
            save_metadata=save_metadata, **save,
        ),
    }  # fmt: skip


def i2v(image: str, *, width: int = 128, height: int = 128, frames: int = 9, steps: int = 3) -> Graph:
    """Image to video."""
    graph = vace()
    offload = {"load_device": "offload_device"}
    return {
        "42": node("LoadImage", image=image),
        "43": node("WanVideoVAELoader", model_name="wan2.1/Wan2_1_VAE_bf16.safetensors", precision="bf16"),
        "44": node(
            "LoadWanVideoClipTextEncoder", precision="fp16", **offload,
            model_name="wan2.1/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors",
        ),
        "45": node(
            "LoadWanVideoT5TextEncoder", model_name="wan2.1/umt5-xxl-enc-bf16.safetensors", precision="bf16", **offload
        ),
        "48": node(
            "WanVideoModelLoader", model="Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors", base_precision="bf16",
            quantization="fp8_e4m3fn", **offload,
        ),
        "49": node("WanVideoTextEncode", positive_prompt="she smiles", negative_prompt="static", t5=["45", 0]),
        "50": node(
            "WanVideoImageClipEncode", image=["42", 0], vae=["43", 0], clip_vision=["44", 0], generation_width=width,
            generation_height=height, num_frames=frames, adjust_resolution=False,
        ),
        "52": node(
            "WanVideoSampler", model=["48", 0], text_embeds=["49", 0], image_embeds=["50", 0], steps=steps, cfg=6.0,
            shift=5.0, seed=3, force_offload=True, scheduler="dpm++", riflex_freq_index=0,
        ),
        "53": node(
            "WanVideoDecode", vae=["43", 0], samples=["52", 0], enable_vae_tiling=True, tile_x=272, tile_y=272,
            tile_stride_x=144, tile_stride_y=128,
        ),
        "54": graph["32"] | {"inputs": graph["32"]["inputs"] | {"images": ["53", 0], "filename_prefix": "job/i2v"}},
    }  # fmt: skip


def still(width: int = 64, height: int = 64, frames: int = 4, prefix: str = "job/still") -> Graph:
    """A video of one colour: the smallest graph with a file at its end."""
    graph = vace(prefix=prefix)
    image = node("EmptyImage", width=width, height=height, batch_size=frames, color=255)
    return {"1": image, "2": graph["32"] | {"inputs": graph["32"]["inputs"] | {"images": ["1", 0]}}}
