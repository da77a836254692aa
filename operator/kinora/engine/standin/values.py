"""What flows along the links of a graph in the stand-in, and what a node gets and gives. No behaviour lives here.

Images are uint8 arrays [frames, height, width, 3] in RGB, masks uint8 arrays [frames, height, width] with 255 for
"generate here". ComfyUI holds both as floats from 0 to 1; eight bits are what a video keeps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kinora.engine.standin.folders import Folders
from kinora.engine.standin.pace import Pace

Images: TypeAlias = npt.NDArray[np.uint8]
Masks: TypeAlias = npt.NDArray[np.uint8]


class NodeError(Exception):
    """A node failed as it would in ComfyUI: `kind` is the exception type that its message names."""

    def __init__(self, message: str, kind: str = "RuntimeError") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Weights:
    """A weight file that a loader accepted: what the stand-in knows of a model."""

    role: str
    name: str
    shift: float = 0.0
    tensors: int = 0
    loras: tuple[str, ...] = ()
    "What was laid on it, as name and strength."


@dataclass(frozen=True)
class VaceConditioning:
    """What WanVaceToVideo made of its inputs: everything at the render size, one entry a frame."""

    control: Images | None
    masks: Masks | None
    reference: Images | None
    strength: float


@dataclass(frozen=True)
class Conditioning:
    """A prompt, and what was attached to it."""

    text: str
    vace: VaceConditioning | None = None


@dataclass(frozen=True)
class Latent:
    """A video before it is decoded. `steps` latent frames, the first `lead` of which belong to a reference.

    `pixels` is there once a sampler has painted; n latent frames stand for 4 * (n - 1) + 1 pictures.
    """

    width: int
    height: int
    steps: int
    lead: int = 0
    pixels: Images | None = None
    lead_pixels: Images | None = None
    noisy: bool = False
    "Whether a first stage of sampling left noise for a second one."
    marks: tuple[str, ...] = ()
    "The LoRAs of that first stage's model."


@dataclass(frozen=True)
class Video:
    """What LoadVideo and CreateVideo give: frames and their rate in frames per second."""

    images: Images
    fps: float


@dataclass
class Context:
    """What a node may use besides its inputs. `progress(value, max)` raises Interrupted when that was asked for.

    `metadata` is False when files are not to hold the graph.
    """

    folders: Folders
    pace: Pace
    progress: Callable[[int, int], None]
    graph: Mapping[str, Any] = field(default_factory=dict)
    metadata: bool = True


@dataclass(frozen=True)
class Output:
    """The results of a node, one entry an output, and what it shows to the client."""

    values: tuple[Any, ...] = ()
    ui: Mapping[str, list[Any]] | None = None


NodeFunction: TypeAlias = Callable[..., Output]
