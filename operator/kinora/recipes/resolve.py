"""A VideoJob's spec and its model -> every parameter decided, or every fault named. Pure."""

import hashlib
from collections.abc import Iterator

from kinora.api.videojob import Control, VideoJobSpec
from kinora.catalogue.model import Model
from kinora.recipes import delivery, rules
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.graph import Prompts
from kinora.recipes.needs import named_inputs
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
    yield from rules.prompt_faults(spec)
    yield from rules.size_faults(spec, model)
    yield from rules.frame_faults(spec, model, frames)
    yield from rules.number_faults(spec, model)
    yield from rules.control_faults(spec, model)
    yield from rules.later_faults(spec, model)


def _frames(spec: VideoJobSpec, model: Model) -> int:
    asked = spec.parameters
    if asked.frames is not None:
        return asked.frames
    if asked.duration_seconds is not None:
        fps = asked.fps or model.defaults.fps
        return rules.frames_of_duration(asked.duration_seconds, fps, model.limits.frames.step)
    return model.defaults.frames


def _resolved(spec: VideoJobSpec, model: Model, uid: str, frames: int) -> Resolved:
    asked, defaults = spec.parameters, model.defaults
    size = delivery.sizes(asked, spec.output, defaults)
    shift, notes = _shift(_or(asked.shift, defaults.shift))
    return Resolved(
        model=model.name,
        task=str(spec.task),
        width=size.width,
        height=size.height,
        frames=frames,
        fps=_or(asked.fps, defaults.fps),
        steps=int(_or(asked.steps, defaults.steps)),
        guidance=_or(asked.guidance, defaults.guidance),
        shift=shift,
        seed=seed_of(uid) if asked.seed is None else asked.seed,
        denoise=_or(asked.denoise, 1.0),
        sampler=defaults.sampler,
        scheduler=defaults.scheduler,
        weight_dtype=defaults.weight_dtype,
        output_width=size.output_width,
        output_height=size.output_height,
        crf=int(_or(spec.output.crf, defaults.crf)),
        control=str(asked.control or Control.NONE),
        control_strength=_or(asked.control_strength, 1.0),
        inputs=tuple(named.name for named in named_inputs(spec)),
        notes=notes,
    )


def _shift(asked: float) -> tuple[float, tuple[str, ...]]:
    if asked == 0:  # ModelSamplingSD3 divides by it
        return 1.0, ("shift 0 is rendered as 1",)
    return asked, ()


def _or(value: float | None, default: float) -> float:
    return float(default if value is None else value)
