"""Links that open without a key: tokens signed over what they open, for whom, and until when. Pure.

    token = base64url(JSON) "." base64url(HMAC-SHA256(key, "kinora-link-1." + base64url(JSON)))

The JSON can be read by whoever has the link: tenant, namespace and what is opened are no secrets from them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_VERSION: Final = 1
_CONTEXT: Final = b"kinora-link-1."
_TOKEN = re.compile(r"([A-Za-z0-9_-]{1,1500})\.([A-Za-z0-9_-]{43})")
Part = str | int


class Kind(StrEnum):
    """What a link opens: a finished output, an uploaded file, a place for a file by PUT, places for files by form."""

    ARTIFACT = "artifact"
    UPLOAD = "upload"
    PUT = "put"
    FORM = "form"


class LinkRefused(Exception):  # noqa: N818 - a verdict
    """Not a token of ours, or not for this."""


class LinkExpired(LinkRefused):
    """It was good once."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says: `what` is opened for `tenant` of `namespace` until `expires` (Unix seconds).

    `account`: the tenant asked with a token of the cluster, and not with an API key.
    """

    kind: Kind
    tenant: str
    namespace: str
    what: tuple[Part, ...]
    expires: int
    account: bool = False


def token(key: bytes, grant: Grant) -> str:
    """The token of a grant."""
    payload = {
        "v": _VERSION,
        "k": grant.kind.value,
        "t": grant.tenant,
        "n": grant.namespace,
        "w": list(grant.what),
        "e": grant.expires,
        **({"a": 1} if grant.account else {}),
    }
    text = _encoded(json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode())
    return f"{text}.{_mac(key, text)}"


def is_ours(keys: Sequence[bytes], text: str) -> bool:
    """Whether one of our keys signed it, expired or not."""
    found = _TOKEN.fullmatch(text)
    return found is not None and _is_signed(keys, found[1], found[2])


def read(keys: Sequence[bytes], text: str, kind: Kind, now: float, *, expired_too: bool = False) -> Grant:
    """The grant of a token of that kind. Raises LinkRefused, LinkExpired."""
    found = _TOKEN.fullmatch(text)
    if found is None or not _is_signed(keys, found[1], found[2]):
        raise LinkRefused("the link's signature is not one of this gateway's; ask for a new link")
    grant = _parsed(found[1])
    if grant.kind is not kind:
        raise LinkRefused(f"the link opens something else: {grant.kind}, not {kind}")
    if now >= grant.expires and not expired_too:
        raise LinkExpired("the link has expired; ask for a new one")
    return grant


def _parsed(text: str) -> Grant:
    try:
        payload = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if payload["v"] != _VERSION:
            raise LinkRefused("the link is of another version of this gateway; ask for a new one")
        return Grant(
            Kind(payload["k"]),
            str(payload["t"]),
            str(payload["n"]),
            tuple(payload["w"]),
            int(payload["e"]),
            bool(payload.get("a")),
        )
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise LinkRefused("the link says nothing that can be read; ask for a new one") from None


def _is_signed(keys: Sequence[bytes], text: str, mac: str) -> bool:
    """Every key is tried, in constant time: during a change of keys there are two."""
    good = False
    for key in keys:
        good |= hmac.compare_digest(_mac(key, text), mac)
    return good


def _mac(key: bytes, text: str) -> str:
    return _encoded(hmac.new(key, _CONTEXT + text.encode(), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
