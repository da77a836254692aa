"""What is decided of a raw workflow before it runs: `status.resolved` of such a job. No prompts in it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from pydantic.alias_generators import to_camel

from kinora.api.base import integral

MANY_INPUTS = 6  # of more, a status has room for name and hash only, once


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedWorkflow:
    """Sizes in pixels are of the largest render in the graph; `steps` are of all samplers together."""

    model: str
    nodes: int
    outputs: tuple[str, ...]
    "The nodes whose files are the results."
    width: int
    height: int
    frames: int
    steps: int
    tokens: int
    "Transformer tokens of the largest render, the unit of its cost."
    workflow_sha256: str
    "Of the workflow's text: a ConfigMap that changes later is another workflow."
    graph_hash: str
    "Of the graph with the job's values in it, and stand-ins for staged names and prefixes."
    seed: int | None = None
    "The seed that was bound."
    classes: tuple[str, ...] = ()
    "Of a graph in the store: its node classes that a ModelServer must allow, since the operator cannot see them."
    inputs: tuple[str, ...] = ()
    "Names of what is staged; many are not told here, since `status.inputs` has them."

    def to_status(self) -> dict[str, Any]:
        """JSON-safe, camelCase; what is not set is left out."""
        told = self if len(self.inputs) <= MANY_INPUTS else replace(self, inputs=())
        named = (one.name for one in fields(told) if one.name != "classes" or told.classes)
        pairs = ((to_camel(name), getattr(told, name)) for name in named)
        status = {
            name: list(value) if isinstance(value, tuple) else value for name, value in pairs if value is not None
        }
        result: dict[str, Any] = integral(status)
        return result

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> Self | None:
        """What `to_status` wrote; None for anything else."""
        told = ((one.name, status.get(to_camel(one.name))) for one in fields(cls))
        values: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in told if one is not None
        }
        try:
            made = cls(**values)
        except TypeError:
            return None
        numbers = (made.nodes, made.width, made.height, made.frames, made.steps, made.tokens)
        return made if all(type(one) is int for one in numbers) else None


def pinned(status: Mapping[str, Any]) -> str | None:
    """The hash that `status.resolved` pins the workflow's text by."""
    resolved = status.get("resolved")
    found = resolved.get("workflowSha256") if isinstance(resolved, Mapping) else None
    return found if isinstance(found, str) else None
