"""Headers of the Standard Webhooks specification: id, timestamp, and a signature by each key. Pure.

A key is written `whsec_` and base64 of 24 to 64 bytes. What is signed is `<id>.<timestamp>.<body>`, by HMAC-SHA256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kinora.api.webhooks import LABEL_SECRET, SECRET_INVALID, SECRET_NOT_LABELLED
from kinora.gateway.webhooks.decide import Unsigned

PREFIX: Final = "whsec_"
MAX_KEYS: Final = 4  # of one Secret: the present one, and former ones while they are replaced
_BYTES: Final = range(24, 65)
_FORM: Final = "whsec_ and base64 of 24 to 64 bytes"


def keys_of(secret: Mapping[str, Any]) -> tuple[bytes, ...] | Unsigned:
    """The keys in a Secret object, by the names of its entries; or why none of it is used. Nothing of it is told."""
    metadata = secret["metadata"]
    name = f"Secret {metadata['name']}"
    if (metadata.get("labels") or {}).get(LABEL_SECRET) != "true":
        return Unsigned(SECRET_NOT_LABELLED, f"{name} has no label {LABEL_SECRET}=true; with it webhooks may use it")
    data = secret.get("data") or {}
    if not 1 <= len(data) <= MAX_KEYS:
        return Unsigned(SECRET_INVALID, f"{name} has {len(data)} entries; allowed: 1 to {MAX_KEYS}, each {_FORM}")
    keys = []
    for entry in sorted(data):
        key = _key(data[entry] or "")
        if key is None:
            return Unsigned(SECRET_INVALID, f"{name}: entry {entry} is no key; allowed: {_FORM}")
        keys.append(key)
    return tuple(keys)


def headers(identity: str, timestamp: int, body: bytes, keys: Iterable[bytes]) -> dict[str, str]:
    """The three headers, `timestamp` in Unix seconds; without keys there is no signature."""
    found = {"webhook-id": identity, "webhook-timestamp": str(timestamp)}
    signatures = [f"v1,{_signature(identity, timestamp, body, key)}" for key in keys]
    if signatures:
        found["webhook-signature"] = " ".join(signatures)
    return found


def _signature(identity: str, timestamp: int, body: bytes, key: bytes) -> str:
    signed = f"{identity}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _key(encoded: str) -> bytes | None:
    """The key in one entry's value, which the API server gives in base64; None: it is none."""
    try:
        text = base64.b64decode(encoded).decode("ascii").strip()  # a file that was made with echo ends a line
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        return None
    return key if text.startswith(PREFIX) and len(key) in _BYTES else None
