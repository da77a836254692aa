"""Brings what a raw workflow saved into the artifact store and proves it. What it should have been, nobody has said.

Each file is a video or a picture that was read back from the store and decoded to its end; its facts are as found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinora.agent.outputs import artifact_entry, open_output, output_key, proving, unlike
from kinora.agent.publish import MAX_ARTIFACTS
from kinora.agent.settings import Settings
from kinora.agent.staging import Media
from kinora.agent.verdict import failure, permanent
from kinora.api import reasons
from kinora.engine.base import OutputFile
from kinora.storage.store import ArtifactStore


class WorkflowOutputs:
    """Publishes the outputs of one workflow after another."""

    def __init__(self, settings: Settings, store: ArtifactStore, media: Media) -> None:
        self._settings = settings
        self._store = store
        self._media = media

    async def publish(
        self, job: Mapping[str, Any], attempt: int, outputs: tuple[OutputFile, ...], folder: str
    ) -> list[dict[str, Any]]:
        """The artifacts as status has them. Raises Refusal (NoOutput, TooManyOutputs, ProofFailed, StoreFailed)."""
        if not outputs:
            raise failure(reasons.NO_OUTPUT, "the engine succeeded and saved no file")
        if len(outputs) > MAX_ARTIFACTS:
            message = f"the workflow saved {len(outputs)} files; allowed: at most {MAX_ARTIFACTS}"
            raise permanent(reasons.TOO_MANY_OUTPUTS, message)
        return [
            await self._publish(job, attempt, output, index=index, folder=folder)
            for index, output in enumerate(outputs)
        ]

    async def _publish(
        self, job: Mapping[str, Any], attempt: int, output: OutputFile, *, index: int, folder: str
    ) -> dict[str, Any]:
        key = output_key(job, attempt, output.filename, index)
        with proving(output.filename):
            with open_output(self._settings.paths.output, output, folder) as file:
                stored = await self._store.put(key, file)
            with await self._store.open_read(key) as file:
                proof = await self._media.prove(file)
        for fault in unlike(stored, proof):
            raise failure(reasons.PROOF_FAILED, f"{output.filename}: {fault}")
        return artifact_entry(stored.uri, proof, output)
