"""The agent's side of a broker: each request of the bucket gets a URL for itself, asked of the store's stager.

A stager that is away costs time, not the attempt: it is asked again for as long as `Patience` says, and whoever works
on the attempt is told why. What it refuses stays refused. A URL that leads anywhere but to the asked object of the
agent's own bucket is not used, whoever it came from.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from pydantic import ValidationError

from kinora.s3.address import Bucket
from kinora.s3.client import META_SHA256, Call
from kinora.s3.faults import S3Error
from kinora.storage.broker import asks
from kinora.storage.broker.asks import UNAUTHORIZED, Action, Ask, wanted

log = logging.getLogger(__name__)

_MAX_ANSWER: Final = 64 * 1024
_MAX_TOKEN: Final = 16 * 1024
#: Told why nothing can be signed now, in words for a status; None: nothing waits any more.
Told = Callable[[str | None], None]


@dataclass(eq=False)
class _Work:
    """The attempt that is asked for, and which of its requests wait."""

    name: str
    uid: str
    attempt: int
    told: Told
    waiting: set[object] = field(default_factory=set)


_work: ContextVar[_Work | None] = ContextVar("work", default=None)


def _nobody(words: str | None) -> None:
    """Nobody is told."""


@contextmanager
def working_on(name: str, uid: str, attempt: int, told: Told = _nobody) -> Iterator[None]:
    """All that is asked for within, also by tasks that are begun there, is asked for this attempt."""
    mark = _work.set(_Work(name, uid, attempt, told))
    try:
        yield
    finally:
        _work.reset(mark)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: how long a stager may be away, pauses between two tries, of one try; how long a token may be unknown."""

    away: float = 900.0
    first_pause: float = 0.2
    longest_pause: float = 10.0
    answer: float = 15.0
    unknown: float = 30.0


class BrokerSigner:
    """See kinora.s3.client.Signer. `url`: of the stager's store service; `token`: the file with the pod's token."""

    def __init__(self, url: str, bucket: Bucket, token: Path, patience: Patience | None = None) -> None:
        self._url, self._bucket, self._token = f"{url.rstrip('/')}{asks.PATH}", bucket, token
        self._patience = patience or Patience()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._patience.answer, sock_connect=5)
        self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, call: Call) -> tuple[str, Mapping[str, str]]:
        """See Signer. S3Error with status 0: the broker's word, not the bucket's."""
        work = _work.get()
        if work is None:
            raise S3Error(f"{call.shown}: nothing may be done in the store but for an attempt of a job")
        ask = _ask_of(call, self._bucket.prefix, work)
        request = wanted(ask, self._bucket.prefix)
        url = await self._patiently(call, ask, work)
        if url.partition("?")[0] != self._bucket.url(request.key):
            raise S3Error(
                f"{call.shown}: the store's stager signs for another address than this pod's; the ModelServers of one"
                " bucket and prefix must agree in artifacts.s3.endpoint and addressing"
            )
        return url, request.headers

    async def _patiently(self, call: Call, ask: Ask, work: _Work) -> str:
        loop, patience, me = asyncio.get_running_loop(), self._patience, object()
        began, unknown, pause = loop.time(), math.inf, patience.first_pause
        try:
            while True:
                try:
                    return await self._asked(call, ask)
                except _Away as away:
                    now = loop.time()
                    unknown = min(unknown, now) if away.unknown else math.inf
                    if now - began >= patience.away or now - unknown >= patience.unknown:
                        raise S3Error(f"{call.shown}: {away}; tried for {now - began:.0f} s") from None
                    log.warning("%s: %s; trying again", call.shown, away)
                    work.waiting.add(me)
                    work.told(str(away))
                    await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
                    pause = min(pause * 2, patience.longest_pause)
        finally:
            if me in work.waiting:
                work.waiting.discard(me)
                if not work.waiting:
                    work.told(None)

    async def _asked(self, call: Call, ask: Ask) -> str:
        assert self._session is not None, "used outside `async with`"
        try:
            token = (await asyncio.to_thread(self._token.read_bytes))[:_MAX_TOKEN].decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise _Away("the pod has no token for the store", unknown=True) from None
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._session.post(
                self._url, json=asks.wire(ask), headers=headers, allow_redirects=False
            ) as answer:
                told = _told(await _read(answer.content))
                if answer.status == 200 and isinstance(told.get("url"), str):
                    return str(told["url"])
                words = str(told.get("message") or f"the store's stager answers {answer.status}")[:300]
                if answer.status == 401 and told.get("code") == UNAUTHORIZED:
                    raise _Away(words, unknown=True)
                if answer.status == 401:  # it knows gateways' signatures alone: an earlier version, or one without keys
                    raise _Away("the store's stager does not sign for agents yet")
                if answer.status in (400, 403):
                    raise S3Error(f"{call.shown}: {words}")
                raise _Away(words)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = "in time" if isinstance(error, TimeoutError) else f"({type(error).__name__})"
            raise _Away(f"the store's stager does not answer {words}") from None


class _Away(Exception):  # noqa: N818 - a verdict
    """Nothing is signed now. `unknown`: because of the token, which is not waited for as long."""

    def __init__(self, words: str, *, unknown: bool = False) -> None:
        super().__init__(words)
        self.unknown = unknown


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = b""
    while not content.at_eof() and len(body) <= _MAX_ANSWER:
        body += await content.read(_MAX_ANSWER)
    return body


def _told(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _ask_of(call: Call, prefix: str, work: _Work) -> Ask:
    """The ask that a call is. Raises S3Error for one that no broker signs."""
    query, headers = dict(call.query), {name.lower(): value for name, value in call.headers.items()}
    action = _action(call.method, frozenset(query))
    key = query["prefix"] if action is Action.UPLOADS else call.key
    job = {"name": work.name, "uid": work.uid, "attempt": work.attempt}
    told: dict[str, Any] = {"job": job, "action": action, "key": key.removeprefix(prefix)}
    if "uploadId" in query:
        told["upload"] = query["uploadId"]
    if action is Action.PART:
        told["part"] = int(query["partNumber"])
    if call.body is not None:
        told["bytes"] = call.body.size
        if action is not Action.COMPLETE:
            told["md5"] = call.body.md5
    if action in (Action.CREATE, Action.BEGIN):
        told |= {"sha256": headers.get(META_SHA256), "content_type": headers.get("content-type")}
    if action in (Action.CREATE, Action.COMPLETE):
        told["anew"] = "if-none-match" in headers
    try:
        return Ask.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise S3Error(f"{call.shown}: no broker signs this: {place} {first['msg']}"[:300]) from None


_ACTIONS: Final[Mapping[tuple[str, frozenset[str]], Action]] = {
    ("HEAD", frozenset()): Action.LOOK,
    ("GET", frozenset()): Action.READ,
    ("PUT", frozenset()): Action.CREATE,
    ("POST", frozenset({"uploads"})): Action.BEGIN,
    ("PUT", frozenset({"partNumber", "uploadId"})): Action.PART,
    ("POST", frozenset({"uploadId"})): Action.COMPLETE,
    ("DELETE", frozenset({"uploadId"})): Action.ABORT,
    ("GET", frozenset({"prefix", "uploads"})): Action.UPLOADS,
}


def _action(method: str, query: frozenset[str]) -> Action:
    action = _ACTIONS.get((method, query))
    if action is None:
        raise S3Error(f"no broker signs {method} with {', '.join(sorted(query)) or 'no query'}")
    return action
