"""AWS Signature Version 4 of a request without a body, as S3 and OSS's S3-compatible endpoints take it. Pure.

Facts: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)", Amazon S3 API Reference; its
example of a GET with a Range is a test. No library: the smallest that signs brings 14 MB of service descriptions.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from kinora.weights.sources import Credentials

_EMPTY = hashlib.sha256(b"").hexdigest()


def signed(  # noqa: PLR0917 - each of them is signed
    method: str, url: str, headers: Mapping[str, str], credentials: Credentials, region: str, now: dt.datetime
) -> dict[str, str]:
    """`headers` with those that sign them. The path of `url` must be encoded already, as it goes over the wire."""
    parts = urlsplit(url)
    time = now.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    out = {**headers, "Host": parts.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": time}
    if credentials.session_token:
        out["x-amz-security-token"] = credentials.session_token
    lowered = {name.lower(): " ".join(value.split()) for name, value in out.items()}
    names = ";".join(sorted(lowered))
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(parse_qsl(parts.query, keep_blank_values=True))
    )
    lines = [f"{name}:{lowered[name]}\n" for name in sorted(lowered)]
    canonical = "\n".join([method, parts.path or "/", query, "".join(lines), names, _EMPTY])
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_key}".encode()
    for word in (time[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    out["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"
    )
    return out
