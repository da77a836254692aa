"""`kinora models`: the catalogue as a table, JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model


def shown(catalogue: Catalogue, form: str) -> str:
    """The catalogue in `form`: table, json or yaml."""
    if form == "table":
        return table([_HEAD, *(_row(model) for model in catalogue)])
    data = [model.model_dump(mode="json", by_alias=True) for model in catalogue]
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
