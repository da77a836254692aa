"""The stager's entry point: settings, login, the real parts, signals, HTTP. No behaviour of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from kinora import __version__
from kinora.api.stagerconfig import CONFIG_VARIABLE, StagerConfig
from kinora.catalogue.load import Catalogue, CatalogueError, load_catalogue
from kinora.catalogue.own import Read, parse_own, with_own
from kinora.kube.client import KubeClient
from kinora.kube.config import Connection, connect
from kinora.kube.http import application, serve
from kinora.stager.broker import Broker
from kinora.stager.intake import Intake
from kinora.stager.metrics import Metrics
from kinora.stager.routes import service
from kinora.stager.settings import Settings, SettingsError, settings_from
from kinora.stager.stager import Parts, Stager
from kinora.stager.upkeep import Retention, Upkeep
from kinora.storage.guard.fetch import GuardedFetcher
from kinora.storage.inputs import PvcInputs
from kinora.storage.objects import Objects, PvcObjects, S3Objects
from kinora.storage.opened import opened_bucket
from kinora.storage.s3 import S3Store
from kinora.storage.s3_files import S3Files
from kinora.storage.s3_inputs import S3Inputs
from kinora.storage.service.model import FileStore
from kinora.storage.staged import StagedInputs
from kinora.storage.uploads import PvcFiles

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
    async with (
        KubeClient(connection, user_agent="kinora-stager") as client,
        stores_of(settings) as stores,
    ):
        client.observe = metrics.api.request
        fetcher = GuardedFetcher(settings.policy, agent=f"kinora/{__version__}")
        stager = Stager(
            Parts(
                settings=settings,
                client=client,
                store=stores.inputs,
                intake=Intake(stores.inputs, fetcher, limits=config.limits, parallel=config.parallel, metrics=metrics),
                catalogue=catalogue_of(config),
                metrics=metrics,
            )
        )
        retention = Retention(config.upload_seconds, config.artifact_seconds, config.input_seconds)
        upkeep = Upkeep(
            client, stores.files, stores.objects, retention, every_seconds=settings.times.sweep, metrics=metrics
        )
        broker = (
            None
            if stores.bucket is None
            else Broker(client, stores.bucket, settings.namespace, metrics, seconds=settings.url_seconds)
        )
        urls = broker.urls if broker is not None else None
        async with AsyncExitStack() as stack:
            for app, port in (
                (application(metrics.registry, stager.obstacle), settings.listen_port),
                (service(stores.files, upkeep.keys, metrics, urls), settings.store_port),
            ):
                runner = await serve(app, settings.listen_host, port)
                stack.push_async_callback(runner.cleanup)
            tidying = asyncio.ensure_future(upkeep.run())
            stack.callback(tidying.cancel)
            await stager.run()


@dataclass(frozen=True, slots=True)
class Stores:
    """The one store that this stager serves: as it stores inputs there, as gateways have files there, all of it.

    `bucket`: as agents have it; None where they reach it without a stager's help (a claim, or a bucket without keys).
    """

    inputs: StagedInputs
    files: FileStore
    objects: Objects
    bucket: S3Store | None = None


@asynccontextmanager
async def stores_of(settings: Settings) -> AsyncIterator[Stores]:
    """The store of the settings, opened."""
    config, namespace = settings.config, settings.namespace
    if config.artifact_s3 is None:
        folder, claim = settings.artifacts, config.artifact_claim
        yield Stores(PvcInputs(folder, claim, namespace), PvcFiles(folder, claim, namespace), PvcObjects(folder, claim))
        return
    async with opened_bucket(config.artifact_s3, settings.mounts) as store:
        scratch = settings.mounts.scratch
        yield Stores(
            S3Inputs(store, namespace, scratch=scratch),
            S3Files(store, namespace, scratch=scratch),
            S3Objects(store),
            store if config.artifact_s3.secret_name else None,
        )


def catalogue_of(config: StagerConfig) -> Catalogue:
    """The models as the operator knows them: packaged ones, the administrator's own, aliases that lead to one."""
    packaged, good = load_catalogue(), {}
    for text in config.model_entries:
        try:
            own = parse_own(text, CONFIG_VARIABLE, packaged)
            good[own.model.name] = own
        except CatalogueError as error:  # an older stager, a newer operator: that model's jobs wait
            log.warning("%s", error)
    catalogue = with_own(packaged, Read(good, {}))
    known = {name: target for name, target in config.model_aliases.items() if not catalogue.alias_fault(name, target)}
    return catalogue.with_aliases(known)
