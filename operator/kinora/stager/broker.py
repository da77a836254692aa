"""The broker over HTTP: an agent's token and ask in, a URL for one request of the bucket out.

POST /v1/agents/urls   {job: {name, uid, attempt}, action, key, ...} -> {url, seconds}   (kinora.storage.broker.asks)

Who may have what is decided in kinora.storage.broker.grant, on the job as it is now. No token and no URL is logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kinora.api.names import AGENT_SERVICE_ACCOUNT, STORE_AUDIENCE
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import TOKEN_REVIEW, VIDEOJOB
from kinora.s3.client import Body, Call
from kinora.s3.faults import S3Error
from kinora.stager.metrics import Metrics
from kinora.storage.broker import grant
from kinora.storage.broker.asks import MAX_ASK, UNAUTHORIZED, Ask, AskError, parsed, wanted
from kinora.storage.broker.grant import Caller, Refused
from kinora.storage.keys import checked_key
from kinora.storage.s3 import S3Store

log = logging.getLogger(__name__)

_YES_SECONDS: Final = 60.0  # how long the API server's word on a token is believed (decision 28)
_NO_SECONDS: Final = 5.0
_MOST: Final = 4096  # tokens remembered
_MAX_TOKEN: Final = 16 * 1024  # characters
_UNKNOWN_STATUS: Final = frozenset({400, 501})  # what servers say that do not know `If-None-Match` on a write


class Unknown(Exception):  # noqa: N818 - a verdict
    """The token is nobody's."""


class Away(Exception):  # noqa: N818 - a verdict
    """The API server or the bucket does not answer now."""


@dataclass(frozen=True, slots=True)
class _Answer:
    caller: Caller | Refused | Unknown
    until: float


class Tokens:
    """Whose a token is, by the API server; its answers are believed for a while."""

    def __init__(self, client: KubeClient, namespace: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._namespace, self._clock = client, namespace, clock
        self._answers: dict[bytes, _Answer] = {}

    async def caller(self, authorization: str) -> Caller:
        """The agent that shows this header. Raises Unknown, Refused, Away."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or token.count(".") != 2 or len(token) > _MAX_TOKEN or not token.isascii():
            raise Unknown(f"no token: send one of audience {STORE_AUDIENCE} as Authorization: Bearer TOKEN")
        key, now = hashlib.sha256(token.encode()).digest(), self._clock()
        known = self._answers.get(key)
        if known is None or known.until <= now:
            found = await self._review(token)
            known = _Answer(found, self._clock() + (_YES_SECONDS if isinstance(found, Caller) else _NO_SECONDS))
            self._answers.pop(key, None)
            self._answers[key] = known
            while len(self._answers) > _MOST:
                del self._answers[next(iter(self._answers))]
        if not isinstance(known.caller, Caller):
            raise known.caller.with_traceback(None)  # it is raised again and again
        return known.caller

    async def _review(self, token: str) -> Caller | Refused | Unknown:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [STORE_AUDIENCE]},
        }
        try:
            status = (await self._client.create(TOKEN_REVIEW, None, body)).get("status") or {}
        except (ApiError, UnreachableError) as error:
            log.warning("reviewing a token: %s", error)
            raise Away("the store's stager cannot have a token reviewed now") from None
        if not status.get("authenticated") or STORE_AUDIENCE not in (status.get("audiences") or ()):
            return Unknown(f"the token is not known, has expired, or is not for {STORE_AUDIENCE}")
        try:
            return grant.caller_of(status.get("user") or {}, self._namespace, AGENT_SERVICE_ACCOUNT)
        except Refused as refused:
            return refused


class Broker:
    """Signs for the agents of a namespace, with the keys of the store of `store`."""

    def __init__(self, client: KubeClient, store: S3Store, namespace: str, metrics: Metrics, *, seconds: int) -> None:
        self._asks = metrics.asks
        self._client, self._store, self._namespace, self._seconds = client, store, namespace, seconds
        self._tokens = Tokens(client, namespace)
        self._create_only: bool | None = None
        self._probing = asyncio.Lock()

    async def urls(self, request: web.Request) -> web.Response:
        """Answers one ask: 200, 400, 401, 403, or 503 for what may pass."""
        result, answer = await self._answered(request)
        self._asks.labels(result).inc()
        return answer

    async def _answered(self, request: web.Request) -> tuple[str, web.Response]:
        try:
            caller = await self._tokens.caller(request.headers.get("Authorization", ""))
            text = await request.content.read(MAX_ASK + 1)
            while not request.content.at_eof() and len(text) <= MAX_ASK:
                text += await request.content.read(MAX_ASK + 1 - len(text))
            if len(text) > MAX_ASK:
                raise AskError(f"the ask has more than {MAX_ASK} bytes")
            url = await self._signed(parsed(text), caller)
        except Unknown as unknown:
            return "Unknown", _refusal(401, UNAUTHORIZED, str(unknown))
        except Refused as refused:
            log.info("refused an agent (%s): %s", refused.code, refused)
            return "Refused", _refusal(403, refused.code, str(refused))
        except ValueError as error:  # AskError, KeyRefused
            return "Malformed", _refusal(400, "Malformed", str(error))
        except Away as away:
            return "Away", _refusal(503, "Away", str(away))
        headers = {"Cache-Control": "no-store"}
        return "Signed", web.json_response({"url": url, "seconds": self._seconds}, headers=headers)

    async def _signed(self, ask: Ask, caller: Caller) -> str:
        checked_key(ask.key)
        job = grant.checked_job(ask, caller, await self._job(ask.job.name))
        name = grant.source_name(ask, job)
        source = await self._job(name) if name is not None and not grant.is_own(ask.key, job, ask.job.attempt) else None
        grant.check(ask, job, self._store.root, source)
        if not ask.anew and await self._knows_create_only():
            raise Refused("CreateOnly", "anew is false; this store knows If-None-Match, so that every create uses it")
        request = wanted(ask, self._store.client.bucket.prefix)
        try:
            return self._store.client.presigned(
                request.method, request.key, request.query, request.headers, self._seconds
            )
        except S3Error as error:
            raise Away(f"the store's stager cannot sign: {error}") from None

    async def _job(self, name: str) -> Mapping[str, Any] | None:
        """As it is now, not as a watch last said: what was given up a moment ago is refused."""
        try:
            return await self._client.find(VIDEOJOB, self._namespace, name)
        except (ApiError, UnreachableError) as error:
            log.warning("reading VideoJob %s: %s", name, error)
            raise Away("the store's stager cannot read the VideoJob now") from None

    async def _knows_create_only(self) -> bool:
        """Whether the server does not refuse `If-None-Match: *`, found out once by a note of no bytes.

        One that says nothing and ignores it counts as knowing it: with the header it is used, at no loss.
        """
        async with self._probing:
            if self._create_only is None:
                key = self._store.whole(checked_key(f"intake/{self._namespace}/create-only"))
                try:
                    await self._store.client.ask(Call("PUT", key, (), {"If-None-Match": "*"}, Body.of(b"")))
                    self._create_only = True
                except S3Error as error:
                    if error.status != 412 and error.status not in _UNKNOWN_STATUS:
                        raise Away(f"the store's stager cannot reach the bucket: {error}") from None
                    self._create_only = error.status == 412
            return self._create_only


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status, headers={"Cache-Control": "no-store"})
