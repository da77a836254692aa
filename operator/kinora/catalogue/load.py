"""The catalogue as it ships in the package: one YAML file a model, read once."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import yaml
from pydantic import ValidationError

from kinora.catalogue.model import Model


class CatalogueError(Exception):
    """An entry is not sound. The message names the file, the field, what was found and what is allowed."""


#: Models that only their makers host. An administrator may map such a name to a local model.
HOSTED: Mapping[str, str] = MappingProxyType(
    {
        "wan2.1-vace-plus": "DashScope's; wan2.1-vace-14b does the same tasks",
        "wan2.7-videoedit": "DashScope's; task Edit of wan2.1-vace-14b comes near",
    }
)


class Catalogue:
    """The models known to Kinora, by name. Immutable."""

    def __init__(self, models: Iterable[Model], aliases: Mapping[str, str] | None = None) -> None:
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self._aliases = dict(aliases or {})

    def with_aliases(self, aliases: Mapping[str, str]) -> "Catalogue":
        """The same models under more names. Raises CatalogueError for one that leads nowhere or hides a model."""
        for name, target in aliases.items():
            if name in self._models:
                raise CatalogueError(f"alias {name}: it is a model of the catalogue itself")
            if target not in self._models:
                raise CatalogueError(f"alias {name}: {target} is no model; allowed: {', '.join(self._models)}")
        return Catalogue(self, aliases)

    def unknown(self, name: str | None) -> str:
        """More about a name that `get` does not know: that it is a hosted model's; else nothing."""
        hosted = HOSTED.get(name or "")
        return f"a hosted model that no administrator has mapped: {hosted}" if hosted else ""

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(self._models)

    def get(self, name: str | None) -> Model | None:
        """The model of that name, or None."""
        return self._models.get(self._aliases.get(name, name)) if name else None

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())


def parse_model(text: str, origin: str) -> Model:
    """One entry from YAML text; `origin` names it in errors. Raises CatalogueError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatalogueError(f"{origin}: not YAML: {error}") from None
    try:
        return Model.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']} (found {str(fault['input'])[:80]!r})"
            for fault in error.errors()
        )
        raise CatalogueError(f"{origin}: {faults}") from None


@cache
def load_catalogue() -> Catalogue:
    """The packaged catalogue. Raises CatalogueError for a bad entry or two of one name."""
    models = []
    for entry in sorted(files("kinora.catalogue").joinpath("models").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            model = parse_model(entry.read_text(encoding="utf-8"), entry.name)
            if entry.name != f"{model.name}.yaml":
                raise CatalogueError(f"{entry.name}: name: {model.name!r} must be the file's name")
            models.append(model)
    return Catalogue(models)
