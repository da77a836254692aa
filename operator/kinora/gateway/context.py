"""What every dialect's routes are given, and what a dialect is. Nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from kinora.catalogue.load import Catalogue
from kinora.gateway.auth import NAMESPACE_HEADER, Authenticator
from kinora.gateway.errors import GatewayError
from kinora.gateway.files import Files
from kinora.gateway.live.streams import Streams
from kinora.gateway.metrics import Metrics
from kinora.gateway.service import Service
from kinora.gateway.settings import Settings
from kinora.gateway.tenants import Tenant


@dataclass
class Gateway:
    """The parts of one gateway process."""

    settings: Settings
    service: Service
    authenticator: Authenticator
    metrics: Metrics
    files: Files
    live: Streams
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    "Set when the process is about to end: whoever keeps a request open answers it now."

    @property
    def catalogue(self) -> Catalogue:
        """The models of the moment."""
        return self.service.catalogue

    async def tenant(self, request: HTTPConnection, dialect: str | None) -> Tenant:
        """Who asks. Raises Unauthorized, Forbidden, Unavailable."""
        headers = request.headers
        tenant = await self.authenticator.tenant(headers.get("authorization"), headers.get(NAMESPACE_HEADER), dialect)
        request.state.tenant = tenant.name
        return tenant

    def base_url(self, request: HTTPConnection) -> str:
        """Where links that are given out begin, without a slash at the end."""
        return base_url(self.settings, request)


def base_url(settings: Settings, request: HTTPConnection) -> str:
    """Where links that are given out begin, without a slash at the end."""
    return settings.values.public_url.rstrip("/") or str(request.base_url).rstrip("/")


@dataclass(frozen=True)
class Dialect:
    """One foreign API.

    `prefixes`: paths whose errors are told in its shape; `streamed`: those whose bodies the routes bound themselves.
    """

    name: str
    prefixes: tuple[str, ...]
    router: Callable[[Gateway], APIRouter]
    render: Callable[[GatewayError, Request], Response]
    streamed: tuple[str, ...] = ()
