"""What a ModelServer may not ask for: unknown models, fields that this release does not implement, a broken spec.

A field is never silently ignored: each refusal names the field, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from kinora.api import reasons
from kinora.api.findings import findings, shape_message
from kinora.api.modelserver import ModelServerSpec
from kinora.api.s3store import S3Store
from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.controller.modelserver.pod import pools_of
from kinora.controller.modelserver.snapshot import Object
from kinora.controller.modelserver.template import Broken, faults, identity_fault
from kinora.controller.pools import fit
from kinora.controller.settings import Settings
from kinora.weights.sources import Rules, source_findings

# Where the engine listens and keeps its files: on 127.0.0.1 alone, in the folders that it shares with the agent.
_OWNED_ARGUMENTS = frozenset({"--listen", "--port", "--input-directory", "--output-directory", "--temp-directory"})


@dataclass(frozen=True)
class Refusal:
    """Why nothing is done for this ModelServer until its spec changes."""

    reason: str
    message: str


def parse(server: Object) -> ModelServerSpec | Refusal:
    """The spec as typed values, or why it cannot be read."""
    try:
        return ModelServerSpec.model_validate(server["spec"])
    except ValidationError as error:
        return Refusal(reasons.INVALID_SPEC, shape_message(ModelServerSpec, server["spec"], error))


def check(spec: ModelServerSpec, catalogue: Catalogue, settings: Settings) -> Model | Refusal:
    """The model to serve, or the first reason why not."""
    for refusal in refusals(spec, catalogue, settings):
        return refusal
    model = catalogue.get(spec.model)
    if model is None:
        raise LookupError(spec.model)  # refused above
    return model


def refusals(spec: ModelServerSpec, catalogue: Catalogue, settings: Settings) -> Iterator[Refusal]:
    """Every reason why not, the most telling first."""
    model = catalogue.get(spec.model)
    if model is None or model.served_by is not None:
        known = ", ".join(catalogue.names)
        more = f"a further name of {model.served_by}" if model is not None else catalogue.unknown(spec.model)
        mend = f" ({more})" if more else ""
        yield Refusal(reasons.UNKNOWN_MODEL, f"spec.model is {spec.model!r}; allowed: {known}{mend}")
    for missing in _not_implemented(spec):
        yield Refusal(reasons.NOT_IMPLEMENTED, f"{missing} is not implemented in this release; remove it")
    yield from _wrong_store(spec)
    yield from _wrong_weights(spec, catalogue.get(spec.model), settings.weights_rules)
    for word in spec.engine.args:
        if word.partition("=")[0] in _OWNED_ARGUMENTS:
            yield Refusal(
                reasons.NOT_ALLOWED,
                f"spec.engine.args has {word!r}; allowed: arguments other than {', '.join(sorted(_OWNED_ARGUMENTS))},"
                " which the operator sets",
            )
    yield from _pool_refusals(spec, model, settings)
    yield from _template_refusals(spec, settings)
    if not spec.engine.image and not settings.engine_image:
        yield Refusal(
            reasons.INVALID_SPEC,
            "spec.engine.image is not set, and the operator has no default; set it, or the chart value engine.image",
        )


def _wrong_store(spec: ModelServerSpec) -> Iterator[Refusal]:
    """What the API server refuses too, but for what it had stored before it knew the rules."""
    if spec.artifacts.s3 is not None:
        told = spec.artifacts.s3.model_dump(mode="json", by_alias=True, exclude_none=True)
        for finding in findings(S3Store, told, "spec.artifacts.s3"):
            yield Refusal(reasons.INVALID_SPEC, str(finding))


def _wrong_weights(spec: ModelServerSpec, model: Model | None, rules: Rules) -> Iterator[Refusal]:
    if model is not None:
        for finding in source_findings(spec.weights.sources, model, rules):
            yield Refusal(reasons.INVALID_SPEC, str(finding))
    if spec.weights.quantize and not spec.weights.sources:
        yield Refusal(reasons.INVALID_SPEC, "spec.weights.quantize is true; allowed: false without weights.sources")


def _pool_refusals(spec: ModelServerSpec, model: Model | None, settings: Settings) -> Iterator[Refusal]:
    """Pools whose GPU cannot run the model, or that would take a pod's identity."""
    for index, pool in enumerate(pools_of(spec)):
        path = f"spec.gpu.pools[{index}]"
        for field, entries in (("labels", pool.labels), ("annotations", pool.annotations)):
            for key, value in entries.items():
                for found in identity_fault(key, value, f"{path}.{field}"):
                    yield Refusal(reasons.NOT_ALLOWED, str(found))
        if model is not None:
            provider = settings.providers[pool.provider]
            for found in fit.faults(provider, pool, model.gpu, model.name, gpus=spec.gpu.count, path=path):
                yield Refusal(reasons.INVALID_SPEC, str(found))


def _template_refusals(spec: ModelServerSpec, settings: Settings) -> Iterator[Refusal]:
    rules = {settings.providers[pool.provider].containers.env_names for pool in pools_of(spec)}
    told: set[str] = set()
    for rule in sorted(rules, key=lambda rule: rule or ""):
        for found in faults(spec.pod_template or {}, rule):
            if str(found) not in told:
                told.add(str(found))
                reason = reasons.INVALID_SPEC if isinstance(found, Broken) else reasons.NOT_ALLOWED
                yield Refusal(reason, str(found))


def _not_implemented(spec: ModelServerSpec) -> list[str]:
    given = {
        "spec.warmup": spec.warmup,
        "spec.recycle": spec.recycle is not None,
    }
    return [field for field, is_given in given.items() if is_given]
