"""What was staged for an attempt, kept in the attempt's input folder so that an agent that restarts need not guess.

A file that is missing or not understood means: stage again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kinora.agent.staging import Staged
from kinora.recipes.graph import StagedInput
from kinora.recipes.resolved import Resolved

NAME: Final = "kinora-staged.json"
_FORMAT: Final = 3


@dataclass(frozen=True)
class Manifest:
    """The staged inputs, and how long staging took."""

    staged: Staged
    seconds: float


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Whole or not at all."""
    content = {
        "format": _FORMAT,
        "seconds": manifest.seconds,
        "facts": list(manifest.staged.facts),
        "resolved": manifest.staged.resolved.to_status(),
        "finishing": manifest.staged.finishing,
        "files": {name: [one.file, one.kind] for name, one in manifest.staged.files.items()},
    }
    partial = folder / f"{NAME}.part"
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, folder / NAME)


def read_manifest(folder: Path) -> Manifest | None:
    """What `write_manifest` wrote, or None."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            return None
        files = {name: StagedInput(file, kind) for name, (file, kind) in content["files"].items()}
        resolved = Resolved.from_status(content["resolved"])
        if resolved is None:
            return None
        staged = Staged(files, tuple(content["facts"]), resolved, content["finishing"])
        return Manifest(staged, float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
