"""How large what flows through a graph can be: numbers and sizes, followed through the links. Upper bounds.

A value is a number; LATER where a file decides that nobody has looked at yet; UNKNOWN where nothing here can tell it.
Graphs are acyclic by now; nodes are gone through in order, without recursion.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from kinora.engine.contract import node_specs
from kinora.recipes.graph import Graph
from kinora.recipes.needs import MediaFacts

CAP: Final = 10**12  # nothing grows beyond it: a chain of batches would have a thousand digits


class Open(Enum):
    """Why there is no number."""

    LATER = "known when the files have been looked at"
    UNKNOWN = "not known before the render"


Amount = int | Open


@dataclass(frozen=True, slots=True)
class Extent:
    """Frames, and pixels of each."""

    frames: Amount
    width: Amount
    height: Amount
    in_shape: bool = True
    "Whether the sides are those that will be made. Where they are bounds only, nothing may be divided by them."

    @property
    def pixels(self) -> Amount:
        """Of all frames together."""
        return of(lambda frames, width, height: frames * width * height, self.frames, self.width, self.height)


Value = Extent | Amount | None
Files = Mapping[str, MediaFacts | None]


def of(function: Callable[..., float], *amounts: Amount) -> Amount:
    """`function` of the numbers, where all are known."""
    for stage in (Open.UNKNOWN, Open.LATER):
        if stage in amounts:
            return stage
    return max(0, min(round(function(*amounts)), CAP))


class Shapes:
    """The values of every output of a graph. `files`: by name in the graph, what was found in it (None: not yet)."""

    def __init__(self, graph: Graph, order: Iterable[str], files: Files) -> None:
        self._graph, self._files = graph, files
        self._outputs: dict[str, Sequence[Value]] = {}
        self._default: dict[str, Extent | None] = {}
        for node_id in order:
            rule = RULES.get(graph[node_id]["class_type"])
            self._outputs[node_id] = rule(_View(self, node_id)) if rule else ()
            self._default[node_id] = None if rule else _supposed(_View(self, node_id))

    def number(self, node_id: str, name: str) -> Amount:
        """What an INT input has: its value, what its link brings, or the default of its class."""
        inputs = self._graph[node_id]["inputs"]
        if name not in inputs:
            spec = node_specs().get(self._graph[node_id]["class_type"])
            wanted = spec.inputs.get(name) if spec else None
            return wanted.default if wanted and isinstance(wanted.default, int) else Open.UNKNOWN
        value = inputs[name]
        if isinstance(value, list):
            found = self.output(*value)
            return found if isinstance(found, (int, Open)) else Open.UNKNOWN
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return min(int(value), CAP)
        return Open.UNKNOWN

    def exactly(self, node_id: str, name: str) -> Amount:
        """As `number`, where the value stands in the node or in a constant; UNKNOWN for any other link."""
        value = self._graph[node_id]["inputs"].get(name)
        if isinstance(value, list) and self._graph[value[0]]["class_type"] != "INTConstant":
            return Open.UNKNOWN
        return self.exactly(value[0], "value") if isinstance(value, list) else self.number(node_id, name)

    def output(self, node_id: str, index: int) -> Value:
        """What an output carries; for a class without a rule the size that it asks for, or the largest that goes in."""
        found = self._outputs.get(node_id, ())
        return found[index] if index < len(found) else self._default.get(node_id)

    def extents(self, node_id: str) -> tuple[Extent, ...]:
        """The sizes of what a node makes: those of its own, without what it only hands on."""
        found = [value for value in self._outputs.get(node_id, ()) if isinstance(value, Extent)]
        default = self._default.get(node_id)
        return tuple(dict.fromkeys(found or ([default] if default else [])))

    def extent(self, node_id: str, name: str) -> Extent | None:
        """The size of what a link brings; None where it brings no picture."""
        value = self._graph[node_id]["inputs"].get(name)
        found = self.output(*value) if isinstance(value, list) else None
        return found if isinstance(found, Extent) else None

    def file(self, node_id: str, name: str) -> Extent:
        """The size of the file that an input names."""
        facts = self._files.get(str(self._graph[node_id]["inputs"].get(name)))
        return Extent(facts.frames, facts.width, facts.height) if facts else Extent(Open.LATER, Open.LATER, Open.LATER)

    def facts(self, node_id: str, name: str) -> MediaFacts | None:
        """What was found in the file that an input names."""
        return self._files.get(str(self._graph[node_id]["inputs"].get(name)))

    def names(self, node_id: str) -> Mapping[str, Any]:
        """The node's inputs as they stand."""
        inputs: Mapping[str, Any] = self._graph[node_id]["inputs"]
        return inputs


def largest(extents: Iterable[Extent]) -> Extent | None:
    """The extent that holds all of them."""
    found = tuple(extents)
    if not found:
        return None
    sides = ((one.frames for one in found), (one.width for one in found), (one.height for one in found))
    frames, width, height = (of(max, *side, 0) for side in sides)
    return Extent(frames, width, height, in_shape=False)


class _View:
    """One node, as its rule sees it."""

    def __init__(self, shapes: Shapes, node_id: str) -> None:
        self._shapes, self._id = shapes, node_id

    def number(self, name: str) -> Amount:
        return self._shapes.number(self._id, name)

    def exactly(self, name: str) -> Amount:
        """A number where a bound would not do: too large a one would make too little of the result."""
        return self._shapes.exactly(self._id, name)

    def sure(self, *names: str) -> bool:
        """Whether these numbers are what they are, and not bounds."""
        return all(isinstance(self.exactly(name), int) for name in names)

    def is_false(self, name: str) -> bool:
        return self._shapes.names(self._id).get(name) is False

    def word(self, name: str) -> str:
        return str(self._shapes.names(self._id).get(name, ""))

    def extent(self, name: str) -> Extent:
        found = self._shapes.extent(self._id, name)
        return found if found is not None else Extent(Open.UNKNOWN, Open.UNKNOWN, Open.UNKNOWN)

    def has(self, name: str) -> bool:
        return name in self._shapes.names(self._id)

    def file(self, name: str) -> Extent:
        return self._shapes.file(self._id, name)

    def facts(self, name: str) -> MediaFacts | None:
        return self._shapes.facts(self._id, name)

    def rate(self, name: str) -> float | None:
        """A FLOAT input's own value; None where a link brings it."""
        value = self._shapes.names(self._id).get(name, 0)
        return float(value) if isinstance(value, (int, float)) else None

    def linked(self) -> list[Extent]:
        found = (self._shapes.extent(self._id, name) for name in self._shapes.names(self._id))
        return [one for one in found if one is not None]


def _supposed(node: _View) -> Extent | None:
    """What a class without a rule makes, by the names of its inputs and by what goes into it."""
    found = largest(node.linked())
    if not (node.has("width") and node.has("height")):
        return found
    counts = [node.number(name) for name in ("length", "num_frames", "batch_size") if node.has(name)]
    frames = of(lambda *each: math.prod(each), *counts) if counts else (found.frames if found else 1)
    return Extent(frames, node.number("width"), node.number("height"), in_shape=False)


Rule = Callable[[_View], Sequence[Value]]


def _sized(frames: str | int) -> Rule:
    def rule(node: _View) -> Sequence[Value]:
        count = frames if isinstance(frames, int) else node.number(frames)
        return (Extent(count, node.number("width"), node.number("height"), node.sure("width", "height")),)

    return rule


def _same(name: str, outputs: int = 1) -> Rule:
    return lambda node: (node.extent(name),) * outputs


def _frames(name: str, function: Callable[[int, int], int], amount: str) -> Rule:
    def rule(node: _View) -> Sequence[Value]:
        one = node.extent(name)
        return (replace(one, frames=of(function, one.frames, node.number(amount))),)

    return rule


def _vace(node: _View) -> Sequence[Value]:
    """A reference goes before the frames as one latent more."""
    length = of(lambda frames, batch: frames * batch, node.number("length"), node.number("batch_size"))
    more = 4 if node.has("reference_image") else 0
    sides = node.number("width"), node.number("height")
    latent = Extent(of(lambda frames: frames + more, length), *sides, node.sure("width", "height"))
    return None, None, latent, 1


def _scaled(node: _View, source: Extent) -> tuple[Amount, Amount]:
    """ImageScale and its kin: 0 keeps the side, or follows the other one."""
    width, height = node.number("width"), node.number("height")
    if not source.in_shape and (width == 0) != (height == 0):
        return Open.UNKNOWN, Open.UNKNOWN

    def side(asked: Amount, other: Amount, own: Amount, beside: Amount) -> Amount:
        if asked != 0:
            return asked
        return own if other == 0 else of(lambda o, s, b: max(s, o * s / max(b, 1)), other, own, beside)

    return side(width, height, source.width, source.height), side(height, width, source.height, source.width)


def _both(node: _View) -> bool:
    """Whether both sides are asked for."""
    return 0 not in (node.number("width"), node.number("height"))


def _scale(node: _View) -> Sequence[Value]:
    source = node.extent("image")
    width, height = _scaled(node, source)
    as_asked = node.sure("width", "height") and (source.in_shape or _both(node))
    return (Extent(source.frames, width, height, as_asked),)


_AS_ASKED: Final = ("stretch", "crop")  # the ways of ImageResizeKJv2 that make exactly the size that is asked for


def _resize_kj(node: _View) -> Sequence[Value]:
    source = node.extent("image")
    width, height = _scaled(node, source)
    as_asked = node.word("keep_proportion") in _AS_ASKED and node.sure("width", "height") and _both(node)
    made = Extent(source.frames, width, height, as_asked)
    return made, width, height, made


def _crop(node: _View) -> Sequence[Value]:
    source = node.extent("image")
    width = of(min, source.width, node.number("width"))
    return (Extent(source.frames, width, of(min, source.height, node.number("height")), in_shape=False),)


def _batch(node: _View) -> Sequence[Value]:
    """The second is scaled to the first."""
    first, second = node.extent("image1"), node.extent("image2")
    return (replace(first, frames=of(lambda a, b: a + b, first.frames, second.frames)),)


def _pad(node: _View) -> Sequence[Value]:
    source = node.extent("image")
    width = of(lambda *parts: sum(parts), source.width, node.number("left"), node.number("right"))
    height = of(lambda *parts: sum(parts), source.height, node.number("top"), node.number("bottom"))
    sure = source.in_shape and node.sure("left", "right", "top", "bottom")
    return (Extent(source.frames, width, height, sure),) * 2


def _composite(node: _View) -> Sequence[Value]:
    under, over = node.extent("destination"), node.extent("source")
    return (replace(under, frames=of(max, under.frames, over.frames)),)


def _image_size(node: _View) -> Sequence[Value]:
    source = node.extent("image")
    return source.width, source.height, source.frames


def _preprocessor(node: _View) -> Sequence[Value]:
    """The smaller side becomes `resolution`."""
    source, asked = node.extent("image"), node.number("resolution")
    if not source.in_shape:
        return Extent(source.frames, Open.UNKNOWN, Open.UNKNOWN), None

    def grown(side: int, width: int, height: int, wanted: int) -> float:
        return side * wanted / max(1, min(width, height))

    width, height = (of(grown, side, source.width, source.height, asked) for side in (source.width, source.height))
    return Extent(source.frames, width, height, in_shape=False), None


def _vhs_video(node: _View) -> Sequence[Value]:
    source, facts, rate = node.file("video"), node.facts("video"), node.rate("force_rate")
    cap, skip, nth = node.number("frame_load_cap"), node.exactly("skip_first_frames"), node.exactly("select_every_nth")
    frames = source.frames
    if rate is None:
        frames = Open.UNKNOWN
    elif rate and facts is not None and facts.fps:
        frames = of(lambda count: count * rate / facts.fps + 1, frames)
    frames = of(lambda count, less, step: -(-max(0, count - less) // max(1, step)), frames, skip, nth)
    if isinstance(cap, int) and cap > 0:
        frames = min(frames, cap) if isinstance(frames, int) else cap
    elif isinstance(cap, Open):
        frames = cap
    width, height = node.number("custom_width"), node.number("custom_height")
    sides = _custom_sides(width, height, source)
    return Extent(frames, *sides, node.sure("custom_width", "custom_height")), frames, None, None


def _custom_sides(width: Amount, height: Amount, source: Extent) -> tuple[Amount, Amount]:
    if width == 0 and height == 0:
        return source.width, source.height
    if width == 0:
        return of(lambda w, h, s: w * s / max(1, h), source.width, source.height, height), height
    if height == 0:
        return width, of(lambda w, h, s: h * s / max(1, w), source.width, source.height, width)
    return width, height


def _clip_encode(node: _View) -> Sequence[Value]:
    """With adjust_resolution, its default, the area is kept and the picture's own aspect is taken."""
    sides = node.number("generation_width"), node.number("generation_height")
    fixed = node.is_false("adjust_resolution") and node.sure("generation_width", "generation_height")
    return (Extent(node.number("num_frames"), *sides, fixed),)


RULES: Final[Mapping[str, Rule]] = {
    "INTConstant": lambda node: (node.number("value"),),
    "FloatConstant": lambda _: (None,),
    "LoadImage": lambda node: (node.file("image"),) * 2,
    "LoadImageMask": lambda node: (node.file("image"),),
    "LoadVideo": lambda node: (node.file("file"),),
    "VHS_LoadVideo": _vhs_video,
    "GetVideoComponents": lambda node: (node.extent("video"), None, None),
    "CreateVideo": _same("images"),
    "EmptyImage": _sized("batch_size"),
    "SolidMask": _sized(1),
    "EmptyLatentImage": _sized("batch_size"),
    "WanVaceToVideo": _vace,
    "WanVideoImageClipEncode": _clip_encode,
    "WanVideoSampler": _same("image_embeds"),
    "WanVideoDecode": _same("samples"),
    "KSampler": _same("latent_image"),
    "KSamplerAdvanced": _same("latent_image"),
    "TrimVideoLatent": _same("samples"),
    "VAEDecode": _same("samples"),
    "VAEDecodeTiled": _same("samples"),
    "ImageScale": _scale,
    "ImageResizeKJv2": _resize_kj,
    "ImageCrop": _crop,
    "ImageFromBatch": _frames("image", min, "length"),
    "RepeatImageBatch": _frames("image", lambda count, amount: count * amount, "amount"),
    "ImageBatch": _batch,
    "ImageInvert": _same("image"),
    "Canny": _same("image"),
    "ImageToMask": _same("image"),
    "MaskToImage": _same("mask"),
    "InvertMask": _same("mask"),
    "GrowMask": _same("mask"),
    "ImagePadForOutpaint": _pad,
    "ImageCompositeMasked": _composite,
    "GetImageSize": _image_size,
    "DWPreprocessor": _preprocessor,
    "DepthAnythingV2Preprocessor": _preprocessor,
    "PreviewImage": lambda _: (),
    "SaveImage": lambda _: (),
    "SaveVideo": lambda _: (),
    "VHS_VideoCombine": lambda _: (),
}
