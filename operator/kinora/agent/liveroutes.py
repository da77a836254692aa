"""GET /live/{job UID}/{attempt} of an agent, on a port of its own: that attempt's course, a line an event, to its end.

Nothing is said, not even whether the job is here, without a good token (engine/livetoken.py). Streams are few and
bounded in time; one that is not read is cut. Nothing here can hold up the render: see live.py.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import web

from kinora.agent.live import Listener, Live
from kinora.agent.metrics import LiveMetrics
from kinora.api import names
from kinora.engine import live, livetoken
from kinora.engine.livetoken import BadToken, Listening
from kinora.kube.client import ApiError, UnreachableError
from kinora.kube.secret_keys import SecretKeyError

log = logging.getLogger(__name__)

#: The keys of the moment; `anew`: read them again, since a token was of none of those. SecretKeyError, ApiError.
Keys = Callable[[bool], Awaitable[list[bytes]]]
MAX_STREAMS: Final = 16  # at a time: a gateway's replica opens one an attempt, and an engine renders one at a time
QUIET_SECONDS: Final = 15.0  # then an empty line tells that the stream is not dead
STALLED_SECONDS: Final = 10.0  # that a line may take to be sent
LONGEST_SECONDS: Final = 3600.0  # of one stream; whoever still listens comes again, with a new token
_JOB: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ATTEMPT: Final = re.compile(r"[1-9]\d{0,8}")


def service(told: Live, keys: Keys, pod_uid: str, metrics: LiveMetrics) -> web.Application:
    """The application of one agent."""
    routes = _Routes(told, keys, pod_uid, metrics)
    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/live/{job}/{attempt}", routes.stream, allow_head=False)])
    return app


class _Routes:
    def __init__(self, told: Live, keys: Keys, pod_uid: str, metrics: LiveMetrics) -> None:
        self._live, self._keys, self._pod_uid, self._metrics = told, keys, pod_uid, metrics

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The stream, or why there is none: 401, 404, 503."""
        job, attempt = request.match_info["job"], request.match_info["attempt"]
        if not _JOB.fullmatch(job) or not _ATTEMPT.fullmatch(attempt):
            return self._refusal(401, "BadToken", "there is no token for that")
        asked = Listening(self._pod_uid, job, int(attempt))
        try:
            await self._verify(request.headers.get("Authorization", ""), asked)
        except BadToken as bad:
            return self._refusal(401, "BadToken", str(bad))
        except (SecretKeyError, ApiError, UnreachableError) as error:
            log.warning("the key for listeners: %s", error)
            return self._refusal(503, "NoKey", "the key that tokens are held against cannot be read")
        if len(self._live) >= MAX_STREAMS:
            return self._refusal(503, "Full", f"{MAX_STREAMS} streams are open, which is the limit of an agent")
        with self._live.listen(names.prompt_id(job, int(attempt))) as listener:
            if listener is None:
                return self._refusal(404, "NotHere", "that attempt is not rendered here now")
            return await self._serve(request, listener)

    async def _verify(self, header: str, asked: Listening) -> None:
        try:
            livetoken.verify(await self._keys(False), header, asked, time.time())
        except BadToken:
            livetoken.verify(await self._keys(True), header, asked, time.time())

    async def _serve(self, request: web.Request, listener: Listener) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        try:
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(LONGEST_SECONDS):
                    await response.prepare(request)
                    await self._tell(request, response, listener)
                    await response.write_eof()
        finally:
            self._metrics.dropped.inc(listener.dropped)
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse, listener: Listener) -> None:
        while True:
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    events = await listener.take()
                text = b"".join(map(live.line, events))
            except TimeoutError:
                events, text = [], live.NOTHING
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    await response.write(text)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                raise
            self._metrics.messages.inc(len(events))
            if any(isinstance(event, live.Ended | live.Left) for event in events):
                return

    def _refusal(self, status: int, reason: str, message: str) -> web.Response:
        self._metrics.refused.labels(reason=reason).inc()
        return web.json_response({"reason": reason, "message": message}, status=status)
