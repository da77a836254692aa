"""The manifest on a weights volume: what each file was when it was found right. Written last, it is the commit.

`.kinora/weights.json` at the volume's root: path -> bytes, sha256, element type, source, time. Several models may
share a volume, and so a manifest; whoever writes it holds the volume (lock.py). One that cannot be read counts as none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinora.media.files import FileRefused, open_beneath

FOLDER = ".kinora"
NAME = f"{FOLDER}/weights.json"
_VERSION = 1
_LIMIT = 4 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One file as it was when it was verified. `mtime_ns` tells cheaply that it has changed since."""

    bytes: int
    sha256: str
    dtype: str
    source: str
    verified_time: str
    mtime_ns: int
    source_sha256: str = ""
    "Of the source's bytes, where the file was made from them (quantized)."

    def matches(self, status: os.stat_result) -> bool:
        """Whether the file still looks as it did."""
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns)


def read_manifest(root: Path) -> dict[str, Record]:
    """Path -> record; empty where there is no manifest, or none that can be read."""
    try:
        with open_beneath(root, NAME) as file:
            decoded = json.loads(file.read(_LIMIT))
    except (FileRefused, OSError, ValueError):
        return {}
    files = decoded.get("files") if isinstance(decoded, dict) and decoded.get("version") == _VERSION else None
    found = {}
    for path, entry in files.items() if isinstance(files, dict) else ():
        record = _record(entry)
        if record is not None:
            found[path] = record
    return found


def _record(entry: Any) -> Record | None:
    try:
        return Record(
            bytes=int(entry["bytes"]),
            sha256=str(entry["sha256"]),
            dtype=str(entry["dtype"]),
            source=str(entry["source"]),
            verified_time=str(entry["verifiedTime"]),
            mtime_ns=int(entry["mtimeNs"]),
            source_sha256=str(entry.get("sourceSha256", "")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def write_manifest(root: Path, records: Mapping[str, Record]) -> None:
    """Replace the manifest, durably. Raises OSError."""
    names = {"verified_time": "verifiedTime", "mtime_ns": "mtimeNs", "source_sha256": "sourceSha256"}
    files = {
        path: {names.get(field, field): value for field, value in asdict(record).items() if value != ""}
        for path, record in sorted(records.items())
    }
    write_durably(root / NAME, json.dumps({"version": _VERSION, "files": files}, indent=1).encode() + b"\n")


def write_durably(path: Path, content: bytes) -> None:
    """A small file, whole or not at all: under another name, synced, renamed, and the folder synced. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.new")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. A file system that cannot sync a folder is left alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
