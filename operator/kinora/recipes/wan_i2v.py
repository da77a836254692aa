"""Wan 2.1 I2V on ComfyUI-WanVideoWrapper's nodes: the second document's graph.

Two things differ from the document. adjust_resolution is false, because the node would recompute the size from the
picture's aspect (512x512 would become 576x432 for a 4:3 picture); the picture is cut to the exact size before it.
And its WanVideoTorchCompileSettings is left out: nothing was wired to it.
"""

from kinora.recipes.graph import Graph, Order, cover, deliver, link, load_image, node


def wan_i2v_graph(order: Order) -> Graph:
    """The whole graph of one ImageToVideo job."""
    return {**_loaders(order), **_conditioning(order), **_sampling(order)}


def _loaders(order: Order) -> Graph:
    files = order.files
    offload = "offload_device"
    return {
        "43": node("WanVideoVAELoader", model_name=files["vae"], precision="bf16"),
        "44": node(
            "LoadWanVideoClipTextEncoder", model_name=files["clipVision"], precision="fp16", load_device=offload
        ),
        "45": node(
            "LoadWanVideoT5TextEncoder",
            model_name=files["textEncoder"],
            precision="bf16",
            load_device=offload,
            quantization="disabled",
        ),
        "46": node(
            "WanVideoBlockSwap",
            blocks_to_swap=10,
            offload_img_emb=False,
            offload_txt_emb=False,
            use_non_blocking=True,
            vace_blocks_to_swap=0,
        ),
        "48": node(
            "WanVideoModelLoader",
            model=files["diffusion"],
            base_precision="bf16",
            quantization=order.resolved.weight_dtype,
            load_device=offload,
            attention_mode="sageattn",
            block_swap_args=link("46"),
        ),
    }


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
    resolved = order.resolved
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
            enable_vae_tiling=True,
            tile_x=272,
            tile_y=272,
            tile_stride_x=144,
            tile_stride_y=128,
            vae=link("43"),
            samples=link("52"),
        ),
        **deliver(link("53"), order, crop_id="55", combine_id="54"),
    }
