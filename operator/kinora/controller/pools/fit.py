"""Whether a pool's GPU can run a model: its name, its memory, its compute capability. Pure.

What is not known (a card without a published capability, a pool without a gpuModel) is not refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kinora.api.base import Finding
from kinora.api.modelserver import Pool
from kinora.catalogue.model import GpuNeeds
from kinora.controller.pools.model import Card, Provider

_MIG = re.compile(r"nvidia\.com/mig-\d+g\.(\d+)gb(?:\.\w+)?")
GPU_MEMORY_RESOURCE = "aliyun.com/gpu-mem"
"ACK's GPU sharing: its quantity is GiB of one card's memory."


def faults(provider: Provider, pool: Pool, needs: GpuNeeds, model: str, *, gpus: int, path: str) -> Iterator[Finding]:
    """What is wrong with the pool's GPU for the model; `path` is the pool's place in the spec."""
    if pool.gpu_model is None:
        if provider.gpu.required and gpus > 0:
            yield Finding(f"{path}.gpuModel", None, f"{_able(provider, needs)} (pool {pool.name})")
    else:
        yield from _card_faults(provider, pool, needs, model, path)
    yield from _slice_faults(pool, needs, model, path)


def _card_faults(provider: Provider, pool: Pool, needs: GpuNeeds, model: str, path: str) -> Iterator[Finding]:
    card = provider.gpu.card(pool.gpu_model or "")
    if card is None:
        allowed = f"{_able(provider, needs)}; or unset, with the pool's own nodeSelector (pool {pool.name})"
        yield Finding(f"{path}.gpuModel", pool.gpu_model, allowed)
    elif not fits(card, needs):
        has = f"{card.name} has {card.memory_gib} GiB and {card.compute_capability or 'no published one'}"
        asked = f"{model} needs {needs.memory_gib} GiB and compute capability {needs.compute_capability}"
        yield Finding(f"{path}.gpuModel", card.name, f"{_able(provider, needs)} (pool {pool.name}: {asked}, {has})")


def _slice_faults(pool: Pool, needs: GpuNeeds, model: str, path: str) -> Iterator[Finding]:
    """A part of a card must hold the model too."""
    name = pool.resource_name or ""
    asked = f"{model} needs {needs.memory_gib} GiB"
    found = _MIG.fullmatch(name)
    if found and int(found[1]) < needs.memory_gib:
        yield Finding(
            f"{path}.resourceName", name, f"a slice of at least {needs.memory_gib}gb (pool {pool.name}: {asked})"
        )
    if name == GPU_MEMORY_RESOURCE:
        given = str(((pool.resources or {}).get("limits") or {}).get(name, ""))
        if not given.isdigit() or int(given) < needs.memory_gib:
            field = f"{path}.resources.limits.{name}"
            yield Finding(field, given or None, f"at least {needs.memory_gib}, in GiB (pool {pool.name}: {asked})")


def fits(card: Card, needs: GpuNeeds) -> bool:
    """Whether the card is known to be too small or too old: then not."""
    if card.memory_gib < needs.memory_gib:
        return False
    return card.compute_capability is None or _version(card.compute_capability) >= _version(needs.compute_capability)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _able(provider: Provider, needs: GpuNeeds) -> str:
    return ", ".join(card.name for card in provider.gpu.cards if fits(card, needs))
