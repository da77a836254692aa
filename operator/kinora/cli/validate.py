"""`kinora validate`: every fault of VideoJobs and ModelServers in files, by the rules that cluster and operator apply.

Shape and CEL's rules come from the models of `kinora.api`, what a model can do from `kinora.recipes`, what a release
does not do yet from the operator's own checks. Nothing is asked of a cluster.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from kinora.api import names, reasons
from kinora.api.base import ApiModel
from kinora.api.findings import findings
from kinora.api.modelserver import NAME_RULE, ModelServerSpec
from kinora.api.videojob import VideoJobSpec, Workflow
from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.cli.manifests import Document
from kinora.cli.workflows import allowed_by, missing, text_of
from kinora.controller.modelserver import refuse
from kinora.controller.settings import Settings
from kinora.recipes.faults import Fault, InvalidSpec, not_yet
from kinora.recipes.needs import given_sources
from kinora.recipes.resolve import resolve
from kinora.storage.guard.urls import UrlRefused, parse_url
from kinora.weights.sources import Rules
from kinora.workflows.workflow import plan

API_VERSION = f"{names.GROUP}/{names.VERSION}"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_UID = "00000000-0000-0000-0000-000000000000"
_SETTINGS = Settings(  # what the operator has is not known here, nor whether the installation allows http
    "the chart's", engine_image="the chart's", weights_rules=Rules(allow_http=True)
)


@dataclass
class Report:
    """What was found in all files."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)


def validate(documents: Sequence[Document], catalogue: Catalogue) -> Report:
    """Judge every VideoJob and ModelServer; other kinds are noted and left alone."""
    report = Report()
    servers = {document.name: document.data for document in documents if document.kind == "ModelServer"}
    graphs = {ref for document in documents for ref in _config_maps(document)}
    for document in documents:
        place = f"{document.file}:{document.line('')}: {document.kind or 'no kind'}/{document.name or 'no name'}"
        version = document.data.get("apiVersion") if isinstance(document.data, Mapping) else None
        foreign = isinstance(version, str) and version.partition("/")[0] != names.GROUP
        if foreign and document.kind not in _SPECS:
            if document.kind != "ConfigMap" or document.name not in graphs:
                report.notes.append(f"{place}: not Kinora's, left alone")
            continue
        report.objects += 1
        if document.kind == "VideoJob" and _unknown_server(document.data, servers):
            report.notes.append(f"{place}: checked without its model, which its ModelServer names; give that file too")
        workflow = _unknown_workflow(document, documents)
        if workflow is not None:
            report.notes.append(f"{place}: checked without its workflow: {workflow}")
        found = {str(fault): fault for fault in _faults(document, servers, catalogue, documents)}
        for line, text in sorted(((_line(document, fault), text) for text, fault in found.items()), key=_first):
            _add(report, document, line, found[text])
    return report


def _first(item: tuple[int, str]) -> int:
    return item[0]


def _line(document: Document, fault: Fault) -> int:
    line = document.line(fault.field.partition(" ")[0])  # what follows is a place inside of a workflow's text
    return dict(document.twice).get(fault.field, line) if fault.allowed == _ONCE else line


def _add(report: Report, document: Document, line: int, fault: Fault) -> None:
    title = f"{document.kind or 'object'}/{document.name or 'no name'}"
    report.lines.append(f"{document.file}:{line}: {title}: {fault}")
    report.faults.append(
        {
            "file": document.file,
            "line": line,
            "object": title,
            "field": fault.field,
            "value": None if fault.value is None else str(fault.value),
            "allowed": fault.allowed,
            "notImplemented": fault.not_implemented,
        }
    )


_ONCE = "once"


def _faults(
    document: Document, servers: Mapping[str, Any], catalogue: Catalogue, documents: Sequence[Document]
) -> Iterator[Fault]:
    yield from (Fault(name, "given twice", _ONCE) for name, _ in document.twice)
    data = document.data
    if not isinstance(data, Mapping):
        yield Fault("object", f"a {type(data).__name__}", "a mapping with apiVersion, kind, metadata and spec")
        return
    if data.get("apiVersion") != API_VERSION:
        yield Fault("apiVersion", data.get("apiVersion"), API_VERSION)
    if document.kind not in _SPECS:
        yield Fault("kind", data.get("kind"), ", ".join(_SPECS))
        return
    yield from _metadata_faults(document)
    unknown = [name for name in data if name not in {"apiVersion", "kind", "metadata", "spec", "status"}]
    yield from (Fault(str(name), "no field of this resource", "apiVersion, kind, metadata, spec") for name in unknown)
    if data.get("spec") is None:
        yield Fault("spec", None, "a mapping of fields")
    elif document.kind == "VideoJob":
        yield from job_faults(data, servers, catalogue, documents)
    else:
        yield from _server_faults(data["spec"], catalogue)


def _metadata_faults(document: Document) -> Iterator[Fault]:
    metadata = document.data.get("metadata")
    if not isinstance(metadata, Mapping):
        yield Fault("metadata", metadata, "a mapping with a name")
        return
    if document.kind == "ModelServer" and NAME_RULE.meaning and not metadata.get("generateName"):
        yield from (Fault(found.field, found.value, found.allowed) for found in NAME_RULE.meaning(document.data))
        return
    name = metadata.get("name") or metadata.get("generateName")
    whole = f"{name}x" if not metadata.get("name") else str(name)
    if not name or len(whole) > 253 or not _NAME.fullmatch(whole):
        yield Fault("metadata.name", name, "small letters, digits, - and . (1 to 253, a letter or digit at both ends)")


def job_faults(
    data: Mapping[str, Any], servers: Mapping[str, Any], catalogue: Catalogue, documents: Sequence[Document] = ()
) -> Iterator[Fault]:
    """Every fault of one VideoJob's spec. `servers`: ModelServers by name, for jobs that name one.

    `documents`: where the ConfigMap of a raw workflow may be.
    """
    raw = data["spec"]
    spec, unreadable = _parsed(VideoJobSpec, raw)
    deeper = [
        fault for fault in _deeper(spec, raw, servers, catalogue, documents) if not _hidden(fault.field, unreadable)
    ]
    told = {fault.field for fault in deeper}
    for found in findings(VideoJobSpec, raw, "spec"):
        if found.field not in told:
            yield Fault(found.field, found.value, found.allowed)
    yield from deeper


def _deeper(
    spec: VideoJobSpec | None,
    raw: object,
    servers: Mapping[str, Any],
    catalogue: Catalogue,
    documents: Sequence[Document],
) -> Iterator[Fault]:
    """What the model and this release have to say."""
    if spec is None or not isinstance(raw, Mapping):
        return
    name = spec.model
    if spec.model_server_name is not None and spec.model_server_name in servers:
        server = servers[spec.model_server_name]
        name = name or ((server.get("spec") or {}).get("model") if isinstance(server, Mapping) else None)
    model = catalogue.get(name if isinstance(name, str) else None)
    if model is not None:
        try:
            if spec.workflow is None:
                resolve(spec, model, _UID)
            else:
                _plan(spec, spec.workflow, model, documents)
        except InvalidSpec as invalid:
            yield from invalid.faults
    elif spec.model:
        yield Fault("spec.model", spec.model, ", ".join(catalogue.names), catalogue.unknown(spec.model))
    yield from _url_faults(spec)


def _url_faults(spec: VideoJobSpec) -> Iterator[Fault]:
    """What the guarded fetcher says of a URL by its text alone; where it leads, a cluster knows."""
    for path, source in given_sources(spec):
        try:
            if source.url is not None:
                parse_url(source.url, f"{path}.url")
        except UrlRefused as refused:
            yield refused.fault


def _plan(spec: VideoJobSpec, workflow: Workflow, model: Model, documents: Sequence[Document]) -> None:
    text = text_of(workflow, documents)
    if text is not None:
        plan(spec, model, text, _UID, allowed_by(spec.model_server_name, documents))


def _config_maps(document: Document) -> Iterator[str]:
    """The ConfigMap that holds the job's workflow."""
    spec, _ = _parsed(VideoJobSpec, document.data.get("spec")) if document.kind == "VideoJob" else (None, ())
    if spec is not None and spec.workflow is not None and spec.workflow.config_map_ref is not None:
        yield spec.workflow.config_map_ref.name


def _unknown_workflow(document: Document, documents: Sequence[Document]) -> str | None:
    """What to give, where a job's workflow is a ConfigMap's and no file has it; or lies in a store."""
    spec, _ = _parsed(VideoJobSpec, document.data.get("spec")) if document.kind == "VideoJob" else (None, ())
    if spec is None or spec.workflow is None or spec.workflow.inline is not None:
        return None
    return missing(spec.workflow) if text_of(spec.workflow, documents) is None else None


def _unknown_server(data: object, servers: Mapping[str, Any]) -> bool:
    spec = data.get("spec") if isinstance(data, Mapping) else None
    named = spec.get("modelServerName") if isinstance(spec, Mapping) else None
    return named is not None and named not in servers


def _server_faults(raw: object, catalogue: Catalogue) -> Iterator[Fault]:
    yield from (Fault(found.field, found.value, found.allowed) for found in findings(ModelServerSpec, raw, "spec"))
    spec, unreadable = _parsed(ModelServerSpec, raw)
    if spec is None:
        return
    refused = (_refusal_fault(refusal) for refusal in refuse.refusals(spec, catalogue, _SETTINGS))
    yield from (fault for fault in refused if not _hidden(fault.field, unreadable))


def _refusal_fault(refusal: refuse.Refusal) -> Fault:
    """The operator's sentence in its parts, so that it has a line."""
    if refusal.reason == reasons.NOT_IMPLEMENTED:
        what = refusal.message.partition(" is not implemented")[0]
        place = what[what.index("spec.") :]
        return not_yet(place, what.removesuffix(f" of {place}") if what != place else "set", "unset")
    place, _, rest = refusal.message.partition(" ")
    value, _, allowed = rest.partition("; allowed: ")
    return Fault(place, value.partition(" ")[2].strip("'"), allowed)


def _parsed(model: type[ApiModel], raw: object) -> tuple[Any, tuple[str, ...]]:
    """The spec without the fields that cannot be read, and those; None where nothing is left to read."""
    rest, dropped = copy.deepcopy(raw), list[str]()
    for _ in range(8):
        try:
            return model.model_validate(rest), tuple(dropped)
        except ValidationError as error:
            for fault in error.errors():
                steps = list(fault["loc"])[: -1 if fault["type"] == "missing" else None]
                dropped.append("spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps))
                if not steps or not _drop(rest, steps):
                    return None, tuple(dropped)
    return None, tuple(dropped)


def _drop(value: Any, steps: list[int | str]) -> bool:
    """Take a field out; of a list, the whole list, so that no index moves."""
    numbered = next((index for index, step in enumerate(steps) if isinstance(step, int)), len(steps))
    for step in steps[: numbered - 1]:
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return isinstance(value, dict) and value.pop(steps[numbered - 1], value) is not value


def _hidden(place: str, unreadable: Sequence[str]) -> bool:
    """Whether a fault speaks of a field that was taken out, or holds one that was."""
    return any(bad == place or bad.startswith((f"{place}.", f"{place}[")) for bad in unreadable)


_SPECS: Mapping[str, type[ApiModel]] = {"VideoJob": VideoJobSpec, "ModelServer": ModelServerSpec}
