"""Whether a job can be rendered, judged before it is made: its shape, its model, the task's rules. Pure.

The API server and the operator judge again; here the caller learns it in the answer to the request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kinora.api.findings import findings
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import Catalogue
from kinora.catalogue.model import Model
from kinora.gateway.errors import InvalidInput, ModelNotFound
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.needs import given_sources
from kinora.recipes.resolve import resolve
from kinora.storage.guard.urls import UrlRefused, parse_url
from kinora.workflows.workflow import plan

_UID = "00000000-0000-0000-0000-000000000000"  # the real one comes with the object; it decides the seed alone
_MOST = 5  # faults told at once


def admit(
    spec: Mapping[str, Any], catalogue: Catalogue, servers: Sequence[Mapping[str, Any]], graph: str | None = None
) -> Model:
    """The model that will render it. `servers`: the ModelServers of the namespace. Raises InvalidInput.

    `graph`: the text of a raw graph that does not stand in the spec itself.
    """
    found = findings(VideoJobSpec, spec, "spec")
    if found:
        raise InvalidInput(found[0].field, "; ".join(str(one) for one in found[:_MOST]))
    parsed = VideoJobSpec.model_validate(spec)
    model = _model(parsed, catalogue, servers)
    try:
        if parsed.workflow is None:
            resolve(parsed, model, _UID)
        elif (text := parsed.workflow.inline or graph) is not None:
            plan(parsed, model, text, _UID, _allowed(parsed, model, servers))
    except InvalidSpec as invalid:
        raise _invalid(invalid.faults) from None
    for path, source in given_sources(parsed):
        try:
            if source.url is not None:
                parse_url(source.url, f"{path}.url")
        except UrlRefused as refused:
            raise _invalid([refused.fault]) from None
    return model


def _model(spec: VideoJobSpec, catalogue: Catalogue, servers: Sequence[Mapping[str, Any]]) -> Model:
    served = {str(server["metadata"]["name"]): (server.get("spec") or {}).get("model") for server in servers}
    if spec.model_server_name is not None:
        name = served.get(spec.model_server_name)
        if name is None:
            raise ModelNotFound("modelServerName", f"no ModelServer {spec.model_server_name} serves this tenant")
    else:
        name = spec.model
    model = catalogue.get(name)
    if model is None:
        more = catalogue.unknown(name)
        names = ", ".join([*catalogue.names, *catalogue.aliases])
        raise ModelNotFound("model", f"model {name} does not exist; allowed: {names}" + (f" ({more})" if more else ""))
    if model.local_name not in served.values():
        raise ModelNotFound("model", f"model {name} is not served here: no ModelServer of the namespace has it")
    return model


def _allowed(spec: VideoJobSpec, model: Model, servers: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Node classes that one of the ModelServers in question allows besides those of the recipes."""
    lists: list[Collection[str]] = [
        (server.get("spec") or {}).get("allowedNodeClasses") or ()
        for server in servers
        if (server.get("spec") or {}).get("model") == model.local_name
        and spec.model_server_name in (None, server["metadata"]["name"])
    ]
    return frozenset().union(*lists)


def _invalid(faults: Sequence[Fault]) -> InvalidInput:
    return InvalidInput(faults[0].field, "; ".join(str(fault) for fault in faults[:_MOST]), faults=faults)
