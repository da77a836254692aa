"""Asking one bucket: signed requests, tried again while that may help, and what their answers say. No policy of stores.

Bodies are streamed both ways. Silence is measured from the last byte that moved, in either direction, so that a slow
transfer is none.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import aiohttp
from yarl import URL

from kinora.s3 import answers
from kinora.s3.address import Bucket
from kinora.s3.credentials import Credentials, Provider, anonymous
from kinora.s3.faults import S3Error, answered, unanswered
from kinora.s3.sigv4 import EMPTY, presigned, signed

_T = TypeVar("_T")
_MiB: Final = 1 << 20
_MAX_ANSWER: Final = 8 * _MiB  # of XML: a list of 1,000 keys of 1 KiB, escaped
_CHUNK: Final = 256 << 10
_BLOCK: Final = _MiB  # handed to a thread at a time
META_SHA256: Final = "x-amz-meta-sha256"


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard it tries. `tries` of one request; seconds; `stall_seconds` without a byte; parts of an upload."""

    tries: int = 6
    first_pause: float = 0.2
    longest_pause: float = 10.0
    stall_seconds: float = 60.0
    connections: int = 3
    part_bytes: int = 16 * _MiB


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends: `size` bytes, read in a thread by (offset, length), anew each try.

    `sha256` in hex, and `md5` in base64, are of all of them.
    """

    size: int
    sha256: str
    md5: str
    read: Callable[[int, int], bytes]

    @classmethod
    def of(cls, data: bytes) -> Body:
        """What is in memory."""
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        return cls(len(data), hashlib.sha256(data).hexdigest(), md5, lambda at, length: data[at : at + length])

    async def chunks(self, moved: Callable[[], None]) -> AsyncIterator[bytes]:
        """All of it; `moved` is told before each piece."""
        at = 0
        while at < self.size:
            chunk = await asyncio.to_thread(self.read, at, min(_CHUNK, self.size - at))
            if not chunk:
                raise OSError("the file became shorter while it was stored")
            moved()
            yield chunk
            at += len(chunk)


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `key`: whole, with its prefix; empty: the bucket. `shown`: how messages name it."""

    method: str
    key: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.key or "the bucket"


class Signer(Protocol):
    """Who signs in the place of credentials of one's own: a URL a request, good for a while."""

    async def __call__(self, call: Call) -> tuple[str, Mapping[str, str]]:
        """The URL that the call goes to, and the headers beside its own that it must come with. Raises S3Error.

        It waits for them as long as it sees fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. Header names are lower case; `tries`: how often was asked."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """An object as its headers tell of it. `sha256`: as its writer said; empty where it did not.

    `modified`: seconds since the epoch; 0 where the server does not tell.
    """

    bytes: int
    etag: str
    sha256: str
    content_type: str
    modified: float = 0.0


class S3Client:
    """Use it as an async context manager; every method raises S3Error."""

    def __init__(
        self,
        bucket: Bucket,
        credentials: Provider = anonymous,
        *,
        pace: Pace | None = None,
        tls: ssl.SSLContext | None = None,
        signer: Signer | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.bucket, self.pace = bucket, pace or Pace()
        self._credentials, self._signer, self._now = credentials, signer, now
        self._tls: ssl.SSLContext | bool = tls if tls is not None else True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=32, ssl=self._tls)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=15)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def signs(self) -> bool:
        """Whether requests are signed. S3Error where there should be credentials and are none."""
        return self._signer is not None or bool(self._known_credentials().access_key)

    # --- questions ----------------------------------------------------------------------------------------------------

    async def ask(self, call: Call) -> Answer:
        """Ask until there is an answer that is good, or an error that will not pass."""
        return await self._patiently(lambda tries: self._ask(call, tries))

    async def head(self, key: str) -> Found | None:
        """The object; None where there is none. Without the right to list, AWS answers 403 for what is not there."""
        try:
            answer = await self.ask(Call("HEAD", key))
        except S3Error as error:
            if error.status == 404:
                return None
            raise
        return _found(answer.headers)

    async def read(self, key: str, sink: Callable[[bytes], None], *, max_bytes: int | None = None) -> Found:
        """All of the object into `sink`, which runs in a thread; what was cut is resumed. S3Error 404 for none."""
        progress = _Progress()

        async def bring(_: int) -> Found:
            while True:
                before = progress.at
                try:
                    return await self._read_on(key, sink, progress, max_bytes)
                except S3Error as error:
                    if not error.may_pass or progress.at == before:  # what moves is not given up
                        raise

        return await self._patiently(bring)

    async def peek(self, key: str, count: int) -> tuple[Found, bytes]:
        """The object, and at most its first `count` bytes. S3Error 404 for none."""
        call = Call("GET", key, headers={"Range": f"bytes=0-{count - 1}"})
        try:
            answer = await self.ask(call)
        except S3Error as error:
            found = await self.head(key) if error.status == 416 else None  # no byte can be asked of an empty one
            if found is None:
                raise
            return found, b""
        total = answer.headers.get("content-range", "").rpartition("/")[2] or str(len(answer.body))
        return _found({**answer.headers, "content-length": total}), answer.body[:count]

    async def chunks(self, key: str, start: int, length: int, etag: str = "") -> AsyncGenerator[bytes, None]:
        """So many bytes of the object with this ETag, as they come; what was cut is resumed. S3Error."""
        at, end, failures, pause = start, start + length, 0, self.pace.first_pause
        while at < end:
            before = at
            try:
                async for chunk in self._stream(key, at, end, etag):
                    at += len(chunk)
                    yield chunk
                if at < end:
                    raise unanswered(key, f"{at - start} of {length} bytes came")
            except S3Error as error:
                failures = 1 if at > before else failures + 1
                if not error.may_pass or failures >= self.pace.tries:
                    raise
                await asyncio.sleep(max(error.retry_after, pause * random.uniform(0.8, 1.2)))  # noqa: S311
                pause = min(pause * 2, self.pace.longest_pause)

    async def _stream(self, key: str, at: int, end: int, etag: str) -> AsyncGenerator[bytes, None]:
        """One try. Silence is the socket's to tell: whoever takes the bytes may be slow."""
        call = Call("GET", key, headers={"Range": f"bytes={at}-{end - 1}", **({"If-Match": etag} if etag else {})})
        url, headers = await self._ready(call)
        with _told(call):
            async with self._opened().get(
                URL(url, encoded=True),
                headers=headers,
                allow_redirects=False, read_bufsize=_CHUNK,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=self.pace.stall_seconds),
            ) as answer:  # fmt: skip
                if answer.status != 206:
                    told = {name.lower(): value for name, value in answer.headers.items()}
                    if answer.status in (200, 412):
                        raise S3Error(f"{key}: it changed while it was read")
                    raise _refusal(call, answer.status, told, await answer.content.read(_MAX_ANSWER))
                async for chunk in answer.content.iter_any():
                    yield chunk

    async def list(self, prefix: str, *, delimiter: str = "") -> AsyncIterator[answers.Listing]:
        """Pages of the keys that begin with `prefix`."""
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix, "delimiter": delimiter, "continuation-token": token}
            answer = await self.ask(Call("GET", query=tuple((name, text) for name, text in query.items() if text)))
            page = answers.listing(answer.body)
            yield page
            token = page.next
            if not token:
                return

    async def delete(self, key: str) -> None:
        """Remove the object; one that is not there is removed already."""
        await self.ask(Call("DELETE", key))

    def presigned_get(
        self, key: str, seconds: int, *, disposition: str | None = None, content_type: str | None = None
    ) -> str:
        """A URL at the public endpoint that is good for `seconds`; without credentials the plain one. ValueError."""
        url, credentials = self.bucket.url(key, public=True), self._credentials()
        if not credentials.access_key:
            return url  # S3 takes overrides of signed requests alone
        asked = {"response-content-disposition": disposition, "response-content-type": content_type}
        query = {name: value for name, value in asked.items() if value}
        return presigned("GET", url, query, credentials, self.bucket.region, self._now(), seconds)

    def presigned(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], seconds: int
    ) -> str:
        """A URL at the endpoint by which somebody else may make this one request for `seconds`, with these headers.

        Raises S3Error where there are no credentials.
        """
        credentials = self._known_credentials()
        if not credentials.access_key:
            raise S3Error("the store has no credentials, so that there is nothing to sign with")
        url, region = self.bucket.url(key), self.bucket.region
        return presigned(method, url, query, credentials, region, self._now(), seconds, headers)

    # --- how it is asked ----------------------------------------------------------------------------------------------

    async def _patiently(self, ask: Callable[[int], Awaitable[_T]]) -> _T:
        pause, used, signed_late = self.pace.first_pause, self._known_credentials(), False
        for tries in range(1, self.pace.tries + 1):
            try:
                return await ask(tries)
            except S3Error as error:
                renewed = error.of_credentials and self._known_credentials() != used
                if self._signer is not None and error.status == 403 and not signed_late:
                    renewed = signed_late = True  # the URL may have ended on its way: a new one is asked for, once
                if tries == self.pace.tries or not (error.may_pass or renewed):
                    raise
                used = self._known_credentials()
                await asyncio.sleep(max(error.retry_after, pause * random.uniform(0.8, 1.2)))  # noqa: S311
                pause = min(pause * 2, self.pace.longest_pause)
        raise AssertionError("tries is at least 1")

    def _known_credentials(self) -> Credentials:
        try:
            return self._credentials()
        except ValueError as error:
            raise S3Error(str(error)) from None

    async def _ask(self, call: Call, tries: int) -> Answer:
        async with self._request(call) as (answer, moved):
            content = b"" if call.method == "HEAD" else await self._content(answer, call, moved)
            headers = {name.lower(): value for name, value in answer.headers.items()}
            if answer.status >= 300 or answers.is_error(content):
                raise _refusal(call, answer.status, headers, content)
            return Answer(answer.status, headers, content, tries)

    async def _content(self, answer: aiohttp.ClientResponse, call: Call, moved: Callable[[], None]) -> bytes:
        parts, size = [], 0
        async for chunk in answer.content.iter_any():
            moved()
            parts.append(chunk)
            size += len(chunk)
            if size > _MAX_ANSWER:
                raise S3Error(f"{call.shown}: the store's answer has no end")
        return b"".join(parts)

    async def _read_on(
        self, key: str, sink: Callable[[bytes], None], progress: _Progress, max_bytes: int | None
    ) -> Found:
        if progress.writing:
            raise S3Error(f"{key}: what came of it could not be written in time")
        headers = {"Range": f"bytes={progress.at}-", "If-Match": progress.etag} if progress.at else {}
        call = Call("GET", key, headers=headers)
        async with self._request(call) as (answer, moved):
            told = {name.lower(): value for name, value in answer.headers.items()}
            if answer.status != (206 if progress.at else 200):
                if answer.status in (200, 206, 412):
                    raise S3Error(f"{key}: it changed while it was read")
                raise _refusal(call, answer.status, told, await self._content(answer, call, moved))
            found = progress.seen(told)
            if max_bytes is not None and found.bytes > max_bytes:
                raise S3Error(f"{key}: it has {found.bytes} bytes; at most {max_bytes} are read")
            block = bytearray()
            try:
                async for chunk in answer.content.iter_any():
                    moved()
                    block += chunk
                    if len(block) >= _BLOCK:
                        block = await progress.flush(sink, block)
            except aiohttp.ClientError:
                await progress.flush(sink, block)  # what came before the cut is not asked for again
                raise
            await progress.flush(sink, block)
            if progress.at != found.bytes:
                raise unanswered(key, f"{progress.at} of {found.bytes} bytes came")
            return found

    @asynccontextmanager
    async def _request(self, call: Call) -> AsyncIterator[tuple[aiohttp.ClientResponse, Callable[[], None]]]:
        """The answer, whatever it says, and what to call whenever bytes have moved."""
        loop, stall, body, data = asyncio.get_running_loop(), self.pace.stall_seconds, call.body, None
        url, headers = await self._ready(call)
        with _told(call, stall):
            async with asyncio.timeout(stall) as patience:

                def moved() -> None:
                    patience.reschedule(loop.time() + stall)

                if body is not None:
                    data = body.chunks(moved) if body.size else b""
                async with self._opened().request(
                    call.method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False
                ) as answer:
                    moved()
                    yield answer, moved

    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "used outside `async with`"
        return self._session

    async def _ready(self, call: Call) -> tuple[str, Mapping[str, str]]:
        """Where the call goes, and its headers, signed."""
        headers = {"Accept-Encoding": "identity", **call.headers}
        if call.body is not None:
            headers["Content-Length"] = str(call.body.size)
        if self._signer is not None:
            url, more = await self._signer(call)
            return url, {**headers, **more}
        url, credentials = self.bucket.url(call.key, call.query), self._known_credentials()
        if not credentials.access_key:
            return url, headers
        payload = call.body.sha256 if call.body is not None else EMPTY
        return url, signed(call.method, url, headers, credentials, self.bucket.region, self._now(), payload)


@contextmanager
def _told(call: Call, stall: float | None = None) -> Iterator[None]:
    """What breaks on the way, as an S3Error."""
    try:
        yield
    except TimeoutError:
        words = "no byte moved" + (f" for {stall:g} s" if stall else " for too long")
        raise unanswered(call.shown, words) from None
    except (ssl.SSLError, aiohttp.ClientConnectorCertificateError):
        words = "the store's certificate is not trusted; set artifacts.s3.caConfigMap"
        raise S3Error(f"{call.shown}: {words}") from None
    except aiohttp.ClientConnectorError as error:
        raise unanswered(call.shown, f"cannot connect ({error.os_error.strerror or 'no answer'})") from None
    except aiohttp.InvalidURL:
        raise S3Error("artifacts.s3.endpoint is no address that can be asked") from None
    except (aiohttp.ClientError, ConnectionError) as error:
        raise unanswered(call.shown, f"the connection broke ({type(error).__name__})") from None


@dataclass
class _Progress:
    """How much of an object has been read, and of which one."""

    at: int = 0
    etag: str = ""
    found: Found | None = None
    writing: bool = False  # and left so, where it was broken off: nobody knows how far it came

    def seen(self, headers: Mapping[str, str]) -> Found:
        if self.found is None or self.at == 0:
            self.found = _found(headers)
            self.etag = self.found.etag
        return self.found

    async def flush(self, sink: Callable[[bytes], Any], block: bytearray) -> bytearray:
        if block:
            self.writing = True
            await asyncio.to_thread(sink, bytes(block))
            self.at += len(block)
            self.writing = False
        return bytearray()


def _found(headers: Mapping[str, str]) -> Found:
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise S3Error("the store does not tell how long an object is")
    kind = headers.get("content-type", "application/octet-stream")
    try:
        modified = parsedate_to_datetime(headers.get("last-modified", "")).timestamp()
    except ValueError:
        modified = 0.0
    return Found(int(length), headers.get("etag", ""), headers.get(META_SHA256, ""), kind, modified)


def _refusal(call: Call, status: int, headers: Mapping[str, str], content: bytes) -> S3Error:
    after = headers.get("retry-after", "")
    seconds = min(float(after), 60.0) if after.isdigit() else 0.0
    code = answers.error_code(content)
    if status < 300:  # an error after a 200: the server found out too late
        return S3Error(f"{call.shown}: the store answers {code or 'an error'}", status=status, code=code, may_pass=True)
    region = headers.get("x-amz-bucket-region", "")
    return answered(call.shown, status, code, after=seconds, region=region if region.replace("-", "").isalnum() else "")
