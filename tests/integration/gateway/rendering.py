"""Everything behind the gateway, real but for the kubelet: operator, stager, and a server pod with its agent and the
stand-in as its engine. What a kubelet does to the pods, start them and say so, is done here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from integration.agent.bench import Bench, make_folders
from integration.conftest import free_port
from integration.gateway.house import House
from integration.tokens import as_token, token, until_authorised
from kinora.api.names import LIVE_SECRET, STAGER_SERVICE_ACCOUNT
from kinora.api.stagerconfig import StagerConfig
from kinora.controller.stager.desired import role_binding, service_account
from kinora.gateway.tenants import Tenant
from kinora.kube.client import STRATEGIC, ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, POD, ROLE_BINDING, SECRET, SERVICE_ACCOUNT
from kinora.stager.main import stage
from kinora.stager.settings import Settings, Times, policy_of
from waiting import model_server, until, wait_for, wait_for_pods

Object = dict[str, Any]
ADDRESS = "10.244.7.9"  # of the pod, as its kubelet would say


@asynccontextmanager
async def rendering(
    house: House,
    start_operator: Callable[..., Awaitable[Any]],
    model: str,
    root: Path,
    *,
    step_seconds: float = 0.0,
    live: bool = False,
    steps: int | None = None,
) -> AsyncIterator[Bench]:
    """A ModelServer `renders` of the model with one pod that takes jobs. Its artifacts are the house's store.

    `step_seconds`: how long the engine samples a step. `live`: the gateway may listen to it, as if the pod's address
    led to this machine. `steps`: so many of a prompt it may do, until `go`.
    """
    kube, namespace = house.kube, house.namespace
    await start_operator(live=live)
    await kube.create(MODELSERVER, namespace, model_server("renders", model))
    pods = await wait_for_pods(kube, namespace, lambda pods: any(_is_of(pod, "renders") for pod in pods))
    pod = next(pod for pod in pods if _is_of(pod, "renders"))
    await until(lambda: house.gateway is None or "renders" in _servers(house))
    port = free_port() if live else 0
    bench = Bench(
        kube, house.connection, namespace, root, pod, free_port(), model=model, server="renders", live_port=port
    )
    _prepare(root, house.store.root, model)
    if steps is not None:
        bench.hold(steps)
    running = {"status": {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}}
    if live and house.gateway is not None:
        await wait_for(kube, SECRET, namespace, LIVE_SECRET, lambda secret: secret is not None)
        house.gateway.live.agents.url = {ADDRESS: f"http://127.0.0.1:{port}"}.__getitem__
    await kube.patch(POD, namespace, pod["metadata"]["name"], running, subresource="status", content_type=STRATEGIC)
    login = await _stager_login(kube, house.connection, namespace)
    async with asyncio.TaskGroup() as group:  # a stager that ends early ends the test at once, and is told
        staging = group.create_task(_stager(login, namespace, house.store.root))
        try:
            await bench.start_engine(step_seconds=step_seconds)
            await bench.start_agent()
            await bench.condition_when("EngineReady", 120)
            yield bench
        finally:
            await bench.kill_agent()
            await bench.stop_engine()
            staging.cancel()


def _prepare(root: Path, store: Path, model: str) -> None:
    root.mkdir()
    (root / "artifacts").symlink_to(store)
    make_folders(root, model_name=model)


def _servers(house: House) -> list[str]:
    """The ModelServers that the gateway knows."""
    assert house.gateway is not None
    return [server["metadata"]["name"] for server in house.gateway.service.servers(Tenant("any", house.namespace))]


def _is_of(pod: Object, server: str) -> bool:
    return str(pod["metadata"]["name"]).startswith(f"{server}-")


async def _stager_login(kube: KubeClient, connection: Connection, namespace: str) -> Connection:
    """The stagers' account, with a token that is bound to a pod."""
    for resource, body in ((SERVICE_ACCOUNT, service_account), (ROLE_BINDING, role_binding)):
        with suppress(ApiError):  # the operator was faster
            await kube.create(resource, namespace, body(namespace))
    spec = {
        "serviceAccountName": STAGER_SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "containers": [{"name": "stager", "image": "none"}],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stager"}, "spec": spec}
    text = await token(kube, namespace, STAGER_SERVICE_ACCOUNT, await kube.create(POD, namespace, body))
    own = as_token(connection, text)
    async with KubeClient(own) as client:
        await until_authorised(client, namespace)
    return own


async def _stager(login: Connection, namespace: str, artifacts: Path) -> None:
    """The stager of the claim."""
    config = StagerConfig.model_validate({"artifactClaim": "artifacts"})
    settings = Settings(
        namespace=namespace,
        config=config,
        policy=policy_of(config.allow),
        times=Times(retry_first=0.1, retry_limit=0.5),
        artifacts=artifacts,
        listen_host="127.0.0.1",
        listen_port=free_port(),
        store_port=free_port(),
    )
    await stage(settings, login)
