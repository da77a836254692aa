"""AWS Signature Version 4, as S3 and OSS's S3-compatible endpoints take it: in headers, and in a URL's query. Pure.

Facts: "Authenticating Requests: Using the Authorization Header" and "... Using Query Parameters (AWS Signature Version
4)", Amazon S3 API Reference; their examples are tests. No library: the smallest that signs brings 14 MB of service
descriptions.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from kinora.s3.credentials import Credentials

EMPTY: Final = hashlib.sha256(b"").hexdigest()
"The payload hash of a request without a body."
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
MAX_SECONDS: Final = 7 * 24 * 3600  # S3's longest life of a presigned URL


def signed(  # noqa: PLR0917 - each of them is signed
    method: str,
    url: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    region: str,
    now: dt.datetime,
    payload: str = EMPTY,
) -> dict[str, str]:
    """`headers` with those that sign them. The path of `url` must be encoded already, as it goes over the wire.

    `payload`: hex sha256 of the body, which the server then holds it against.
    """
    parts = urlsplit(url)
    time = _time(now)
    out = {**headers, "Host": parts.netloc, "x-amz-content-sha256": payload, "x-amz-date": time}
    if credentials.session_token:
        out["x-amz-security-token"] = credentials.session_token
    lowered = {name.lower(): " ".join(value.split()) for name, value in out.items()}
    names = ";".join(sorted(lowered))
    query = encoded_query(parse_qsl(parts.query, keep_blank_values=True))
    lines = "".join(f"{name}:{lowered[name]}\n" for name in sorted(lowered))
    canonical = "\n".join([method, parts.path or "/", query, lines, names, payload])
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    out["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope},SignedHeaders={names},"
        f"Signature={_signature(canonical, time, scope, credentials.secret_key)}"
    )
    return out


def presigned(  # noqa: PLR0917 - each of them is signed
    method: str,
    url: str,
    query: Mapping[str, str],
    credentials: Credentials,
    region: str,
    now: dt.datetime,
    seconds: int,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A URL that carries its signature and is good for `seconds` (1 to 604,800) from `now`. ValueError.

    The path of `url` must be encoded already; `query` is not, and `url` has none. One made with a session token dies
    with the token. `headers`: those that must come with it, each with this very value; the body is not signed, so that
    what is to be held against it stands there (Content-MD5, Content-Length).
    """
    if not 1 <= seconds <= MAX_SECONDS:
        raise ValueError(f"a presigned URL for {seconds} s; allowed: 1 to {MAX_SECONDS}")
    parts, time = urlsplit(url), _time(now)
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    lowered = {name.lower(): " ".join(value.split()) for name, value in headers.items()} | {"host": parts.netloc}
    names = ";".join(sorted(lowered))
    asked = {
        **query,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": time,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.session_token:
        asked["X-Amz-Security-Token"] = credentials.session_token
    text = encoded_query(asked.items())
    lines = "".join(f"{name}:{lowered[name]}\n" for name in sorted(lowered))
    canonical = "\n".join([method, parts.path or "/", text, lines, names, UNSIGNED])
    return f"{url}?{text}&X-Amz-Signature={_signature(canonical, time, scope, credentials.secret_key)}"


def encoded_query(pairs: Iterable[tuple[str, str]]) -> str:
    """The query as it is signed, which is one that may go over the wire: sorted, and encoded as S3 encodes."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(pairs))


def _time(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


def _signature(canonical: str, time: str, scope: str, secret: str) -> str:
    text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
