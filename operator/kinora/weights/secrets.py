"""Credentials for sources, out of mounted Secrets (a folder a Secret, a file a key) or the environment.

Nothing here prints or keeps what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kinora.weights.faults import Permanent
from kinora.weights.sources import Credentials, credentials_from

_LIMIT = 64 << 10  # bytes of one key


def read_secrets(
    names: Sequence[str], folder: Path | None, environment: Mapping[str, str]
) -> dict[str | None, Credentials]:
    """By the Secret's name; without a folder, and for sources that name none, what the environment holds."""
    ambient = credentials_from(environment)
    found: dict[str | None, Credentials] = {None: ambient}
    for name in names:
        found[name] = ambient if folder is None else credentials_from(_keys(folder / name))
    return found


def _keys(folder: Path) -> dict[str, str]:
    """A mounted Secret's keys; its files are links, which the kubelet lays out."""
    try:
        return {
            file.name: file.read_bytes()[:_LIMIT].decode()
            for file in folder.iterdir()
            if file.is_file() and not file.name.startswith(".")
        }
    except (OSError, UnicodeDecodeError):
        raise Permanent(f"the Secret {folder.name} is not mounted, or holds something that is no text") from None
