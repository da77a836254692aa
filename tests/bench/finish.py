"""How long finishing takes: 81 frames of 832x480 at 16 fps, by what is asked of them.

Usage: python tests/bench/finish.py [--frames N]. Prints one line an option: wall time, processor time, that of a
delivered frame, and the largest peak memory of a child so far. The first row, a mark alone, is decoding the engine's
lossless file and encoding it, which every row contains. Example clip: examples/inputs/bunny.mp4, enlarged.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kinora.api.videojob import VideoJobSpec
from kinora.catalogue.load import load_catalogue
from kinora.media import child
from kinora.media.frames import clip_frames, cover, write_lossless
from kinora.recipes.finishing import finishing
from kinora.recipes.resolve import resolve

WIDTH, HEIGHT, FPS = 832, 480, 16
CLIP = Path(__file__).resolve().parents[2] / "examples/inputs/bunny.mp4"
OPTIONS: dict[str, dict[str, Any]] = {
    "watermark alone": {"watermark": True},
    "1280x720": {"width": 1280, "height": 720},
    "1920x1080": {"width": 1920, "height": 1080},
    "3840x2160": {"width": 3840, "height": 2160},
    "16 to 24 fps": {"fps": 24},
    "16 to 30 fps": {"fps": 30},
    "16 to 60 fps": {"fps": 60},
    "1920x1080, 30 fps, watermark": {"width": 1920, "height": 1080, "fps": 30, "watermark": True},
}


def plan_of(frames: int, output: dict[str, Any]) -> dict[str, Any]:
    """The plan of a job that asks for this."""
    model = load_catalogue().get("wan2.1-vace-14b")
    assert model is not None
    parameters = {"width": WIDTH, "height": HEIGHT, "frames": frames, "fps": FPS}
    spec = {"model": model.name, "task": "TextToVideo", "prompt": "a", "parameters": parameters, "output": output}
    plan = finishing(resolve(VideoJobSpec.model_validate(spec), model, "bench"), {}, {})
    assert plan is not None
    return plan.to_dict()


async def run(frames: int) -> None:
    """Every option, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "render.mkv"
        with CLIP.open("rb") as clip, path.open("w+b") as render:
            shown = (cover(frame, WIDTH, HEIGHT) for frame in clip_frames(clip, frames, FPS))
            write_lossless(render, (np.ascontiguousarray(frame) for frame in shown), WIDTH, HEIGHT, FPS)
        print(f"{frames} frames of {WIDTH}x{HEIGHT}, {path.stat().st_size / 1e6:.0f} MB without loss")
        for name, output in OPTIONS.items():
            plan = plan_of(frames, output)
            with path.open("rb") as render, (Path(folder) / "out.mp4").open("w+b") as made:
                began, before = time.monotonic(), _processor_seconds()
                await child.finish({"render": render}, made, plan, "AI generated")
                took, used = time.monotonic() - began, _processor_seconds() - before
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            each = 1000 * used / plan["frames"]
            print(
                f"{name:32} {took:6.1f} s wall {used:6.1f} s processor {each:5.0f} ms a frame"
                f" {plan['frames']:4d} frames  peak so far {peak:5.0f} MiB",
                flush=True,
            )


def _processor_seconds() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="finish")
    parser.add_argument("--frames", type=int, default=81)
    asyncio.run(run(parser.parse_args().frames))
    return 0


if __name__ == "__main__":
    sys.exit(main())
