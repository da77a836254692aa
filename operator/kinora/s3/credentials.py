"""An access key, out of a mounted Secret (a file a key), which may change while it is used, or the environment.

Nothing here prints or keeps more than the pair in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LIMIT: Final = 64 << 10  # bytes of one key of a Secret
_DATA: Final = "..data"  # the link that the kubelet turns when a Secret has changed

#: The keys of a Secret, and the environment variables, that hold each part.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "access_key": ("accessKeyID", "AWS_ACCESS_KEY_ID"),
    "secret_key": ("secretAccessKey", "AWS_SECRET_ACCESS_KEY"),
    "session_token": ("sessionToken", "AWS_SESSION_TOKEN"),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; without one, requests are not signed. `session_token`: of temporary credentials."""

    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(...)"  # never in a log or a traceback


Provider = Callable[[], Credentials]


def access_key_from(values: Mapping[str, str]) -> dict[str, str]:
    """The parts of an access key among a Secret's keys, or environment variables; empty where there are none."""
    return {
        field: next((values[name].strip() for name in names if values.get(name)), "") for field, names in KEYS.items()
    }


def anonymous() -> Credentials:
    """A provider of no credentials."""
    return Credentials()


class MountedCredentials:
    """A provider: the access key in a mounted Secret, read again when its files have changed.

    Raises ValueError where the Secret holds none: unsigned requests would be refused with words that mislead.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._found = Credentials()

    def __call__(self) -> Credentials:
        """The credentials as they are now."""
        seen = self._look()
        if seen != self._seen:
            self._found, self._seen = self._read(), seen
        return self._found

    def _names(self) -> list[str]:
        return [name for names in KEYS.values() for name in names]

    def _look(self) -> object:
        """Changes with any of the files."""
        marks: list[object] = []
        for name in self._names():
            try:
                stat = os.stat(self._folder / name)
            except OSError:
                continue
            marks.append((name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(marks)

    def _read(self) -> Credentials:
        # Through the kubelet's link once, so that no half of a new pair is read with a half of the old one.
        data = self._folder / _DATA
        folder = data.resolve() if data.is_symlink() else self._folder
        values: dict[str, str] = {}
        for name in self._names():
            try:
                values[name] = (folder / name).read_bytes()[:_LIMIT].decode()
            except (OSError, UnicodeDecodeError):
                continue
        found = Credentials(**access_key_from(values))
        if not found.access_key or not found.secret_key:
            raise ValueError("the Secret of the store has no accessKeyID and secretAccessKey")
        return found
