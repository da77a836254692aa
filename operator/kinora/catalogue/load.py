"""The catalogue as it ships in the package: one YAML file a model, read once."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ValidationError

from kinora.catalogue.model import Model


class CatalogueError(Exception):
    """An entry is not sound. The message names the file, the field, what was found and what is allowed."""


class Catalogue:
    """The models known to Kinora, by name. Immutable.

    `entries` are the texts of those that an administrator wrote, `refused` says of names why they are not to be had.
    """

    def __init__(
        self,
        models: Iterable[Model],
        aliases: Mapping[str, str] | None = None,
        entries: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> None:
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self._aliases = dict(aliases or {})
        self._entries = dict(entries or {})
        self._refused = dict(refused or {})

    def with_aliases(self, aliases: Mapping[str, str]) -> "Catalogue":
        """The same models under more names. Raises CatalogueError for one that leads nowhere or hides a model."""
        for name in aliases:
            fault = self.alias_fault(name, aliases[name])
            if fault:
                raise CatalogueError(fault)
        return Catalogue(self, aliases, self._entries, self._refused)

    def alias_fault(self, name: str, target: str) -> str:
        """Why the name cannot stand for that model; empty when it can."""
        if name in self._models:
            return f"alias {name}: it is a model of the catalogue itself"
        if target not in self._models:
            return f"alias {name}: {target} is no model; allowed: {', '.join(self._models)}"
        return ""

    def unknown(self, name: str | None) -> str:
        """More about a name that `get` does not know: its entry is refused, or it is a hosted model's; else nothing."""
        from kinora.catalogue.hosted import hosted  # noqa: PLC0415 - only where a name is not known: more to read

        if name in self._refused:
            return self._refused[name]
        found = hosted().get(name or "")
        if found is None:
            return ""
        return f"a hosted model of {found.maker} that no administrator has mapped; {found.near} comes near"

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(self._models)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names, and what they lead to."""
        return self._aliases

    @property
    def refused(self) -> Mapping[str, str]:
        """Names whose entry cannot be used, and why."""
        return self._refused

    def get(self, name: str | None) -> Model | None:
        """The model of that name, or None. Under a hosted name it has that name's limits."""
        if name not in self._aliases:
            return self._models.get(name) if name else None
        from kinora.catalogue.hosted import narrowed  # noqa: PLC0415 - only where an alias is used

        return narrowed(self._models[self._aliases[name]], name)

    def entry(self, name: str | None) -> str:
        """The text of an administrator's entry, as JSON; empty for a packaged one."""
        return self._entries.get(name or "", "")

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())


def parse_model(text: str, origin: str) -> Model:
    """One entry from YAML text; `origin` names it in errors. Raises CatalogueError."""
    return model_of(parse_yaml(text, origin), origin)


def parse_yaml(text: str, origin: str) -> Any:
    """YAML as plain values. Raises CatalogueError."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatalogueError(f"{origin}: not YAML: {' '.join(str(error).split())}") from None


def model_of(data: Any, origin: str) -> Model:
    """One entry from plain values. Raises CatalogueError with every fault and its field."""
    try:
        return Model.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(map(_told, error.errors()))
        raise CatalogueError(f"{origin}: {faults}") from None


def _told(fault: Any) -> str:
    """A fault with its field; one of the whole entry names its field itself."""
    place, message = ".".join(str(step) for step in fault["loc"]), fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message} (found {str(fault['input'])[:80]!r})" if place else message


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
