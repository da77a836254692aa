"""The shape of a catalogue entry: what a model is, which files prove it, what may be asked of it.

Pydantic models only, frozen, unknown fields refused. Values of nodes' inputs (samplers, attention modes) are the nodes'
own words; that an engine knows them is checked against the node contract elsewhere. No I/O.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from kinora.api.videojob import Control, Preset, Task
from kinora.catalogue.entry import Entry as _Entry
from kinora.catalogue.options import EngineOptions

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
    FAST_LORA = "fastLora"
    "The LoRA of preset Fast, on the diffusion model; for high noise where there are two."
    FAST_LORA_LOW_NOISE = "fastLoraLowNoise"


class Family(StrEnum):
    """Which recipe makes the graphs of a model."""

    WAN_VACE = "wan-vace"
    WAN_I2V_WRAPPER = "wan-i2v-wrapper"


#: The weight files without which a family's recipe makes no graph.
NEEDED_ROLES: Mapping[Family, tuple[Role, ...]] = MappingProxyType(
    {
        Family.WAN_VACE: (Role.DIFFUSION, Role.TEXT_ENCODER, Role.VAE),
        Family.WAN_I2V_WRAPPER: (Role.DIFFUSION, Role.TEXT_ENCODER, Role.VAE, Role.CLIP_VISION),
    }
)
#: A LoRA -> the model that it is laid on.
LORA_OF: Mapping[Role, Role] = MappingProxyType(
    {Role.FAST_LORA: Role.DIFFUSION, Role.FAST_LORA_LOW_NOISE: Role.DIFFUSION_LOW_NOISE}
)


class Dtype(StrEnum):
    """Element types as they stand in safetensors headers."""

    F8_E4M3 = "F8_E4M3"
    BF16 = "BF16"
    F16 = "F16"
    F32 = "F32"
    U8 = "U8"


class Proof(_Entry):
    """What a file's header must hold to be believed. Names may all carry one of `prefixes` (the empty one included)."""

    keys: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()
    "Keys whose tensors must have one of the weight's dtypes; FP8 files keep norms and embeddings in higher precision."
    endings: tuple[tuple[str, ...], ...] = ()
    "Of each group one key at least must end so, and have one of the dtypes: LoRAs come under several spellings."
    extra: dict[str, Dtype] = Field(default_factory=dict)
    "Keys of a fixed type, such as a tokenizer carried as bytes."
    prefixes: tuple[str, ...] = ("",)

    @model_validator(mode="after")
    def _proves_something(self) -> Self:
        if not (self.keys and self.typed) and not self.endings:
            raise ValueError("keys and typed, or endings, must name something")
        return self


class Weight(_Entry):
    """One weight file: `folder` is ComfyUI's folder of models, `name` the name under it that a graph uses."""

    role: Role
    folder: FilePath
    name: FilePath
    dtypes: tuple[Dtype, ...] = Field(min_length=1)
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    source: str
    licence: str = ""
    "Of the file, where it is another than the model's or where sources differ; for people."
    preset: Preset | None = None
    "Only jobs of this preset need the file: a server is ready for others without it."
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


class Seconds(_Entry):
    """How long a video may be, in seconds at the rate that is generated."""

    minimum: float = 0
    maximum: float


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


class Windows(_Entry):
    """How an edit that is longer than one render is made: renders of `frames`, each begun with the end of the last."""

    frames: int
    overlap: int
    "Frames at the end of a window that the next one keeps and goes on from."
    maximum: int = Field(ge=1)
    "Windows of one job: what a GPU's time allows."
    colour_match: str = "mkl"
    "The method of the ColorMatch node."

    @model_validator(mode="after")
    def _on_the_grid(self) -> Self:
        for name in ("frames", "overlap"):
            if getattr(self, name) % 4 != 1:
                raise ValueError(f"{name} {getattr(self, name)} is not 4n+1")
        if self.overlap >= self.frames:
            raise ValueError(f"overlap {self.overlap} is not below frames {self.frames}")
        return self

    @property
    def longest(self) -> int:
        """The most frames of a job."""
        return self.frames + (self.maximum - 1) * (self.frames - self.overlap)


class Limits(_Entry):
    """What may be asked of the model."""

    frames: FrameLimits
    windows: Windows | None = None
    "For Edit; None: an edit is one render."
    size: SizeLimits
    fps: Range
    steps: Range
    guidance: Range
    shift: Range
    denoise: Range
    references: int = Field(0, ge=0)
    control_strength: bool = False
    "Whether the model takes a strength for its control inputs."
    most_control_strength: float = 2
    controls: tuple[Control, ...] | None = None
    "The signals that may be asked for; None: all."
    seconds: Seconds | None = None
    negative_prompt: int = 5000
    "Characters."


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
    size_from_source: tuple[Task, ...] = ()
    "Tasks that take their source's size where the job asks for none, besides those that always do."
    length_from_source: tuple[Task, ...] = ()
    "Tasks that are as long as their source: a length that is asked for in seconds is the most then."


class PresetValues(_Entry):
    """What a preset renders with where the job says nothing; what is not named here is as in `defaults`."""

    steps: int | None = None
    guidance: float | None = None
    shift: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    strengths: dict[Role, Annotated[float, Field(ge=-10, le=10)]] = Field(default_factory=dict)
    "Of its LoRAs, by role; 1 where not named."


class GpuNeeds(_Entry):
    """The least GPU that renders the defaults."""

    memory_gib: int = Field(alias="memoryGiB", gt=0)
    compute_capability: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
    "CUDA compute capability that has FP8 arithmetic or, where the recipe only stores FP8, runs the recipe."


class Speed(_Entry):
    """How long a job takes on one card: overhead_seconds + seconds_per_million_token_steps x work / 1,000,000.

    The work is tokens x steps; tokens = ((frames - 1) / 4 + 1) x (height / 16) x (width / 16).
    """

    overhead_seconds: float = Field(ge=0)
    "Text, VAE, saving: what does not grow with the steps, once the weights are in memory."
    seconds_per_million_token_steps: float = Field(gt=0)


class Cost(_Entry):
    """What is published of the model's speed: where estimates begin, until renders were measured."""

    cards: dict[Annotated[str, StringConstraints(min_length=1, max_length=63)], Speed] = Field(min_length=1)
    "By a pool's gpuModel. Of a card that is not here the first one's is taken: a few renders tell."
    source: Annotated[str, StringConstraints(min_length=1)]

    def speed(self, card: str | None) -> Speed:
        """On that card."""
        return self.cards.get(card or "") or next(iter(self.cards.values()))


class Model(_Entry):
    """One model of the catalogue."""

    name: Name
    display_name: str
    family: Family
    description: str
    documentation: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    weights: tuple[Weight, ...] = Field(min_length=1)
    limits: Limits
    defaults: Defaults
    presets: dict[Preset, PresetValues] = Field(default_factory=dict)
    engine_options: EngineOptions | None = None
    "How the engine works rather than what it renders: of the hardware, the same for every job."
    gpu: GpuNeeds
    cost: Cost | None = None
    required_node_classes: tuple[str, ...] = Field(min_length=1)
    optional_node_classes: tuple[str, ...] = ()
    "Classes that only some jobs need (a control signal drawn by a model, a LoRA): a server is ready without them."
    served_by: Name | None = None
    "The local model, where this is it under another name: set by lookup, never by an entry."

    @model_validator(mode="after")
    def _files_of_the_family(self) -> Self:
        roles = [weight.role for weight in self.weights]
        if len(set(roles)) != len(roles):
            raise ValueError("two weight files have the same role")
        missing = [role for role in NEEDED_ROLES[self.family] if role not in roles]
        if missing:
            raise ValueError(f"weights: family {self.family} needs a file of role {', '.join(missing)}")
        if (self.engine_options is not None) is not (self.family is Family.WAN_I2V_WRAPPER):
            raise ValueError(f"engine_options: must be set for family {Family.WAN_I2V_WRAPPER}, and for no other")
        return self

    @model_validator(mode="after")
    def _files_of_the_presets(self) -> Self:
        for weight in self.weights:
            if weight.role in LORA_OF and weight.preset is None:
                raise ValueError(f"weights: a file of role {weight.role} needs a preset")
            if weight.preset is not None and weight.preset not in self.presets:
                raise ValueError(f"presets: {weight.preset} is not there, which {weight.path} is for")
            base = LORA_OF.get(weight.role)
            if base is not None and base not in {other.role for other in self.weights}:
                raise ValueError(f"weights: a file of role {weight.role} needs one of role {base}")
        if Preset.QUALITY in self.presets:
            raise ValueError(f"presets: {Preset.QUALITY} is what defaults say; allowed: {Preset.FAST}")
        return self

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> Self:
        limits, defaults = self.limits, self.defaults
        for name in ("fps", "steps", "guidance", "shift"):
            for where, values in (
                ("defaults", defaults),
                *((f"presets.{key}", value) for key, value in self.presets.items()),
            ):
                value, allowed = getattr(values, name, None), getattr(limits, name)
                if value is not None and value not in allowed:
                    raise ValueError(f"{where}.{name}: {value:g} is not within limits.{name}")
        grid, size = limits.size.multiple, (defaults.width, defaults.height)
        if (
            defaults.frames % limits.frames.step != 1
            or not limits.frames.minimum <= defaults.frames <= limits.frames.maximum
        ):
            raise ValueError(f"defaults.frames: {defaults.frames} is not within limits.frames")
        if any(side % grid or not limits.size.min_side <= side <= limits.size.max_side for side in size) or (
            size[0] * size[1] > limits.size.max_pixels
        ):
            raise ValueError(f"defaults.width and defaults.height: {size[0]}x{size[1]} is not within limits.size")
        return self

    @property
    def local_name(self) -> str:
        """The name by which ModelServers know it."""
        return self.served_by or self.name

    @property
    def node_classes(self) -> tuple[str, ...]:
        """Every class that a recipe of this model may use."""
        return (*self.required_node_classes, *self.optional_node_classes)

    @property
    def required_weights(self) -> tuple[Weight, ...]:
        """The files without which nothing is rendered."""
        return tuple(weight for weight in self.weights if weight.preset is None)

    def preset_weights(self, preset: str) -> tuple[Weight, ...]:
        """The files that only this preset needs."""
        return tuple(weight for weight in self.weights if weight.preset == preset)

    def frames_of(self, task: str | None) -> FrameLimits:
        """How many frames a job of this task may have: an edit may be made in windows."""
        windows = self.limits.windows
        if task != Task.EDIT or windows is None:
            return self.limits.frames
        limits = self.limits.frames
        return limits.model_copy(update={"maximum": max(windows.longest, limits.maximum)})

    def weight(self, role: Role) -> Weight:
        """The weight file of `role`. KeyError when the model has none."""
        for weight in self.weights:
            if weight.role is role:
                return weight
        raise KeyError(role)
