"""Jobs that ended: a watch that brings each as it is, and the search for those whose time to live is over.

The operator's store knows unfinished jobs only, so that a hundred thousand finished ones cost it nothing: they are in
no list that it keeps, and are gone through page by page, seldom. Decides nothing; the operator is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp

from kinora.api.reasons import TERMINAL, Phase
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)
Object = dict[str, Any]
#: A selector cannot say "one of": a finished job is in no other phase, and has one.
FINISHED: Final = ",".join(f"status.phase!={phase}" for phase in ("", *sorted(set(Phase) - TERMINAL)))
SEARCH_SECONDS: Final = 1800.0
"Between two searches through all finished jobs; those whose time is over before the next but one are remembered."
_AGAIN: Final = 1.0


class Ends:
    """Watches one scope (a namespace; None: all) for jobs that end from now on; there is no list to begin with."""

    def __init__(
        self,
        client: KubeClient,
        scope: str | None,
        ended: Callable[[Object], None],
        changed: Callable[[Object], None],
    ) -> None:
        """``changed`` is told of a job that had ended before."""
        self._client = client
        self._scope = scope
        self._told = {"ADDED": ended, "MODIFIED": changed}
        self._version = ""

    async def run(self) -> None:
        """Watch until cancelled. What ends while the watch is away is told by the selection that it leaves."""
        while True:
            try:
                await self._watch()
            except ApiError as error:
                self._version = ""  # too old, or refused: from now on again
                if not error.is_gone:
                    log.warning("watch of ended jobs: %s", error)
            except (UnreachableError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("watch of ended jobs: %r; trying again", error)
            await asyncio.sleep(_AGAIN)

    async def _watch(self) -> None:
        if not self._version:
            page = await self._client.list_page(VIDEOJOB, self._scope, limit=1)
            self._version = page["metadata"]["resourceVersion"]
        async for event in self._client.stream(
            VIDEOJOB, self._scope, resource_version=self._version, field_selector=FINISHED
        ):
            self._version = event["object"]["metadata"]["resourceVersion"]
            told = self._told.get(event["type"])
            if told is not None:
                told(event["object"])


async def search(
    client: KubeClient, scopes: tuple[str | None, ...], expire: Callable[[Object], Awaitable[None]]
) -> None:
    """Tell ``expire`` of every finished job, a page at a time, each once."""
    for scope in scopes:
        token: str | None = None
        while True:
            try:
                page = await client.list_page(VIDEOJOB, scope, field_selector=FINISHED, continue_token=token)
                for job in page.get("items") or []:
                    await expire(job)
            except (ApiError, UnreachableError) as error:
                log.warning("looking for expired jobs: %s", error)
                break
            token = page["metadata"].get("continue")
            if not token:
                break
