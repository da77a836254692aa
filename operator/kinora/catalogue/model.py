"""The shape of a catalogue entry: what a model is, which files prove it, what may be asked of it.

Pydantic models only, frozen, unknown fields refused. Tasks are the names of the API's enumeration, kept as strings here
because the catalogue knows nobody; a test holds the two together. No I/O.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
FilePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$")]


class Role(StrEnum):
    """What a weight file is for; a recipe asks for its files by role."""

    DIFFUSION = "diffusion"
    DIFFUSION_LOW_NOISE = "diffusionLowNoise"
    "The second expert of a model that has two; the first one is `diffusion`, for high noise."
    TEXT_ENCODER = "textEncoder"
    VAE = "vae"
    CLIP_VISION = "clipVision"


class Dtype(StrEnum):
    """Element types as they stand in safetensors headers."""

    F8_E4M3 = "F8_E4M3"
    BF16 = "BF16"
    F16 = "F16"
    F32 = "F32"
    U8 = "U8"


class Proof(_Entry):
    """What a file's header must hold to be believed. Names may all carry one of `prefixes` (the empty one included)."""

    keys: tuple[str, ...] = Field(min_length=1)
    typed: tuple[str, ...] = Field(min_length=1)
    "Keys whose tensors must have one of the weight's dtypes; FP8 files keep norms and embeddings in higher precision."
    extra: dict[str, Dtype] = Field(default_factory=dict)
    "Keys of a fixed type, such as a tokenizer carried as bytes."
    prefixes: tuple[str, ...] = ("",)


class Weight(_Entry):
    """One weight file: `folder` is ComfyUI's folder of models, `name` the name under it that a graph uses."""

    role: Role
    folder: FilePath
    name: FilePath
    dtypes: tuple[Dtype, ...] = Field(min_length=1)
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    source: str
    proof: Proof

    @property
    def path(self) -> str:
        """The file's path on the weights volume, with forward slashes."""
        return f"{self.folder}/{self.name}"


class Range(_Entry):
    """An inclusive range."""

    minimum: float
    maximum: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self

    def __contains__(self, value: float) -> bool:
        return self.minimum <= value <= self.maximum


class FrameLimits(_Entry):
    """Frames of one render: `step * n + 1` between minimum and maximum (the VAE packs `step` frames into a latent)."""

    minimum: int = Field(gt=0)
    maximum: int
    step: int = 4

    @model_validator(mode="after")
    def _on_the_grid(self) -> Self:
        for value in (self.minimum, self.maximum):
            if value % self.step != 1:
                raise ValueError(f"{value} is not {self.step}n+1")
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class SizeLimits(_Entry):
    """Render size in pixels: multiples of `multiple`, each side and the area bounded."""

    multiple: int = 16
    min_side: int = Field(gt=0)
    max_side: int
    max_pixels: int


class Limits(_Entry):
    """What may be asked of the model."""

    frames: FrameLimits
    size: SizeLimits
    fps: Range
    steps: Range
    guidance: Range
    shift: Range
    denoise: Range
    references: int = Field(0, ge=0)
    control_strength: bool = False
    "Whether the model takes a strength for its control inputs."


class Defaults(_Entry):
    """What is rendered where the job says nothing. Sampler and scheduler are the node's own words."""

    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    shift: float
    sampler: str
    scheduler: str
    weight_dtype: str
    crf: int = Field(ge=0, le=51)
    negative_prompt: str


class GpuNeeds(_Entry):
    """The least GPU that renders the defaults."""

    memory_gib: int = Field(alias="memoryGiB", gt=0)
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
    "CUDA compute capability that has FP8 arithmetic or, where the recipe only stores FP8, runs the recipe."


class Model(_Entry):
    """One model of the catalogue."""

    name: Name
    display_name: str
    family: str
    description: str
    documentation: str
    tasks: tuple[str, ...] = Field(min_length=1)
    weights: tuple[Weight, ...] = Field(min_length=1)
    limits: Limits
    defaults: Defaults
    gpu: GpuNeeds
    required_node_classes: tuple[str, ...] = Field(min_length=1)
    optional_node_classes: tuple[str, ...] = ()
    "Classes that only some jobs need (a control signal drawn by a model): a server is ready without them."

    @model_validator(mode="after")
    def _one_file_a_role(self) -> Self:
        roles = [weight.role for weight in self.weights]
        if len(set(roles)) != len(roles):
            raise ValueError("two weight files have the same role")
        return self

    @property
    def node_classes(self) -> tuple[str, ...]:
        """Every class that a recipe of this model may use."""
        return (*self.required_node_classes, *self.optional_node_classes)

    def weight(self, role: Role) -> Weight:
        """The weight file of `role`. KeyError when the model has none."""
        for weight in self.weights:
            if weight.role is role:
                return weight
        raise KeyError(role)
