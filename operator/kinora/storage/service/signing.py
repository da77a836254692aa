"""How a gateway signs what it asks of a stager: HMAC-SHA256 over everything that the answer rests on. Pure.

    Authorization: Kinora-HMAC-SHA256 expires=<unix seconds>,max=<bytes>,quota=<bytes>,signature=<hex>

The body is not signed: an upload streams, and its content becomes its key. A request can be sent again while its
signature lasts; none does other things the second time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

SCHEME: Final = "Kinora-HMAC-SHA256"
LIFETIME_SECONDS: Final = 60
LONGEST_SECONDS: Final = 300  # a signature that lasts longer is refused: a clock that is ahead, or a mistake
KEY_BYTES: Final = 32
_HEADER = re.compile(rf"{SCHEME} expires=(\d{{1,12}}),max=(\d{{1,15}}),quota=(\d{{1,15}}),signature=([0-9a-f]{{64}})")


class BadSignature(Exception):  # noqa: N818 - a verdict
    """Not signed, not by a key that is known, or not for now. The message says no more than that."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is signed. `target`: path and query as on the wire; `store`: the root of the store that is asked.

    `max_bytes` bounds the body, `quota` all uploads of the tenant; 0 where nothing is written.
    """

    method: str
    target: str
    store: str
    max_bytes: int = 0
    quota: int = 0


def sign(key: bytes, request: Request, now: float) -> str:
    """The value of the Authorization header."""
    expires = int(now) + LIFETIME_SECONDS
    signature = _signature(key, request, expires)
    return f"{SCHEME} expires={expires},max={request.max_bytes},quota={request.quota},signature={signature}"


def verify(keys: Iterable[bytes], header: str, asked: Request, now: float) -> Request:
    """What was signed: `asked`, as it came, with the limits of the header. Every key is tried, in constant time.

    Raises BadSignature.
    """
    found = _HEADER.fullmatch(header)
    if found is None:
        raise BadSignature("the request is not signed")
    expires, given = int(found[1]), found[4]
    request = replace(asked, max_bytes=int(found[2]), quota=int(found[3]))
    good = False
    for key in keys:
        good |= hmac.compare_digest(_signature(key, request, expires), given)
    if not good:
        raise BadSignature("the signature is not one of this store's key")
    if not now <= expires <= now + LONGEST_SECONDS:
        raise BadSignature("the signature has expired, or begins later: clocks that differ by minutes do that")
    return request


def _signature(key: bytes, request: Request, expires: int) -> str:
    signed = ["kinora-store-1", request.method, request.target, request.store]
    text = json.dumps([*signed, expires, request.max_bytes, request.quota])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
