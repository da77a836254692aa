"""Three endpoints of operator, agent and stager: /healthz for the kubelet, /readyz, /metrics. Nothing else is served.

/metrics speaks OpenMetrics, with exemplars, to who asks for it (Prometheus does), and the older text to all others.
They answer while the loop turns, and ask nobody: a stalled engine or store must not have the process restarted.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


def application(
    registry: CollectorRegistry, obstacle: Callable[[], str | None], role: Callable[[], str] = lambda: ""
) -> web.Application:
    """`obstacle` says why the process is not ready, or None; `role` what it is when it is (a warm standby is ready)."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(", ".join(request.headers.getall("Accept", [])))
        response = web.Response(body=encode(registry), headers={"Content-Type": content_type, "Vary": "Accept"})
        response.enable_compression()  # to who takes it: a page of histograms shrinks to a tenth
        return response

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = obstacle()
        if reason is None:
            return web.Response(text=f"ok: {role()}".rstrip(": ") + "\n")
        return web.Response(status=503, text=reason + "\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


async def serve(
    app: web.Application, host: str | None, port: int, *, shutdown_seconds: float = 60.0, leaving: bool = False
) -> web.AppRunner:
    """Start serving (host None: on every address); `cleanup` of what is returned ends it.

    `shutdown_seconds`: how long requests in flight are waited for then. `leaving`: a handler ends when
    whoever asked has gone. OSError.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_seconds, handler_cancellation=leaving)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
