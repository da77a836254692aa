"""What both resources share: the pydantic base, CEL rules as data, bounded strings, conditions.

Pydantic models are the single source of the CRDs (``crd.py`` reads them); nothing here knows the API server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

MESSAGE_LIMIT = 1024  # characters of any message in a status (api.md)


class ApiModel(BaseModel):
    """Camel-case on the wire, snake-case in Python; unknown fields are dropped, as the API server prunes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong: the field (below what was looked at), its value (None: not set), what is allowed."""

    field: str
    value: object
    allowed: str

    def __str__(self) -> str:
        found = "is not set" if self.value is None else f"is {str(self.value)[:80]}"
        return f"{self.field} {found}; allowed: {self.allowed}"


#: A CEL rule in Python: a value as it stands in a manifest -> what is wrong with it.
Meaning = Callable[[Any], Iterator[Finding]]


class Rule(dict[str, str]):
    """A CEL validation rule as the CRD holds it, and with it the same rule in Python, for those without an API server.

    The two are written side by side and tested on the same table. A rule about an update has no meaning offline.
    """

    meaning: Meaning | None = None


def rule(expression: str, message: str, *, field_path: str | None = None, meaning: Meaning | None = None) -> Rule:
    """One CEL validation rule; a message that starts with a quote is a CEL expression that builds the message.

    Expressions show the value that was given, which a fixed message cannot.
    """
    built = Rule({"rule": expression})
    built["messageExpression" if message.startswith("'") else "message"] = message
    if field_path:
        built["fieldPath"] = field_path
    built.meaning = meaning
    return built


def cel(*rules: Rule) -> dict[str, Any]:
    """``json_schema_extra`` that carries CEL rules to the CRD."""
    return {"x-kubernetes-validations": list(rules)}


def rules_of(extra: object) -> Iterator[Rule]:
    """The rules in a ``json_schema_extra``."""
    if isinstance(extra, dict):
        yield from (item for item in extra.get("x-kubernetes-validations", ()) if isinstance(item, Rule))


def is_set(value: Any, field: str) -> bool:
    """CEL's ``has``, for a mapping out of a manifest: a null counts as not set."""
    return isinstance(value, Mapping) and value.get(field) is not None


def exactly_one(*fields: str) -> Rule:
    """A CEL rule: exactly one of these fields is set; the message tells which ones were."""
    count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in fields)
    given = " + ".join(f"(has(self.{name}) ? ' {name}' : '')" for name in fields)

    def meaning(value: Any) -> Iterator[Finding]:
        found = [name for name in fields if is_set(value, name)]
        if len(found) != 1:
            yield Finding("", ", ".join(found) or "without all of them", f"exactly one of {', '.join(fields)}")

    return rule(
        f"{count} == 1",
        f"'exactly one of {', '.join(fields)} must be set; set here:' + {given}",
        meaning=meaning,
    )


def integral(value: Any) -> Any:
    """The same JSON value with integral floats as integers, recursively.

    ``shift: 5.0`` and ``shift: 5`` are one number to a user and two to the API server's generation (api.md).
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: integral(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [integral(item) for item in value]
    return value


# An object's name in Kubernetes (RFC 1123 subdomain); a key of a ConfigMap; a relative path inside a claim.
ObjectName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
ConfigMapKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
# A date-time on the wire is a string: it is compared and shown, and parsed only where arithmetic needs it.
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=64)]
Message = Annotated[str, StringConstraints(max_length=MESSAGE_LIMIT)]
Reason = Annotated[str, StringConstraints(max_length=256)]
Quantity = Annotated[str, StringConstraints(min_length=1, max_length=32)]
FreeForm = dict[str, Any]


class Condition(ApiModel):
    """A condition as in metav1.Condition, except that the schema's default has no transition time yet."""

    type: Annotated[str, StringConstraints(max_length=316)]
    status: Annotated[str, StringConstraints(pattern="^(True|False|Unknown)$", max_length=7)]
    reason: Reason = ""
    message: Message = ""
    last_transition_time: Time | None = None
    observed_generation: int | None = None
