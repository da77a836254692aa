"""One stream from one agent: the key, the pod's address, the request, and what comes, held against limits.

Nothing that is read here is believed to be more than it is: an agent lives in its tenant's namespace, and anybody who
makes pods there may answer in its place. No redirect is followed, and lines and their rate are bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from kinora.api import names
from kinora.engine import live, livetoken
from kinora.engine.live import LiveEvent
from kinora.engine.livetoken import Listening
from kinora.gateway.jobs import Job
from kinora.gateway.live.address import NoAddress, address_of
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import POD
from kinora.kube.secret_keys import SecretKeyError, SecretKeys

CONNECT_SECONDS: Final = 2.0
QUIET_SECONDS: Final = 45.0  # an agent says something every 15
MAX_LINE: Final = 1 << 17  # bytes
MAX_RATE: Final = 500  # events a second that are read of one stream; more wait, and the agent leaves steps out
_ADDRESSES: Final = 4096
_CONNECTIONS: Final = 1024


class NoStream(Exception):  # noqa: N818 - a state
    """It cannot be had, or broke. `reason`: one of metrics.REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


def url_of(host: str) -> str:
    """Where the agent at that address tells of its engine."""
    return f"http://{host}:{names.AGENT_LIVE_PORT}"


class Agents:
    """The agents of all server pods. `url`: where the one at an address is reached."""

    def __init__(self, client: KubeClient, url: Callable[[str], str] = url_of) -> None:
        self.url = url
        self._client = client
        self._keys: dict[str, SecretKeys] = {}
        self._hosts: OrderedDict[str, str] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stream(self, job: Job) -> AsyncGenerator[LiveEvent]:
        """What the engine says of the job's attempt, from its beginning; the last event is Ended or Left.

        Raises NoStream.
        """
        assert job.pod
        assert job.pod_uid
        key, host = await self._key(job.namespace), await self._host(job)
        token = livetoken.sign(key, Listening(job.pod_uid, job.uid, job.attempt), time.time())
        try:
            async with self._opened().get(
                f"{self.url(host)}/live/{job.uid}/{job.attempt}",
                headers={"Authorization": token},
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    await self._refused(job, response.status)
                async for event in _events(response.content):
                    yield event
        except TimeoutError as error:
            self._hosts.pop(job.pod_uid, None)
            raise NoStream("Timeout", type(error).__name__) from None
        except aiohttp.ClientConnectorError as error:
            self._hosts.pop(job.pod_uid, None)
            raise NoStream("Refused", str(error.os_error.strerror)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoStream("Cut", type(error).__name__) from None

    async def _refused(self, job: Job, status: int) -> None:
        if status == 401:  # the key may have been changed
            await self._key(job.namespace, anew=True)
        raise NoStream("Status", f"the agent answered {status}")

    async def _key(self, namespace: str, *, anew: bool = False) -> bytes:
        keys = self._keys.get(namespace)
        if keys is None:
            keys = self._keys[namespace] = SecretKeys(self._client, namespace, names.LIVE_SECRET)
        try:
            return (await keys(anew))[0]
        except SecretKeyError as error:
            raise NoStream("NoKey", str(error)) from None
        except (ApiError, UnreachableError) as error:
            raise NoStream("Api", str(error)) from None

    async def _host(self, job: Job) -> str:
        """A pod keeps its address as long as it lives: it is read once."""
        assert job.pod
        assert job.pod_uid
        if job.pod_uid in self._hosts:
            self._hosts.move_to_end(job.pod_uid)
            return self._hosts[job.pod_uid]
        try:
            pod = await self._client.find(POD, job.namespace, job.pod)
            if pod is None:
                raise NoStream("NoAddress", "the pod is gone")
            host = address_of(pod, job.pod_uid)
        except NoAddress as error:
            raise NoStream("NoAddress", str(error)) from None
        except (ApiError, UnreachableError) as error:
            raise NoStream("Api", str(error)) from None
        self._hosts[job.pod_uid] = host
        while len(self._hosts) > _ADDRESSES:
            self._hosts.popitem(last=False)
        return host

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=QUIET_SECONDS),
                read_bufsize=MAX_LINE // 2,
            )
        return self._session


async def _events(lines: aiohttp.StreamReader) -> AsyncIterator[LiveEvent]:
    """Events line by line, up to Ended or Left; a stream that ends before was cut."""
    since, count = time.monotonic(), 0
    while True:
        try:
            text = await lines.readline()
            event = live.parsed(text) if text else None
        except (ValueError, HttpProcessingError):  # no event, or a line without an end
            raise NoStream("Garbled", "it says what no agent says") from None
        if not text:
            raise NoStream("Cut", "the agent ended the stream")
        count += 1
        if count >= MAX_RATE:
            await asyncio.sleep(max(0.0, since + 1.0 - time.monotonic()))
            since, count = time.monotonic(), 0
        if event is not None:
            yield event
        if isinstance(event, live.Ended | live.Left):
            return
