"""The rules that a spec is held to, each a small function from (spec, model) to faults. `resolve` runs them all."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from kinora.api.videojob import Audio, Control, MaskFrameOf, Preset, Task, VideoJobSpec
from kinora.catalogue.model import FrameLimits, Model, Range
from kinora.recipes import delivery
from kinora.recipes.faults import Fault, not_yet
from kinora.recipes.needs import NEEDS, MediaKind, given_inputs, given_sources
from kinora.recipes.preparation import SIZED_BY


def task_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """The task must be one that the model can do and this release renders."""
    if spec.workflow is not None:
        yield Fault("spec.workflow", "set", "unset: only a task is rendered by a recipe")
    elif spec.task is None:
        yield Fault("spec.task", None, ", ".join(model.tasks))
    elif spec.task not in model.tasks:
        yield Fault("spec.task", spec.task, f"{', '.join(model.tasks)} for {model.name}")
    elif spec.task not in NEEDS:
        offered = ", ".join(task for task in NEEDS if task in model.tasks)
        yield not_yet("spec.task", spec.task, f"{offered} for {model.name}")


def input_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """Required inputs are there; nothing is given that the task would not look at; the model's limits hold."""
    if spec.task is None or spec.task not in NEEDS:
        return
    needs, given = NEEDS[spec.task], given_inputs(spec.inputs)
    used = ", ".join(f"spec.inputs.{need.field}" for need in needs) or "no inputs"
    for field in given:
        if field not in {need.field for need in needs}:
            yield Fault(f"spec.inputs.{field}", "set", f"unset: task {spec.task} uses {used}")
    for need in needs:
        count = len(given.get(need.field, ()))
        if need.required and not count:
            yield Fault(f"spec.inputs.{need.field}", None, f"one {need.kind.lower()}: task {spec.task} needs it")
        elif need.field == "references" and model.limits.references < count:
            allowed = f"at most {model.limits.references} for {model.name}"
            yield Fault(f"spec.inputs.{need.field}", f"a list of {count}", allowed)
    if spec.task is Task.EXTEND and not any(need.field in given for need in needs if need.field != "references"):
        allowed = "one at least of firstFrame, lastFrame, firstClip and lastClip: task Extend needs it"
        yield Fault("spec.inputs", "without frame and clip", allowed)


def source_faults(spec: VideoJobSpec) -> Iterator[Fault]:
    """Exactly one source an input."""
    for path, source in given_sources(spec):
        count = sum(value is not None for value in source.__dict__.values())
        if count != 1:
            yield Fault(path, f"{count} sources", "exactly one of url, artifact, upload, claim, configMap")


def prompt_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """Without a picture to set in motion, the prompt is all that the model has."""
    if spec.task not in (None, Task.IMAGE_TO_VIDEO) and not spec.prompt.strip():
        yield Fault("spec.prompt", None, f"a text of 1 to 5000 characters for task {spec.task}")
    length = len(spec.negative_prompt or "")
    if length > model.limits.negative_prompt:
        allowed = f"at most {model.limits.negative_prompt} characters for {model.name}"
        yield Fault("spec.negativePrompt", f"a text of {length} characters", allowed)


def size_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """Render size on the grid and within the model's limits; delivered size within those of the format."""
    limits, size = model.limits.size, delivery.sizes(spec.parameters, spec.output, model)
    for name, value in (("width", size.width), ("height", size.height)):
        if value % limits.multiple:
            below = value // limits.multiple * limits.multiple
            nearest = f"{below} or {below + limits.multiple} are nearest"
            yield Fault(f"spec.parameters.{name}", value, f"multiples of {limits.multiple}: {nearest}")
        if not limits.min_side <= value <= limits.max_side:
            yield Fault(f"spec.parameters.{name}", value, f"{limits.min_side} to {limits.max_side} for {model.name}")
    if size.width * size.height > limits.max_pixels:
        allowed = f"width x height of at most {limits.max_pixels} pixels for {model.name}, 832x480 for example"
        yield Fault("spec.parameters", f"{size.width}x{size.height}", allowed)
    yield from _delivered_faults(size)


def _delivered_faults(size: delivery.Sizes) -> Iterator[Fault]:
    for name, delivered in (("width", size.output_width), ("height", size.output_height)):
        if delivered % 2:
            allowed = f"even numbers: {delivered - 1} or {delivered + 1} are nearest"
            yield Fault(f"spec.output.{name}", delivered, allowed)
        if not delivery.MIN_SIDE <= delivered <= delivery.MAX_SIDE:
            yield Fault(f"spec.output.{name}", delivered, f"{delivery.MIN_SIDE} to {delivery.MAX_SIDE}")
    if size.output_width * size.output_height > delivery.MAX_PIXELS:
        allowed = f"width x height of at most {delivery.MAX_PIXELS} pixels, 4096x2304 for example"
        yield Fault("spec.output", f"{size.output_width}x{size.output_height}", allowed)


def frame_faults(spec: VideoJobSpec, model: Model, frames: int) -> Iterator[Fault]:
    """Frames on the model's grid, told in the unit in which they were asked for."""
    limits, asked = model.frames_of(spec.task), spec.parameters
    if asked.frames is not None and asked.duration_seconds is not None:
        yield Fault("spec.parameters.durationSeconds", asked.duration_seconds, "unset where frames is set")
    if asked.duration_seconds is not None and not limits.minimum <= frames <= limits.maximum:
        fps = asked.fps or model.defaults.fps
        value = f"{asked.duration_seconds:g} ({frames} frames at {fps:g} fps)"
        allowed = (
            f"{limits.minimum} to {limits.maximum} frames: {limits.minimum / fps:.2f} to {limits.maximum / fps:.2f}"
        )
        yield Fault("spec.parameters.durationSeconds", value, allowed)
    elif not _frames_allowed(frames, limits):
        near = nearest_frames(frames, limits)
        nearest = f"{near[0]} or {near[1]} are" if len(near) > 1 else f"{near[0]} is"
        allowed = f"{limits.step}n+1 between {limits.minimum} and {limits.maximum}: {nearest} nearest"
        yield Fault("spec.parameters.frames", frames, allowed, f"set it to {near[-1]}")


def _frames_allowed(frames: int, limits: FrameLimits) -> bool:
    return limits.minimum <= frames <= limits.maximum and frames % limits.step == 1


def nearest_frames(frames: int, limits: FrameLimits) -> tuple[int, ...]:
    """The one or two allowed counts nearest to `frames`."""
    below = (frames - 1) // limits.step * limits.step + 1
    clipped = {min(max(value, limits.minimum), limits.maximum) for value in (below, below + limits.step)}
    return tuple(sorted(clipped))


@lru_cache(maxsize=1024)
def frames_of_duration(duration_seconds: float, fps: float, step: int = 4) -> int:
    """4*floor(durationSeconds*fps/4)+1, in exact arithmetic on the decimal numbers as written."""
    return step * (Fraction(str(duration_seconds)) * Fraction(str(fps)) // step) + 1


def seconds_faults(spec: VideoJobSpec, model: Model, frames: int) -> Iterator[Fault]:
    """A length in seconds, where the model's name has one; counted as `durationSeconds` makes frames of it."""
    seconds, fps = model.limits.seconds, spec.parameters.fps or model.defaults.fps
    if seconds is None:
        return
    least, most = (
        frames_of_duration(bound, fps, model.limits.frames.step) for bound in (seconds.minimum, seconds.maximum)
    )
    if frames > most or (frames < least and not _default_length(spec)):
        asked = spec.parameters.duration_seconds
        field = "frames" if asked is None else "durationSeconds"
        found = f"{frames} ({frames / fps:.2f} s at {fps:g} fps)" if asked is None else f"{asked:g}"
        allowed = f"{seconds.minimum:g} to {seconds.maximum:g} seconds for {model.name}"
        yield Fault(f"spec.parameters.{field}", found, allowed + f": {least} to {most} frames at {fps:g} fps")


def _default_length(spec: VideoJobSpec) -> bool:
    return spec.parameters.frames is None and spec.parameters.duration_seconds is None


def number_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """Numbers that have a range in the catalogue."""
    limits, asked = model.limits, spec.parameters
    ranges: tuple[tuple[str, float | None, Range], ...] = (
        ("fps", asked.fps, limits.fps),
        ("steps", asked.steps, limits.steps),
        ("guidance", asked.guidance, limits.guidance),
        ("shift", asked.shift, limits.shift),
        ("denoise", asked.denoise, limits.denoise),
    )
    for name, value, allowed in ranges:
        if value is not None and value not in allowed:
            text = f"{allowed.minimum:g} to {allowed.maximum:g}"
            if allowed.minimum == allowed.maximum:
                text = f"{allowed.minimum:g}"
            yield Fault(f"spec.parameters.{name}", f"{value:g}", f"{text} for {model.name}")


def preset_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """A preset other than Quality is one that the model has."""
    preset = spec.parameters.preset
    if preset not in (None, Preset.QUALITY, *model.presets):
        yield Fault(
            "spec.parameters.preset", preset, ", ".join((Preset.QUALITY, *model.presets)) + f" for {model.name}"
        )


def control_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """Controls and strengths only where something is controlled."""
    asked = spec.parameters
    if asked.control not in (None, Control.NONE) and spec.task not in (Task.VIDEO_TO_VIDEO, Task.EDIT):
        yield Fault("spec.parameters.control", asked.control, f"unset for task {spec.task}")
    allowed_controls = model.limits.controls
    if asked.control is not None and allowed_controls is not None and asked.control not in allowed_controls:
        yield Fault("spec.parameters.control", asked.control, f"{', '.join(allowed_controls)} for {model.name}")
    if asked.control_strength is not None:
        if asked.control_strength > model.limits.most_control_strength:
            most = f"0 to {model.limits.most_control_strength:g} for {model.name}"
            yield Fault("spec.parameters.controlStrength", f"{asked.control_strength:g}", most)
        if not model.limits.control_strength:
            yield Fault("spec.parameters.controlStrength", asked.control_strength, f"unset for {model.name}")
        elif spec.task is Task.TEXT_TO_VIDEO:
            yield Fault("spec.parameters.controlStrength", asked.control_strength, f"unset for task {spec.task}")
    if spec.task is Task.OUTPAINT:
        sides = asked.expand
        if sides is None or not any(value > 1 for value in sides.__dict__.values()):
            allowed = "one side at least above 1: task Outpaint needs it"
            yield Fault("spec.parameters.expand", None if sides is None else "1 on every side", allowed)
    elif asked.expand is not None:
        yield Fault("spec.parameters.expand", "set", f"unset: task {spec.task} does not use it")


def mask_faults(spec: VideoJobSpec, frames: int) -> Iterator[Fault]:
    """The frame on which a mask was drawn is one of those that are rendered."""
    mask = spec.inputs.mask
    if mask is None or mask.frame_of is MaskFrameOf.SOURCE:  # how many the source has, a look at it tells
        return
    if mask.frame is not None and mask.frame > frames:
        yield Fault("spec.inputs.mask.frame", mask.frame, f"1 to {frames}, the frames that are rendered")


def resolution_faults(spec: VideoJobSpec) -> Iterator[Fault]:
    """A number of pixels instead of a size, where a source gives the proportions."""
    asked, field = spec.output.resolution, "spec.output.resolution"
    if asked is None:
        return
    sizes = (spec.parameters.width, spec.parameters.height, spec.output.width, spec.output.height)
    if any(side is not None for side in sizes):
        yield Fault(field, asked, "unset where a width or a height is set")
    if spec.task is not None and spec.task not in SIZED_BY:
        yield Fault(field, asked, f"unset: task {spec.task} has no source to take proportions from")


def output_faults(spec: VideoJobSpec, model: Model) -> Iterator[Fault]:
    """What is made of the rendered frames: a rate within reach of theirs, and sound only where something sounds."""
    fps = spec.parameters.fps or model.defaults.fps
    if spec.output.fps is not None and spec.output.fps > fps * delivery.MAX_RATE_FACTOR:
        allowed = f"1 to {min(fps * delivery.MAX_RATE_FACTOR, 120):g}, eight times the {fps:g} that are generated"
        yield Fault("spec.output.fps", f"{spec.output.fps:g}", allowed)
    if spec.output.audio is Audio.NONE or spec.task is None or spec.task not in NEEDS:
        return
    videos = [need.field for need in NEEDS[spec.task] if need.kind is MediaKind.VIDEO]
    if not videos:
        yield Fault("spec.output.audio", spec.output.audio, f"None: task {spec.task} has no video to take it from")
    elif not any(field in given_inputs(spec.inputs) for field in videos):
        named = " or ".join(f"spec.inputs.{field}" for field in videos)
        yield Fault("spec.output.audio", spec.output.audio, f"None, or {named} set, whose sound it would be")


def prefix_faults(spec: VideoJobSpec) -> Iterator[Fault]:
    """Where in the store the video goes."""
    refused = delivery.key_prefix_fault(spec.output.key_prefix or "")
    if refused:
        yield Fault("spec.output.keyPrefix", spec.output.key_prefix, refused)
