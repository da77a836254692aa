"""The gateway's entry point: settings, login, watches, HTTP, draining. No behaviour of its own."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import uvicorn
import uvloop

from kinora.api.names import LABEL_CATALOGUE, LABEL_TENANT, SIGNING_SECRET_TYPE
from kinora.catalogue.load import load_catalogue
from kinora.gateway.app import application
from kinora.gateway.auth import Authenticator, Keys
from kinora.gateway.cache import Jobs, Servers
from kinora.gateway.context import Gateway, base_url
from kinora.gateway.dialects import ALL
from kinora.gateway.file_routes import FILES
from kinora.gateway.files import Files
from kinora.gateway.limits import Rates
from kinora.gateway.live.agents import Agents
from kinora.gateway.live.streams import Streams
from kinora.gateway.metrics import Metrics
from kinora.gateway.models import catalogue_of
from kinora.gateway.service import Service
from kinora.gateway.settings import Settings, SettingsError, settings_from
from kinora.gateway.stores import Stores
from kinora.gateway.webhooks.metrics import Metrics as WebhookMetrics
from kinora.gateway.webhooks.service import Webhooks, Wiring
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import Connection, connect
from kinora.kube.http import application as admin
from kinora.kube.http import serve as listen
from kinora.kube.resources import CONFIGMAP, MODELSERVER, SECRET, VIDEOJOB
from kinora.kube.secret_keys import SecretKeyError, SecretKeys
from kinora.kube.watch import Reflector

log = logging.getLogger(__name__)
_GRACE = 30  # seconds for requests in flight once no new ones come
_RELIST = 600.0
_KEY_GRACE = 60.0  # seconds that a replaced key for links is good: other replicas may sign with it still


def run() -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _log_access()
    try:
        settings = settings_from(os.environ)
    except SettingsError as error:
        sys.exit(f"kinora gateway: {error}")
    # What is there at the start stays: the collector need not walk through it again and again (0.2 ms of CPU a submit).
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    uvloop.run(_until_told(settings, connect()))


def _log_access() -> None:
    """Access lines are JSON already: one a line, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("kinora.access")
    access.addHandler(handler)
    access.propagate = False


async def _until_told(settings: Settings, connection: Connection) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, connection, stop)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: ours drain first. `up` is set once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(
    settings: Settings,
    connection: Connection,
    stop: asyncio.Event,
    started: Callable[[Gateway], None] | None = None,
) -> None:
    """Serve until `stop` is set. `started` is told once requests are taken (for tests)."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(KubeClient(connection, user_agent="kinora-gateway", lean=True))
        parts = Parts(settings, client)
        runner = await listen(admin(parts.metrics.registry, parts.obstacle), settings.host, settings.admin_port)
        stack.push_async_callback(runner.cleanup)
        following = [_follow_key(parts.gateway.files, parts.link_key), *(one.run() for one in parts.reflectors)]
        stack.callback(_end, [_kept(part, stop) for part in following])
        stack.push_async_callback(parts.gateway.files.stores.close)
        stack.push_async_callback(parts.gateway.live.close)
        waited = [reflector.synced.wait() for reflector in parts.reflectors]
        synced = asyncio.gather(parts.link_key.read.wait(), *waited)
        await _either(asyncio.ensure_future(stop.wait()), synced)
        if stop.is_set():
            return
        if settings.values.webhooks.enabled:
            renewals = await stack.enter_async_context(KubeClient(connection, user_agent="kinora-gateway"))
            delivering = asyncio.ensure_future(_until(stop, parts.webhooks(renewals).run()))
            stack.push_async_callback(_landed, stop, delivering)
        await _serve_http(settings, parts, stop, started)


async def _until(stop: asyncio.Event, part: Coroutine[Any, Any, None]) -> None:
    """Run a part until `stop` is set; it has time to finish then."""
    running, stopping = asyncio.ensure_future(part), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _landed(stop: asyncio.Event, part: asyncio.Future[None]) -> None:
    """Wait until a part has finished: a second word to end would cut that short."""
    stop.set()
    await asyncio.gather(part, return_exceptions=True)


class _LinkKey:
    """What is known of the Secret with the key for links: that it changed, and that it was read since the start."""

    def __init__(self) -> None:
        self.changed, self.read = asyncio.Event(), asyncio.Event()


async def _follow_key(files: Files, key: _LinkKey) -> None:
    """Read the key that links are signed with whenever its Secret has changed; made, where there is none."""
    while True:
        await key.changed.wait()
        key.changed.clear()
        try:
            await files.read_key()
        except (SecretKeyError, ApiError, UnreachableError) as error:
            log.warning("the key for links: %s; trying again", error)
            key.changed.set()
            await asyncio.sleep(2)
        else:
            key.read.set()


def _kept(part: Coroutine[Any, Any, None], stop: asyncio.Event) -> asyncio.Task[None]:
    """Run what runs for ever. Should it end, the process does: it would answer out of what it saw until then."""
    task = asyncio.ensure_future(part)
    task.add_done_callback(lambda _: stop.set())
    return task


def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel them; what one of them has ended with is raised."""
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    for task in ended:
        task.result()


async def _either(stays: asyncio.Future[Any], other: asyncio.Future[Any]) -> None:
    """Until one of them is done; `other` is cancelled then."""
    await asyncio.wait([stays, other], return_when=asyncio.FIRST_COMPLETED)
    other.cancel()


async def _serve_http(
    settings: Settings, parts: Parts, stop: asyncio.Event, started: Callable[[Gateway], None] | None
) -> None:
    config = uvicorn.Config(
        application(parts.gateway, [FILES, *(one for one in ALL if one.name in settings.values.dialects)]),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE,
        ws_max_size=1 << 20,
        lifespan="off",
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve())
    await _either(serving, asyncio.ensure_future(server.up.wait()))
    parts.serving = server.up.is_set()
    if started and parts.serving:
        started(parts.gateway)
    await _either(serving, asyncio.ensure_future(stop.wait()))
    if not serving.done():  # load balancers learn it before connections are refused
        parts.serving = False
        await asyncio.sleep(settings.values.drain_seconds)
        parts.gateway.draining.set()
        server.should_exit = True
    await serving


class Parts:
    """The parts of one process, wired: caches, the watches that fill them, the service above."""

    def __init__(self, settings: Settings, client: KubeClient) -> None:
        self.serving = False
        self.metrics = Metrics()
        client.observe = self.metrics.api.request
        self._settings, self._client = settings, client
        self._jobs, self._servers, self._keys = Jobs(), Servers(), Keys()
        self.link_key = _LinkKey()
        self._packaged, self._maps = load_catalogue(), dict[str, dict[str, Any]]()
        retention = settings.values.retention.job_seconds or None
        service = Service(client, self._jobs, self._servers, Rates(time.monotonic), retention_seconds=retention)
        service.wrote = lambda obj: self.metrics.api.wrote(VIDEOJOB.plural, obj, time.monotonic())
        self.gateway = Gateway(
            settings=settings,
            service=service,
            authenticator=Authenticator(
                client, self._keys, namespaces=settings.namespaces, limits=settings.values.account_limits
            ),
            metrics=self.metrics,
            files=self._files(service),
            live=Streams(Agents(client), self.metrics.live, enabled=settings.values.live.enabled),
        )
        self._read_models()
        self.metrics.jobs.set_function(lambda: len(self._jobs))
        self.metrics.keys.set_function(lambda: len(self._keys.ring.entries))
        self.metrics.key_faults.set_function(lambda: len(self._keys.faults))
        self.reflectors = [self._key_watch(), self._link_key_watch(), self._model_watch()]
        for scope in settings.namespaces or (None,):
            self.reflectors += [self._job_watch(scope), self._server_watch(scope)]

    def _files(self, service: Service) -> Files:
        settings, values = self._settings, self._settings.values
        name, make = values.signing_secret, SIGNING_SECRET_TYPE
        signing = SecretKeys(self._client, settings.namespace, name, make=make, grace_seconds=_KEY_GRACE)
        stores = Stores(self._client, service.servers, values.store_url)
        return Files(stores, service, signing, partial(base_url, settings), values.retention, has_key=self._has_key)

    def _has_key(self, tenant: str, namespace: str) -> bool:
        return self._keys.ring.has(tenant, namespace, dt.datetime.now(dt.UTC))

    def obstacle(self) -> str | None:
        """Why no request should be sent here; None: it may."""
        waiting = [one.resource.plural for one in self.reflectors if not one.synced.is_set()]
        if waiting:
            return f"reading {', '.join(sorted(set(waiting)))}"
        return None if self.serving else "not listening: starting, or draining"

    def webhooks(self, lease_client: KubeClient) -> Webhooks:
        """The part that delivers webhooks; its renewals have a client of their own."""
        lease_client.observe = self.metrics.api.request
        return Webhooks(
            Wiring(
                client=self._client,
                lease_client=lease_client,
                namespace=self._settings.namespace,
                instance=self._settings.instance,
                namespaces=self._settings.namespaces,
                values=self._settings.values.webhooks,
                metrics=WebhookMetrics(self.metrics.book),
            )
        )

    def _job_watch(self, scope: str | None) -> Reflector:
        def event(kind: str, obj: dict[str, Any]) -> None:
            if kind == "DELETED":
                self._jobs.remove(obj)
            else:
                self.metrics.api.shown(VIDEOJOB.plural, obj, time.monotonic())
                self._jobs.apply(obj)

        reflector = Reflector(
            client=self._client,
            resource=VIDEOJOB,
            on_replace=lambda objects: self._jobs.replace(objects, scope, reflector.listed_version),
            on_event=event,
            namespace=scope,
            label_selector=LABEL_TENANT,
            relist_seconds=_RELIST,
        )
        return reflector

    def _server_watch(self, scope: str | None) -> Reflector:
        def event(kind: str, obj: dict[str, Any]) -> None:
            (self._servers.remove if kind == "DELETED" else self._servers.apply)(obj)

        return Reflector(
            client=self._client,
            resource=MODELSERVER,
            on_replace=lambda objects: self._servers.replace(objects, scope),
            on_event=event,
            namespace=scope,
            relist_seconds=_RELIST,
        )

    def _key_watch(self) -> Reflector:
        name = self._settings.values.keys_secret
        return Reflector(
            client=self._client,
            resource=SECRET,
            on_replace=lambda objects: self._keys.take(objects[0] if objects else None),
            on_event=lambda kind, obj: self._keys.take(None if kind == "DELETED" else obj),
            namespace=self._settings.namespace,
            field_selector=f"metadata.name={name}",
            relist_seconds=_RELIST,
        )

    def _link_key_watch(self) -> Reflector:
        return Reflector(
            client=self._client,
            resource=SECRET,
            on_replace=lambda _: self.link_key.changed.set(),
            on_event=lambda *_: self.link_key.changed.set(),
            namespace=self._settings.namespace,
            field_selector=f"metadata.name={self._settings.values.signing_secret}",
            relist_seconds=_RELIST,
        )

    def _model_watch(self) -> Reflector:
        def replace(objects: list[dict[str, Any]]) -> None:
            self._maps = {one["metadata"]["name"]: one for one in objects}
            self._read_models()

        def event(kind: str, obj: dict[str, Any]) -> None:
            self._maps.pop(obj["metadata"]["name"], None)
            if kind != "DELETED":
                self._maps[obj["metadata"]["name"]] = obj
            self._read_models()

        return Reflector(
            client=self._client,
            resource=CONFIGMAP,
            on_replace=replace,
            on_event=event,
            namespace=self._settings.namespace,
            label_selector=f"{LABEL_CATALOGUE}=true",
            relist_seconds=_RELIST,
        )

    def _read_models(self) -> None:
        aliases = self._settings.model_aliases
        self.gateway.service.catalogue = catalogue_of(self._packaged, aliases, self._maps.values())
