"""The three endpoints, over a real socket."""

import httpx

from kinora.agent.metrics import Metrics
from kinora.kube.http import application, serve


async def test_health_readiness_and_metrics() -> None:
    obstacle: list[str | None] = ["the first list is not in yet"]
    metrics = Metrics()
    metrics.attempts.labels(result="Succeeded").inc()
    runner = await serve(application(metrics.registry, lambda: obstacle[0]), "127.0.0.1", 0)
    host, port = runner.addresses[0][:2]
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            assert (await client.get("/healthz")).text == "ok\n"
            waiting = await client.get("/readyz")
            assert (waiting.status_code, waiting.text) == (503, "the first list is not in yet\n")
            obstacle[0] = None
            assert (await client.get("/readyz")).status_code == 200
            told = (await client.get("/metrics")).text
            assert 'kinora_agent_attempts_total{result="Succeeded"} 1.0' in told
            assert (await client.get("/")).status_code == 404
            asked = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"}
            new = await client.get("/metrics", headers=asked)
            assert new.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert new.text.endswith("# EOF\n")
            old = await client.get("/metrics", headers={"Accept": "*/*"})
            assert old.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    finally:
        await runner.cleanup()
