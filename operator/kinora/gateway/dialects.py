"""The dialects that this gateway speaks, one line each. A path belongs to the dialect with the longest prefix of it."""

from __future__ import annotations

from typing import Final

from kinora.gateway.context import Dialect

ALL: Final[tuple[Dialect, ...]] = ()
