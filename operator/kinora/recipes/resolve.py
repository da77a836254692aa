"""A VideoJob's spec and its model -> every parameter decided, or every fault named. Pure."""

import hashlib
from collections.abc import Iterator
from typing import Any

from kinora.api.videojob import Control, Expand, MaskMode, Preset, ReferenceRole, Task, VideoJobSpec
from kinora.catalogue.model import Model, PresetValues
from kinora.recipes import delivery, finishing, rules
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.graph import Prompts
from kinora.recipes.needs import input_name, named_inputs
from kinora.recipes.preparation import SIZED_BY, SIZED_IF_ASKED
from kinora.recipes.resolved import Resolved


def resolve(spec: VideoJobSpec, model: Model, uid: str) -> Resolved:
    """Decide every parameter of the job with this metadata.uid. Raises InvalidSpec with all faults at once."""
    frames = _frames(spec, model)
    faults = tuple(_faults(spec, model, frames))
    if faults:
        raise InvalidSpec(sorted(faults, key=lambda fault: fault.not_implemented))
    return _resolved(spec, model, uid, frames)


def prompts_of(spec: VideoJobSpec, model: Model) -> Prompts:
    """The job's prompts; the negative one is the model's where the job gives none. An empty one stays empty."""
    negative = spec.negative_prompt
    return Prompts(spec.prompt, model.defaults.negative_prompt if negative is None else negative)


def seed_of(uid: str) -> int:
    """The seed of a job that names none: the first 53 bits of sha256(uid), so that every attempt is the same job."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:7], "big") >> 3


def _faults(spec: VideoJobSpec, model: Model, frames: int) -> Iterator[Fault]:
    yield from rules.task_faults(spec, model)
    yield from rules.input_faults(spec, model)
    yield from rules.source_faults(spec)
    yield from rules.prompt_faults(spec, model)
    yield from rules.size_faults(spec, model)
    yield from rules.frame_faults(spec, model, frames)
    yield from rules.seconds_faults(spec, model, frames)
    yield from rules.number_faults(spec, model)
    yield from rules.preset_faults(spec, model)
    yield from rules.control_faults(spec, model)
    yield from rules.mask_faults(spec, frames)
    yield from rules.resolution_faults(spec)
    yield from rules.output_faults(spec, model)
    yield from rules.prefix_faults(spec)


def _frames(spec: VideoJobSpec, model: Model) -> int:
    asked = spec.parameters
    if asked.frames is not None:
        return asked.frames
    if asked.duration_seconds is not None:
        fps = asked.fps or model.defaults.fps
        return rules.frames_of_duration(asked.duration_seconds, fps, model.limits.frames.step)
    if not _frames_from_input(spec, model):
        return model.defaults.frames
    limits, seconds = model.frames_of(spec.task), model.limits.seconds
    if seconds is None:
        return limits.maximum
    fps = asked.fps or model.defaults.fps
    return min(limits.maximum, rules.frames_of_duration(seconds.maximum, fps, limits.step))


def _frames_from_input(spec: VideoJobSpec, model: Model) -> bool:
    """An edit is as long as what is edited, where nothing else is asked for; under some names other tasks are, too."""
    asked = spec.parameters
    if asked.frames is not None:
        return False
    if spec.task in model.defaults.length_from_source:
        return True
    return spec.task is Task.EDIT and asked.duration_seconds is None


def _size_from_input(spec: VideoJobSpec, model: Model) -> bool:
    """Tasks with a source have its size, or its proportions, where they ask for none."""
    if spec.task not in SIZED_BY or _sizes_asked(spec):
        return False
    if spec.task in SIZED_IF_ASKED:
        return spec.output.resolution is not None or spec.task in model.defaults.size_from_source
    return True


def _resolved(spec: VideoJobSpec, model: Model, uid: str, frames: int) -> Resolved:
    asked, defaults = spec.parameters, model.defaults
    preset = asked.preset or Preset.QUALITY
    values = model.presets.get(preset, PresetValues())
    size = delivery.sizes(asked, spec.output, model)
    shift, notes = _shift(_or(asked.shift, _or(values.shift, defaults.shift)))
    resolved = Resolved(
        model=model.local_name,
        task=str(spec.task),
        width=size.width,
        height=size.height,
        frames=frames,
        fps=_or(asked.fps, defaults.fps),
        steps=int(_or(asked.steps, _or(values.steps, defaults.steps))),
        guidance=_or(asked.guidance, _or(values.guidance, defaults.guidance)),
        shift=shift,
        seed=seed_of(uid) if asked.seed is None else asked.seed,
        denoise=_or(asked.denoise, 1.0),
        sampler=values.sampler or defaults.sampler,
        scheduler=values.scheduler or defaults.scheduler,
        weight_dtype=defaults.weight_dtype,
        output_width=size.output_width,
        output_height=size.output_height,
        crf=int(_or(spec.output.crf, defaults.crf)),
        control=str(asked.control or _control(spec)),
        control_strength=_or(asked.control_strength, 1.0),
        preset=str(preset),
        inputs=tuple(named.name for named in named_inputs(spec)),
        backgrounds=tuple(
            input_name("references", index)
            for index, reference in enumerate(spec.inputs.references)
            if reference.role is ReferenceRole.BACKGROUND
        ),
        **_mask(spec),
        **_expand(asked.expand),
        size_from_input=_size_from_input(spec, model),
        resolution=str(spec.output.resolution or ""),
        frames_from_input=_frames_from_input(spec, model),
        audio=str(spec.output.audio),
        watermark=spec.output.watermark,
        notes=(*notes, *_task_notes(spec, model)),
    )
    return finishing.noted(finishing.at_rate(resolved, spec.output.fps))


def _task_notes(spec: VideoJobSpec, model: Model) -> Iterator[str]:
    if spec.task is Task.EDIT:
        yield _EDIT_NOTE
        windows = model.limits.windows
        if windows is not None:
            yield f"more than {windows.frames} frames are rendered in windows, {windows.overlap} of overlap"
    if model.served_by is not None:
        yield f"{model.name} is rendered by {model.served_by}"


_EDIT_NOTE = "Edit is an approximation: the source steers by a control signal, references and prompt say what to make"
_TRACKED_RATIO = 0.05  # DashScope's default, which it applies to masks that are tracked


def _control(spec: VideoJobSpec) -> Control:
    return Control.DEPTH if spec.task is Task.EDIT else Control.NONE


def _mask(spec: VideoJobSpec) -> dict[str, Any]:
    mask = spec.inputs.mask
    if mask is None:
        return {}
    ratio = mask.expand_ratio
    if ratio is None:
        ratio = _TRACKED_RATIO if mask.mode is MaskMode.TRACKING else 0.0
    return {
        "mask_mode": str(mask.mode),
        "mask_frame": mask.frame or 1,
        "mask_frame_of": str(mask.frame_of),
        "mask_expand_ratio": float(ratio),
    }


def _expand(expand: Expand | None) -> dict[str, Any]:
    if expand is None:
        return {}
    return {f"expand_{side}": float(getattr(expand, side)) for side in ("top", "bottom", "left", "right")}


def _sizes_asked(spec: VideoJobSpec) -> bool:
    asked = (spec.parameters.width, spec.parameters.height, spec.output.width, spec.output.height)
    return any(side is not None for side in asked)


def _shift(asked: float) -> tuple[float, tuple[str, ...]]:
    if asked == 0:  # ModelSamplingSD3 divides by it
        return 1.0, ("shift 0 is rendered as 1",)
    return asked, ()


def _or(value: float | None, default: float) -> float:
    return float(default if value is None else value)
