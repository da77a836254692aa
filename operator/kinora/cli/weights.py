"""`kinora weights`: inspect, verify and quantize weight files. Only headers are read where no more is needed."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

from kinora.api.modelserver import VerifyLevel
from kinora.catalogue.load import load_catalogue
from kinora.cli.models import table
from kinora.weights.header import Header, HeaderError, read_header
from kinora.weights.verify import FileState, verify


class WeightsError(Exception):
    """What is wrong, in one line."""


def inspect(path: Path, *, tensors: bool = False) -> str:
    """The file's tensors by type, or one by one, and totals. Raises WeightsError."""
    try:
        header = read_header(path)
    except HeaderError as error:
        raise WeightsError(f"{path}: {error}") from None
    rows = _each(header) if tensors else _by_dtype(header)
    metadata = [f"{name}: {_short(value)}" for name, value in sorted(header.metadata.items())]
    return "\n".join([table(rows), *(["", "metadata", *metadata] if metadata else [])])


def _by_dtype(header: Header) -> list[list[str]]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in header.tensors.values():
        row = counts[tensor.dtype]
        row[0] += 1
        row[1] += math.prod(tensor.shape)
        row[2] += tensor.end - tensor.start
    found = sorted(counts.items(), key=lambda item: -item[1][2])
    total = [sum(row[index] for _, row in found) for index in range(3)]
    rows = [[dtype, *map(_number, row), _share(row[2], total[2])] for dtype, row in found]
    return [["DTYPE", "TENSORS", "ELEMENTS", "BYTES", "SHARE"], *rows, ["total", *map(_number, total), "100 %"]]


def _each(header: Header) -> list[list[str]]:
    rows = [
        [name, tensor.dtype, "x".join(map(str, tensor.shape)) or "scalar", _number(tensor.end - tensor.start)]
        for name, tensor in sorted(header.tensors.items())
    ]
    return [["TENSOR", "DTYPE", "SHAPE", "BYTES"], *rows]


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _short(text: str) -> str:
    return text if len(text) <= 100 and text.isprintable() else repr(text[:100]) + "..."


def check(model_name: str, root: Path, level: str) -> tuple[str, bool]:
    """The table of a model's files below `root`, and whether all are sound. Raises WeightsError."""
    catalogue = load_catalogue()
    model = catalogue.get(model_name)
    if model is None:
        raise WeightsError(f"--model is {model_name}; allowed: {', '.join(catalogue.names)}")
    if not root.is_dir():
        raise WeightsError(f"--root is {root}; allowed: a folder that holds {model.weights[0].folder} and the others")
    states = verify(model, root, VerifyLevel(level))
    rows = [["FILE", "STATE", "BYTES", "MESSAGE"], *([*map(str, _row(state))] for state in states)]
    return table(rows), all(state.ok for state in states if not state.preset)


def _row(state: FileState) -> tuple[str, ...]:
    message = state.message.removeprefix(f"{state.path}: ")
    if state.preset and not state.ok:
        message += f" (only preset {state.preset} needs it)"
    return state.path, str(state.state), _number(state.size_bytes), message


def quantize(source: Path, target: Path, *, scaled: bool, workers: int) -> str:
    """Quantize with a progress bar on standard error; the table of errors. Raises WeightsError."""
    import time  # noqa: PLC0415 - only here, as the next two: inspect and verify stay quick

    import click  # noqa: PLC0415

    from kinora.weights.quantize import QuantizeError  # noqa: PLC0415
    from kinora.weights.quantize import quantize as run  # noqa: PLC0415

    began = time.monotonic()
    with click.progressbar(length=100, label=source.name, file=sys.stderr) as bar:
        try:
            report = run(
                source,
                target,
                scaled=scaled,
                workers=workers,
                progress=lambda done, total: bar.update(100 * done // total - bar.pos if total else 0),
            )
        except QuantizeError as error:
            raise WeightsError(str(error)) from None
    seconds = time.monotonic() - began
    rows = [["CLASS", "ELEMENTS", "MAX REL", "MEAN REL", "RMS", "TO ZERO", "SATURATED", "NAN"]]
    for name, errors in sorted(report.classes.items()):
        rows.append(
            [
                name,
                _number(errors.elements),
                f"{errors.maximum:.2%}",
                f"{errors.mean:.2%}",
                f"{errors.rms:.2%}",
                _share(errors.vanished, errors.elements),
                _number(errors.saturated),
                _number(errors.not_numbers),
            ]
        )
    rate = report.bytes_read / seconds / 1e9
    return (
        f"{table(rows)}\n\n{report.quantized} tensors quantized, {report.kept} kept;"
        f" {_number(report.bytes_read)} bytes became {_number(report.bytes_written)}"
        f" in {seconds:.1f} s ({rate:.2f} GB/s)"
    )
