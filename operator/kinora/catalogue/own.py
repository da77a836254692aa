"""Entries that an administrator adds: whole ones, or ones that say only what differs from a packaged model (`extends`).

An entry may carry a packaged model's own name: it then takes that one's place. No I/O.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kinora.catalogue.load import Catalogue, CatalogueError, model_of, parse_yaml
from kinora.catalogue.model import Model

_SUFFIX = ".yaml"
#: What is known of one file and of no other.
_OF_THE_FILE = ("size_bytes", "sha256", "source", "licence")


@dataclass(frozen=True)
class Own:
    """One entry that can be used: the model, and its text as JSON (the same for the same meaning)."""

    model: Model
    text: str


@dataclass(frozen=True)
class Read:
    """What became of the entries of some files: those that can be used, and of the others, why not; by name."""

    good: Mapping[str, Own] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)


def parse_own(text: str, origin: str, packaged: Catalogue) -> Own:
    """One entry from YAML or JSON. Raises CatalogueError with the origin and every field that is wrong."""
    data = parse_yaml(text, origin)
    if not isinstance(data, dict):
        raise CatalogueError(f"{origin}: found {type(data).__name__}; allowed: a mapping of an entry's fields")
    if "served_by" in data:
        raise CatalogueError(f"{origin}: served_by: no field of an entry (a further name is the chart's modelAliases)")
    whole = data
    if "extends" in data:
        base = next((model for model in packaged if model.name == data["extends"]), None)
        if base is None:
            allowed = ", ".join(packaged.names)
            raise CatalogueError(f"{origin}: extends: found {data['extends']!r}; allowed: {allowed}")
        rest = {key: value for key, value in data.items() if key != "extends"}
        whole = _laid_over(base.model_dump(mode="json", by_alias=True, exclude={"served_by"}), rest, origin)
    return Own(model_of(whole, origin), json.dumps(data, sort_keys=True, ensure_ascii=False, default=str))


def _laid_over(base: dict[str, Any], given: dict[str, Any], origin: str) -> dict[str, Any]:
    """Mappings are merged, lists replaced; of `weights` each role by itself."""
    weights = given.get("weights")
    rest = {key: value for key, value in given.items() if key != "weights"}
    merged = _merged(base, rest)
    if weights is None:
        return merged
    if not isinstance(weights, list) or not all(isinstance(weight, dict) for weight in weights):
        raise CatalogueError(f"{origin}: weights: allowed: a list of mappings, each with its role")
    files = {weight["role"]: weight for weight in base["weights"]}
    for weight in weights:
        files[weight.get("role")] = _file(files.get(weight.get("role"), {}), weight)
    return {**merged, "weights": list(files.values())}


def _file(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A file under another name is another file: size, hash, source and licence of the first say nothing of it."""
    if {given.get("name", base.get("name")), given.get("folder", base.get("folder"))} != {
        base.get("name"), base.get("folder"),
    }:  # fmt: skip
        base = {key: value for key, value in base.items() if key not in _OF_THE_FILE}
    return _merged(base, given)


def _merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in given.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def read_entries(files: Mapping[str, Mapping[str, str]], packaged: Catalogue) -> Read:
    """The entries of ConfigMaps (name -> key -> text). Keys are `<model>.yaml`, so that a bad text has a name too."""
    good: dict[str, Own] = {}
    bad: dict[str, str] = {}
    seen: dict[str, str] = {}
    for place in sorted(files):
        for key in sorted(files[place]):
            origin, name = f"{place}/{key}", key.removesuffix(_SUFFIX)
            if not key.endswith(_SUFFIX):
                bad[key] = f"{origin}: the key must be the model's name with {_SUFFIX}"
            elif name in seen:
                bad[name] = f"{origin}: {name} is in {seen[name]} too; allowed: one of them"
                good.pop(name, None)
            else:
                seen[name] = origin
                try:
                    own = parse_own(files[place][key], origin, packaged)
                    if own.model.name != name:
                        raise CatalogueError(f"{origin}: name: {own.model.name!r} must be the key without {_SUFFIX}")
                    good[name] = own
                except CatalogueError as error:
                    bad[name] = str(error)
    return Read(good, bad)


def with_own(packaged: Catalogue, read: Read) -> Catalogue:
    """The packaged models with the good entries laid over them; a name whose entry is bad is not to be had."""
    models = {model.name: model for model in packaged} | {name: own.model for name, own in read.good.items()}
    kept = [model for name, model in models.items() if name not in read.bad]
    entries = {name: own.text for name, own in read.good.items() if name not in read.bad}
    return Catalogue(kept, entries=entries, refused=read.bad)
