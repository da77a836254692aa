"""The stager's entry point: settings, login, the real parts, signals, HTTP. No behaviour of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from kinora import __version__
from kinora.catalogue.load import load_catalogue
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection, connect
from kinora.kube.http import application, serve
from kinora.stager.intake import Intake
from kinora.stager.metrics import Metrics
from kinora.stager.settings import Settings, SettingsError, settings_from
from kinora.stager.stager import Parts, Stager
from kinora.storage.guard.fetch import GuardedFetcher
from kinora.storage.inputs import PvcInputs

log = logging.getLogger(__name__)


def run() -> None:
    """Run the stager until SIGTERM or SIGINT. What it was fetching then, its next process fetches again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = settings_from(os.environ)
    except SettingsError as error:
        sys.exit(f"kinora stager: {error}")
    asyncio.run(serve_until_told(settings, connect()))


async def serve_until_told(settings: Settings, connection: Connection) -> None:
    """Serve until SIGTERM or SIGINT."""
    serving = asyncio.ensure_future(stage(settings, connection))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        log.info("stopped")


async def stage(settings: Settings, connection: Connection) -> None:
    """Serve with the real parts until cancelled."""
    config, metrics = settings.config, Metrics()
    async with KubeClient(connection, user_agent="kinora-stager") as client:
        store = PvcInputs(settings.artifacts, config.artifact_claim, settings.namespace)
        fetcher = GuardedFetcher(settings.policy, agent=f"kinora/{__version__}")
        stager = Stager(
            Parts(
                settings=settings,
                client=client,
                store=store,
                intake=Intake(store, fetcher, limits=config.limits, parallel=config.parallel, metrics=metrics),
                catalogue=load_catalogue().with_aliases(config.model_aliases),
                metrics=metrics,
            )
        )
        runner = await serve(application(metrics.registry, stager.obstacle), settings.listen_host, settings.listen_port)
        try:
            await stager.run()
        finally:
            await runner.cleanup()
