"""kopf at the edge: it logs in, watches VideoJobs and ModelServers, and hands each event over. It decides nothing.

Only ``on.event`` handlers, with empty persistence, so that kopf writes nothing and adds no finalizer. kopf runs in a
thread of its own with its own loop (it cancels foreign tasks when it stops, and ends on persistent errors), under a
supervisor that starts it again; what it may have missed meanwhile, the resync brings.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import kopf

from kinora.api.names import GROUP, MODELSERVERS, VERSION, VIDEOJOBS
from kinora.api.reasons import TERMINAL
from kinora.kube.config import Connection

log = logging.getLogger(__name__)
Object = dict[str, Any]

# The jobs that kopf watches: a finished one leaves the selection, which shows as DELETED.
UNFINISHED = ",".join(f"status.phase!={phase}" for phase in sorted(TERMINAL))


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no last-handled state: kopf then neither copies bodies nor writes annotations."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:  # noqa: ARG002 - kopf's signature
        return {}

    def fetch(self, *, body: Any) -> Any:  # noqa: ARG002
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Nothing is stored."""


class _NoProgress(kopf.ProgressStorage):
    """Keeps no handler progress: event handlers have none."""

    def fetch(self, *, key: Any, body: Any) -> Any:  # noqa: ARG002
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        """Nothing is stored."""

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        """Nothing is stored."""

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        """Nothing is stored."""

    def clear(self, *, essence: Any) -> Any:
        return essence


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.field_selectors[GROUP, VERSION, VIDEOJOBS] = UNFINISHED
    # kopf keeps a task, and in it the last event, for every object seen in this time: 5 s are a second copy of a queue.
    settings.queueing.idle_timeout = 0.5
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.2, 0.5, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55) + (60,) * 10
    return settings


def _registry(connection: Connection, deliver: Callable[[str, str, Object], None]) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_kwargs: Any) -> kopf.ConnectionInfo:
        scheme, _, token = (connection.authorization() or "").partition(" ")
        return kopf.ConnectionInfo(
            server=connection.host,
            ca_path=connection.ca_file,
            insecure=not connection.verify_tls,
            scheme=scheme or None,
            token=token or None,
            certificate_path=connection.cert_file,
            private_key_path=connection.key_file,
            default_namespace=connection.namespace,
        )

    @kopf.on.event(GROUP, VERSION, VIDEOJOBS, registry=registry)
    async def videojob(event: Any, **_kwargs: Any) -> None:
        deliver("job", event["type"] or "ADDED", dict(event["object"]))

    @kopf.on.event(GROUP, VERSION, MODELSERVERS, registry=registry)
    async def modelserver(event: Any, **_kwargs: Any) -> None:
        deliver("server", event["type"] or "ADDED", dict(event["object"]))

    return registry


class Edge:
    """Runs kopf in a thread for as long as the operator lives."""

    def __init__(
        self,
        connection: Connection,
        namespaces: tuple[str, ...],
        deliver: Callable[[str, str, Object], None],
        restarted: Callable[[], None],
    ) -> None:
        """``deliver(kind, type, object)`` and ``restarted()`` are called on the loop that runs ``run``."""
        self._connection = connection
        self._namespaces = namespaces
        self._deliver = deliver
        self._restarted = restarted

    async def run(self) -> None:
        """Keep kopf running until cancelled."""
        loop = asyncio.get_running_loop()

        def deliver(kind: str, event_type: str, obj: Object) -> None:
            loop.call_soon_threadsafe(self._deliver, kind, event_type, obj)

        delay = 0.5
        while True:
            stop, ended, started = threading.Event(), asyncio.Event(), loop.time()
            threading.Thread(target=self._kopf, args=(deliver, stop, loop, ended), name="kopf", daemon=True).start()
            try:
                await ended.wait()
            finally:
                stop.set()
            delay = 0.5 if loop.time() - started > 60 else min(delay * 2, 15.0)
            log.warning("kopf ended; starting it again in %.1f s", delay)
            await asyncio.sleep(delay)
            self._restarted()

    def _kopf(
        self,
        deliver: Callable[[str, str, Object], None],
        stop: threading.Event,
        loop: asyncio.AbstractEventLoop,
        ended: asyncio.Event,
    ) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=_registry(self._connection, deliver),
                    settings=_settings(),
                    standalone=True,
                    # Else it asks for the user's name, which a bare UID does not have; the type is a NewType of str.
                    identity="kinora",  # type: ignore[arg-type]
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    stop_flag=stop,
                )
            )
        except Exception:  # whatever kopf ends with, the answer is the same: start it again
            log.exception("kopf failed")
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)
