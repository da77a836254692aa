"""Raw workflows offline: their text out of the files that are given, and the graph as an engine would get it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from kinora.api.videojob import VideoJobSpec, Workflow
from kinora.catalogue.model import Model
from kinora.cli.manifests import Document
from kinora.recipes.needs import file_name, named_inputs
from kinora.workflows.workflow import filled, plan


def text_of(workflow: Workflow, documents: Sequence[Document]) -> str | None:
    """The workflow's text: inline, or of a ConfigMap among the documents; None where that is not given.

    One that lies in a store is never at hand here.
    """
    if workflow.config_map_ref is None:
        return workflow.inline
    for document in documents:
        if document.kind == "ConfigMap" and document.name == workflow.config_map_ref.name:
            data = document.data.get("data")
            text = data.get(workflow.config_map_ref.key) if isinstance(data, Mapping) else None
            return text if isinstance(text, str) else None
    return None


def allowed_by(server: str | None, documents: Sequence[Document]) -> Collection[str]:
    """allowedNodeClasses of a ModelServer among the documents; of all of them where the job names none."""
    found: set[str] = set()
    for document in documents:
        if document.kind == "ModelServer" and server in (None, document.name):
            spec = document.data.get("spec")
            classes = spec.get("allowedNodeClasses") if isinstance(spec, Mapping) else None
            found |= {name for name in classes if isinstance(name, str)} if isinstance(classes, list) else set()
    return found


def missing(workflow: Workflow) -> str:
    """What to give, where `text_of` finds nothing."""
    ref = workflow.config_map_ref
    if ref is None:
        return (
            "its workflow lies in the store (spec.workflow.upload), and is judged by the stager; give the graph inline"
        )
    return f"its workflow is key {ref.key} of ConfigMap {ref.name}; give that file too (--workflow-config-map)"


def render_workflow(
    spec: VideoJobSpec,
    model: Model,
    uid: str,
    *,
    document: Document,
    documents: Sequence[Document],
    inputs: Mapping[str, str],
) -> str:
    """The graph as JSON text. `inputs`: names of files as the engine will see them. InvalidSpec; KeyError: no text."""
    assert spec.workflow is not None
    text = text_of(spec.workflow, documents)
    if text is None:
        raise KeyError(missing(spec.workflow))
    planned = plan(spec, model, text, uid, allowed_by(spec.model_server_name, documents))
    declared = {file_name(index): file.name for index, file in enumerate(spec.workflow.files)}
    names = {one.name: inputs.get(one.name) or declared.get(one.name) or one.name for one in named_inputs(spec)}
    stray = sorted(set(inputs) - set(names))
    if stray:
        raise KeyError(f"--inputs-as {stray[0]}: allowed: {', '.join(names) or 'nothing, this job reads no inputs'}")
    return json.dumps(filled(planned, names, document.name or "video"), indent=2, ensure_ascii=False)
