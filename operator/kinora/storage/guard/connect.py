"""One request to where a user's URL leads: resolved here, every address checked, connected to the checked ones only.

Host and SNI stay the name's. No redirect is followed, no proxy of the environment is used; no cookies, no credentials,
no decompression. What the answer means is the caller's affair: the fetcher's (fetch.py), and the gateway's webhooks.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from ssl import SSLContext

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kinora.storage.guard.policy import Policy
from kinora.storage.guard.urls import Target

_MAX_ADDRESSES = 32

#: A name and a port -> all of its addresses as text.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotReached(Exception):  # noqa: N818 - a finding
    """The target could not be reached, for a reason that may pass; the message begins with the field."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: of silence, and of resolving and of connecting each. How long all of it may take is the caller's."""

    idle_seconds: float = 20
    connect_seconds: float = 10


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, from the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedClient:
    """Sends requests to users' URLs. One for a process; it holds no connection between requests."""

    def __init__(
        self, policy: Policy, *, resolve: Resolve = resolve_by_system, ssl: SSLContext | None = None, agent: str = ""
    ) -> None:
        """`ssl`: a context other than the system's; `agent`: the User-Agent."""
        self._policy, self._resolve, self._ssl = policy, resolve, ssl
        self._headers = {"User-Agent": agent or "kinora", "Accept": "*/*", "Accept-Encoding": "identity"}

    @asynccontextmanager
    async def request(
        self,
        method: str,
        target: Target,
        field: str,
        patience: Patience,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, its head read and its body not. `field` names the URL in messages.

        UrlRefused: policy does not let it be reached. NotReached, aiohttp.ClientError, ValueError (what came is no
        HTTP), TimeoutError: it did not work this time.
        """
        self._policy.check_target(target, field)
        addresses = await self._addresses(target, patience, field)
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(target.host, addresses), use_dns_cache=False, force_close=True, ssl=self._ssl or True
        )
        times = aiohttp.ClientTimeout(
            total=None, sock_connect=patience.connect_seconds, sock_read=patience.idle_seconds, connect=None
        )
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=times,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={**self._headers, **(headers or {})},
        )
        url = URL(target.url, encoded=True)
        async with session, session.request(method, url, data=body, allow_redirects=False) as response:
            _check_peer(response, addresses, field)
            yield response

    async def _addresses(self, target: Target, patience: Patience, field: str) -> list[str]:
        """Every address of the target, each allowed."""
        if target.address is not None:
            return [str(target.address)]
        try:
            async with asyncio.timeout(patience.connect_seconds):
                found = list(await self._resolve(target.host, target.port))
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            raise NotReached(f"{field}: host {target.host} cannot be resolved") from None
        if not found or len(found) > _MAX_ADDRESSES:
            raise NotReached(f"{field}: host {target.host} has {len(found)} addresses; allowed: 1 to {_MAX_ADDRESSES}")
        for address in found:
            self._policy.check_address(target, address, field)
        return found


class _Pinned(AbstractResolver):
    """Answers for one name, with addresses that were checked."""

    def __init__(self, host: str, addresses: list[str]) -> None:
        self._host, self._addresses = host, addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the signature is aiohttp's
    ) -> list[ResolveResult]:
        """The checked addresses, both families."""
        if host != self._host:
            raise OSError(f"{host} was not checked")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _check_peer(response: aiohttp.ClientResponse, addresses: list[str], field: str) -> None:
    """A second lock on the same door: the connection's other end must be an address that was checked."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    if transport is None:  # the whole answer came with its head, and the connection is closed already
        return
    peer = transport.get_extra_info("peername")
    if peer is None or ip_address(peer[0]) not in {ip_address(address) for address in addresses}:
        raise NotReached(f"{field}: connected to an address that was not checked")
