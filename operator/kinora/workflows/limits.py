"""How much a graph may ask for: the model's own limits where it generates, and memory everywhere else.

Sizes come through links as often as not, so they are judged as `shapes` found them. What nobody can tell before the
render is refused: it could be anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kinora.catalogue.model import Model
from kinora.recipes.faults import Fault
from kinora.recipes.graph import Graph
from kinora.workflows.shapes import RULES, Amount, Extent, Open, Shapes
from kinora.workflows.words import FIELD, place

MAX_SIDE: Final = 4096  # of pictures before and after the model; output.width's own maximum
MAX_SAMPLERS: Final = 8
MAX_FILES: Final = 8  # results of a job
#: Pixels of one batch of pictures, and of all of them, as multiples of the model's longest and largest video. A pixel
#: takes 12 bytes: at 81 frames of 480P that is 3 GB and 9 GB.
ONE_BATCH, ALL_BATCHES = 8, 24

_SIDES: Final = frozenset(
    {"width", "height", "generation_width", "generation_height", "custom_width", "custom_height", "resolution"}
)
_COUNTS: Final = frozenset({"length", "num_frames", "frames", "batch_size", "amount", "frame_load_cap"})
_STEPS: Final = "steps"


@dataclass(frozen=True)
class Generator:
    """Inputs of a class that makes latents: their size is what the model renders."""

    width: str
    height: str
    frames: str
    batch: str = ""


GENERATORS: Final[Mapping[str, Generator]] = {
    "WanVaceToVideo": Generator("width", "height", "length", "batch_size"),
    "WanVideoImageClipEncode": Generator("generation_width", "generation_height", "num_frames"),
    "EmptyLatentImage": Generator("width", "height", "batch_size"),
}


def generator_of(class_type: str, inputs: Mapping[str, object]) -> Generator | None:
    """How the class says what it renders: in its own way, or for a class that is not known here in the usual one."""
    if class_type in GENERATORS or class_type in RULES:
        return GENERATORS.get(class_type)
    frames = next((name for name in ("length", "num_frames") if name in inputs), None)
    if frames is None or not {"width", "height"} <= set(inputs):
        return None
    return Generator("width", "height", frames, "batch_size" if "batch_size" in inputs else "")


@dataclass(frozen=True)
class Load:
    """What a graph costs: the largest render's size, and the steps of all samplers."""

    width: int
    height: int
    frames: int
    steps: int

    @property
    def tokens(self) -> int:
        """Transformer tokens of the largest render."""
        return ((self.frames - 1) // 4 + 1) * -(-self.height // 16) * -(-self.width // 16)


def limit_faults(graph: Graph, shapes: Shapes, model: Model) -> Iterator[Fault]:
    """What is above a limit, or cannot be told. The graph is sound and has no cycle."""
    found = [fault for node_id in graph for fault in _number_faults(graph, node_id, shapes, model)]
    yield from found
    if not found:  # a number that cannot be told makes everything after it unknown
        yield from _memory_faults(graph, shapes, model)
    yield from _sampler_faults(graph)
    yield from _saved_faults(graph, shapes)


def _number_faults(graph: Graph, node_id: str, shapes: Shapes, model: Model) -> Iterator[Fault]:
    """The inputs of one node that say how much is made."""
    class_type, inputs = graph[node_id]["class_type"], graph[node_id]["inputs"]
    generator = generator_of(class_type, inputs)
    if generator is not None:
        yield from _generator_faults(node_id, class_type, generator, shapes, model)
    strict = {} if generator is None else generator.__dict__
    for name in inputs:
        if name not in strict.values():
            yield from _guarded_faults(place(node_id, class_type, name), name, shapes.number(node_id, name), model)


def load_of(graph: Graph, shapes: Shapes, model: Model) -> Load:
    """What the graph costs; what a file decides counts as the model's maximum."""
    largest, most = (0, 0, 0), -1
    defaults = (model.limits.frames.maximum, model.defaults.width, model.defaults.height)
    for node_id, node in graph.items():
        if _samples(node["class_type"], node["inputs"]):
            for extent in shapes.extents(node_id):
                sides = (extent.frames, extent.width, extent.height)
                known = tuple(one if isinstance(one, int) else own for one, own in zip(sides, defaults, strict=True))
                size = known[0] * known[1] * known[2]
                if size > most:
                    largest, most = (known[0], known[1], known[2]), size
    steps = sum(_number(shapes.number(node_id, _STEPS)) for node_id, node in graph.items() if _STEPS in node["inputs"])
    return Load(largest[1], largest[2], largest[0], steps)


def _number(amount: Amount) -> int:
    return amount if isinstance(amount, int) else 0


def _unresolved(where: str) -> Fault:
    return Fault(where, "linked to a value that is known only in the render", "a number, here or in the linked node")


def _generator_faults(
    node_id: str, class_type: str, generator: Generator, shapes: Shapes, model: Model
) -> Iterator[Fault]:
    limits = model.limits
    width, height = (shapes.number(node_id, name) for name in (generator.width, generator.height))
    for name, side in ((generator.width, width), (generator.height, height)):
        where = place(node_id, class_type, name)
        if side is Open.UNKNOWN:
            yield _unresolved(where)
        elif isinstance(side, int) and not limits.size.min_side <= side <= limits.size.max_side:
            yield Fault(where, side, f"{limits.size.min_side} to {limits.size.max_side} for {model.name}")
        elif isinstance(side, int) and side % limits.size.multiple:
            yield Fault(where, side, f"multiples of {limits.size.multiple}")
    if isinstance(width, int) and isinstance(height, int) and width * height > limits.size.max_pixels:
        where = place(node_id, class_type)
        yield Fault(where, f"{width}x{height}", f"at most {limits.size.max_pixels} pixels for {model.name}")
    yield from _frame_faults(place(node_id, class_type, generator.frames), generator, shapes, node_id, model)
    if generator.batch:
        where, batch = place(node_id, class_type, generator.batch), shapes.number(node_id, generator.batch)
        if batch is Open.UNKNOWN:
            yield _unresolved(where)
        elif isinstance(batch, int) and batch != 1:
            yield Fault(where, batch, "1: one video a job")


def _frame_faults(where: str, generator: Generator, shapes: Shapes, node_id: str, model: Model) -> Iterator[Fault]:
    limits, frames = model.limits.frames, shapes.number(node_id, generator.frames)
    if frames is Open.UNKNOWN:
        yield _unresolved(where)
    elif isinstance(frames, int) and not 1 <= frames <= limits.maximum:
        yield Fault(where, frames, f"1 to {limits.maximum} for {model.name}")
    elif isinstance(frames, int) and frames % limits.step != 1:
        below = (frames - 1) // limits.step * limits.step + 1
        near = f"{below} and {min(below + limits.step, limits.maximum)} are nearest; the engine would drop the rest"
        yield Fault(where, frames, f"{limits.step}n+1: {near}")


def _guarded_faults(where: str, name: str, amount: Amount, model: Model) -> Iterator[Fault]:
    """Inputs that decide how much is made, by their names: every class keeps to them."""
    if name not in _SIDES | _COUNTS | {_STEPS}:
        return
    if amount is Open.UNKNOWN:
        yield _unresolved(where)
    elif not isinstance(amount, int):
        return
    elif name in _SIDES and amount > MAX_SIDE:
        yield Fault(where, amount, f"at most {MAX_SIDE}")
    elif name in _COUNTS and amount > ONE_BATCH * model.limits.frames.maximum:
        yield Fault(where, amount, f"at most {ONE_BATCH * model.limits.frames.maximum} for {model.name}")
    elif name == _STEPS and amount not in model.limits.steps:
        steps = model.limits.steps
        yield Fault(where, amount, f"{steps.minimum:g} to {steps.maximum:g} for {model.name}")


def _memory_faults(graph: Graph, shapes: Shapes, model: Model) -> Iterator[Fault]:
    unit = model.limits.frames.maximum * model.limits.size.max_pixels
    total = 0
    for node_id, node in graph.items():
        for extent in shapes.extents(node_id):
            where, pixels = place(node_id, node["class_type"]), extent.pixels
            if pixels is Open.UNKNOWN:
                yield Fault(where, "pictures of a size that is known only in the render", "a size that can be told")
                return
            elif isinstance(pixels, int):
                total += pixels
                if pixels > ONE_BATCH * unit:
                    yield Fault(where, _told(extent), f"at most {ONE_BATCH * unit} pixels in all", _MEND)
    if total > ALL_BATCHES * unit:
        yield Fault(
            FIELD, f"a graph that holds {total} pixels", f"at most {ALL_BATCHES * unit} in all its nodes", _MEND
        )


_MEND = "scale sooner, or load fewer frames"


def _told(extent: Extent) -> str:
    return f"{extent.frames} pictures of {extent.width}x{extent.height}"


def _sampler_faults(graph: Graph) -> Iterator[Fault]:
    samplers = [node_id for node_id, node in graph.items() if _samples(node["class_type"], node["inputs"])]
    if len(samplers) > MAX_SAMPLERS:
        yield Fault(FIELD, f"a graph with {len(samplers)} samplers", f"at most {MAX_SAMPLERS}")


def _samples(class_type: str, inputs: Mapping[str, object]) -> bool:
    return "Sampler" in class_type and _STEPS in inputs


def _saved_faults(graph: Graph, shapes: Shapes) -> Iterator[Fault]:
    """A node that saves pictures makes one file a frame."""
    total = 0
    for node_id, node in graph.items():
        if node["class_type"] == "SaveImage":
            extent = shapes.extent(node_id, "images")
            frames = extent.frames if extent else Open.LATER
            if isinstance(frames, int) and frames > MAX_FILES:
                where = place(node_id, "SaveImage", "images")
                yield Fault(where, f"{frames} pictures", f"at most {MAX_FILES}: each is a file; save a video instead")
            total += _number(frames)
    if total > MAX_FILES:
        yield Fault(FIELD, f"a graph that saves {total} pictures", f"at most {MAX_FILES} files")
