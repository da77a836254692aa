"""Brings the inputs of a job into the store: fetched or copied, hashed while they stream, looked at by the media child.

An input becomes an object of the store when it is whole and is a picture or a video; until then it is a draft. What was
found is noted in the store, so that a stager that starts anew fetches nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO, Final

from kinora.api import reasons
from kinora.api.stagerconfig import Limits
from kinora.api.videojob import WorkflowUpload
from kinora.media import child
from kinora.media.child import IsolationError
from kinora.media.info import MediaError, MediaInfo
from kinora.recipes.faults import Fault
from kinora.recipes.needs import MediaKind, NamedInput, field_of
from kinora.stager.decide import Found
from kinora.stager.metrics import Metrics
from kinora.stager.verdict import Delayed, Rejected, of_url
from kinora.storage.guard import fetch
from kinora.storage.guard.fetch import FetchError, GuardedFetcher
from kinora.storage.guard.urls import UrlRefused
from kinora.storage.keys import KeyRefused
from kinora.storage.staged import Draft, StagedInputs
from kinora.storage.store import NotStoredError, StoreError
from kinora.workflows.parse import MAX_BYTES

log = logging.getLogger(__name__)

Probe = Callable[[BinaryIO], Awaitable[MediaInfo]]

_CHUNK: Final = 1 << 20
_MiB: Final = 1024 * 1024
#: One at a time, and less than the container may have: a decoder that takes too much dies alone.
PROBING: Final = child.Limits(data_bytes=1024 * _MiB)
_GRAPH: Final = "spec.workflow.upload"
_WORDS: Final = {MediaKind.IMAGE: "one image", MediaKind.VIDEO: "one video", MediaKind.EITHER: "one image or video"}


async def probe_in_child(file: BinaryIO) -> MediaInfo:
    """See kinora.media.child."""
    return await child.probe(file, PROBING)


class Intake:
    """Takes in the inputs of many jobs, `parallel` fetches at a time."""

    def __init__(
        self,
        store: StagedInputs,
        fetcher: GuardedFetcher,
        *,
        limits: Limits,
        parallel: int,
        metrics: Metrics,
        probe: Probe = probe_in_child,
    ) -> None:
        self._store, self._fetcher, self._probe, self._metrics = store, fetcher, probe, metrics
        self._max_bytes = limits.max_bytes
        self._limits = fetch.Limits(
            max_bytes=limits.max_bytes, total_seconds=limits.fetch_seconds, idle_seconds=limits.idle_seconds
        )
        self._fetches = asyncio.Semaphore(parallel)
        self._looks = asyncio.Semaphore(1)

    async def bring(self, job_uid: str, inputs: Sequence[NamedInput]) -> tuple[dict[str, Found], list[BaseException]]:
        """Every input that is in the store now, by name, and what was raised for the others (Rejected, Delayed)."""
        results = await asyncio.gather(*(self._one(job_uid, one) for one in inputs), return_exceptions=True)
        found = {one.name: it for one, it in zip(inputs, results, strict=True) if isinstance(it, Found)}
        return found, [it for it in results if isinstance(it, BaseException)]

    async def graph(self, upload: WorkflowUpload) -> str:
        """The text of a graph that lies in the store. Raises Rejected, Delayed."""
        try:
            return await self._graph(upload)
        except (StoreError, OSError) as error:
            raise _delayed_graph(error, "read") from None

    async def keep_graph(self, text: str) -> None:
        """Have a graph that was judged among the inputs, where its upload's end does not matter. Raises Delayed."""
        content = text.encode()
        try:
            async with self._store.draft() as draft:
                await asyncio.to_thread(draft.file.write, content)
                await draft.keep(hashlib.sha256(content).hexdigest())
        except (StoreError, OSError) as error:
            raise _delayed_graph(error, "stored") from None

    async def _graph(self, upload: WorkflowUpload) -> str:
        allowed = f"a text of at most {MAX_BYTES} bytes in UTF-8 with sha256 {upload.sha256}"
        source = await self._opened(f"{_GRAPH}.key", upload.key)

        def taken() -> bytes:
            with source:
                return source.read(MAX_BYTES + 1)

        content = await asyncio.to_thread(taken)
        if len(content) > MAX_BYTES:
            raise Rejected(reasons.INVALID_INPUT, str(Fault(_GRAPH, f"more than {MAX_BYTES} bytes", allowed)))
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != upload.sha256:
            raise Rejected(
                reasons.INVALID_INPUT, f"{_GRAPH}.sha256 is that of another text ({sha256}); allowed: {allowed}"
            )
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Rejected(reasons.INVALID_INPUT, str(Fault(_GRAPH, "no text in UTF-8", allowed))) from None

    async def _one(self, job_uid: str, one: NamedInput) -> Found:
        known = await self._known(job_uid, one)
        if known is not None:
            self._metrics.inputs.labels("Known").inc()
            return known
        try:
            async with self._fetches:
                found = await self._store_one(one)
            note = {"source": _source_hash(one), "sha256": found.sha256, "bytes": found.bytes}
            await self._store.note(job_uid, one.name, {**note, "info": found.info.to_dict()})
        except Rejected:
            self._metrics.inputs.labels("Refused").inc()
            raise
        except (StoreError, IsolationError, OSError) as error:
            self._metrics.inputs.labels("Delayed").inc()
            log.warning("%s: %r", _field(one), error)
            words = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
            raise Delayed(f"{_field(one)} cannot be stored now: {words}") from None
        except Delayed:
            self._metrics.inputs.labels("Delayed").inc()
            raise
        except Exception as error:  # whatever it is, the job must not hang: it is tried again, and then given up
            self._metrics.inputs.labels("Delayed").inc()
            log.exception("%s", _field(one))
            raise Delayed(f"{_field(one)}: the stager failed: {type(error).__name__}") from None
        self._metrics.inputs.labels("Stored").inc()
        return found

    async def _known(self, job_uid: str, one: NamedInput) -> Found | None:
        """What an earlier try, or an earlier stager, has brought."""
        note = await self._store.recall(job_uid, one.name)
        try:
            if note is None or note["source"] != _source_hash(one):
                return None
            found = Found(note["sha256"], int(note["bytes"]), MediaInfo.from_dict(note["info"]))
            return found if await self._store.renew(found.sha256) == found.bytes else None
        except (KeyError, TypeError, ValueError, StoreError):
            return None

    async def _store_one(self, one: NamedInput) -> Found:
        async with self._store.draft() as draft:
            if one.source.url is not None:
                size, sha256 = await self._fetch(one, one.source.url, draft)
            else:
                size, sha256 = await self._copy(one, str(one.source.upload), draft)
            info = await self._look(one, draft, size)
            await draft.keep(sha256)
        return Found(sha256, size, info)

    async def _fetch(self, one: NamedInput, url: str, draft: Draft) -> tuple[int, str]:
        try:
            with self._metrics.fetch_seconds.time():
                fetched = await self._fetcher.fetch(url, draft.file, self._limits, field=_field(one))
        except UrlRefused as refused:
            raise of_url(refused.fault) from None
        except FetchError as error:
            raise Delayed(str(error)) from None
        self._metrics.fetched_bytes.inc(fetched.bytes)
        return fetched.bytes, fetched.sha256

    async def _copy(self, one: NamedInput, upload: str, draft: Draft) -> tuple[int, str]:
        """An upload keeps its own key, under which other content may come one day: what was looked at is copied."""
        field = _field(one)
        source = await self._opened(field, upload)

        def copy() -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            with source:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > self._max_bytes:
                        fault = Fault(field, f"more than {self._max_bytes} bytes", f"at most {self._max_bytes} bytes")
                        raise Rejected(reasons.INVALID_INPUT, str(fault))
                    draft.file.write(chunk)
            return size, digest.hexdigest()

        return await asyncio.to_thread(copy)

    async def _opened(self, field: str, upload: str) -> BinaryIO:
        allowed = "the key of a finished upload of this namespace"
        try:
            return await self._store.open_upload(upload)
        except NotStoredError:
            raise Rejected(reasons.INVALID_INPUT, str(Fault(field, f"{upload}, which is not there", allowed))) from None
        except KeyRefused:
            raise Rejected(reasons.INVALID_INPUT, str(Fault(field, upload, allowed))) from None

    async def _look(self, one: NamedInput, draft: Draft, size: int) -> MediaInfo:
        try:
            async with self._looks:
                with draft.reading() as file:
                    return await self._probe(file)
        except MediaError as error:
            fault = Fault(_field(one), f"a file of {size} bytes: {error}"[:300], _WORDS[one.kind])
            found = f"{fault.field} is {fault.value}; allowed: {fault.allowed}"  # whole: a Fault shows 80 characters
            raise Rejected(reasons.INVALID_INPUT, found) from None


def _delayed_graph(error: StoreError | OSError, done: str) -> Delayed:
    log.warning("%s: %r", _GRAPH, error)
    words = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
    return Delayed(f"{_GRAPH} cannot be {done} now: {words}")


def _field(one: NamedInput) -> str:
    return field_of(f"{one.name}.{'url' if one.source.url is not None else 'upload'}")


def _source_hash(one: NamedInput) -> str:
    text = json.dumps([one.source.url, one.source.upload])
    return hashlib.sha256(text.encode()).hexdigest()
