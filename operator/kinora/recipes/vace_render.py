"""One render of VACE: conditioning, sampling with one or two experts, decoding. Node numbers take a prefix."""

from dataclasses import dataclass
from typing import Any

from kinora.catalogue.model import Role
from kinora.recipes.graph import Graph, Link, Order, link, node
from kinora.recipes.resolved import Resolved
from kinora.recipes.windows import Window


@dataclass(frozen=True, slots=True)
class Guides:
    """What steers a render, as links: control frames, masks (white is generated), one reference picture."""

    control: Link | None
    masks: Link | None
    reference: Link | None

    @property
    def inputs(self) -> dict[str, Link]:
        """As WanVaceToVideo names them."""
        named = {"control_video": self.control, "control_masks": self.masks, "reference_image": self.reference}
        return {name: found for name, found in named.items() if found is not None}


def rendered(order: Order, guides: Guides, prefix: str, window: Window) -> tuple[Graph, Link]:
    """The nodes of one render of as many frames as the window has, and its decoded frames."""
    resolved = order.resolved
    conditioning = {
        f"{prefix}21": node("INTConstant", value=window.frames),
        f"{prefix}17": node(
            "WanVaceToVideo",
            positive=link("15"),
            negative=link("16"),
            vae=link("14"),
            width=resolved.width,
            height=resolved.height,
            length=link(f"{prefix}21"),
            batch_size=1,
            strength=resolved.control_strength,
            **guides.inputs,
        ),
    }
    decoding = {
        # Without this the reference would show up as leading frames.
        f"{prefix}30": node("TrimVideoLatent", samples=link(f"{prefix}24"), trim_amount=link(f"{prefix}17", 3)),
        f"{prefix}31": node("VAEDecode", samples=link(f"{prefix}30"), vae=link("14")),
    }
    two = Role.DIFFUSION_LOW_NOISE in order.files
    sampling = _two_stages(resolved, prefix) if two else _one_stage(resolved, prefix)
    return {**conditioning, **sampling, **decoding}, link(f"{prefix}31")


def _one_stage(resolved: Resolved, prefix: str) -> Graph:
    return {
        f"{prefix}24": node(
            "KSampler",
            seed=resolved.seed,
            steps=resolved.steps,
            cfg=resolved.guidance,
            sampler_name=resolved.sampler,
            scheduler=resolved.scheduler,
            denoise=resolved.denoise,
            model=link("27"),
            **_conditioned(prefix),
            latent_image=link(f"{prefix}17", 2),
        ),
    }


def _two_stages(resolved: Resolved, prefix: str) -> Graph:
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
            **_conditioned(prefix),
            latent_image=latent,
        )

    return {
        f"{prefix}23": stage("27", link(f"{prefix}17", 2), 0, middle),
        f"{prefix}24": stage("28", link(f"{prefix}23"), middle, resolved.steps),
    }


def _conditioned(prefix: str) -> dict[str, Link]:
    return {"positive": link(f"{prefix}17", 0), "negative": link(f"{prefix}17", 1)}
