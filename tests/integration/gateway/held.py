"""The stand-in at a test's hand: its sampler makes as many steps as it was let. Run as a program, with their file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kinora.engine.standin.__main__ import main
from kinora.engine.standin.pace import Pace


def program(root: Path) -> str:
    """How the engine of the pod in this folder is started."""
    return f"{__file__} {_file(root)}"


def let(root: Path, steps: int) -> None:
    """Let the engine of that pod make so many steps, since it was started."""
    draft = root / "steps.new"
    draft.write_text(str(steps))
    draft.replace(_file(root))


def _file(root: Path) -> Path:
    return root / "steps"


def _run(file: Path) -> None:
    step, made = Pace.step, 0

    def held(pace: Pace, started: float, tokens: int) -> None:
        nonlocal made
        while not file.exists() or made >= int(file.read_text()):
            pace.boundary()
            time.sleep(0.005)
        made += 1
        step(pace, started, tokens)

    Pace.step = held  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    _run(Path(sys.argv.pop(1)))
