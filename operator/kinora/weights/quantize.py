"""A safetensors file in 16 or 32 bits -> the same in float8_e4m3fn, streamed: memory does not grow with the file.

Matrices of linear layers become FP8; norms, biases, embeddings, modulation, heads, convolutions and everything that is
not a float stay as they are. The result appears under its name whole or not at all.

Scaled: each tensor is divided by its largest magnitude over 448, and `<layer>.scale_weight` and the marker
`scaled_fp8` are added, as ComfyUI reads them. (The marker has two elements: weights are multiplied out before use,
which is right on every GPU.)
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinora.media.files import FileRefused, open_beneath
from kinora.weights import float8
from kinora.weights.errors import Errors, errors_of
from kinora.weights.header import DTYPE_BITS, Header, HeaderError, Tensor, parse_header

CHUNK = 8 << 20  # bytes copied at a time
_BLOCK = 1 << 18  # numbers whose table lookups stay in the cache
_FLOATS = ("BF16", "F16", "F32")
_KEPT = re.compile(
    r"norm|bias|modulation|embed|shared\.|head|time_|img_emb|scale|lora_|(^|\.)(conv|patch)", re.IGNORECASE
)
_CLASS = re.compile(r"(self_attn|cross_attn|ffn|SelfAttention|DenseReluDense|attn|mlp|proj)")
_PREFIX = "model.diffusion_model."
SCALED_MARKER = "scaled_fp8"

Progress = Callable[[int, int], None]


class QuantizeError(Exception):
    """Why nothing was written. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was done."""

    quantized: int
    kept: int
    bytes_read: int
    bytes_written: int
    classes: dict[str, Errors] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Job:
    """One tensor. Offsets are those of the files."""

    name: str
    source: str
    target: str
    dtype: str
    start: int
    length: int
    to: int
    scaled: bool


def is_quantized(name: str, tensor: Tensor) -> bool:
    """Whether this tensor becomes FP8: a matrix of a linear layer, in 16 or 32 bits."""
    return tensor.dtype in _FLOATS and len(tensor.shape) == 2 and name.endswith(".weight") and not _KEPT.search(name)


def tensor_class(name: str) -> str:
    """The kind of layer that a matrix belongs to, for statistics."""
    found = _CLASS.search(name)
    return found.group(1) if found else "other"


def quantize(
    source: Path, target: Path, *, scaled: bool = False, workers: int = 1, progress: Progress | None = None
) -> Report:
    """Write `target` from `source`. Raises QuantizeError; then there is no `target`."""
    try:
        with open_beneath(source.parent, source.name) as file:
            header = parse_header(file)
            size = os.fstat(file.fileno()).st_size
    except (FileRefused, HeaderError) as error:
        raise QuantizeError(f"{source.name}: {error}") from None
    chosen = {name: tensor for name, tensor in header.tensors.items() if is_quantized(name, tensor)}
    if not chosen:
        raise QuantizeError(f"{source.name} holds no BF16, F16 or F32 matrix of a linear layer; nothing to quantize")
    if target.exists():
        raise QuantizeError(f"{target} is there already; remove it or give another name")
    layout = _layout(header, chosen, scaled)
    _check_space(target.parent, layout.size)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}.partial")
    try:
        run = _Run(source, partial, header, size - header.data_bytes, layout, progress)
        with _executor(workers) as executor:
            classes = run.all(chosen, scaled, executor)
        os.link(partial, target)  # unlike a rename, it never replaces what came meanwhile
        _sync_folder(target.parent)
    except OSError as error:
        raise QuantizeError(f"{target}: {error.strerror or 'cannot be written'}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)
    return Report(len(chosen), len(header.tensors) - len(chosen), size, layout.size, classes)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The file to be written: its header's bytes, and where each tensor begins in the file."""

    head: bytes
    starts: dict[str, int]
    size: int


def _layout(header: Header, chosen: dict[str, Tensor], scaled: bool) -> _Layout:
    """Wide types first, as the format's own writer sorts them: then every tensor is aligned to its type."""
    planned = {
        name: ("F8_E4M3" if name in chosen else tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()
    }
    if scaled:
        prefix = _PREFIX if any(name.startswith(_PREFIX) for name in header.tensors) else ""
        planned |= {_scale_name(name): ("F32", ()) for name in chosen}
        planned[prefix + SCALED_MARKER] = ("F8_E4M3", (2,))
    clash = set(planned) - set(header.tensors)
    if scaled and len(clash) != len(chosen) + 1:
        raise QuantizeError("the file has scales of its own already; quantize the file that it was made from")
    order = {name: index for index, name in enumerate(header.tensors)}
    names = sorted(planned, key=lambda name: (-DTYPE_BITS[planned[name][0]], order.get(name, len(order)), name))
    entries: dict[str, object] = {"__metadata__": {**header.metadata, "quantized": _how(scaled)}}
    starts, at = {}, 0
    for name in names:
        dtype, shape = planned[name]
        length = int(np.prod([DTYPE_BITS[dtype], *shape], dtype=object)) // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + length]}
        starts[name] = at
        at += length
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return _Layout(head, {name: len(head) + start for name, start in starts.items()}, len(head) + at)


def _how(scaled: bool) -> str:
    return "float8_e4m3fn, scaled per tensor" if scaled else "float8_e4m3fn"


def _scale_name(name: str) -> str:
    return name.removesuffix(".weight") + ".scale_weight"


def _check_space(folder: Path, needed: int) -> None:
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise QuantizeError(f"{folder}: {error.strerror}") from None
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise QuantizeError(f"{folder} has {free} bytes free; {needed} are needed")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    """Processes, since counting holds Python's lock; none for one worker."""
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield executor


@dataclass
class _Run:
    source: Path
    partial: Path
    header: Header
    data_start: int
    layout: _Layout
    progress: Progress | None
    done: int = 0

    def all(self, chosen: dict[str, Tensor], scaled: bool, executor: Executor | None) -> dict[str, Errors]:
        """Every tensor: those that change by workers, a whole one each, the others copied here when those are done."""
        classes: dict[str, Errors] = {}
        descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, self.layout.size)
            os.pwrite(descriptor, self.layout.head, 0)
            in_order = sorted(self.header.tensors.items(), key=lambda item: item[1].start)
            jobs = [self._job(name, tensor, scaled) for name, tensor in in_order if name in chosen]
            for job, (counts, scale) in zip(jobs, _map(executor, jobs), strict=True):
                kind = tensor_class(job.name)
                classes[kind] = classes.get(kind, Errors()) + _errors(job.dtype, counts, scale)
                if scaled:
                    os.pwrite(descriptor, np.float32(scale).tobytes(), self.layout.starts[_scale_name(job.name)])
                self._tell(job.length)
            for name, tensor in in_order:
                if name not in chosen:
                    self._copy(descriptor, name, tensor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return classes

    def _job(self, name: str, tensor: Tensor, scaled: bool) -> _Job:
        at, length = self.data_start + tensor.start, tensor.end - tensor.start
        source, target = str(self.source), str(self.partial)
        return _Job(name, source, target, tensor.dtype, at, length, self.layout.starts[name], scaled)

    def _copy(self, descriptor: int, name: str, tensor: Tensor) -> None:
        with self.source.open("rb") as file:
            for at in range(0, tensor.end - tensor.start, CHUNK):
                length = min(CHUNK, tensor.end - tensor.start - at)
                data = os.pread(file.fileno(), length, self.data_start + tensor.start + at)
                if len(data) != length:
                    raise QuantizeError(f"{self.source.name} became shorter while it was read")
                _write(descriptor, data, self.layout.starts[name] + at)
                self._tell(length)

    def _tell(self, length: int) -> None:
        self.done += length
        if self.progress:
            self.progress(self.done, self.header.data_bytes)


Counts = NDArray[np.int64]


def _map(executor: Executor | None, jobs: list[_Job]) -> Iterator[tuple[Counts, float]]:
    return map(_tensor, jobs) if executor is None else executor.map(_tensor, jobs)


def _tensor(job: _Job) -> tuple[Counts, float]:
    """Quantize one tensor: how often each upper half came, and its scale."""
    counts: Counts = np.zeros(1 << 16, np.int64)
    if not job.scaled:
        _convert(job, 1.0, counts)
        return counts, 1.0
    largest = _scan(job, counts)
    scale = float(np.float32(largest / float8.MAX)) or 1.0
    _convert(job, scale, None)
    return counts, scale


def _scan(job: _Job, counts: Counts) -> float:
    """Count the upper 16 bits; the largest finite magnitude."""
    largest = 0.0
    for _, data in _blocks(job):
        if job.dtype != "F32":
            counts += np.bincount(data.view(np.uint16), minlength=1 << 16)
            continue
        bits = data.view(np.uint32)
        counts += np.bincount(bits >> 16, minlength=1 << 16)
        size = (bits & np.uint32(0x7FFFFFFF)).view(np.float32)
        block_largest = float(size.max(initial=0.0))
        if not np.isfinite(block_largest):
            block_largest = float(size[np.isfinite(size)].max(initial=0.0))
        largest = max(largest, block_largest)
    if job.dtype == "F32":
        return largest
    magnitude = np.abs(float8.half_values(job.dtype))
    return float(magnitude[(counts > 0) & np.isfinite(magnitude)].max(initial=0.0))


def _convert(job: _Job, scale: float, counts: Counts | None) -> None:
    """Look every number up and write the codes; count the upper 16 bits where that is wanted."""
    single, width = job.dtype == "F32", DTYPE_BITS[job.dtype] // 8
    table = float8.single_table() if single else float8.half_table(job.dtype, scale)
    out = np.empty(_BLOCK, np.uint8)
    index = np.empty(_BLOCK, np.intp)
    narrow = np.empty(_BLOCK if single else 0, np.uint32)
    descriptor = os.open(job.target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for at, data in _blocks(job):
            here = index[: len(data) // width]
            if single:
                bits = data.view(np.uint32)
                if counts is not None:
                    counts += np.bincount(bits >> 16, minlength=1 << 16)
                if scale != 1.0:
                    bits = (bits.view(np.float32) / np.float32(scale)).view(np.uint32)
                float8.single_index(bits, narrow[: len(here)])
                here[:] = narrow[: len(here)]
            else:
                here[:] = data.view(np.uint16)
                if counts is not None:
                    counts += np.bincount(here, minlength=1 << 16)
            np.take(table, here, out=out[: len(here)], mode="clip")
            _write(descriptor, out[: len(here)].data, job.to + at)
    finally:
        os.close(descriptor)


def _blocks(job: _Job) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """A tensor block by block, in one buffer that stays in the cache: how many numbers came before, and the bytes."""
    width = DTYPE_BITS[job.dtype] // 8
    buffer = np.empty(_BLOCK * width, np.uint8)
    descriptor = os.open(job.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for at in range(0, job.length, len(buffer)):
            part = buffer[: min(len(buffer), job.length - at)]
            _read(descriptor, part, job.start + at)
            yield at // width, part
    finally:
        os.close(descriptor)


def _read(descriptor: int, part: NDArray[np.uint8], at: int) -> None:
    done = 0
    while done < len(part):
        came = os.preadv(descriptor, [part[done:].data], at + done)
        if came == 0:
            raise QuantizeError("the source became shorter while it was read")
        done += came


def _write(descriptor: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _errors(dtype: str, counts: NDArray[np.int64], scale: float) -> Errors:
    """Of a float32 only the upper half was counted: each stands for the middle of those that begin like it."""
    if dtype != "F32":
        return errors_of(counts, float8.half_values(dtype), float8.half_table(dtype, scale), scale)
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    exact = (upper & 0x7FFFFFFF == 0) | (upper & 0x7F800000 == 0x7F800000)
    numbers = (upper | np.where(exact, np.uint32(0), np.uint32(0x8000))).astype(np.uint32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        codes = float8.encode_exactly((numbers / np.float32(scale)).astype(np.float64))
    return errors_of(counts, numbers, codes, scale)
