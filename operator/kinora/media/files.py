"""Opening files that somebody else may have laid out: beneath a root, without following links, regular files only.

Shared by media, weights, storage, the agent and the stand-in. It opens and nothing more: no parsing, no copying.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that nobody writes to must not hang; regular files are not affected by it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_PATH = 4096


class FileRefused(Exception):  # noqa: N818 - it reads as a verdict
    """A path that will not be opened. The message names the path relative to the root, never the root."""


class FileNotThere(FileRefused):
    """The path, or a folder on its way, does not exist."""


def relative_parts(relative: str) -> tuple[str, ...]:
    """The names on the way of a relative path; FileRefused for absolute ones and empty, `.` and `..` parts."""
    if not relative or len(relative) > _MAX_PATH or "\0" in relative:
        raise FileRefused("a file path is empty, too long or holds a NUL")
    if not relative.isprintable():
        raise FileRefused("a file path holds characters that cannot be printed")
    parts = tuple(relative.split("/"))
    if any(part in ("", ".", "..") for part in parts):
        raise FileRefused(f"{relative}: only plain names below the folder are allowed, no '..', no leading '/'")
    return parts


def open_beneath(root: Path, relative: str) -> BinaryIO:
    """Open `relative` (forward slashes) below the trusted folder `root`, for reading, unbuffered position 0.

    Every step is opened with O_NOFOLLOW relative to the one before, so that a symbolic link, wherever it points and
    whenever it is put there, is refused. Raises FileNotThere or FileRefused.
    """
    parts = relative_parts(relative)
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FileNotThere(f"{relative}: the folder that should hold it is not there ({_reason(error)})") from None
    try:
        for name in parts[:-1]:
            folder = _step(folder, name, relative)
        descriptor = _open(parts[-1], _FILE, folder, relative)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileRefused(f"{relative}: not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _step(folder: int, name: str, relative: str) -> int:
    inner = _open(name, _DIRECTORY, folder, relative)
    os.close(folder)
    return inner


def _open(name: str, flags: int, folder: int, relative: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise FileNotThere(f"{relative}: not there") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FileRefused(
                f"{relative}: leads over a symbolic link or through something that is no folder"
            ) from None
        raise FileRefused(f"{relative}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return error.strerror or "cannot be opened"
