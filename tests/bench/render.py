"""How long `kinora render` takes as a whole process, from start to end, on the examples.

Bytecode is cached, as pip and the image's build leave it; without it the same process takes twice as long.

Usage: PYTHONPATH=operator python tests/bench/render.py [--runs 10]. Prints milliseconds and the ratio to the target.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
TARGET_SECONDS = 0.4


def main() -> None:
    """Run each example several times; the first run, which fills the caches, is left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs: int = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as cache:
        _measure(runs, {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache})


def _measure(runs: int, environment: dict[str, str]) -> None:
    for example in sorted(EXAMPLES.glob("*-to-video.yaml")):
        seconds = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "kinora.cli", "render", str(example)],
                check=True,
                capture_output=True,
                env=environment,
            )
            seconds.append(time.perf_counter() - began)
        median, worst = statistics.median(seconds[1:]), max(seconds[1:])
        print(
            f"{example.stem:16} median {median * 1000:4.0f} ms  worst {worst * 1000:4.0f} ms"
            f"  {median / TARGET_SECONDS:.2f} of the target of {TARGET_SECONDS * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
