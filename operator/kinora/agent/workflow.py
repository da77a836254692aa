"""Makes a raw workflow ready for one attempt: its text read and held to its pin, its files staged, the graph judged.

What is allowed is decided by kinora.workflows; here it gets the text and the files. The graph that is to be submitted
is kept in the attempt's input folder, so that an agent that restarts need not ask for a ConfigMap that may be gone.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kinora.agent.settings import Settings
from kinora.agent.staging import Stager, StoredInputs
from kinora.agent.verdict import permanent
from kinora.api import reasons
from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.model import Model
from kinora.kube.client import KubeClient
from kinora.kube.resources import CONFIGMAP
from kinora.recipes.faults import InvalidSpec
from kinora.recipes.graph import Graph
from kinora.recipes.needs import named_inputs
from kinora.workflows.resolved import ResolvedWorkflow, pinned
from kinora.workflows.workflow import StagedFile, finished, pin_faults, plan, text_hash, workflow_changed

NAME: Final = "kinora-workflow.json"
_FORMAT: Final = 1
Object = dict[str, Any]


@dataclass(frozen=True)
class PreparedWorkflow:
    """A graph to submit, what was decided of it, and what status says of its files."""

    graph: Graph
    resolved: ResolvedWorkflow
    facts: tuple[Object, ...]
    seconds: float


class Workflows:
    """Prepares one workflow after another; holds nothing between them."""

    def __init__(self, settings: Settings, client: KubeClient, stager: Stager, model: Model) -> None:
        self._settings = settings
        self._client = client
        self._stager = stager
        self._model = model

    async def prepared(self, job: Object, spec: VideoJobSpec, folder: str) -> PreparedWorkflow:
        """The job's graph with its files in `folder` of the input folder. Raises Refusal, always permanent."""
        root = self._settings.paths.input / folder
        known = await asyncio.to_thread(_read, root)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        began = loop.time()
        made = await self._prepare(job, spec, folder)
        made = PreparedWorkflow(made.graph, made.resolved, made.facts, loop.time() - began)
        await asyncio.to_thread(_write, root, made)
        return made

    async def _prepare(self, job: Object, spec: VideoJobSpec, folder: str) -> PreparedWorkflow:
        more = self._settings.config.allowed_node_classes
        text = await self._text(job, spec)
        try:
            planned = plan(spec, self._model, text, job["metadata"]["uid"], more)
        except InvalidSpec as invalid:
            raise permanent(reasons.INVALID_SPEC, str(invalid)) from None
        stored = StoredInputs.of(job["status"])
        staged = await self._stager.stage_files(named_inputs(spec), folder, stored=stored)
        faults = pin_faults(spec, {name: str(entry["sha256"]) for name, (_, entry) in staged.items()})
        if faults:
            raise permanent(reasons.INVALID_INPUT, "; ".join(map(str, faults)))
        files: dict[str, StagedFile] = {name: file for name, (file, _) in staged.items()}
        try:
            graph = finished(planned, self._model, files, folder, more)
        except InvalidSpec as invalid:
            raise permanent(reasons.INVALID_INPUT, str(invalid)) from None
        return PreparedWorkflow(graph, planned.resolved, tuple(entry for _, entry in staged.values()), 0.0)

    async def _text(self, job: Object, spec: VideoJobSpec) -> str:
        """The workflow's text. A ConfigMap's, and one of the store, must be the one that the job was queued with."""
        workflow = spec.workflow
        assert workflow is not None
        if workflow.inline is not None:
            return workflow.inline
        if workflow.upload is not None:
            return await self._stager.stored_text(workflow.upload.sha256, StoredInputs.of(job["status"]))
        assert workflow.config_map_ref is not None
        found = await self._client.find(CONFIGMAP, self._settings.identity.namespace, workflow.config_map_ref.name)
        text = ((found or {}).get("data") or {}).get(workflow.config_map_ref.key)
        pin = pinned(job["status"])
        if not isinstance(text, str) or (pin is not None and text_hash(text) != pin):
            raise permanent(reasons.WORKFLOW_CHANGED, workflow_changed(workflow))
        return text


def _write(root: Path, made: PreparedWorkflow) -> None:
    """Whole or not at all."""
    content = {
        "format": _FORMAT,
        "graph": made.graph,
        "resolved": made.resolved.to_status(),
        "facts": list(made.facts),
        "seconds": made.seconds,
    }
    partial = root / f"{NAME}.part"
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, root / NAME)


def _read(root: Path) -> PreparedWorkflow | None:
    """What `_write` wrote, or None."""
    try:
        content = json.loads((root / NAME).read_text(encoding="utf-8"))
        resolved = ResolvedWorkflow.from_status(content["resolved"])
        if content["format"] != _FORMAT or resolved is None:
            return None
        return PreparedWorkflow(content["graph"], resolved, tuple(content["facts"]), float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
