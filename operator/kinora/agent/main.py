"""The agent's entry point: settings, login, the real parts, signals, HTTP. No behaviour of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kinora.agent.agent import Agent, Parts
from kinora.agent.liveroutes import service
from kinora.agent.settings import Settings, SettingsError, settings_from
from kinora.agent.token import TOKEN_PATH, token_fault
from kinora.api import names
from kinora.api.agentconfig import CONFIG_VARIABLE, AgentConfig
from kinora.catalogue.load import CatalogueError, load_catalogue
from kinora.catalogue.model import Model
from kinora.catalogue.own import parse_own
from kinora.engine.client import ComfyClient
from kinora.engine.supervisor_client import SupervisorClient
from kinora.kube.client import KubeClient
from kinora.kube.config import connect
from kinora.kube.http import application, serve
from kinora.kube.secret_keys import SecretKeys
from kinora.s3.address import Bucket
from kinora.storage.broker.signer import BrokerSigner
from kinora.storage.opened import opened_bucket
from kinora.storage.pvc import PvcStore
from kinora.storage.store import ArtifactStore

log = logging.getLogger(__name__)


def run() -> None:
    """Run the agent of a server pod until it is drained."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    os.umask(0o002)  # the engine shares the folders by its group
    try:
        settings = settings_from(os.environ)
    except SettingsError as error:
        sys.exit(f"kinora agent: {error}")
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    model = model_for(settings.config)
    async with (
        KubeClient(connect(), user_agent="kinora-agent") as client,
        ComfyClient(settings.engine_url) as engine,
        store_of(settings) as store,
    ):
        agent = Agent(
            Parts(
                settings=settings,
                client=client,
                engine=engine,
                supervisor=SupervisorClient(settings.paths.supervisor),
                store=store,
                model=model,
                token_fault=_token_fault(settings),
            )
        )
        client.observe = agent.metrics.api.request
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, agent.drain)
        runner = await serve(
            application(agent.metrics.registry, agent.obstacle), settings.listen_host, settings.listen_port
        )
        try:
            async with listeners(settings, client, agent):
                await agent.run()
        finally:
            await runner.cleanup()
    log.info("drained")


@asynccontextmanager
async def listeners(settings: Settings, client: KubeClient, agent: Agent) -> AsyncIterator[None]:
    """Let gateways listen to what the engine says, where the pod was told so. No render depends on it."""
    if not settings.live:
        yield
        return
    keys = SecretKeys(client, settings.identity.namespace, names.LIVE_SECRET)
    told = service(agent.live, keys, settings.identity.pod_uid, agent.metrics.live)
    try:
        runner = await serve(told, settings.listen_host, settings.live_port, shutdown_seconds=1.0, leaving=True)
    except OSError as error:  # the port is taken, by a container of the pod template for one
        log.warning("no gateway can listen: port %d: %s", settings.live_port, error)
        runner = None
    try:
        yield
    finally:
        if runner is not None:
            await runner.cleanup()


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[ArtifactStore]:
    """The artifact store that the pod's ModelServer names."""
    bucket = settings.config.artifact_s3
    if bucket is None:
        yield PvcStore(settings.paths.artifacts, settings.config.artifact_claim)
        return
    broker = settings.config.artifact_broker
    if not broker:
        async with opened_bucket(bucket, settings.mounts) as store:
            yield store
        return
    async with (
        BrokerSigner(broker, Bucket.of(bucket), settings.mounts.token, settings.patience) as signer,
        opened_bucket(bucket, settings.mounts, signer=signer) as store,
    ):
        yield store


def model_for(config: AgentConfig) -> Model:
    """The model to serve: the administrator's entry where the operator gave one, else the packaged one."""
    if config.model_entry:
        try:
            return parse_own(config.model_entry, CONFIG_VARIABLE, load_catalogue()).model
        except CatalogueError as error:
            raise SystemExit(f"kinora agent: {error}") from None
    model = load_catalogue().get(config.model)
    if model is None:
        raise SystemExit(f"kinora agent: model {config.model!r} is not in the catalogue")
    return model


def _token_fault(settings: Settings) -> str | None:
    try:
        token = Path(TOKEN_PATH).read_text(encoding="ascii")
    except OSError as error:
        return f"there is no service account token: {error.strerror}"
    return token_fault(token, settings.identity.pod_uid)
