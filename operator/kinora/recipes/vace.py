"""Wan 2.1 VACE on ComfyUI's own nodes: the first document's graph, with its inputs wired into WanVaceToVideo.

Rules that decide correctness (comfy.md, section 3): masks are white where the model generates; fill is grey; control
frames and masks are exactly as many as asked for; the reference is letterboxed on white; trim_latent is wired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from kinora.api.videojob import Task
from kinora.recipes.graph import (
    BLACK,
    GREY,
    WHITE,
    Graph,
    Link,
    Order,
    cover,
    deliver,
    flat,
    letterbox,
    link,
    load_image,
    node,
)


@dataclass(frozen=True, slots=True)
class Guidance:
    """What steers WanVaceToVideo beside the prompts: its optional inputs, and the nodes that make them."""

    nodes: Graph = field(default_factory=dict)
    inputs: Mapping[str, Link] = field(default_factory=dict)


def vace_graph(order: Order) -> Graph:
    """The whole graph of one job. KeyError for a task that is not in GUIDANCE."""
    guidance = GUIDANCE[Task(order.resolved.task)](order)
    return {**_loaders(order), **guidance.nodes, **_sampling(order, guidance), **_delivery(order)}


def _loaders(order: Order) -> Graph:
    resolved, files, prompts = order.resolved, order.files, order.prompts
    return {
        "11": node("UNETLoader", unet_name=files["diffusion"], weight_dtype=resolved.weight_dtype),
        "13": node("CLIPLoader", clip_name=files["textEncoder"], type="wan", device="default"),
        "14": node("VAELoader", vae_name=files["vae"]),
        "15": node("CLIPTextEncode", text=prompts.prompt, clip=link("13")),
        "16": node("CLIPTextEncode", text=prompts.negative, clip=link("13")),
        "21": node("INTConstant", value=resolved.frames),
    }


def _sampling(order: Order, guidance: Guidance) -> Graph:
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
            **guidance.inputs,
        ),
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


def _delivery(order: Order) -> Graph:
    return {
        # Without this the reference would show up as leading frames.
        "30": node("TrimVideoLatent", samples=link("24"), trim_amount=link("17", 3)),
        "31": node("VAEDecode", samples=link("30"), vae=link("14")),
        **deliver(link("31"), order, crop_id="33", combine_id="32"),
    }


def _text(_: Order) -> Guidance:
    return Guidance()


def _image(order: Order) -> Guidance:
    """The image is frame 1 and kept; the rest is grey and generated."""
    rest = order.resolved.frames - 1
    nodes = {
        "18": load_image(order.staged["image"]),
        "22": cover(link("18"), order.resolved),
        "40": flat(order.resolved, rest, GREY),
        "41": node("ImageBatch", image1=link("22"), image2=link("40")),
        "42": flat(order.resolved, 1, BLACK),
        "43": flat(order.resolved, rest, WHITE),
        "44": node("ImageBatch", image1=link("42"), image2=link("43")),
        "45": node("ImageToMask", image=link("44"), channel="red"),
    }
    return Guidance(nodes, {"control_video": link("41"), "control_masks": link("45")})


def _reference(order: Order) -> Guidance:
    nodes = {"50": load_image(order.staged["references[0]"]), "51": letterbox(link("50"), order.resolved)}
    return Guidance(nodes, {"reference_image": link("51")})


def _video(order: Order) -> Guidance:
    """The source's frames, at the job's rate and size, steer every frame; a reference may say what to make of them."""
    resolved = order.resolved
    nodes = {
        "60": node(
            "VHS_LoadVideo",
            video=order.staged["video"].file,
            force_rate=resolved.fps,
            custom_width=resolved.width,
            custom_height=resolved.height,
            frame_load_cap=resolved.frames,
            skip_first_frames=0,
            select_every_nth=1,
            format="None",
        )
    }
    reference = _reference(order) if "references[0]" in order.staged else Guidance()
    return Guidance({**nodes, **reference.nodes}, {"control_video": link("60"), **reference.inputs})


GUIDANCE: Mapping[Task, Callable[[Order], Guidance]] = MappingProxyType(
    {
        Task.TEXT_TO_VIDEO: _text,
        Task.IMAGE_TO_VIDEO: _image,
        Task.REFERENCE_TO_VIDEO: _reference,
        Task.VIDEO_TO_VIDEO: _video,
    }
)
