"""/metrics, /healthz and /readyz of the operator. Nothing else is served."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def application(registry: CollectorRegistry, is_ready: Callable[[], bool], role: Callable[[], str]) -> web.Application:
    """The three endpoints; /healthz answers while the loop turns. A warm standby is ready."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if is_ready():
            return web.Response(text=f"ok: {role()}\n")
        return web.Response(status=503, text="the first full list of every kind is not in yet\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app
