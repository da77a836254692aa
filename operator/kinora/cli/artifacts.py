"""`kinora artifacts gc`: what nobody will ask for any more of a namespace's artifact stores, shown, or removed.

What may go is kinora.storage.garbage's to say. A claim is reached through a short-lived pod, a bucket with the caller's
own keys, as `kinora fetch` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
from kubernetes.config import ConfigException

from kinora.api.intake import Store, artifact_store
from kinora.cli import fetch_s3
from kinora.cli.artifacts_pod import claim_objects
from kinora.cli.models import table
from kinora.cli.pods import PodError, agent_image
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import connect
from kinora.kube.resources import MODELSERVER
from kinora.storage.census import census_of
from kinora.storage.garbage import SAFETY_SECONDS, Garbage, Keep, Listed, Why, garbage
from kinora.storage.objects import S3Objects
from kinora.storage.s3 import ForbiddenError, S3Store
from kinora.storage.store import StoreError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NO_KEYS: Final = (
    "the bucket is not public; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may list and delete there"
)
_AGE = re.compile(r"([0-9]{1,9})([smhd])")
Tell = Callable[[str], None]


class GcError(Exception):
    """Why it could not be done, and what to do."""


@dataclass(frozen=True)
class Asked:
    """The options of the command."""

    namespace: str | None = None
    context: str | None = None
    model_server: str | None = None
    older_than: str = "1d"
    gone: bool = False
    delete: bool = False
    as_json: bool = False
    image: str | None = None
    endpoint: str | None = None
    timeout_seconds: float = 120.0


class Shelf(Protocol):
    """The objects of one store. Raises what its way to them raises."""

    async def listed(self, place: str = "") -> list[Listed]:
        """All of them."""
        ...

    async def remove_all(self, wanted: list[Listed]) -> list[Listed]:
        """Remove those that are still as they were listed; which went."""
        ...


@dataclass(frozen=True)
class _Bucket:
    objects: S3Objects
    has_keys: bool

    async def listed(self, place: str = "") -> list[Listed]:
        try:
            return await self.objects.listed(place)
        except ForbiddenError as error:
            raise GcError(str(error) if self.has_keys else f"{self.objects.root}: {_NO_KEYS}") from None

    async def remove_all(self, wanted: list[Listed]) -> list[Listed]:
        return [one for one in wanted if await self.objects.remove(one)]


def seconds_of(age: str) -> float:
    """`90m`, `12h`, `7d` as seconds. GcError for what is none, and for less than the safety age."""
    found = _AGE.fullmatch(age)
    if found is None:
        raise GcError(f"--older-than is {age!r}; allowed: a number and s, m, h or d, as 12h")
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds < SAFETY_SECONDS:
        raise GcError(f"--older-than is {age}; allowed: 1h or more, since somebody may be at what is younger")
    return float(seconds)


def run(asked: Asked, tell: Tell) -> None:
    """Do it, synchronously. Raises GcError."""
    seconds_of(asked.older_than)
    try:
        asyncio.run(collect(asked, tell))
    except ConfigException as error:
        raise GcError(f"no cluster: {error}") from error
    except (ApiError, UnreachableError, PodError, StoreError, fetch_s3.BucketError, aiohttp.ClientError) as error:
        raise GcError(str(error)) from error


async def collect(asked: Asked, tell: Tell) -> None:
    """Store after store of the namespace. Raises GcError, and what the ways to the stores raise."""
    async with KubeClient(connect(context=asked.context), user_agent="kinora-cli") as client:
        namespace = asked.namespace or client.namespace
        for store in await _stores(client, namespace, asked.model_server):
            async with _shelf(client, namespace, store, asked) as shelf:
                await _collect_store(_Place(client, namespace, store), shelf, asked, tell)


async def _stores(client: KubeClient, namespace: str, name: str | None) -> list[Store]:
    servers, _ = await client.list(MODELSERVER, namespace)
    chosen = [one for one in servers if name in (None, one["metadata"]["name"])]
    if name is not None and not chosen:
        raise GcError(f"no ModelServer {name!r} in namespace {namespace!r}")
    stores = {store for one in chosen if (store := artifact_store(one)) is not None}
    if not stores:
        raise GcError(f"no ModelServer in namespace {namespace!r} names an artifact store")
    return sorted(stores, key=lambda store: store.root)


@asynccontextmanager
async def _shelf(client: KubeClient, namespace: str, store: Store, asked: Asked) -> AsyncIterator[Shelf]:
    if store.is_claim:
        image = asked.image or await agent_image(client, namespace)
        async with claim_objects(
            client,
            namespace,
            store.name,
            image=image,
            read_only=not asked.delete,
            timeout_seconds=asked.timeout_seconds,
        ) as objects:
            yield objects
        return
    async with fetch_s3.reached(client, namespace, store.root, os.environ, asked.endpoint) as bucket:
        yield _Bucket(S3Objects(S3Store(bucket.client)), bool(bucket.credentials.access_key))


@dataclass(frozen=True)
class _Place:
    """A store of a namespace, and where its jobs are."""

    client: KubeClient
    namespace: str
    store: Store

    async def judged(self, listed: list[Listed], keep: Keep) -> list[Garbage]:
        """What of these may go, by the jobs as they are now."""
        census = await census_of(self.client, self.namespace)
        return garbage(listed, census, keep, namespace=self.namespace, now=time.time())


async def _collect_store(place: _Place, shelf: Shelf, asked: Asked, tell: Tell) -> None:
    """The objects are listed before the jobs, and the jobs again before anything goes (kinora.storage.garbage)."""
    older = seconds_of(asked.older_than)
    keep = Keep(lost=older, gone=older, inputs=older)
    found = await place.judged(await shelf.listed(), keep)
    chosen = [one for one in found if asked.gone or one.why is not Why.JOB_GONE]
    tell(_shown(place.store, found, chosen, asked.as_json))
    if not asked.delete or not chosen:
        return
    still = await place.judged([one.listed for one in chosen], keep)
    gone = await shelf.remove_all([one.listed for one in still if asked.gone or one.why is not Why.JOB_GONE])
    if not asked.as_json:
        stayed = len(chosen) - len(gone)
        more = f"; {stayed} were used meanwhile, or were gone" if stayed else ""
        tell(f"removed {len(gone)} objects, {_size(sum(one.bytes for one in gone))}{more}")


def _shown(store: Store, found: Sequence[Garbage], chosen: Sequence[Garbage], as_json: bool) -> str:
    now = time.time()
    if as_json:
        lines = [
            {"store": store.root, "key": one.key, "bytes": one.listed.bytes, "why": one.why.value, "job": one.job}
            | {"ageSeconds": round(now - one.listed.used)}
            for one in chosen
        ]
        return "\n".join(map(json.dumps, lines))
    rows = [("KEY", "BYTES", "AGE", "WHY")]
    rows += [(one.key, str(one.listed.bytes), _age(now - one.listed.used), one.why.value) for one in chosen]
    told = [store.root]
    told.append(table(rows) if chosen else "nothing to remove")
    if chosen:
        told.append(f"{len(chosen)} objects, {_size(sum(one.listed.bytes for one in chosen))}")
    others = [one for one in found if one.why is Why.JOB_GONE] if len(found) > len(chosen) else []
    if others:
        size = _size(sum(one.listed.bytes for one in others))
        told.append(f"besides, {len(others)} objects ({size}) of VideoJobs that are gone: --gone takes them in")
    return "\n".join(told)


def _age(seconds: float) -> str:
    """As kubectl tells ages, by the largest unit of which there are two or more."""
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS[unit]:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{int(seconds)}s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
