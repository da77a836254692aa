"""Which recipe makes which graph: the one door to the recipes. Pure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from kinora.catalogue.model import Model
from kinora.recipes.graph import Graph, Order, Prompts, StagedInput, graph_hash
from kinora.recipes.needs import kind_of
from kinora.recipes.resolved import Resolved
from kinora.recipes.vace import vace_graph
from kinora.recipes.wan_i2v import wan_i2v_graph

#: A catalogue family -> its recipe.
RECIPES: Mapping[str, Callable[[Order], Graph]] = MappingProxyType(
    {"wan-vace": vace_graph, "wan-i2v-wrapper": wan_i2v_graph}
)


def build(
    model: Model, resolved: Resolved, prompts: Prompts, staged: Mapping[str, StagedInput], filename_prefix: str
) -> Graph:
    """The job's graph in ComfyUI's API format. ValueError when an input that the job uses is not staged as its kind."""
    for name in resolved.inputs:
        if name not in staged or staged[name].kind != kind_of(name):
            raise ValueError(f"input {name} is not staged as {kind_of(name)}")
    used = {name: staged[name] for name in resolved.inputs}
    files = {str(weight.role): weight.name for weight in model.weights}
    return RECIPES[model.family](Order(resolved, prompts, used, filename_prefix, files))


def planned_hash(model: Model, resolved: Resolved, prompts: Prompts) -> str:
    """The hash of the job's graph with stand-ins for staged names and prefix: the same for every attempt and pod."""
    staged = {name: StagedInput(f"<{name}>", kind_of(name)) for name in resolved.inputs}
    return graph_hash(build(model, resolved, prompts, staged, "<prefix>"))
