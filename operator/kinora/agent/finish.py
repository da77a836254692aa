"""Makes the delivered video of the engine's frames, where a job asks for more than the engine does.

What is to be made was decided at staging (recipes.finishing); kinora.media makes it in a child that holds no token.
Cancelled with its task: the child is killed, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from kinora.agent.settings import Settings
from kinora.agent.staging import MARK_FILE, Media, Staged
from kinora.agent.verdict import failure, permanent
from kinora.api import reasons
from kinora.media.info import InputError, MediaError

_RENDER, _MARK = "render", "watermark"  # as kinora.media.finish names them


@dataclass(frozen=True)
class Order:
    """One finishing: the plan, the sources that it reads by name, and the mark's picture where there is one."""

    plan: Mapping[str, Any]
    sources: Mapping[str, Path]


class Finisher:
    """Finishes one render after another; holds nothing between them."""

    def __init__(self, settings: Settings, media: Media) -> None:
        self._settings = settings
        self._media = media

    def order(self, staged: Staged, folder: str) -> Order | None:
        """What is to be made of a job's render; None where it is delivered as it is."""
        if staged.finishing is None:
            return None
        root = self._settings.paths.input / folder
        sources = {name: root / PurePosixPath(one.file).name for name, one in staged.files.items()}
        used = {part["input"] for part in (*staged.finishing["parts"], *staged.finishing["sounds"])}
        found = {name: path for name, path in sources.items() if name in used}
        if staged.finishing["watermark"] and self._settings.watermark.image is not None:
            found[_MARK] = root / MARK_FILE
        return Order(staged.finishing, found)

    async def finish(self, order: Order, rendered: BinaryIO, output: BinaryIO) -> list[str]:
        """Write the video to `output`: what was done, in words. Raises Refusal (ProofFailed, InvalidInput)."""
        with ExitStack() as stack:
            inputs = {name: stack.enter_context(path.open("rb")) for name, path in order.sources.items()}
            try:
                return await self._media.finish(
                    {_RENDER: rendered, **inputs}, output, order.plan, self._settings.watermark.text
                )
            except InputError as error:
                words = f"spec.inputs.{error.name} is a file that cannot be used: {error}"
                raise permanent(reasons.INVALID_INPUT, words) from None
            except MediaError as error:
                raise failure(reasons.PROOF_FAILED, f"the engine's frames cannot be finished: {error}") from None
