"""Everything that is wrong with a spec by its shape alone: types, ranges, CEL's rules, fields that do not exist. Pure.

The models of this package are the one source: what the API server learns from the CRD is asked of the same fields here,
so that a file can be judged without a cluster, and all at once. Types are strict, as the API server's are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from kinora.api.base import MESSAGE_LIMIT, ApiModel, Finding, Rule, integral, rules_of


def findings(model: type[ApiModel], value: object, path: str, *, unknown: bool = True) -> tuple[Finding, ...]:
    """What is wrong with `value`, which a manifest holds at `path`. `unknown`: name fields that do not exist."""
    if not isinstance(value, Mapping):
        return (Finding(path, _shown(value), "a mapping of fields"),)
    found = [*_shape(model, value, path), *_rules(model, value, path)]
    if unknown:
        found += _unknown(model, value, path)
    return tuple(item for index, item in enumerate(found) if item not in found[:index])


def shape_message(model: type[ApiModel], value: object, error: ValidationError) -> str:
    """One message for a status: every finding of a stored spec that `error` says cannot be read."""
    found = findings(model, value, "spec", unknown=False)
    return ("; ".join(str(item) for item in found) or str(error.errors()[0]["msg"]))[:MESSAGE_LIMIT]


def _shape(model: type[ApiModel], value: object, path: str) -> Iterator[Finding]:
    try:
        model.model_validate_json(json.dumps(integral(value), default=str), strict=True)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            steps = [step for step in fault["loc"] if step != "[key]"]
            given = None if fault["type"] == "missing" else _shown(fault["input"])
            yield Finding(_join(path, steps), given, _allowed(fault, _info(model, steps)))


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return f"a list of {len(value)}" if isinstance(value, list) else "a mapping"
    return f"{value!r} (text)" if isinstance(value, str) and value[:1].isdigit() else value


def _join(path: str, steps: list[int | str]) -> str:
    return path + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _info(model: type[ApiModel], steps: list[int | str]) -> FieldInfo | None:
    """The field that an error's place leads to."""
    current: type[ApiModel] | None = model
    info: FieldInfo | None = None
    for step in steps:
        if isinstance(step, int):
            continue
        info = _fields(current).get(step) if current is not None else None
        current = _nested(info.annotation) if info is not None else None
    return info


@cache
def _fields(model: type[ApiModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _nested(annotation: Any) -> type[ApiModel] | None:
    """The model inside an annotation: X, X | None, list[X], Annotated[X, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    return next(filter(None, (_nested(part) for part in get_args(annotation))), None)


class _Part(NamedTuple):
    """What is looked at of one field: its name in the manifest, its rules that have a meaning here, its model."""

    name: str
    rules: tuple[Rule, ...]
    model: type[ApiModel] | None


@cache
def _parts(model: type[ApiModel]) -> tuple[_Part, ...]:
    return tuple(
        _Part(name, _meant(info.json_schema_extra), _nested(info.annotation)) for name, info in _fields(model).items()
    )


@cache
def _own_rules(model: type[ApiModel]) -> tuple[Rule, ...]:
    return _meant(model.model_config.get("json_schema_extra"))


def _meant(extra: object) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules_of(extra) if rule.meaning is not None)


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping of fields",
}


def _allowed(fault: Any, info: FieldInfo | None) -> str:
    context, kind = fault.get("ctx", {}), fault["type"]
    if kind in {"enum", "literal_error"}:
        return str(context["expected"]).replace("'", "").replace(" or ", ", ")
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        return _range(info, context)
    if kind == "multiple_of":
        step = int(context["multiple_of"])
        below = int(fault["input"]) // step * step
        return f"multiples of {step}: {below} or {below + step} are nearest"
    if kind in {"string_too_long", "string_too_short"}:
        least, most = _bounds(info, "min_length"), _bounds(info, "max_length")
        return f"text of {least or 0} to {most} characters" if most is not None else f"at least {least} characters"
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind == "too_long":
        return f"at most {context['max_length']} entries"
    if kind == "missing":
        return _KINDS["model"] if info is not None and _nested(info.annotation) else "a value, which is required"
    return _KINDS.get(kind.partition("_")[0], str(fault["msg"]))


def _range(info: FieldInfo | None, context: Mapping[str, Any]) -> str:
    least, most, above = _bounds(info, "ge"), _bounds(info, "le"), _bounds(info, "gt")
    if above is not None and most is not None:
        return f"above {above:g}, at most {most:g}"
    if least is not None and most is not None:
        return f"{_number(least)} to {_number(most)}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return next(f"{words[name]} {_number(limit)}" for name, limit in context.items() if name in words)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _bounds(info: FieldInfo | None, name: str) -> Any:
    if info is None:
        return None
    metadata = list(info.metadata)
    for part in get_args(info.annotation):  # Annotated[str, ...] | None keeps its bounds inside
        metadata += getattr(part, "__metadata__", ())
    return next((getattr(item, name) for item in metadata if getattr(item, name, None) is not None), None)


def _rules(model: type[ApiModel], value: object, path: str) -> Iterator[Finding]:
    """CEL's rules, of the model and of each field that is set, in depth."""
    yield from _apply(_own_rules(model), value, path)
    for place, part, inner in _present(model, value, path):
        yield from _apply(part.rules, inner, place)
        if part.model is not None:
            for at, item in _items(inner, place):
                yield from _rules(part.model, item, at)


def _apply(rules: tuple[Rule, ...], value: object, path: str) -> Iterator[Finding]:
    for rule in rules:
        for found in rule.meaning(value) if rule.meaning else ():
            yield Finding(f"{path}.{found.field}" if found.field else path, found.value, found.allowed)


def _present(model: type[ApiModel], value: object, path: str) -> Iterator[tuple[str, _Part, object]]:
    if isinstance(value, Mapping):
        for part in _parts(model):
            inner = value.get(part.name)
            if inner is not None:
                yield f"{path}.{part.name}", part, inner


def _items(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, list):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(value))
    else:
        yield path, value


def _unknown(model: type[ApiModel], value: object, path: str) -> Iterator[Finding]:
    """Fields that the API server would drop without a word."""
    if not isinstance(value, Mapping):
        return
    known = _fields(model)
    for name in value:
        if name not in known:
            yield Finding(f"{path}.{name}", "no field of this resource", _nearest(str(name), list(known)))
    for place, part, inner in _present(model, value, path):
        if part.model is not None:
            for at, item in _items(inner, place):
                yield from _unknown(part.model, item, at)


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for who mistypes

    folded = {field.lower(): field for field in known}
    near = get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.6)
    return f"{', '.join(known)}" + (f" (did you mean {folded[near[0]]}?)" if near else "")
