"""Asking one source over HTTP for a range of its bytes: credentials, redirects, what an answer means.

Writes nothing to disk and does not try again: that is transfer.py's. A token is sent to the host that it is for, and to
none that it redirects to.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from kinora.s3.sigv4 import signed
from kinora.weights.faults import Permanent, SourceChanged, Transient
from kinora.weights.sources import Credentials, Kind, Source

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MENDS = {
    401: "give a token by secretName",
    403: "the credentials may not read it",
    404: "check the URL",
    410: "check the URL",
}
_HOPS = 6
_BUFFER = 4 << 20  # bytes that may wait for the disk, a connection


@dataclass(frozen=True, slots=True)
class Remote:
    """The file at its source, as its first answer tells. `validator`: a strong ETag or Last-Modified, for If-Range."""

    size: int
    validator: str = ""
    ranges: bool = False


class Origin:
    """One source and the credentials for it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        source: Source,
        credentials: Credentials,
        *,
        allow_http: bool = False,
        stall_seconds: float = 30.0,
    ) -> None:
        self.source = source
        self._session = session
        self._credentials = credentials
        self._allow_http = allow_http
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=stall_seconds)

    async def look(self) -> Remote:
        """Ask for the first byte: size, validator, and whether ranges are served. Raises Transient, Permanent."""
        async with self._get({"Range": "bytes=0-0"}) as answer:
            if answer.status == 206:
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if not total.isdigit():
                    raise Permanent(f"{self.source.shown}: the server does not tell the file's size")
                return Remote(int(total), _validator(answer), ranges=True)
            if answer.status == 416:
                raise Permanent(f"{self.source.shown}: the file at the source is empty")
            length = answer.headers.get("Content-Length", "")
            if not length.isdigit():
                raise Permanent(f"{self.source.shown}: the server does not tell the file's size")
            return Remote(int(length), _validator(answer))

    @asynccontextmanager
    async def body(self, remote: Remote, start: int, end: int) -> AsyncIterator[aiohttp.StreamReader]:
        """The bytes `start` to `end` (exclusive) of the file as `look` saw it; the whole, where no ranges are served.

        Raises SourceChanged when it is another file by now, Transient, Permanent.
        """
        headers = {}
        if remote.ranges:
            headers["Range"] = f"bytes={start}-{end - 1}"
            if remote.validator:
                headers["If-Range"] = remote.validator
        async with self._get(headers) as answer:
            self._check(answer, remote, start, end)
            yield answer.content

    def _check(self, answer: aiohttp.ClientResponse, remote: Remote, start: int, end: int) -> None:
        changed = SourceChanged(f"{self.source.shown}: the file at the source changed while it was fetched")
        if _validator(answer) != remote.validator:
            raise changed
        if not remote.ranges:
            if answer.headers.get("Content-Length") != str(remote.size):
                raise changed
            return
        if answer.status != 206:
            raise changed
        if answer.headers.get("Content-Range", "").replace(" ", "") != f"bytes{start}-{end - 1}/{remote.size}":
            raise changed

    @asynccontextmanager
    async def _get(self, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET, redirects followed; only answers that carry bytes come out (200, 206, 416)."""
        url = self.source.address
        for _ in range(_HOPS):
            async with self._request(url, headers) as answer:
                if answer.status not in _REDIRECTS:
                    self._refuse(answer)
                    yield answer
                    return
                url = self._redirected(url, answer)
        raise Permanent(f"{self.source.shown}: more than {_HOPS} redirects")

    @asynccontextmanager
    async def _request(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.get(
                URL(url, encoded=True),
                headers={"Accept-Encoding": "identity", **self._authorized(url, headers)},
                allow_redirects=False,
                timeout=self._timeout,
                read_bufsize=_BUFFER,
            ) as answer:
                yield answer
        except (ssl.SSLError, aiohttp.ClientConnectorCertificateError) as error:
            words = getattr(error, "reason", None) or getattr(error, "verify_message", None) or "not trusted"
            raise Permanent(f"{self.source.shown}: TLS: {words}; check the URL, or the certificates here") from None
        except aiohttp.InvalidURL:
            raise Permanent(f"{self.source.shown}: not a URL that can be asked") from None
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:  # another OSError is the disk's
            raise Transient(f"{self.source.shown}: {_words(error)}") from None

    def _authorized(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        """The headers, with credentials if this is the host that they are for."""
        if _origin(url) != _origin(self.source.address):
            return headers
        if self.source.kind is Kind.S3:
            if not self._credentials.access_key:
                return headers
            return signed("GET", url, headers, self._credentials, self.source.region, dt.datetime.now(dt.UTC))
        if self._credentials.token:
            return {**headers, "Authorization": f"Bearer {self._credentials.token}"}
        return headers

    def _redirected(self, url: str, answer: aiohttp.ClientResponse) -> str:
        if self.source.kind is Kind.S3:
            raise Permanent(f"{self.source.shown}: the bucket is elsewhere; set s3.region and s3.endpoint to its own")
        target = urljoin(url, answer.headers.get("Location", ""))
        parts = urlsplit(target)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise Permanent(f"{self.source.shown}: redirected to something that is no web address")
        if parts.scheme == "http" and not (self._allow_http and urlsplit(url).scheme == "http"):
            raise Permanent(f"{self.source.shown}: redirected from https to http, which is not followed")
        return target

    def _refuse(self, answer: aiohttp.ClientResponse) -> None:
        status = answer.status
        if status in {200, 206, 416}:
            return
        words = f"{self.source.shown}: the server answers {status}"
        if status in _TRANSIENT:
            after = answer.headers.get("Retry-After", "")
            raise Transient(words, min(float(after), 60.0) if after.isdigit() else 0.0)
        raise Permanent(f"{words}; {_MENDS.get(status, 'check the URL')}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _validator(answer: aiohttp.ClientResponse) -> str:
    """What If-Range takes: a strong ETag, else Last-Modified."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no byte came for too long"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.os_error.strerror or 'no answer'})"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended before the file did"
    return f"the connection broke ({type(error).__name__})"
