"""How fast `kinora weights quantize` is: GB of input a second and core, beside `cp` of the same file, and its memory.

Usage: PYTHONPATH=operator python tests/bench/quantize.py [--mib 512] [--workers 1] [--folder /tmp]
Writes a file of random weights for each type, quantizes it in a process of its own, and removes both. `cp` is measured
with the sync that quantize does as well. Targets: 80 % of cp where the disk is the limit, else 0.5 GB/s a core of BF16
or F16, and 0.3 of F32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from kinora.weights.quantize import quantize

COLUMNS = 4096
TARGETS = {"BF16": 0.5, "F16": 0.5, "F32": 0.3}


def write(path: Path, dtype: str, mib: int) -> int:
    """Layers of 64 MiB up to `mib`, normally distributed as weights are. Returns the file's size."""
    width = 4 if dtype == "F32" else 2
    rows = (64 << 20) // COLUMNS // width
    names = [f"blocks.{index}.ffn.0.weight" for index in range(max(1, mib // 64))]
    size = rows * COLUMNS * width
    header = {
        name: {"dtype": dtype, "shape": [rows, COLUMNS], "data_offsets": [index * size, (index + 1) * size]}
        for index, name in enumerate(names)
    }
    numbers = np.random.default_rng(0).standard_normal(rows * COLUMNS, np.float32) * np.float32(0.03)
    if dtype == "BF16":
        layer = (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    else:
        layer = numbers.astype(np.float16 if dtype == "F16" else np.float32).tobytes()
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in names:
            file.write(layer)
        os.fsync(file.fileno())
    return path.stat().st_size


def copied(source: Path, target: Path) -> float:
    """Seconds of cp and sync."""
    began = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", str(source), str(target)], check=True)
    subprocess.run(["sync", str(target)], check=True)
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def one(arguments: list[str]) -> None:
    """In a process of its own: quantize, and print seconds, seconds of CPU, and the peak of memory."""
    source, target, scaled, workers = (
        Path(arguments[0]),
        Path(arguments[1]),
        arguments[2] == "scaled",
        int(arguments[3]),
    )
    began = time.perf_counter()
    quantize(source, target, scaled=scaled, workers=workers)
    wall = time.perf_counter() - began
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in usage)
    peak = usage[0].ru_maxrss + workers * usage[1].ru_maxrss if workers > 1 else usage[0].ru_maxrss
    print(json.dumps([wall, cpu, peak / 1024]))


def main() -> None:
    """Measure each type, straight and scaled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for dtype, target in TARGETS.items():
            source, out = Path(name, "in.safetensors"), Path(name, "out.safetensors")
            size = write(source, dtype, options.mib)
            copied(source, out)  # the first fills the cache
            cp = min(copied(source, out) for _ in range(2))
            for how in ("straight", "scaled"):
                command = [sys.executable, __file__, "--one", str(source), str(out), how, str(options.workers)]
                made = subprocess.run(command, check=True, capture_output=True, text=True)
                wall, cpu, peak = json.loads(made.stdout)
                out.unlink()
                print(
                    f"{dtype:4} {how:8}  {size / wall / 1e9:5.2f} GB/s  {size / cpu / 1e9:5.2f} GB/s a core"
                    f" ({size / cpu / 1e9 / target:4.2f} of the target of {target})"
                    f"  cp {size / cp / 1e9:5.2f} GB/s, ratio {cp / wall:4.2f}  peak {peak:4.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2:])
    else:
        main()
