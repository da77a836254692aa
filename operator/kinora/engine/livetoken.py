"""How a gateway shows an agent that it may listen: HMAC-SHA256 over which pod, which attempt, how long. Pure.

    Authorization: Kinora-Live-HMAC-SHA256 expires=<unix seconds>,signature=<hex>

The key is the namespace's own (Secret kinora-live): a token of one namespace is nothing in another. It opens one stream
of one attempt in one pod; sent to another pod, it is of no use there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "Kinora-Live-HMAC-SHA256"
LIFETIME_SECONDS: Final = 60
LONGEST_SECONDS: Final = 180  # a token that lasts longer is refused: a clock that is ahead, or a mistake
_HEADER = re.compile(rf"{SCHEME} expires=(\d{{1,12}}),signature=([0-9a-f]{{64}})")


class BadToken(Exception):  # noqa: N818 - a verdict
    """None, not by a key that is known, not for this, or not for now. The message says no more than that."""


@dataclass(frozen=True, slots=True)
class Listening:
    """What a token opens: the attempt of the job (UID) that this pod (UID) renders."""

    pod_uid: str
    job_uid: str
    attempt: int


def sign(key: bytes, listening: Listening, now: float) -> str:
    """The value of the Authorization header."""
    expires = int(now) + LIFETIME_SECONDS
    return f"{SCHEME} expires={expires},signature={_signature(key, listening, expires)}"


def verify(keys: Iterable[bytes], header: str, asked: Listening, now: float) -> None:
    """Raises BadToken unless the header opens what is asked for. Every key is tried, in constant time."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise BadToken("there is no token")
    expires = int(found[1])
    good = False
    for key in keys:
        good |= hmac.compare_digest(_signature(key, asked, expires), found[2])
    if not good:
        raise BadToken("the token is not signed by the key of this namespace, or opens something else")
    if not now <= expires <= now + LONGEST_SECONDS:
        raise BadToken("the token has expired, or begins later: clocks that differ by minutes do that")


def _signature(key: bytes, listening: Listening, expires: int) -> str:
    text = json.dumps(["kinora-live-1", listening.pod_uid, listening.job_uid, listening.attempt, expires])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
