"""VACE on ComfyUI's own nodes: the first document's graph, with what was prepared wired into WanVaceToVideo.

One spine for every task: loaders, control video, mask, reference, WanVaceToVideo, sampling, trimming, decoding, the
kept pixels laid back over the decoded ones, delivery. What differs between tasks lies in the prepared files
(preparation.py).
Rules that decide correctness (comfy.md, section 3): masks are white where the model generates; trim_latent is wired.
"""

from collections.abc import Mapping
from typing import Any

from kinora.api.videojob import Control
from kinora.recipes.graph import Graph, Link, Order, deliver, link, load_image, node
from kinora.recipes.preparation import Prepared
from kinora.recipes.resolved import Resolved

_LOW_NOISE = "diffusionLowNoise"


def vace_graph(order: Order) -> Graph:
    """The whole graph of one job."""
    guides, inputs = _guides(order)
    frames, kept = _kept(order)
    delivery = deliver(frames, order, crop_id="33", combine_id="32")
    return {**_loaders(order), **guides, **_sampling(order, inputs), **_decoding(), **kept, **delivery}


def _loaders(order: Order) -> Graph:
    resolved, files, prompts = order.resolved, order.files, order.prompts
    low = files.get(_LOW_NOISE)
    second = {} if low is None else {"12": node("UNETLoader", unet_name=low, weight_dtype=resolved.weight_dtype)}
    return {
        **second,
        "11": node("UNETLoader", unet_name=files["diffusion"], weight_dtype=resolved.weight_dtype),
        "13": node("CLIPLoader", clip_name=files["textEncoder"], type="wan", device="default"),
        "14": node("VAELoader", vae_name=files["vae"]),
        "15": node("CLIPTextEncode", text=prompts.prompt, clip=link("13")),
        "16": node("CLIPTextEncode", text=prompts.negative, clip=link("13")),
        "21": node("INTConstant", value=resolved.frames),
    }


def _sampling(order: Order, inputs: Mapping[str, Link]) -> Graph:
    resolved = order.resolved
    return {
        "17": node(
            "WanVaceToVideo",
            positive=link("15"),
            negative=link("16"),
            vae=link("14"),
            width=resolved.width,
            height=resolved.height,
            length=link("21"),
            batch_size=1,
            strength=resolved.control_strength,
            **inputs,
        ),
        **(_two_stages(resolved) if _LOW_NOISE in order.files else _one_stage(resolved)),
    }


def _one_stage(resolved: Resolved) -> Graph:
    return {
        "27": node("ModelSamplingSD3", shift=resolved.shift, model=link("11")),
        "24": node(
            "KSampler",
            seed=resolved.seed,
            steps=resolved.steps,
            cfg=resolved.guidance,
            sampler_name=resolved.sampler,
            scheduler=resolved.scheduler,
            denoise=resolved.denoise,
            model=link("27"),
            positive=link("17", 0),
            negative=link("17", 1),
            latent_image=link("17", 2),
        ),
    }


def _two_stages(resolved: Resolved) -> Graph:
    """Wan 2.2: the expert for high noise takes the first half of the steps, the one for low noise the rest."""
    middle = max(resolved.steps // 2, 1)

    def stage(model: str, latent: Link, start: int, end: int) -> dict[str, Any]:
        first = start == 0
        return node(
            "KSamplerAdvanced",
            add_noise="enable" if first else "disable",
            noise_seed=resolved.seed,
            steps=resolved.steps,
            cfg=resolved.guidance,
            sampler_name=resolved.sampler,
            scheduler=resolved.scheduler,
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise="enable" if first else "disable",
            model=link(model),
            positive=link("17", 0),
            negative=link("17", 1),
            latent_image=latent,
        )

    return {
        "27": node("ModelSamplingSD3", shift=resolved.shift, model=link("11")),
        "28": node("ModelSamplingSD3", shift=resolved.shift, model=link("12")),
        "23": stage("27", link("17", 2), 0, middle),
        "24": stage("28", link("23"), middle, resolved.steps),
    }


def _guides(order: Order) -> tuple[Graph, dict[str, Link]]:
    """The nodes that read what was prepared, and the inputs of WanVaceToVideo that they make."""
    graph, inputs = Graph(), dict[str, Link]()
    if Prepared.CONTROL in order.staged:
        graph["60"] = _load_video(order, Prepared.CONTROL)
        inputs["control_video"] = link("60")
        drawn = _preprocessor(order, link("60"))
        if drawn is not None:
            graph["61"] = drawn
            inputs["control_video"] = link("61")
    if Prepared.MASK in order.staged:
        graph["62"] = _load_video(order, Prepared.MASK)
        graph["63"] = node("ImageToMask", image=link("62"), channel="red")
        inputs["control_masks"] = link("63")
    if Prepared.REFERENCE in order.staged:
        graph["50"] = load_image(order.staged[Prepared.REFERENCE])
        inputs["reference_image"] = link("50")
    return graph, inputs


def _load_video(order: Order, name: str) -> dict[str, Any]:
    """A prepared video: it has the job's rate, size and length, so that the loader changes nothing."""
    return node(
        "VHS_LoadVideo",
        video=order.staged[name].file,
        force_rate=0,
        custom_width=0,
        custom_height=0,
        frame_load_cap=order.resolved.frames,
        skip_first_frames=0,
        select_every_nth=1,
        format="None",
    )


def _preprocessor(order: Order, frames: Link) -> dict[str, Any] | None:
    """The node that draws a control signal with a model of its own, in the render size."""
    resolution = min(order.resolved.width, order.resolved.height)
    if order.resolved.control == Control.DEPTH:
        ckpt = "depth_anything_v2_vitl.pth"
        return node("DepthAnythingV2Preprocessor", image=frames, ckpt_name=ckpt, resolution=resolution)
    if order.resolved.control in (Control.POSE, Control.POSE_FACE):
        face = "enable" if order.resolved.control == Control.POSE_FACE else "disable"
        return node(
            "DWPreprocessor",
            image=frames,
            detect_hand="enable",
            detect_body="enable",
            detect_face=face,
            resolution=resolution,
            bbox_detector="yolox_l.onnx",
            pose_estimator="dw-ll_ucoco_384_bs5.torchscript.pt",
            scale_stick_for_xinsr_cn="disable",
        )
    return None


def _decoding() -> Graph:
    return {
        # Without this the reference would show up as leading frames.
        "30": node("TrimVideoLatent", samples=link("24"), trim_amount=link("17", 3)),
        "31": node("VAEDecode", samples=link("30"), vae=link("14")),
    }


def _kept(order: Order) -> tuple[Link, Graph]:
    """What the mask keeps comes out as it went in: the VAE gives it back only roughly. Encoded once, with the rest."""
    if Prepared.MASK not in order.staged:
        return link("31"), Graph()
    composite = node(
        "ImageCompositeMasked",
        destination=link("60"),
        source=link("31"),
        mask=link("63"),
        x=0,
        y=0,
        resize_source=False,
    )
    return link("70"), {"70": composite}
