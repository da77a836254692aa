"""Demo weights: small but real safetensors files under a model's real names, so that everything but the model is real.

`python -m kinora.weights.tiny --models NAME... --root FOLDER`. The tensors are random, and every file's metadata
says that it is no model. A file that is already there and is not a demo file is never replaced.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Dtype, Model, Weight
from kinora.media.files import FileNotThere, FileRefused, open_beneath
from kinora.weights.header import DTYPE_BITS, HeaderError, parse_header
from kinora.weights.layouts import layout
from kinora.weights.verify import DEMO_KEY, DEMO_VALUE

_ALIGN = 8  # the header is padded so that the data begins on a multiple of it, as safetensors does


class NotDemoWeightsError(Exception):
    """A file is in the way that this program did not write."""


def write_demo_weights(model: Model, root: Path) -> list[str]:
    """Write every weight file of `model` below `root`; the paths written, relative to it. The same bytes every time.

    Raises NotDemoWeightsError, before anything is written, where another file has one of the names; OSError.
    """
    for weight in model.weights:
        _refuse_to_replace(root, weight.path)
    for weight in model.weights:
        _write(root / weight.path, demo_file(model, weight))
    return [weight.path for weight in model.weights]


def demo_file(model: Model, weight: Weight) -> bytes:
    """The bytes of one demo file."""
    tensors = layout(model.family, weight)
    metadata = {DEMO_KEY: DEMO_VALUE, "model": model.name, "role": str(weight.role)}
    return _header(tensors, metadata) + b"".join(_data(tensors))


def _header(tensors: Mapping[str, tuple[Dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (dtype, shape) in tensors.items():
        end = start + _count(shape) * DTYPE_BITS[dtype] // 8
        entries[name] = {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]}
        start = end
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _ALIGN)
    return len(raw).to_bytes(8, "little") + raw


def _data(tensors: Mapping[str, tuple[Dtype, tuple[int, ...]]]) -> Iterator[bytes]:
    for name, (dtype, shape) in tensors.items():
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        yield _codes(dtype, _count(shape), np.random.default_rng(seed)).tobytes()


def _codes(dtype: Dtype, count: int, random: np.random.Generator) -> npt.NDArray[np.generic]:
    """Random elements as they lie in the file (little-endian), all of them finite."""
    if dtype is Dtype.U8:
        return random.integers(0, 256, count, dtype=np.uint8)
    if dtype is Dtype.F8_E4M3:
        # sign, 4 bits of exponent (bias 7), 3 of mantissa: codes up to 0x37 are below 1, NaN is 0x7f
        return random.integers(0, 0x38, count, dtype=np.uint8) | (random.integers(0, 2, count, dtype=np.uint8) << 7)
    values = (random.standard_normal(count) * 0.05).astype("<f4")
    if dtype is Dtype.BF16:
        return (values.view("<u4") >> 16).astype("<u2")
    return values.astype("<f2") if dtype is Dtype.F16 else values


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _refuse_to_replace(root: Path, relative: str) -> None:
    try:
        with open_beneath(root, relative) as file:
            if parse_header(file).metadata.get(DEMO_KEY) == DEMO_VALUE:
                return
    except FileNotThere:
        return
    except (FileRefused, HeaderError) as error:
        raise NotDemoWeightsError(f"{relative} is not a demo file and is left alone: {error}") from None
    raise NotDemoWeightsError(f"{relative} is not a demo file and is left alone")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """The command. 0: written; 1: a file is in the way; 2: a model is not in the catalogue."""
    parser = argparse.ArgumentParser(prog="python -m kinora.weights.tiny", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--root", type=Path, required=True, metavar="FOLDER", help="the root of the weights volume")
    options = parser.parse_args(arguments)
    catalogue = load_catalogue()
    for name in options.models:
        model = catalogue.get(name)
        if model is None:
            print(f"model {name} is not in the catalogue; allowed: {', '.join(catalogue.names)}", file=sys.stderr)
            return 2
        try:
            for path in write_demo_weights(model, options.root):
                print(f"{model.name}: {path} ({(options.root / path).stat().st_size} bytes, demo weights)", flush=True)
        except (NotDemoWeightsError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
