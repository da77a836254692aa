"""How the clips of an extension and what is rendered come together, counted in frames at the rendered rate.

`frames` counts the clips where they fit into it: the render is the whole result. Clips that are longer lead into the
render with their ends only (the overlap), and are joined to it whole. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kinora.recipes.needs import LEAST_GENERATED, MediaFacts, frames_at_rate
from kinora.recipes.resolved import Resolved

OVERLAP = 17  # frames of a clip that the model sees: four steps of the VAE and the first frame
_STEP = 4  # frames that the VAE packs into one latent; a clip fills whole ones after its first frame


@dataclass(frozen=True, slots=True)
class Join:
    """A clip that is longer than the render holds: its frames, and how many of them the render begins or ends with."""

    input: str
    frames: int
    overlap: int


def clip_lengths(resolved: Resolved, found: Mapping[str, MediaFacts]) -> dict[str, int]:
    """Frames at the rendered rate of each clip of an extension, by input."""
    names = (name for name in ("firstClip", "lastClip") if name in resolved.inputs)
    return {name: frames_at_rate(found[name].frames, found[name].fps, resolved.fps) for name in names}


def joins(resolved: Resolved, found: Mapping[str, MediaFacts]) -> tuple[Join, ...]:
    """The clips to be joined, first one first; empty where all of them fit into the render."""
    lengths = clip_lengths(resolved, found)
    pictures = sum(name in resolved.inputs for name in ("firstFrame", "lastFrame"))
    if sum(lengths.values()) <= resolved.frames - LEAST_GENERATED - pictures:
        return ()
    return tuple(Join(name, count, _overlap(resolved.frames, count, len(lengths))) for name, count in lengths.items())


def generated_frames(frames: int, clip: int) -> int:
    """How many of a render's `frames` go beyond a first clip of `clip` frames: the rest of it, or of its overlap."""
    return frames - (clip if clip <= frames - LEAST_GENERATED else _overlap(frames, clip, 1))


def outer_pictures(resolved: Resolved, parts: tuple[Join, ...]) -> frozenset[str]:
    """Pictures beyond a clip that is joined: they are set before or after it, and the render does not hold them."""
    joined = {part.input for part in parts}
    return frozenset(
        f"{side}Frame" for side in ("first", "last") if f"{side}Clip" in joined and f"{side}Frame" in resolved.inputs
    )


def _overlap(frames: int, clip: int, clips: int) -> int:
    """At most half of the render is overlap; whole steps of the VAE where there are as many."""
    most = min(OVERLAP, clip, frames // 2 // clips)
    return max((most - 1) // _STEP * _STEP + 1, 1)
