"""Which recipe makes which graph: the one door to the recipes. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kinora.api.videojob import Preset, Task
from kinora.catalogue.model import Family, Model
from kinora.recipes.graph import Graph, Order, Prompts, StagedInput, graph_hash
from kinora.recipes.needs import MediaFacts, MediaKind, kind_of
from kinora.recipes.preparation import Preparation, kind_of_prepared, vace_preparation
from kinora.recipes.resolved import Resolved
from kinora.recipes.vace import vace_graph
from kinora.recipes.wan_i2v import wan_i2v_graph


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a family makes its graph, and what is made of the inputs before it; None: they are used as they are."""

    graph: Callable[[Order], Graph]
    preparation: Callable[[Resolved, Mapping[str, MediaFacts]], Preparation] | None = None


#: A catalogue family -> its recipe.
RECIPES: Mapping[Family, Recipe] = MappingProxyType(
    {
        Family.WAN_VACE: Recipe(vace_graph, vace_preparation),
        Family.WAN_I2V_WRAPPER: Recipe(wan_i2v_graph),
    }
)


@dataclass(frozen=True, slots=True)
class _Supposed:
    """Facts of an input that nobody has looked at: right in kind, too short for anything."""

    kind: str
    width: int = 16
    height: int = 16
    frames: int = 1
    fps: float = 0.0


def preparation(model: Model, resolved: Resolved, found: Mapping[str, MediaFacts]) -> Preparation | None:
    """What is made of the inputs, which are as `found` by name; None where the graph takes them as they are."""
    recipe = RECIPES[model.family]
    made = recipe.preparation(resolved, found) if recipe.preparation else None
    return made if made is not None and made.makes else None


def graph_inputs(model: Model, resolved: Resolved) -> dict[str, MediaKind]:
    """The names and kinds of the files that the job's graph reads."""
    supposed = {name: _Supposed(kind_of(name)) for name in resolved.inputs}
    if RECIPES[model.family].preparation is None:
        return {name: kind_of(name) for name in resolved.inputs}
    made = preparation(model, resolved, supposed)
    return {} if made is None else {str(name): kind_of_prepared(name) for name in made.makes}


def build(
    model: Model, resolved: Resolved, prompts: Prompts, staged: Mapping[str, StagedInput], filename_prefix: str
) -> Graph:
    """The job's graph in ComfyUI's API format. ValueError when a file that it reads is not staged as its kind."""
    wanted = graph_inputs(model, resolved)
    for name, kind in wanted.items():
        if name not in staged or staged[name].kind != kind:
            raise ValueError(f"input {name} is not staged as {kind}")
    used = {name: staged[name] for name in wanted}
    weights = (*model.required_weights, *model.preset_weights(resolved.preset))
    values = model.presets.get(Preset(resolved.preset))
    order = Order(
        resolved,
        prompts,
        used,
        filename_prefix,
        files={str(weight.role): weight.name for weight in weights},
        strengths={} if values is None else {str(role): value for role, value in values.strengths.items()},
        windows=model.limits.windows if resolved.task == Task.EDIT else None,
        options=model.engine_options,
    )
    return RECIPES[model.family].graph(order)


def planned_hash(model: Model, resolved: Resolved, prompts: Prompts) -> str:
    """The hash of the job's graph with stand-ins for staged names and prefix: the same for every attempt and pod."""
    staged = {name: StagedInput(f"<{name}>", kind) for name, kind in graph_inputs(model, resolved).items()}
    return graph_hash(build(model, resolved, prompts, staged, "<prefix>"))
