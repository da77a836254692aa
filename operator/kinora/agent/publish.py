"""Brings an engine's output, finished where that is asked for, into the artifact store and proves it: read back,
hashed, decoded, measured.

Succeeded means proven (invariant 4): what is returned here was found in the store, not believed of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from kinora.agent.finish import Finisher
from kinora.agent.outputs import artifact_entry, open_output, output_key, proving, unlike
from kinora.agent.settings import Settings
from kinora.agent.staging import Media, Staged
from kinora.agent.verdict import failure
from kinora.api import reasons
from kinora.api.videojob import Audio
from kinora.engine.base import OutputFile
from kinora.media.info import Proof
from kinora.recipes.resolved import Resolved
from kinora.storage.store import ArtifactStore

MAX_ARTIFACTS: Final = 8  # in a status
_VIDEO_SUFFIXES: Final = (".mp4", ".webm", ".mkv", ".mov")


@dataclass(frozen=True)
class Published:
    """The artifacts as status has them, and what was made of the engine's frames, in words."""

    artifacts: list[dict[str, Any]]
    actions: list[str]


class Publisher:
    """Publishes the outputs of one attempt after another."""

    def __init__(self, settings: Settings, store: ArtifactStore, media: Media) -> None:
        self._settings = settings
        self._store = store
        self._media = media
        self._finisher = Finisher(settings, media)

    async def publish(
        self,
        job: Mapping[str, Any],
        attempt: int,
        staged: Staged,
        outputs: tuple[OutputFile, ...],
        folder: str,
    ) -> Published:
        """Publish, and read back. Raises Refusal (ProofFailed, StoreFailed, InvalidInput)."""
        videos = [output for output in outputs if output.filename.lower().endswith(_VIDEO_SUFFIXES)]
        if not videos:
            raise failure(reasons.PROOF_FAILED, "the engine succeeded and made no video")
        found = Published([], [])
        for index, output in enumerate(videos[:MAX_ARTIFACTS]):
            await self._publish(job, attempt, staged, output, index=index, folder=folder, found=found)
        return found

    async def _publish(
        self,
        job: Mapping[str, Any],
        attempt: int,
        staged: Staged,
        output: OutputFile,
        *,
        index: int,
        folder: str,
        found: Published,
    ) -> None:
        order = self._finisher.order(staged, folder)
        delivered = output if order is None else replace(output, filename=f"{_stem(output.filename)}.mp4")
        key = output_key(job, attempt, delivered.filename, index)
        with proving(delivered.filename):
            with open_output(self._settings.paths.output, output, folder) as rendered, ExitStack() as stack:
                file = rendered
                if order is not None:
                    path = self._settings.paths.input / folder / f"finished-{index}.mp4"
                    file = stack.enter_context(path.open("w+b"))
                    found.actions.extend(await self._finisher.finish(order, rendered, file))
                stored = await self._store.put(key, file)
            with await self._store.open_read(key) as file:
                proof = await self._media.prove(file)
        if faults := proof_faults(proof, staged.resolved) + unlike(stored, proof):
            raise failure(reasons.PROOF_FAILED, f"{delivered.filename}: " + "; ".join(faults))
        found.artifacts.append(artifact_entry(stored.uri, proof, delivered))


def _stem(filename: str) -> str:
    return filename.rpartition(".")[0] or filename


def proof_faults(proof: Proof, resolved: Resolved) -> list[str]:
    """In what the video is not the one that was asked for."""
    faults, frames, fps = [], resolved.delivered_frames, resolved.delivered_fps
    if proof.frames != frames:
        faults.append(f"{proof.frames} frames instead of {frames}")
    if (proof.width, proof.height) != (resolved.output_width, resolved.output_height):
        faults.append(f"{proof.width}x{proof.height} instead of {resolved.output_width}x{resolved.output_height}")
    if abs(proof.fps - fps) > 0.01 * fps:
        faults.append(f"{proof.fps:g} fps instead of {fps:g}")
    if resolved.audio == Audio.SOURCE and not proof.has_audio:
        faults.append("no audio instead of the source's")
    return faults
