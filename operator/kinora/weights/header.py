"""The header of a safetensors file, read without loading a tensor.

Facts of the format (huggingface/safetensors, README "Format"): 8 bytes little-endian length N, N bytes of JSON that
begin with `{` and may end in spaces, then the data; offsets count from its first byte; the tensors cover the data
without holes or overlaps; keys are unique; `__metadata__` maps strings to strings. N is at most 100 MB.
Nothing here trusts the file: every defect is a HeaderError, and its message never names a path.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from kinora.media.files import FileRefused, open_beneath

MAX_HEADER_BYTES = 100_000_000
MAX_RANK = 32
_MAX_DIMENSION = 2**63 - 1

#: Bits of one element. Names as they stand in files.
DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
        "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
        "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    }
)  # fmt: skip


class HeaderError(Exception):
    """The file is not a sound safetensors file. The message says what is wrong and holds no path."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `start` and `end` are byte offsets from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself. `data_bytes` is the size of the part after the header."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_bytes: int = 0


def read_header(path: Path) -> Header:
    """Read and check the header of the file at `path` (its last step may not be a link). Raises HeaderError."""
    try:
        with open_beneath(path.parent, path.name) as file:
            return parse_header(file)
    except FileRefused as refused:
        raise HeaderError(str(refused).removeprefix(f"{path.name}: ")) from None


def parse_header(file: BinaryIO) -> Header:
    """Read and check the header of an open file, whose size is that of its descriptor. Raises HeaderError."""
    try:
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        prefix = file.read(8)
        if len(prefix) < 8:
            raise HeaderError(f"truncated: {size} bytes, a safetensors file has at least 10")
        length = int.from_bytes(prefix, "little")
        _check_length(length, size)
        raw = file.read(length)
    except OSError as error:
        raise HeaderError(f"cannot be read: {error.strerror or 'I/O error'}") from None
    if len(raw) < length:
        raise HeaderError(f"truncated: the header has {len(raw)} of {length} bytes")
    return header_from_bytes(raw, size - 8 - length)


def header_from_bytes(raw: bytes, data_bytes: int) -> Header:
    """Check the JSON part of a header against the number of bytes that follow it. Raises HeaderError."""
    entries = _decode(raw)
    metadata = _metadata(entries.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry, data_bytes) for name, entry in entries.items()}
    _check_cover(tensors, data_bytes)
    return Header(MappingProxyType(tensors), MappingProxyType(metadata), data_bytes)


def _check_length(length: int, size: int) -> None:
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"header of {length} bytes, at most {MAX_HEADER_BYTES} are allowed (not a safetensors file?)")
    if length < 2:
        raise HeaderError(f"header of {length} bytes is too short")
    if 8 + length > size:
        raise HeaderError(f"truncated: the header alone needs {8 + length} bytes, the file has {size}")


def _decode(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise HeaderError("the header does not begin with '{' (not a safetensors file?)")
    try:
        decoded = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise HeaderError("the header is not UTF-8") from None
    except RecursionError:
        raise HeaderError("the header is nested too deeply") from None
    except ValueError as error:
        raise HeaderError(f"the header is not JSON: {str(error)[:200]}") from None
    if not isinstance(decoded, dict):
        raise HeaderError("the header is not a JSON object")
    return decoded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise HeaderError(f"the key {_shown(key)} is there twice")
        result[key] = value
    return result


def _no_constant(name: str) -> None:
    raise HeaderError(f"the header holds {name}, which is not JSON")


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise HeaderError("__metadata__ does not map strings to strings")
    return dict(value)


def _tensor(name: str, entry: object, data_bytes: int) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"{_shown(name)} must have exactly dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], tuple(_integers(entry["shape"], name, "shape"))
    offsets = tuple(_integers(entry["data_offsets"], name, "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderError(f"{_shown(name)} has the unknown dtype {_shown(str(dtype))}")
    if len(shape) > MAX_RANK:
        raise HeaderError(f"{_shown(name)} has {len(shape)} dimensions, at most {MAX_RANK} are allowed")
    if len(offsets) != 2 or offsets[0] > offsets[1] or offsets[1] > data_bytes:
        raise HeaderError(f"{_shown(name)} lies outside the file's {data_bytes} bytes of data (truncated?)")
    bits = DTYPE_BITS[dtype]
    for dimension in shape:
        bits *= dimension
    if bits != 8 * (offsets[1] - offsets[0]):
        raise HeaderError(f"{_shown(name)}: {dtype} {list(shape)} does not fill {offsets[1] - offsets[0]} bytes")
    return Tensor(dtype, shape, offsets[0], offsets[1])


def _integers(value: object, name: str, what: str) -> Iterator[int]:
    if not isinstance(value, list):
        raise HeaderError(f"{_shown(name)}: {what} is not a list")
    for item in value:
        if type(item) is not int or not 0 <= item <= _MAX_DIMENSION:
            raise HeaderError(f"{_shown(name)}: {what} holds something that is no natural number below 2^63")
        yield item


def _check_cover(tensors: Mapping[str, Tensor], data_bytes: int) -> None:
    """The tensors must lie one after another and fill the data exactly."""
    reached = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start < reached:
            raise HeaderError(f"{_shown(name)} overlaps the tensor before it")
        if tensor.start > reached:
            raise HeaderError(f"a hole of {tensor.start - reached} bytes before {_shown(name)}")
        reached = tensor.end
    if reached != data_bytes:
        raise HeaderError(f"{data_bytes - reached} bytes after the last tensor belong to none")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")
