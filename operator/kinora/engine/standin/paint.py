"""The stand-in's "model": arithmetic that turns what a graph wired together into pictures that show it.

Every input leaves a mark, so that a wrong wiring is seen: kept pixels stay, a control video's forms come through in the
prompt's colours, a reference gives its colours and floats in the picture, kept frames set the camera in motion.
The same inputs give the same pixels. No graph, file or message is known here; no claim is made that this is art.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from kinora.engine.standin import palette
from kinora.engine.standin.pictures import dominant_colours, gradient, luma, resize
from kinora.engine.standin.values import Images, Masks

Floats: TypeAlias = npt.NDArray[np.float32]

GREY = (126, 129)  # a control video filled with this says nothing, as in VACE
KEPT, GENERATED = 0.02, 0.98  # share of white in the mask of a frame that is all kept, all generated
RAMP_FRAMES = 20.0  # frames from a kept frame until the prompt's colours have come in fully
FULL_OVERLAY = 0.62
COARSE = 4  # the moving pattern is computed at this fraction of the size
FRAMES_PER_SECOND = 16.0


@dataclass(frozen=True)
class Scene:
    """What to paint. Images and masks have the size and one entry a frame, the reference any number.

    `masks` 0 keeps the control video's pixel, 255 paints it anew; None paints everything. `strength` (0 and up) is how
    much of the control video's forms come through, `denoise` (0 to 1) how far the picture leaves it, `overlay` (0 to 1)
    how much of the prompt's light comes over frames that continue kept ones.
    """

    width: int
    height: int
    frames: int
    prompt: str
    negative: str
    seed: int
    guidance: float = 4.0
    shift: float = 5.0
    steps: int = 20
    control: Images | None = None
    masks: Masks | None = None
    reference: Images | None = None
    strength: float = 1.0
    denoise: float = 1.0
    overlay: float = 1.0
    marks: tuple[str, ...] = ()
    "What was laid on the model: other marks, other pictures."


class Painter:
    """Paints a scene frame by frame."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        numbers = palette.generator(scene.seed, scene.prompt, scene.negative, *scene.marks)
        colours = palette.prompt_colours(numbers)
        if scene.reference is not None:
            colours = palette.with_reference(colours, dominant_colours(scene.reference[0], 5))
        self._table = palette.table(colours)
        self._accent = np.asarray(colours[3], np.float32) * 255
        self._pattern = _Pattern(scene, numbers)
        self._direction = float(numbers.uniform(0, 2 * np.pi))
        self._painted = _white_shares(scene)
        self._kept = np.flatnonzero(self._painted < KEPT) if scene.control is not None else np.zeros(0, np.int64)
        self._stamps: dict[tuple[int, int], Floats] = {}

    def frame(self, at: int) -> npt.NDArray[np.uint8]:
        """Frame `at` as uint8 [height, width, 3]."""
        scene = self._scene
        control = scene.control[at] if scene.control is not None else None
        if control is not None and self._painted[at] == 0:
            return np.asarray(control, np.uint8)
        mask = None if scene.masks is None else scene.masks[at].astype(np.float32)[..., None] / np.float32(255)
        painted = self._generated(at, control, mask)
        if control is not None and scene.denoise < 1:
            painted += (1 - scene.denoise) * (control - painted)
        self._add_stamp(painted, mask)
        if mask is not None and control is not None:
            painted = control + mask * (painted - control)
        return np.asarray(np.clip(painted + 0.5, 0, 255), np.uint8)

    def _generated(self, at: int, control: npt.NDArray[np.uint8] | None, mask: Floats | None) -> Floats:
        weight = 0.0 if control is None else _says(control, mask) * min(self._scene.strength, 1.5)
        if control is not None and weight > 0.02:
            return self._stylised(control.astype(np.float32), luma(control), at, weight)
        if len(self._kept) and self._painted[at] > GENERATED:
            return self._continued(at)
        painted = self._stylised(None, None, at, 0.0)
        if self._scene.reference is not None:
            self._float_reference(painted, at)
        return painted

    def _stylised(self, under: Floats | None, bright: Floats | None, at: int, weight: float) -> Floats:
        """The pattern in the scene's colours; `under` and its brightness come through by `weight`."""
        field, shade = self._pattern.at(at)
        share = min(weight, 1.0)
        level = 0.5 + (1 - 0.72 * share) * (field - 0.5)
        if bright is not None:
            level += weight * 1.05 * (bright - 0.25 - 0.5 * bright.mean())
        painted = self._table[np.clip(level * palette.LEVELS, 0, palette.LEVELS - 1).astype(np.int32)]
        painted *= (1 + (1 - 0.6 * share) * shade)[..., None]
        if under is not None and bright is not None:
            painted += 0.22 * share * (under - painted)
            glow = np.clip(gradient(bright) * 5 - 0.15, 0, 0.75) * share
            painted += glow[..., None] * (self._accent - painted)
        return np.asarray(painted, np.float32)

    def _continued(self, at: int) -> Floats:
        """A frame after, before or between kept frames: they are moved by a camera, and the prompt's light comes in."""
        control = self._scene.control
        if control is None:
            raise ValueError("kept frames come from a control video")
        before = self._kept[self._kept < at]
        after = self._kept[self._kept > at]
        if len(before) and len(after):
            first, last = int(before[-1]), int(after[0])
            part = _eased((at - first) / (last - first))
            base = self._moved(control[first], at - first) * np.float32(1 - part)
            base += self._moved(control[last], last - at) * np.float32(part)
        else:
            nearest = int(before[-1] if len(before) else after[0])
            base = self._moved(control[nearest], abs(at - nearest))
        distance = float(np.abs(self._kept - at).min())
        overlay = FULL_OVERLAY * self._scene.overlay * _eased(min(distance / RAMP_FRAMES, 1.0))
        bright = luma(base)
        field, _ = self._pattern.at(at)
        light = self._stylised(base, bright, at, 1.0)
        return base + (overlay * (0.35 + 0.65 * field))[..., None] * (light - base)

    def _moved(self, picture: npt.NDArray[np.uint8], distance: int) -> Floats:
        """The picture after `distance` frames of a slow zoom with a drift."""
        height, width = picture.shape[:2]
        progress = _eased(min(distance / max(self._scene.frames, 2), 1.0))
        zoom = 1 + 0.28 * progress
        slack = (1 - 1 / zoom) / 2
        left = width * slack * (1 + 0.9 * np.cos(self._direction))
        top = height * slack * (1 + 0.9 * np.sin(self._direction))
        how = (1 / zoom, 0.0, left, 0.0, 1 / zoom, top)
        moved = Image.fromarray(np.ascontiguousarray(picture)).transform(
            (width, height), Image.Transform.AFFINE, how, Image.Resampling.BILINEAR
        )
        return np.asarray(moved, np.float32)

    def _float_reference(self, painted: Floats, at: int) -> None:
        """Lays the references, with soft edges, onto the picture; they drift."""
        references = self._scene.reference
        if references is None:
            return
        height, width = painted.shape[:2]
        across = width // (len(references) + 1)
        inner_width, inner_height = max(8, min(across, width // 2)), max(8, height // 2)
        soft = _soft_edges(inner_height, inner_width)[..., None]
        for number, reference in enumerate(resize(references, inner_width, inner_height)):
            turn = 2 * np.pi * at / 96 + self._direction + number
            middle = (number + 1) * width / (len(references) + 1) + 0.06 * width * np.cos(turn)
            left = int(np.clip(middle - inner_width / 2, 0, width - inner_width))
            top = int(np.clip(height * (0.5 + 0.08 * np.sin(turn)) - inner_height / 2, 0, height - inner_height))
            part = painted[top : top + inner_height, left : left + inner_width]
            part += soft * (reference - part)

    def _add_stamp(self, painted: Floats, mask: Floats | None) -> None:
        """Writes the stamp at the bottom of what is painted; the mask keeps it off kept pixels afterwards."""
        top, bottom, left, right = _box(mask, painted.shape[0], painted.shape[1])
        size = (right - left, bottom - top)
        if size[0] < 40 or size[1] < 14:
            return
        if size not in self._stamps:
            self._stamps[size] = palette.stamp(self._scene.prompt, *size)
        opacity = self._stamps[size]
        high, wide = opacity.shape
        margin = 2 if bottom - high - 2 >= 0 and left + 2 + wide <= painted.shape[1] else 0
        part = painted[bottom - high - margin : bottom - margin, left + margin : left + margin + wide]
        shadow = np.maximum(opacity, np.roll(opacity, (1, 1), (0, 1)))[..., None]
        part *= 1 - 0.6 * shadow
        part += 0.9 * opacity[..., None] * (255 - part)


class _Pattern:
    """Silk: a few waves in a warped plane, lit from one side, flowing. Same seed, same silk."""

    def __init__(self, scene: Scene, numbers: np.random.Generator) -> None:
        self._size = (scene.width, scene.height)
        small = (max(8, -(-scene.width // COARSE)), max(8, -(-scene.height // COARSE)))
        aspect = scene.width / scene.height
        self._x, self._y = np.meshgrid(
            np.linspace(0, aspect, small[0], dtype=np.float32), np.linspace(0, 1, small[1], dtype=np.float32)
        )
        count = int(np.clip(3 + scene.steps // 8, 3, 6))  # more steps, more detail
        angle = numbers.uniform(0, 2 * np.pi, 8)[:count]
        length = numbers.uniform(0.5, 1.1, 8)[:count] * (1 + 0.35 * np.arange(count))
        self._waves = np.stack([np.cos(angle) * length, np.sin(angle) * length], 1) * 2 * np.pi
        self._phase = numbers.uniform(0, 2 * np.pi, 8)[:count]
        self._speed = numbers.uniform(0.7, 1.5, 8)[:count] * (0.8 + 0.06 * min(scene.shift, 10))
        self._warp = numbers.uniform(0, 2 * np.pi, 4)
        self._contrast = 0.28 + 0.035 * min(scene.guidance, 10)
        self._light = numbers.uniform(0, 2 * np.pi)
        self._last: tuple[int, Floats, Floats] | None = None

    def at(self, frame: int) -> tuple[Floats, Floats]:
        """Field 0 to 1, and light about 0, both [height, width]."""
        if self._last is None or self._last[0] != frame:
            self._last = (frame, *self._computed(frame / FRAMES_PER_SECOND))
        return self._last[1], self._last[2]

    def _computed(self, seconds: float) -> tuple[Floats, Floats]:
        x = self._x + 0.22 * np.sin(3.1 * self._y + 0.9 * seconds + self._warp[0])
        y = self._y + 0.22 * np.sin(2.7 * self._x - 0.8 * seconds + self._warp[1])
        x = x + 0.12 * np.sin(5.3 * y + 1.1 * seconds + self._warp[2])
        total = np.zeros_like(self._x)
        for (across, down), phase, speed in zip(self._waves, self._phase, self._speed, strict=True):
            total += np.sin(across * x + down * y + phase + speed * seconds) / (1 + 0.25 * np.hypot(across, down) / 6)
        field = 0.5 + 0.5 * np.tanh(self._contrast * total)
        folds = total + 0.3 * np.sin(3.5 * total + self._warp[3])
        slope_down, slope_across = np.gradient(folds)
        slope = (np.cos(self._light) * slope_across + np.sin(self._light) * slope_down) * 60 / self._size[1] * COARSE
        shade = 0.34 * np.tanh(1.1 * slope)
        return self._grown(field), self._grown(shade)

    def _grown(self, values: npt.NDArray[np.floating]) -> Floats:
        picture = Image.fromarray(np.asarray(values, np.float32))
        return np.asarray(picture.resize(self._size, Image.Resampling.BICUBIC), np.float32)


def _white_shares(scene: Scene) -> npt.NDArray[np.float64]:
    """How much of each frame is painted anew, 0 to 1."""
    if scene.masks is None:
        return np.ones(scene.frames)
    return np.array([float(mask.mean()) / 255 for mask in scene.masks])


def _says(control: npt.NDArray[np.uint8], mask: Floats | None) -> float:
    """0 when the control picture is plain grey where it is to be painted, 1 when it is not; smooth between."""
    thin = control[::4, ::4]
    plain = ((thin >= GREY[0]) & (thin <= GREY[1])).all(axis=2)
    if mask is None:
        return float(min(1.0, 3 * (1 - plain.mean())))
    weight = mask[::4, ::4, 0]
    total = float(weight.sum())
    return 0.0 if total == 0 else float(min(1.0, 3 * (weight * ~plain).sum() / total))


def _eased(part: float) -> float:
    return part * part * (3 - 2 * part)


def _soft_edges(height: int, width: int) -> Floats:
    """1 within, falling to 0 at the border of a rounded form."""
    down = np.abs(np.linspace(-1, 1, height, dtype=np.float32))[:, None]
    across = np.abs(np.linspace(-1, 1, width, dtype=np.float32))[None]
    return np.asarray(np.clip((1 - (down**4 + across**4) ** 0.25) * 6, 0, 1), np.float32)


def _box(mask: Floats | None, height: int, width: int) -> tuple[int, int, int, int]:
    """top, bottom, left, right of what is painted."""
    if mask is None:
        return 0, height, 0, width
    rows = np.flatnonzero(mask[..., 0].max(axis=1) > 0.5)
    columns = np.flatnonzero(mask[..., 0].max(axis=0) > 0.5)
    if not len(rows) or not len(columns):
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
