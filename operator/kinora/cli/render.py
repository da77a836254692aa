"""`kinora render`: the graph of a VideoJob in ComfyUI's API format, without a cluster.

Kept light: it imports what one job needs and reads one entry of the catalogue, since people call it in loops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from kinora.api.videojob import Source, VideoJobSpec
from kinora.catalogue.load import Catalogue, load_catalogue, parse_model
from kinora.catalogue.model import Model
from kinora.cli.manifests import Document
from kinora.recipes.build import build, graph_inputs
from kinora.recipes.faults import Fault, InvalidSpec
from kinora.recipes.graph import StagedInput
from kinora.recipes.needs import given_inputs, input_name
from kinora.recipes.resolve import prompts_of, resolve

_UID = "00000000-0000-0000-0000-000000000000"
_ENDINGS = {"Image": "png", "Video": "mkv", "ImageOrVideo": "png"}


class RenderError(Exception):
    """Why there is no graph. One line a fault."""


def render(
    document: Document,
    inputs: Mapping[str, str],
    model_name: str | None,
    catalogue: Catalogue | None = None,
    documents: Sequence[Document] = (),
) -> tuple[str, list[str]]:
    """The graph as JSON text, and notes. `inputs`: files by input name, as the engine will see them.

    `catalogue`: where models are looked up; None: among the packaged ones. `documents`: what else was given, where
    the ConfigMap of a raw workflow may be.
    """
    data = document.data
    spec = _spec(document)
    name = spec.model or model_name
    if name is None:
        raise RenderError(f"the job names ModelServer {spec.model_server_name}; give its model by --model")
    model = _model(name, catalogue)
    notes = []
    uid = str((data.get("metadata") or {}).get("uid") or _UID)
    if spec.parameters.seed is None and uid == _UID:
        notes.append("the job has no seed: in a cluster it comes from the job's uid; here from a uid of zeros")
    if spec.workflow is not None:
        text = _workflow(spec, model, uid, document=document, documents=documents, inputs=inputs)
        return text, notes
    try:
        resolved = resolve(spec, model, uid)
    except InvalidSpec as invalid:
        raise RenderError("\n".join(str(fault) for fault in invalid.faults)) from None
    wanted = graph_inputs(model, resolved)
    stray = sorted(set(inputs) - set(wanted))
    if stray:
        raise RenderError(
            f"--inputs-as {stray[0]}: allowed: {', '.join(wanted) or 'nothing, this job reads no inputs'}"
        )
    given = _given_names(spec)
    staged = {
        input_: StagedInput(inputs.get(input_) or given.get(input_) or f"{_plain(input_)}.{_ENDINGS[str(kind)]}", kind)
        for input_, kind in wanted.items()
    }
    graph = build(model, resolved, prompts_of(spec, model), staged, f"kinora/{document.name or 'video'}")
    notes += resolved.notes
    made = [name for name in wanted if name not in resolved.inputs]
    if made:
        notes.append(f"{', '.join(made)}: prepared by the agent from the job's inputs (docs/tasks.md)")
    if resolved.frames_from_input:
        notes.append(f"no length is asked for: in a cluster it is the source's, here {resolved.frames} frames")
    if resolved.size_from_input:
        notes.append(f"no size is asked for: in a cluster it is the source's, here {resolved.width}x{resolved.height}")
    return json.dumps(graph, indent=2, ensure_ascii=False), notes


def _workflow(
    spec: VideoJobSpec,
    model: Model,
    uid: str,
    *,
    document: Document,
    documents: Sequence[Document],
    inputs: Mapping[str, str],
) -> str:
    from kinora.cli.workflows import render_workflow  # noqa: PLC0415 - a task does not need it

    try:
        return render_workflow(spec, model, uid, document=document, documents=documents, inputs=inputs)
    except InvalidSpec as invalid:
        raise RenderError("\n".join(str(fault) for fault in invalid.faults)) from None
    except KeyError as missing:
        raise RenderError(str(missing.args[0])) from None


def pick(documents: Sequence[Document], job: str | None) -> Document:
    """The VideoJob to render: the only one, or the one of that name. RenderError."""
    jobs = [document for document in documents if document.kind == "VideoJob"]
    found = [document for document in jobs if job is None or document.name == job]
    if len(found) != 1:
        names = ", ".join(document.name for document in jobs) or "no VideoJob"
        raise RenderError(f"the file holds {names}; " + ("give one by --job" if jobs else "give a file with one"))
    return found[0]


def parse_inputs(pairs: Sequence[str]) -> dict[str, str]:
    """`name=path` pairs. RenderError."""
    named = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise RenderError(f"--inputs-as is {pair!r}; allowed: NAME=PATH, such as image=photo.png")
        named[name] = path
    return named


def _spec(document: Document) -> VideoJobSpec:
    raw = document.data.get("spec")
    try:
        return VideoJobSpec.model_validate(raw)
    except ValidationError:
        from kinora.api.findings import findings  # noqa: PLC0415 - only where something is wrong

        found = "\n".join(str(item) for item in findings(VideoJobSpec, raw, "spec", unknown=False))
        raise RenderError(found or "the spec cannot be read; see kinora validate") from None


def _model(name: str, catalogue: Catalogue | None) -> Model:
    """One entry of the catalogue; all of the packaged ones are read only to say which names there are."""
    entry = files("kinora.catalogue").joinpath("models", f"{name}.yaml")
    if catalogue is None and "/" not in name and entry.is_file():
        return parse_model(entry.read_text(encoding="utf-8"), entry.name)
    catalogue = catalogue or load_catalogue()
    model = catalogue.get(name)
    if model is None:
        raise RenderError(str(Fault("spec.model", name, ", ".join(catalogue.names), catalogue.unknown(name))))
    return model


def _given_names(spec: VideoJobSpec) -> dict[str, str]:
    """The last step of each source's own path, as a name for the staged file."""
    return {
        input_name(field, index): base
        for field, sources in given_inputs(spec.inputs).items()
        for index, source in enumerate(sources)
        if (base := _base(source))
    }


def _base(source: Source) -> str:
    path: Any = (
        source.claim.path if source.claim else source.config_map.key if source.config_map else source.upload or ""
    )
    return str(path).rpartition("/")[2]


def _plain(name: str) -> str:
    return name.replace("[", "-").replace("]", "")
