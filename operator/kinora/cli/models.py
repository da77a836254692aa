"""`kinora models`: the catalogue as a table, JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from kinora.catalogue.load import Catalogue, CatalogueError, load_catalogue
from kinora.catalogue.model import Model
from kinora.catalogue.own import Read, read_entries, with_own
from kinora.cli.manifests import Document, read


def with_files(files: Sequence[str], aliases: Sequence[str]) -> Catalogue:
    """The packaged catalogue with the entries of `files` and further names (`name=model`).

    A file holds entries, or the ConfigMaps that carry them. A bad entry is in the catalogue's `refused`. Raises
    UnreadableError, CatalogueError.
    """
    catalogue = load_catalogue()
    if files:
        texts: dict[str, dict[str, str]] = {}
        for file in files:
            for document in read(file):
                _take(document, texts)
        catalogue = with_own(catalogue, _checked(read_entries(texts, catalogue)))
    pairs = dict(_alias(pair) for pair in aliases)
    return catalogue.with_aliases(pairs) if pairs else catalogue


def _take(document: Document, texts: dict[str, dict[str, str]]) -> None:
    if document.kind == "ConfigMap":
        data = document.data.get("data") or {}
        texts.setdefault(f"{document.file}: {document.name}", {}).update({key: str(text) for key, text in data.items()})
        return
    name = document.data.get("name") if isinstance(document.data, Mapping) else None
    place = f"{document.file}:{document.line('')}"
    text = json.dumps(document.data, ensure_ascii=False, default=str)
    texts.setdefault(place, {})[f"{name or 'no name'}.yaml"] = text


def _checked(found: Read) -> Read:
    from kinora.engine.entrycheck import entry_fault  # noqa: PLC0415 - only where there are entries to check

    faults = {name: fault for name, own in found.good.items() if (fault := entry_fault(own.model))}
    return Read({name: own for name, own in found.good.items() if name not in faults}, {**found.bad, **faults})


def _alias(pair: str) -> tuple[str, str]:
    name, equals, target = pair.partition("=")
    if not (name and equals and target):
        raise CatalogueError(f"--alias is {pair!r}; allowed: NAME=MODEL, such as wan2.7-videoedit=wan2.1-vace-14b")
    return name, target


def shown(catalogue: Catalogue, form: str) -> str:
    """The catalogue in `form`: table, json or yaml."""
    if form == "table":
        return table([_HEAD, *(_row(model) for model in catalogue)])
    data = [model.model_dump(mode="json", by_alias=True, exclude={"served_by"}) for model in catalogue]
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip()


_HEAD = ("NAME", "TASKS", "MAX SIZE", "FRAMES", "STEPS", "GPU", "DISPLAY NAME")


def _row(model: Model) -> tuple[str, ...]:
    limits = model.limits
    return (
        model.name,
        str(len(model.tasks)),
        f"{limits.size.max_pixels} px",
        f"{limits.frames.minimum}-{limits.frames.maximum} ({model.defaults.frames})",
        f"{limits.steps.minimum:g}-{limits.steps.maximum:g} ({model.defaults.steps})",
        f"{model.gpu.memory_gib} GiB",
        model.display_name,
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl sets them: left, three spaces apart."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
