"""Models that only their makers host: what their documents allow, laid over the local model that stands in for them.

An administrator maps such a name; until then it is as unknown as any other. Data in hosted/, one file a name.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import Field

from kinora.api.videojob import Control, Task
from kinora.catalogue.entry import Entry
from kinora.catalogue.model import Model, Name, Seconds


class HostedDefaults(Entry):
    """What is rendered where the job says nothing, if it differs from the local model's."""

    width: int | None = None
    height: int | None = None
    size_from_source: tuple[Task, ...] = ()
    length_from_source: tuple[Task, ...] = ()


class Hosted(Entry):
    """One hosted name: its tasks, and limits where they are narrower than a local model's may be."""

    name: Name
    also: tuple[Name, ...] = ()
    "The same model's names in other regions."
    maker: str
    near: Name
    "The local model that does the same tasks: what a refusal recommends."
    description: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    references: Annotated[int, Field(ge=0)]
    seconds: Seconds
    max_pixels: int
    controls: tuple[Control, ...] | None = None
    control_strength: float = 2
    negative_prompt: int = 5000
    "Characters."
    defaults: HostedDefaults = HostedDefaults()


@cache
def hosted() -> dict[str, Hosted]:
    """Every hosted name that is known, by name."""
    found = {}
    for entry in sorted(files("kinora.catalogue").joinpath("hosted").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            one = Hosted.model_validate(yaml.safe_load(entry.read_text(encoding="utf-8")))
            for name in (one.name, *one.also):
                found[name] = one.model_copy(update={"name": name})
    return found


def narrowed(model: Model, name: str) -> Model:
    """The model under another name; of a hosted one it takes the tasks, and every limit that is narrower."""
    known = hosted().get(name)
    if known is None:
        return model.model_copy(update={"name": name, "served_by": model.name})
    limits = model.limits
    size = limits.size.model_copy(update={"max_pixels": min(limits.size.max_pixels, known.max_pixels)})
    narrow = limits.model_copy(
        update={
            "references": min(limits.references, known.references),
            "size": size,
            "seconds": known.seconds,
            "controls": known.controls,
            "most_control_strength": min(limits.most_control_strength, known.control_strength),
            "negative_prompt": min(limits.negative_prompt, known.negative_prompt),
        }
    )
    wanted = known.defaults.model_dump(exclude_none=True)
    if wanted.get("width", 1) * wanted.get("height", 1) > size.max_pixels:
        wanted = {name: value for name, value in wanted.items() if name not in ("width", "height")}
    return model.model_copy(
        update={
            "name": name,
            "served_by": model.name,
            "tasks": tuple(task for task in known.tasks if task in model.tasks),
            "limits": narrow,
            "defaults": model.defaults.model_copy(update=wanted),
        }
    )
