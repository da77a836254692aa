"""Every parameter of a job, decided: the same for each attempt, and what `status.resolved` says. No prompts in it."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, Self, get_origin

from pydantic.alias_generators import to_camel

from kinora.api.base import integral

_GRID = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Sizes in pixels, rates in frames per second. `width`x`height` is rendered, `output_*` is what is delivered."""

    model: str
    task: str
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    shift: float
    seed: int
    denoise: float
    sampler: str
    scheduler: str
    weight_dtype: str
    output_width: int
    output_height: int
    crf: int
    control: str = "None"
    control_strength: float = 1.0
    format: str = "MP4"
    preset: str = "Quality"
    inputs: tuple[str, ...] = ()
    backgrounds: tuple[str, ...] = ()
    "The references that show a background."
    mask_mode: str = "Tracking"
    mask_frame: int = 1
    mask_frame_of: str = "Render"
    "`Source`: the frame above is counted in the source video, until that has been looked at (preparation.sized)."
    mask_expand_ratio: float = 0.0
    expand_top: float = 1.0
    expand_bottom: float = 1.0
    expand_left: float = 1.0
    expand_right: float = 1.0
    size_from_input: bool = False
    "The sizes above stand in until the source has been looked at (preparation.sized)."
    resolution: str = ""
    "The delivered size is of about this many pixels, in the source's proportions; empty: not asked for."
    frames_from_input: bool = False
    "The number of frames above is the most; the source's own is known once it has been looked at."
    last_held: bool = False
    "The source ends where the last frame would be shown: the one before it stands that long."
    output_fps: float = 0.0
    "The delivered rate; 0: `fps`."
    output_frames: int = 0
    "How many frames are delivered; 0: `frames`."
    audio: str = "None"
    watermark: bool = False
    notes: tuple[str, ...] = ()

    @property
    def delivered_fps(self) -> float:
        """Frames per second of the delivered video."""
        return self.output_fps or self.fps

    @property
    def delivered_frames(self) -> int:
        """Frames of the delivered video."""
        return self.output_frames or self.frames

    @property
    def scaled(self) -> bool:
        """Whether the delivered size is another one than the rendered, and not what a crop of the grid's rest gives."""
        rest = (self.width - self.output_width, self.height - self.output_height)
        return not all(0 <= more < _GRID for more in rest)

    @property
    def finished(self) -> bool:
        """Whether something is made of the rendered frames that the engine does not do (finishing.py)."""
        return bool(self.scaled or self.output_fps or self.output_frames or self.audio != "None" or self.watermark)

    @property
    def duration_seconds(self) -> float:
        """Length of the delivered video."""
        return self.delivered_frames / self.delivered_fps

    @property
    def tokens(self) -> int:
        """Transformer tokens of one render, the unit of its cost (design, section 8)."""
        return ((self.frames - 1) // 4 + 1) * (self.height // 16) * (self.width // 16)

    def to_status(self) -> dict[str, Any]:
        """JSON-safe, camelCase, integral floats as integers; without prompts."""
        told = (field for field in fields(self) if field.name not in _TOLD_IF_SET or self._is_set(field))
        pairs = ((to_camel(field.name), getattr(self, field.name)) for field in told)
        status = {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}
        result: dict[str, Any] = integral(status)
        return result

    def _is_set(self, field: Field[Any]) -> bool:
        return bool(getattr(self, field.name) != field.default)

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> Self | None:
        """What `to_status` wrote; None where it was written by a version whose fields differ: resolve again then."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = to_camel(field.name)
            if name in status:
                values[field.name] = _typed(status[name], field.type)
                if values[field.name] is None:
                    return None
        try:
            return cls(**values)
        except TypeError:
            return None


#: What only some tasks have: a status has room for 8 KiB.
_TOLD_IF_SET = frozenset(
    {"backgrounds", "mask_mode", "mask_frame", "mask_frame_of", "mask_expand_ratio", "size_from_input", "resolution"}
    | {"preset", "frames_from_input", "last_held", "output_fps", "output_frames", "audio", "watermark"}
    | {f"expand_{side}" for side in ("top", "bottom", "left", "right")}
)


def _typed(value: object, kind: Any) -> object:
    if get_origin(kind) is tuple:
        return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None
    if kind is float:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return value if type(value) is kind else None
