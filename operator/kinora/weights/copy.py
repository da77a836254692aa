"""A weight file from another claim, or from a folder: the kernel copies it, sharing the blocks where it can.

Nothing of it is resumed: it begins anew, at the speed of the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from kinora.media.files import FileRefused, open_beneath
from kinora.weights.faults import Permanent
from kinora.weights.partial import Partial
from kinora.weights.sources import Source

_STEP = 8 << 20  # bytes
_UNABLE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


def size_of(source: Source, claims: Path) -> int:
    """Bytes of the file at the source. Raises Permanent."""
    with _open(source, claims) as file:
        size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise Permanent(f"{source.shown}: the file at the source is empty")
    return size


def copy(source: Source, claims: Path, partial: Partial, landed: Callable[[int], None]) -> str:
    """Bring the whole file; its sha256. Blocks; raises Permanent, OSError."""
    found = hashlib.sha256()
    at, target = 0, partial.descriptor
    with _open(source, claims) as file:
        while at < partial.remote.size:
            length = _step(file.fileno(), target, at, min(_STEP, partial.remote.size - at))
            if length == 0:
                raise Permanent(f"{source.shown}: the file became shorter while it was copied")
            found.update(os.pread(target, length, at))
            at += length
            landed(length)
    for part in partial.parts:
        part.done = part.end - part.start
    return found.hexdigest()


def _step(source: int, target: int, at: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, at, at)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
    data = os.pread(source, length, at)
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], at + done)
    return len(data)


def _open(source: Source, claims: Path) -> BinaryIO:
    root = claims / source.claim if source.claim else Path("/")
    try:
        return open_beneath(root, source.address.lstrip("/"))
    except FileRefused as refused:
        raise Permanent(f"{source.shown}: {refused}") from None
