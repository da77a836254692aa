"""What the dialects of hosted APIs share between a request's fields and a VideoJob's spec: sizes, sources, words.

A field that names a file becomes `{"url": text}` in the spec; `settle` then puts there what the gateway knows of that
text. Nothing here knows a dialect's fields, HTTP or a store.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kinora.api.base import integral
from kinora.api.videojob import SEED_MAX
from kinora.catalogue.load import Catalogue
from kinora.gateway.errors import InvalidInput, NotFound
from kinora.gateway.jobs import Artifact, Job

Spec = dict[str, Any]
Source = dict[str, Any]
#: A user's text -> the Source of the VideoJob.
SourceOf = Callable[[str], Awaitable[Mapping[str, Any]]]
MAX_PROMPT: Final = 5000  # characters, as VideoJob.spec.prompt has it
MAX_SEED: Final = SEED_MAX
_SHOWN: Final = 80  # characters of a value in a message
_MOST: Final = 5  # faults told at once


class Body(BaseModel):
    """The base of a request's model: by the API's own names, no NaN; keys that it does not know are kept, and told."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, populate_by_name=True, frozen=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a request comes to: VideoJob.spec, its sources still as the user gave them, and what to tell the user."""

    spec: Spec
    notes: tuple[str, ...] = ()


B = TypeVar("B", bound=Body)


def parse(model: type[B], data: object) -> B:
    """A request's JSON object as its model; a null counts as not given. Raises InvalidInput, with every fault."""
    if not isinstance(data, Mapping):
        raise InvalidInput("", "the body is no JSON object; allowed: an object of fields")
    given = {str(name): value for name, value in data.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = list(dict.fromkeys(_faults(model, error)))
        raise InvalidInput(found[0][0], "; ".join(text for _, text in found[:_MOST])) from None


def _faults(model: type[Body], error: ValidationError) -> Iterator[tuple[str, str]]:
    properties = model.model_json_schema(by_alias=True).get("properties", {})
    for fault in error.errors(include_url=False, include_context=False):
        field = str(fault["loc"][0]) if fault["loc"] else ""
        place = "".join(f"[{step}]" for step in fault["loc"][1:] if isinstance(step, int))
        allowed = allowed_text(properties.get(field, {}))
        if fault["type"] == "missing":
            yield field, f"{field} is not set; allowed: {allowed}"
        else:
            yield field, f"{field}{place} is {shown(fault['input'])}; allowed: {allowed}"


def shown(value: object) -> str:
    """A value as a message shows it: texts in quotes, long ones cut."""
    if isinstance(value, (list, dict)):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def allowed_text(schema: Mapping[str, Any]) -> str:
    """What a field's JSON schema allows, in words."""
    for kind in schema.get("anyOf", ()):
        if kind.get("type") != "null":
            return allowed_text({**kind, **{key: value for key, value in schema.items() if key != "anyOf"}})
    if "enum" in schema or "const" in schema:
        return ", ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        most = f"at most {schema['maxItems']}" if "maxItems" in schema else "any number"
        return f"a list of {most}, each {allowed_text(schema.get('items', {}))}"
    if schema.get("type") == "string":
        return _allowed_string(schema)
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "object": "an object"}
    word = words.get(str(schema.get("type")), "a value")
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    above = "above " if "exclusiveMinimum" in schema else ""
    if least is not None and "maximum" in schema:
        return f"{word}, {above}{least:g} to {schema['maximum']:g}"
    return f"{word}, {above or 'at least '}{least:g}" if least is not None else word


def _allowed_string(schema: Mapping[str, Any]) -> str:
    if schema.get("description", "").startswith("WIDTHxHEIGHT"):
        return "WIDTHxHEIGHT"
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return f"text of {least} to {most} characters" if most is not None else "text"


def unknown_notes(body: Body) -> tuple[str, ...]:
    """One sentence for each key that the API has not: ignored, not refused, as clients send more than they need."""
    extra = body.model_extra or {}
    return tuple(f"{name[:64]} is no parameter of this model and was ignored" for name in list(extra)[:8])


def size_of(text: str, separator: str = "x") -> tuple[int, int]:
    """Width and height of `832*480`, `540x960 (9:16)` or `720x1280`. Raises ValueError."""
    found = re.match(rf"(\d{{1,5}}){re.escape(separator)}(\d{{1,5}})(?= |$)", text)
    if found is None:
        raise ValueError(f"{shown(text)} is no size")
    return int(found[1]), int(found[2])


def url(text: str) -> Source:
    """The Source of a text that the user gave, until `settle` has looked at it."""
    return {"url": text}


def references(texts: list[str]) -> list[dict[str, Any]]:
    """`spec.inputs.references` of these texts."""
    return [{"source": url(text)} for text in texts]


def compact(value: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None or an empty mapping; integral floats as integers, which are one number to the cluster."""
    kept = {name: item for name, item in value.items() if item is not None and item != {}}
    result: dict[str, Any] = integral(kept)
    return result


async def settle(spec: Spec, source: SourceOf) -> Spec:
    """The spec with every `{"url": text}` of its inputs replaced by what `source` makes of the text.

    Raises InvalidInput with the field where `source` does not take the text (InvalidInput, NotFound).
    """
    inputs = dict(spec.get("inputs") or {})
    for name, value in inputs.items():
        field = f"spec.inputs.{name}"
        if isinstance(value, list):
            settled = [await _settled(one["source"], source, f"{field}[{index}]") for index, one in enumerate(value)]
            inputs[name] = [{**one, "source": found} for one, found in zip(value, settled, strict=True)]
        elif "source" in value:
            inputs[name] = {**value, "source": await _settled(value["source"], source, field)}
        else:
            inputs[name] = await _settled(value, source, field)
    return {**spec, "inputs": inputs} if inputs else spec


async def _settled(value: Source, source: SourceOf, field: str) -> Source:
    text = value.get("url")
    if not isinstance(text, str):
        return value
    try:
        return dict(await source(text))
    except (InvalidInput, NotFound) as error:  # a 404 would say that the route or the job is not there
        raise InvalidInput(field, f"{field} is refused: {error.message}") from None


def local_model(hosted: str, default: str, catalogue: Catalogue) -> str:
    """The model behind a hosted name: an administrator's own mapping of that name, or the one that is made for it."""
    return hosted if catalogue.get(hosted) is not None else default


def retold(text: str, names: Mapping[str, str]) -> str:
    """A message about a VideoJob's fields, in a dialect's. `names`: field of the spec -> field of the request."""
    for field in sorted(names, key=len, reverse=True):
        place = rf"(?<![\w.]){re.escape(field)}(?!\w)(\[\d+\])?(?:\.source)?(?:\.(?:url|upload|artifact)\b)?"
        text = re.sub(place, lambda found, name=names[field]: name + (found[1] or ""), text)  # type: ignore[misc]
    return text


def renamed(error: InvalidInput, names: Mapping[str, str]) -> InvalidInput:
    """The same verdict on a VideoJob's spec, on the field of the request that it comes from."""
    known = [field for field in names if re.match(rf"{re.escape(field)}(?![\w])", error.field)]
    field = names[max(known, key=len)] if known else error.field.removeprefix("spec.")
    return type(error)(field, retold(error.message, names), attempted=error.attempted)


def failure(job: Job, names: Mapping[str, str]) -> str:
    """Why a job failed, in a dialect's words."""
    return retold(job.message or job.reason or "the job failed", names)


def of_kind(job: Job, kind: str) -> tuple[Artifact, ...]:
    """Its outputs of one kind: `video` or `image`."""
    return tuple(one for one in job.artifacts if one.content_type.startswith(f"{kind}/"))


def iso_milliseconds(time: datetime) -> str:
    """`2023-04-01T12:34:56.789Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
