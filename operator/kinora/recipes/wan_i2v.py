"""Wan 2.1 I2V on ComfyUI-WanVideoWrapper's nodes: the second document's graph.

Two things differ from the document. adjust_resolution is false, because the node would recompute the size from the
picture's aspect (512x512 would become 576x432 for a 4:3 picture); the picture is cut to the exact size before it.
And its WanVideoTorchCompileSettings, to which nothing was wired, is there only when an administrator asks for it.
What belongs to the hardware (block swap, tiles, attention, compiling) comes from the catalogue entry.
"""

from typing import Any

from kinora.catalogue.model import Role
from kinora.catalogue.options import EngineOptions, TiledDecode
from kinora.recipes.graph import Graph, Order, cover, deliver, link, load_image, node


def wan_i2v_graph(order: Order) -> Graph:
    """The whole graph of one ImageToVideo job."""
    return {**_loaders(order), **_conditioning(order), **_sampling(order)}


def _loaders(order: Order) -> Graph:
    files = order.files
    offload = "offload_device"
    return {
        "43": node("WanVideoVAELoader", model_name=files[Role.VAE], precision="bf16"),
        "44": node(
            "LoadWanVideoClipTextEncoder", model_name=files[Role.CLIP_VISION], precision="fp16", load_device=offload
        ),
        "45": node(
            "LoadWanVideoT5TextEncoder",
            model_name=files[Role.TEXT_ENCODER],
            precision="bf16",
            load_device=offload,
            quantization="disabled",
        ),
        **_model(order),
    }


def _model(order: Order) -> Graph:
    """The loader of the model, with the nodes of its options and of the preset's LoRA where they are wanted."""
    options, graph, wired = _options(order), Graph(), dict[str, Any]()
    if options.block_swap is not None:
        graph["46"] = node("WanVideoBlockSwap", **options.block_swap.model_dump())
        wired["block_swap_args"] = link("46")
    if options.torch_compile is not None:
        graph["47"] = node("WanVideoTorchCompileSettings", **options.torch_compile.model_dump())
        wired["compile_args"] = link("47")
    if Role.FAST_LORA in order.files:
        lora, strength = order.files[Role.FAST_LORA], order.strengths.get(Role.FAST_LORA, 1)
        graph["51"] = node("WanVideoLoraSelect", lora=lora, strength=strength, low_mem_load=False, merge_loras=True)
        wired["lora"] = link("51")
    graph["48"] = node(
        "WanVideoModelLoader",
        model=order.files[Role.DIFFUSION],
        base_precision=options.base_precision,
        quantization=order.resolved.weight_dtype,
        load_device=options.load_device,
        attention_mode=options.attention_mode,
        **wired,
    )
    return graph


def _options(order: Order) -> EngineOptions:
    if order.options is None:
        raise ValueError("the model has no engine_options")  # the catalogue holds every entry of the family to them
    return order.options


def _conditioning(order: Order) -> Graph:
    resolved, prompts = order.resolved, order.prompts
    return {
        "42": load_image(order.staged["image"]),
        "41": cover(link("42"), resolved),
        "49": node(
            "WanVideoTextEncode",
            positive_prompt=prompts.prompt,
            negative_prompt=prompts.negative,
            force_offload=True,
            t5=link("45"),
        ),
        "50": node(
            "WanVideoImageClipEncode",
            generation_width=resolved.width,
            generation_height=resolved.height,
            num_frames=resolved.frames,
            force_offload=True,
            noise_aug_strength=0,
            latent_strength=1,
            clip_embed_strength=1,
            adjust_resolution=False,
            image=link("41"),
            vae=link("43"),
            clip_vision=link("44"),
        ),
    }


def _sampling(order: Order) -> Graph:
    resolved, tiles = order.resolved, _options(order).tiled_decode
    return {
        "52": node(
            "WanVideoSampler",
            steps=resolved.steps,
            cfg=resolved.guidance,
            shift=resolved.shift,
            seed=resolved.seed,
            force_offload=True,
            scheduler=resolved.scheduler,
            riflex_freq_index=0,
            denoise_strength=resolved.denoise,
            batched_cfg=False,
            rope_function="comfy",
            model=link("48"),
            text_embeds=link("49"),
            image_embeds=link("50"),
        ),
        "53": node(
            "WanVideoDecode",
            enable_vae_tiling=tiles is not None,
            **(tiles or TiledDecode()).model_dump(),
            vae=link("43"),
            samples=link("52"),
        ),
        **deliver(link("53"), order, crop_id="55", combine_id="54"),
    }
