"""One writer a volume: a lock file, which the kernel gives up with its process. In a cluster a Lease stands before it.

File systems without locks (most object-store mounts) are left to the Lease.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kinora.weights.faults import Transient
from kinora.weights.manifest import FOLDER

_NONE = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL})


class Held(Transient):
    """Another process writes this volume."""


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the volume at `root` for writing. Raises Held, OSError."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(f"another process fetches weights into {root}; wait for it, or stop it") from None
        except OSError as error:
            if error.errno not in _NONE:
                raise
        yield
    finally:
        os.close(descriptor)
