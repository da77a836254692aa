"""Wiring of the operator process: client, store, kopf edge, reflectors, workers, HTTP, signals."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from kinora.api.names import COMPONENT_STAGER, COMPONENT_WEIGHTS, LABEL_CATALOGUE, LABEL_COMPONENT
from kinora.catalogue.load import load_catalogue
from kinora.controller.edge import UNFINISHED, Edge
from kinora.controller.ended import SEARCH_SECONDS, Ends, search
from kinora.controller.leader import EXIT_LOST, SERVER_PODS, Leader
from kinora.controller.operator import Operator
from kinora.controller.settings import Settings, from_environment
from kinora.controller.store import Cache
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import Connection, connect
from kinora.kube.http import application
from kinora.kube.http import serve as listen
from kinora.kube.lease import LeaseHolder, LeaseLostError
from kinora.kube.resources import CLAIM, CONFIGMAP, DEPLOYMENT, JOB, MODELSERVER, NODE, POD, VIDEOJOB, Resource
from kinora.kube.watch import Reflector

log = logging.getLogger(__name__)
_WEIGHTS = f"{LABEL_COMPONENT}={COMPONENT_WEIGHTS}"
#: What our own reflectors follow: the operator's word for it -> the kind, and which of them.
_WATCHED: dict[str, tuple[Resource, str | None]] = {
    "node": (NODE, None),
    "claim": (CLAIM, None),
    "pod": (POD, SERVER_PODS),
    "weights job": (JOB, _WEIGHTS),
    "weights pod": (POD, _WEIGHTS),
    "stager": (DEPLOYMENT, f"{LABEL_COMPONENT}={COMPONENT_STAGER}"),
}
SOON_SECONDS = 30.0  # after the first full list, until the second
MINIMUM_VERSION = (1, 32)  # selectable fields, admission policies, native sidecars (api.md)


class UnsupportedClusterError(Exception):
    """The cluster is older than what the operator needs."""


def run() -> None:
    """Entry point of ``kinora operator``. Exits with EXIT_LOST when it led and lost the Lease."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("aiohttp.access", "kopf.objects"):  # a line for each probe, and for each event of each object
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(main(from_environment(), connect()))
    except LeaseLostError as error:
        log.error("%s; ending, so that a clean process stands by", error)
        sys.exit(EXIT_LOST)


async def main(settings: Settings, connection: Connection, started: Callable[[Operator], None] | None = None) -> None:
    """Run the operator until SIGTERM or SIGINT. ``started`` is told of the Operator once it is wired (for tests)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, connection, stop, started)


async def serve(
    settings: Settings,
    connection: Connection,
    stop: asyncio.Event,
    started: Callable[[Operator], None] | None = None,
) -> None:
    """Run the operator until ``stop`` is set, or one of its parts ends with an error, which is raised."""
    async with (
        KubeClient(connection, user_agent="kinora-operator", lean=True) as client,
        KubeClient(connection, user_agent="kinora-operator") as lease_client,  # renewals wait behind nothing
    ):
        await check_version(connection)
        operator = Operator(client, load_catalogue(), settings)
        client.observe = lease_client.observe = operator.metrics.api.request
        namespace = settings.lease_namespace or settings.namespace or connection.namespace
        lease = LeaseHolder(lease_client, namespace, settings.lease_name, settings.instance, terms=settings.lease_terms)
        leader = Leader(operator, client, lease, settings)
        endpoints = application(operator.metrics.registry, operator.store.obstacle, leader.role)
        runner = await listen(endpoints, None, settings.http_port)
        if started:
            started(operator)
        try:
            await _until(stop, _parts(operator, client, connection, settings, leader), leader.wind_down)
        finally:
            await leader.release()
            await runner.cleanup()


async def check_version(connection: Connection) -> None:
    """Refuse a cluster below MINIMUM_VERSION. Raises UnsupportedClusterError."""
    header = connection.authorization()  # a cluster may know no anonymous users
    headers = {"Authorization": header} if header else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(connection.host + "/version", headers=headers, ssl=connection.tls or False) as response,
    ):
        response.raise_for_status()
        version: dict[str, Any] = await response.json(content_type=None)
    found = (int(version["major"]), int(re.sub(r"\D.*", "", version["minor"])))
    if found < MINIMUM_VERSION:
        wanted = ".".join(str(part) for part in MINIMUM_VERSION)
        raise UnsupportedClusterError(f"the cluster is Kubernetes {version['gitVersion']}; allowed: {wanted} and newer")


def _parts(
    operator: Operator, client: KubeClient, connection: Connection, settings: Settings, leader: Leader
) -> list[Awaitable[None]]:
    resync = asyncio.Event()
    edge = Edge(connection, settings.namespaces, operator.deliver, resync.set)
    scopes: tuple[str | None, ...] = settings.namespaces or (None,)
    reflectors = [_reflector(operator, client, "node", None)]
    for scope in scopes:
        reflectors += [_reflector(operator, client, kind, scope) for kind in _WATCHED if kind != "node"]
    if settings.namespace:
        reflectors.append(_model_maps(operator, client, settings.namespace))
    return [
        _after(operator.store.ready, edge.run),
        leader.contend(),
        leader.lead(),
        _resync(operator, client, settings, resync),
        _expire(operator, client, settings, leader),
        *(
            _after(leader.leading, Ends(client, scope, operator.deliver_end, operator.afterwards.changed).run)
            for scope in scopes
        ),
        *(reflector.run() for reflector in reflectors),
    ]


def _model_maps(operator: Operator, client: KubeClient, namespace: str) -> Reflector:
    """ConfigMaps with models: only of the operator's own namespace, where tenants write nothing."""
    return Reflector(
        client,
        CONFIGMAP,
        on_replace=operator.replace_model_maps,
        on_event=operator.deliver_model_map,
        namespace=namespace,
        label_selector=f"{LABEL_CATALOGUE}=true",
    )


def _reflector(operator: Operator, client: KubeClient, kind: str, scope: str | None) -> Reflector:
    resource, selector = _WATCHED[kind]
    cache = operator.caches[kind]

    def replace(objects: list[dict[str, Any]]) -> None:  # a pod that was made meanwhile was not to be in the list
        cache.replace(objects, listed_version=reflector.listed_version or None, scope=scope)

    reflector = Reflector(
        client,
        resource,
        on_replace=replace,
        on_event=lambda event_type, obj: operator.deliver(kind, event_type, obj),
        namespace=scope,
        label_selector=selector,
    )
    return reflector


async def _after(event: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    await event.wait()
    await work()


async def _resync(operator: Operator, client: KubeClient, settings: Settings, now: asyncio.Event) -> None:
    """List VideoJobs and ModelServers in full: at the start, every resync_seconds, and after kopf was down.

    kopf starts after the first list, so that the two do not share the processor: what was deleted between that list
    and kopf's own is pruned by another one soon after.
    """
    pause = min(SOON_SECONDS, settings.resync_seconds)
    while True:
        now.clear()
        try:
            await _list_all(operator, client, settings)
        except (ApiError, UnreachableError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("full list: %s; trying again", error)
            await asyncio.sleep(1.0)
            continue
        if pause == settings.resync_seconds or not operator.store.ready.is_set():
            operator.look_at_everything()
        try:
            async with asyncio.timeout(pause):
                await now.wait()
        except TimeoutError:
            pause = settings.resync_seconds
            continue
        operator.metrics.edge_restarts.inc()


async def _list_all(operator: Operator, client: KubeClient, settings: Settings) -> None:
    for scope in settings.namespaces or (None,):
        await _refill(operator.store.servers, client, MODELSERVER, scope)
        await _refill(operator.store.jobs, client, VIDEOJOB, scope, UNFINISHED)


async def _refill(
    cache: Cache, client: KubeClient, resource: Resource, scope: str | None, selector: str | None = None
) -> None:
    """A full list into a cache, page by page: a long queue is never in memory twice.

    A list whose continuation expires on the way (410) begins anew once.
    """
    listed: set[str] = set()
    token: str | None = None
    again = True
    while True:
        try:
            page = await client.list_page(resource, scope, field_selector=selector, continue_token=token)
        except ApiError as error:
            if not error.is_gone or not again:
                raise
            listed, token, again = set(), None, False
            continue
        listed |= cache.take(page.get("items") or [])
        token = page["metadata"].get("continue")
        if not token:
            break
    cache.prune(listed, listed_version=int(page["metadata"]["resourceVersion"]), scope=scope)


async def _expire(operator: Operator, client: KubeClient, settings: Settings, leader: Leader) -> None:
    """Look for finished jobs to delete, from when this process leads."""
    await leader.leading.wait()
    while True:
        await search(client, settings.namespaces or (None,), operator.afterwards.expire)
        await asyncio.sleep(SEARCH_SECONDS)


async def _until(stop: asyncio.Event, parts: list[Awaitable[None]], wind_down: Callable[[], Awaitable[None]]) -> None:
    """Run every part until ``stop``, then ``wind_down`` and cancel them.

    A part that ends ends the process, so that its replacement starts clean.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    stopper = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([stopper, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopper:
                await task
                raise RuntimeError("a part of the operator ended by itself")
        await wind_down()
    finally:
        for task in [stopper, *tasks]:
            task.cancel()
        await asyncio.gather(stopper, *tasks, return_exceptions=True)
