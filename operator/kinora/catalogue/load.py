"""The catalogue as it ships in the package: one YAML file a model, read once."""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

import yaml
from pydantic import ValidationError

from kinora.catalogue.model import Model


class CatalogueError(Exception):
    """An entry is not sound. The message names the file, the field, what was found and what is allowed."""


class Catalogue:
    """The models known to Kinora, by name. Immutable."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(self._models)

    def get(self, name: str | None) -> Model | None:
        """The model of that name, or None."""
        return self._models.get(name) if name else None

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
