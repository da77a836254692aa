"""VACE on ComfyUI's own nodes: the first document's graph, with what was prepared wired into WanVaceToVideo.

One spine for every task: loaders, control video, mask, reference, then one render or several windows of it
(vace_render.py), the kept pixels laid back over the decoded ones, delivery. What differs between tasks lies in the
prepared files (preparation.py).
Rules that decide correctness (comfy.md, section 3): masks are white where the model generates; trim_latent is wired.
"""

from typing import Any

from kinora.api.videojob import Control
from kinora.catalogue.model import LORA_OF, Role
from kinora.recipes.graph import Graph, Link, Order, deliver, link, load_image, node
from kinora.recipes.preparation import Prepared
from kinora.recipes.vace_render import Guides, rendered
from kinora.recipes.windows import Window, spans

#: Where each of the two experts' nodes stand: loader, LoRA, shift.
_PLACES = {Role.DIFFUSION: ("11", "19", "27"), Role.DIFFUSION_LOW_NOISE: ("12", "29", "28")}


def vace_graph(order: Order) -> Graph:
    """The whole graph of one job."""
    nodes, guides = _guides(order)
    windows = spans(order.resolved.frames, order.windows)
    if len(windows) == 1:
        made, frames = rendered(order, guides, "", windows[0])
        frames, kept = _kept(order, frames)
        made |= kept
    else:
        made, frames = _in_windows(order, guides, windows)
    return {**_loaders(order), **nodes, **made, **deliver(frames, order, crop_id="33", combine_id="32")}


def _loaders(order: Order) -> Graph:
    files, prompts = order.files, order.prompts
    return {
        **_models(order),
        "13": node("CLIPLoader", clip_name=files[Role.TEXT_ENCODER], type="wan", device="default"),
        "14": node("VAELoader", vae_name=files[Role.VAE]),
        "15": node("CLIPTextEncode", text=prompts.prompt, clip=link("13")),
        "16": node("CLIPTextEncode", text=prompts.negative, clip=link("13")),
    }


def _models(order: Order) -> Graph:
    """Each expert's file, the preset's LoRA on it, and the shift of its noise."""
    resolved, graph = order.resolved, Graph()
    loras = {base: lora for lora, base in LORA_OF.items() if lora in order.files}
    for role, (loader, lora, shift) in _PLACES.items():
        if role not in order.files:
            continue
        graph[loader] = node("UNETLoader", unet_name=order.files[role], weight_dtype=resolved.weight_dtype)
        model = link(loader)
        if role in loras:
            graph[lora] = node(
                "LoraLoaderModelOnly",
                model=model,
                lora_name=order.files[loras[role]],
                strength_model=order.strengths.get(loras[role], 1),
            )
            model = link(lora)
        graph[shift] = node("ModelSamplingSD3", shift=resolved.shift, model=model)
    return graph


def _guides(order: Order) -> tuple[Graph, Guides]:
    """The nodes that read what was prepared, and what of it WanVaceToVideo is given."""
    graph, control, masks, reference = Graph(), None, None, None
    if Prepared.CONTROL in order.staged:
        graph["60"] = _load_video(order, Prepared.CONTROL)
        control = link("60")
        drawn = _preprocessor(order, control)
        if drawn is not None:
            graph["61"] = drawn
            control = link("61")
    if Prepared.MASK in order.staged:
        graph["62"] = _load_video(order, Prepared.MASK)
        graph["63"] = node("ImageToMask", image=link("62"), channel="red")
        masks = link("63")
    if Prepared.REFERENCE in order.staged:
        graph["50"] = load_image(order.staged[Prepared.REFERENCE])
        reference = link("50")
    return graph, Guides(control, masks, reference)


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


def _kept(order: Order, frames: Link) -> tuple[Link, Graph]:
    """What the mask keeps comes out as it went in: the VAE gives it back only roughly. Encoded once, with the rest."""
    if Prepared.MASK not in order.staged:
        return frames, Graph()
    composite = node(
        "ImageCompositeMasked",
        destination=link("60"),
        source=frames,
        mask=link("63"),
        x=0,
        y=0,
        resize_source=False,
    )
    return link("70"), {"70": composite}


# --- windows ----------------------------------------------------------------------------------------------------------
# Window 0 has the plain node numbers, window 1 those from 100 on, and so on.


def _in_windows(order: Order, guides: Guides, windows: tuple[Window, ...]) -> tuple[Graph, Link]:
    """Render after render: each keeps the end of the one before, goes on from it, and is brought to its colours.

    Only the last one may be shorter than the others, so that the one before is always a full one.
    """
    if order.windows is None or guides.control is None or guides.masks is not None:
        raise ValueError("only what has a control video and no mask is rendered in windows")
    graph, before, joined = Graph(), link("31"), link("31")
    for number, window in enumerate(windows):
        prefix = str(number) if number else ""
        cut, own = _window_guides(order, guides, prefix, window, before)
        made, frames = rendered(order, own, prefix, window)
        graph |= {**cut, **made}
        if number:
            graph |= {
                f"{prefix}40": _some(before, order.windows.frames - 1, 1),
                f"{prefix}41": node(
                    "ColorMatch",
                    image_ref=link(f"{prefix}40"),
                    image_target=frames,
                    method=order.windows.colour_match,
                    strength=1,
                ),
                f"{prefix}42": _some(link(f"{prefix}41"), window.kept, window.fresh),
                f"{prefix}43": node("ImageBatch", image1=joined, image2=link(f"{prefix}42")),
            }
            frames, joined = link(f"{prefix}41"), link(f"{prefix}43")
        before = frames
    return graph, joined


def _window_guides(order: Order, guides: Guides, prefix: str, window: Window, before: Link) -> tuple[Graph, Guides]:
    """A window's own part of the control video; after the first, behind the frames that it keeps, with their mask."""
    assert guides.control is not None
    part = f"{prefix}80"
    graph = {part: _some(guides.control, window.start + window.kept, window.fresh)}
    if not window.kept:
        return graph, Guides(link(part), None, guides.reference)
    plain = {"width": order.resolved.width, "height": order.resolved.height}
    assert order.windows is not None
    graph |= {
        f"{prefix}81": _some(before, order.windows.frames - window.kept, window.kept),
        f"{prefix}82": node("ImageBatch", image1=link(f"{prefix}81"), image2=link(part)),
        f"{prefix}83": node("SolidMask", value=0, **plain),
        f"{prefix}84": node("MaskToImage", mask=link(f"{prefix}83")),
        f"{prefix}85": node("RepeatImageBatch", image=link(f"{prefix}84"), amount=window.kept),
        f"{prefix}86": node("SolidMask", value=1, **plain),
        f"{prefix}87": node("MaskToImage", mask=link(f"{prefix}86")),
        f"{prefix}88": node("RepeatImageBatch", image=link(f"{prefix}87"), amount=window.fresh),
        f"{prefix}89": node("ImageBatch", image1=link(f"{prefix}85"), image2=link(f"{prefix}88")),
        f"{prefix}90": node("ImageToMask", image=link(f"{prefix}89"), channel="red"),
    }
    return graph, Guides(link(f"{prefix}82"), link(f"{prefix}90"), guides.reference)


def _some(frames: Link, start: int, count: int) -> dict[str, Any]:
    """`count` frames from `start` on."""
    return node("ImageFromBatch", image=frames, batch_index=start, length=count)
