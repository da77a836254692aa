"""The one service under all dialects: submit, job, whole, cancel, delete, jobs, servers. It knows no dialect, no HTTP.

A job is one VideoJob. Its name follows from tenant and id, so that whatever replica is asked finds it, and asking
twice under one Idempotency-Key, or again after a lost answer, makes one object.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kinora.api.names import ANNOTATION_ORDER, API_VERSION, LABEL_DIALECT, LABEL_TENANT
from kinora.catalogue.load import Catalogue
from kinora.gateway.admit import admit
from kinora.gateway.cache import Jobs, Servers
from kinora.gateway.errors import Conflict, InvalidInput, KeyReused, Limited, NotFound, Unavailable
from kinora.gateway.jobs import Job, State, job_of
from kinora.gateway.limits import Rates
from kinora.gateway.names import (
    ANNOTATION_NOTE,
    LABEL_REQUEST,
    id_of_key,
    is_id,
    job_name,
    new_id,
    request_digest,
)
from kinora.gateway.tenants import Tenant
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.resources import VIDEOJOB

log = logging.getLogger(__name__)
Object = dict[str, Any]
_MAX_NOTE: Final = 4096  # bytes
_RETRY_WINDOW: Final = timedelta(minutes=10)  # in which a client's retry returns the first job (decision 23)
_CONCURRENT_RETRY: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a dialect asks for.

    `spec`: VideoJob.spec in the API's names, without queue and ttlSecondsAfterFinished. `note`: what the dialect needs
    to answer later, at most 4 KiB of JSON. `id`: a client's own UUID. `body`: the request, by which repeats are known.
    `retried`: the client says that it asks again. `rewrite`: the caller's prompt -> the one to render, and what the
    note is to say of it; as it costs something, it is asked for last, when nothing else stands in the way.
    `graph`: the text of a raw graph that the spec names by its hash, and which `store` puts where it says, before the
    job is made and when nothing else stands in the way. `order`: which of the tenant's jobs of this dialect goes first,
    of those that wait for the same servers: that with the least; None: its time, in milliseconds since 1970.
    """

    dialect: str
    spec: Mapping[str, Any]
    note: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    idempotency_key: str | None = None
    body: bytes = b""
    retried: bool = False
    rewrite: Callable[[str], Awaitable[tuple[str, Mapping[str, Any]]]] | None = None
    graph: str | None = None
    store: Callable[[], Awaitable[object]] | None = None
    order: float | None = None


class _ChangedError(Exception):
    """The job is not any more as it was read."""


class Service:
    """Everything that a dialect can do, for the tenant that asks."""

    def __init__(
        self, client: KubeClient, jobs: Jobs, servers: Servers, rates: Rates, *, retention_seconds: int | None
    ) -> None:
        self._client, self._jobs, self._servers, self._rates = client, jobs, servers, rates
        self._retention = retention_seconds
        self.catalogue = Catalogue([])
        self.wrote: Callable[[Object], None] = lambda _: None  # told of each VideoJob as it was answered to a write

    async def submit(self, tenant: Tenant, submission: Submission) -> Job:
        """Make the VideoJob, or find the one that the same request made before.

        Raises InvalidInput, Limited, KeyReused, Conflict, Unavailable; those that came after the creation was
        attempted say so.
        """
        digest = request_digest(submission.body)
        first = await self._first(tenant, submission, digest)
        if first is not None:
            return first
        spec = self._spec(tenant, submission)
        model = admit(spec, self.catalogue, self.servers(tenant), submission.graph)
        self._limit(tenant)
        if submission.rewrite is not None:
            prompt, note = await submission.rewrite(spec.get("prompt") or "")
            spec, submission = {**spec, "prompt": prompt}, replace(submission, note={**submission.note, **note})
        if submission.store is not None:
            await submission.store()
        id_ = self._id(tenant, submission)
        body = _object(tenant, submission, id_=id_, spec=spec, digest=digest, model=model.name)
        return await self._create(tenant, body, digest)

    async def job(self, tenant: Tenant, id_: str) -> Job:
        """The job of that id: from the cache, after a miss from the API server. NotFound, Unavailable."""
        if not is_id(id_):
            raise NotFound(_not_found(id_))
        known = self._jobs.get(tenant.namespace, job_name(tenant, id_))
        if known is not None:
            return known
        found = self._jobs.apply(await self._read(tenant, id_))
        if found is None:
            raise NotFound(_not_found(id_))
        return found

    async def whole(self, tenant: Tenant, id_: str) -> Object:
        """The VideoJob itself, with prompt and graph, from the API server. NotFound, Unavailable."""
        if not is_id(id_):
            raise NotFound(_not_found(id_))
        return await self._read(tenant, id_)

    async def cancel(self, tenant: Tenant, id_: str) -> Job:
        """Ask for the end of a job; one that has ended stays as it is. NotFound, Unavailable."""
        job = await self.job(tenant, id_)
        if job.state.finished or job.cancel_asked:
            return job
        obj = await self._write(tenant, id_, {"spec": {"cancel": True}})
        return self._jobs.apply(obj) or job

    async def cancel_queued(self, tenant: Tenant, id_: str) -> tuple[Job, bool]:
        """Ask for the end of a job that is in the queue, and of no other; the job, and whether it was there.

        Goes by the API server's word, as a compare-and-set: the cache may not know yet that it has begun. NotFound,
        Unavailable.
        """
        while True:
            obj = await self.whole(tenant, id_)
            job = self._jobs.apply(obj) or job_of(obj)
            if job is None:
                raise NotFound(_not_found(id_))
            if job.state is not State.QUEUED or job.cancel_asked:
                return job, job.state is State.QUEUED
            version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            try:
                written = await self._write(tenant, id_, {"metadata": version, "spec": {"cancel": True}})
            except _ChangedError:
                continue
            return self._jobs.apply(written) or job, True

    async def renote(self, tenant: Tenant, id_: str, **more: Any) -> Job:
        """Add to the note of a job, whatever dialect it came in. NotFound, Unavailable."""
        job = await self.job(tenant, id_)
        kept = _kept({**job.note, **more}, job.request, job.model)
        obj = await self._write(tenant, id_, {"metadata": {"annotations": {ANNOTATION_NOTE: kept}}})
        return self._jobs.apply(obj) or job

    async def delete(self, tenant: Tenant, id_: str) -> None:
        """Remove the record of a job; its video stays in the store. An unfinished job ends with it. NotFound."""
        job = await self.job(tenant, id_)
        try:
            await self._client.delete(VIDEOJOB, tenant.namespace, job.name, uid=job.uid)
        except (ApiError, UnreachableError) as error:
            raise _unavailable(error) from None
        self._jobs.forget(job)

    def jobs(self, tenant: Tenant) -> list[Job]:
        """All jobs of the tenant that are known, whatever dialect they came in, newest first."""
        return self._jobs.of(tenant.namespace, tenant.digest)

    def known(self, namespace: str, name: str) -> Job | None:
        """The job of an object as the cache has it; nothing is asked of the cluster."""
        return self._jobs.get(namespace, name)

    def servers(self, tenant: Tenant) -> list[Mapping[str, Any]]:
        """The ModelServers of the tenant's namespace, as objects."""
        return list(self._servers.of(tenant.namespace))

    def changes(self, tenant: Tenant) -> AbstractAsyncContextManager[asyncio.Queue[Job | None]]:
        """A queue of the tenant's jobs as they change; None in it means: look at all of them anew."""
        return self._jobs.changes(tenant.namespace, tenant.digest)

    # --- parts of submit ----------------------------------------------------------------------------------------------

    async def _first(self, tenant: Tenant, submission: Submission, digest: str) -> Job | None:
        """The job that this request has made already, where the client may be asking again."""
        if submission.id is not None or submission.idempotency_key is not None:
            name = job_name(tenant, self._id(tenant, submission))
            known = self._jobs.get(tenant.namespace, name)
            return None if known is None else _same(known, digest)
        if not submission.retried:
            return None
        since = datetime.now(UTC) - _RETRY_WINDOW
        selector = f"{LABEL_TENANT}={tenant.digest},{LABEL_REQUEST}={digest}"
        try:
            found, _ = await self._client.list(VIDEOJOB, tenant.namespace, label_selector=selector)
        except (ApiError, UnreachableError) as error:
            raise _unavailable(error) from None
        jobs = [job for job in map(job_of, found) if job is not None and job.submit_time >= since]
        return min(jobs, key=lambda job: job.submit_time) if jobs else None

    def _id(self, tenant: Tenant, submission: Submission) -> str:
        if submission.id is not None:
            if not is_id(submission.id):
                raise InvalidInput("id", f"{submission.id[:80]!r} is no UUID in canonical form")
            return submission.id
        if submission.idempotency_key is not None:
            return id_of_key(tenant, submission.idempotency_key)
        return new_id()

    def _spec(self, tenant: Tenant, submission: Submission) -> Object:
        spec = {**submission.spec, "queue": tenant.queue}
        if self._retention is not None:
            spec.setdefault("ttlSecondsAfterFinished", self._retention)
        return spec

    def _limit(self, tenant: Tenant) -> None:
        if self._jobs.unfinished(tenant.namespace, tenant.digest) >= tenant.limits.concurrent:
            raise Limited(
                f"{tenant.limits.concurrent} jobs are unfinished, which is the limit of this key",
                _CONCURRENT_RETRY,
                rate=False,
            )
        wait = self._rates.take(tenant)
        if wait:
            rate = tenant.limits.submits_per_minute
            raise Limited(f"more than {rate:g} submits a minute, which is the limit of this key", wait)

    async def _create(self, tenant: Tenant, body: Object, digest: str) -> Job:
        try:
            made = await self._client.create(VIDEOJOB, tenant.namespace, body)
        except ApiError as error:
            if error.already_exists:  # asked twice, or an answer of ours was lost
                return await self._made_before(tenant, body, digest)
            if error.status in (400, 403, 422):
                raise InvalidInput("", _refusal(error), attempted=True) from None
            raise _unavailable(error, attempted=True) from None
        except UnreachableError as error:
            raise _unavailable(error, attempted=True) from None
        self.wrote(made)
        job = self._jobs.apply(made) or job_of(made)
        assert job is not None
        return job

    async def _made_before(self, tenant: Tenant, body: Object, digest: str) -> Job:
        try:
            found = await self._client.find(VIDEOJOB, tenant.namespace, body["metadata"]["name"])
        except (ApiError, UnreachableError) as error:
            raise _unavailable(error, attempted=True) from None
        job = None if found is None else job_of(found)
        if found is None or job is None:
            raise Conflict("a job of this id was there and is gone; ask with another id", attempted=True)
        self._jobs.apply(found)
        return _same(job, digest)

    # --- the API server -----------------------------------------------------------------------------------------------

    async def _read(self, tenant: Tenant, id_: str) -> Object:
        try:
            found = await self._client.find(VIDEOJOB, tenant.namespace, job_name(tenant, id_))
        except (ApiError, UnreachableError) as error:
            raise _unavailable(error) from None
        if found is None or job_of(found) is None:
            raise NotFound(_not_found(id_))
        return found

    async def _write(self, tenant: Tenant, id_: str, patch: Object) -> Object:
        try:
            written = await self._client.patch(VIDEOJOB, tenant.namespace, job_name(tenant, id_), patch)
        except ApiError as error:
            if error.is_not_found:
                raise NotFound(_not_found(id_)) from None
            if error.is_conflict and "resourceVersion" in patch.get("metadata", {}):
                raise _ChangedError from None
            raise _unavailable(error) from None
        except UnreachableError as error:
            raise _unavailable(error) from None
        self.wrote(written)
        return written


def _kept(note: Mapping[str, Any], digest: str, model: str) -> str:
    """The annotation's text."""
    kept = json.dumps({"note": note, "request": digest, "model": model}, separators=(",", ":"), ensure_ascii=False)
    if len(kept.encode()) > _MAX_NOTE:
        raise InvalidInput("", f"what has to be kept beside the job is {len(kept)} bytes; allowed: {_MAX_NOTE}")
    return kept


def _object(tenant: Tenant, submission: Submission, *, id_: str, spec: Object, digest: str, model: str) -> Object:
    annotations = {ANNOTATION_NOTE: _kept(submission.note, digest, model)}
    if submission.order is not None:
        annotations[ANNOTATION_ORDER] = repr(float(submission.order))
    return {
        "apiVersion": API_VERSION,
        "kind": "VideoJob",
        "metadata": {
            "name": job_name(tenant, id_),
            "namespace": tenant.namespace,
            "labels": {
                LABEL_TENANT: tenant.digest,
                LABEL_DIALECT: submission.dialect,
                LABEL_REQUEST: digest,
            },
            "annotations": annotations,
        },
        "spec": spec,
    }


def _same(job: Job, digest: str) -> Job:
    if job.request != digest:
        raise KeyReused("the same key or id came with another request before; use a new one for a new request")
    return job


def _not_found(id_: str) -> str:
    return f"no job {id_[:64]}"


def _refusal(error: ApiError) -> str:
    """What the API server says of the object, without the object's own name."""
    text = str(error.message)
    return text.partition(" is invalid: ")[2] or text.partition(" is forbidden: ")[2] or text


def _unavailable(error: Exception, *, attempted: bool = False) -> Unavailable:
    log.warning("the API server: %s", error)
    return Unavailable("the cluster does not answer now; ask again", attempted=attempted)
